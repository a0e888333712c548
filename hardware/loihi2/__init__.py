"""Intel Loihi 2, with the arithmetic of Lava's bit-accurate process models. Data: chips/loihi2.toml.

compiler: Network to Program. layers, registers, start: the parts of that. contract: what a Program's params mean,
and their check. packed, synapses, delivery, kernels: the simulator.
"""
