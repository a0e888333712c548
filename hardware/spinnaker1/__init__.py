"""SpiNNaker 1, with the arithmetic of the sPyNNaker 7.4.1 kernels. Data: chips/spinnaker1.toml.

fixed: numbers. words, ring, rows: synapses as the machine holds them. contract: what a Program's params and image mean.
neurons, packed, kernels, batch, machine: the simulator. plain: the same in Python integers, written apart.
layer, registers, fit, remarks, layout, compiler: Network to Program. traffic: packets and their ways.
"""
