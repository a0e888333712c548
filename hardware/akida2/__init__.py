"""BrainChip Akida 2.0: int8 layers with a scale M 2^-e per channel. Data: chips/akida2.toml."""
