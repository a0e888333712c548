"""In from every door: modules and files of other frameworks as `Network`s that fire the same spikes, step for step.

One module per framework, each with the equation of its neurons, what maps and what cannot: `snntorch`, `norse`,
`spikingjelly`, `sinabs`, `lavadl`, `nir_door`. `cell` writes a neuron given per step as nodes, `trace` finds the graph
of a user's module, `build` puts both together.
"""
