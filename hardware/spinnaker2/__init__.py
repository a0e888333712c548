"""SpiNNaker 2: constraint model and float32 simulation after py-spinnaker2. Data: chips/spinnaker2.toml.

No reference implementation is available here: nothing in this folder has been compared with the chip, or with anybody
else's model of it. contract: what a Program means. fit, compiler: Network to Program. packed, kernels: the simulator.
plain: the same in NumPy, written apart, which proves that we agree with ourselves and no more.
"""
