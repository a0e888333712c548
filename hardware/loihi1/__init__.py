"""Intel Loihi 1: three published accounts of its arithmetic (presets), and its core limits. Data: chips/loihi1.toml.

compiler: Network to Program, with Loihi 2's registers. cores: which core holds which neuron, under every limit of a
core. weights: from weight registers to what arrives. kernels: the simulator of the presets "nengo" and
"brian2loihi" (the preset "lava" is Loihi 2's kernel). plain: all of it once more in unbounded integers.
"""
