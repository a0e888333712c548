"""SpiNNaker 1, with the arithmetic of the sPyNNaker 7.4.1 kernels. Data: chips/spinnaker1.toml.

fixed: numbers. ring, rows: synapses as the machine holds them. contract: what a Program's params and image mean.
kernels, machine: the simulator. plain: the same in Python integers, written apart. fit, compiler: Network to Program.
"""
