"""BrainChip Akida 1.0 (AKD1000): thresholds and activation codes of 1, 2 or 4 bits. Data: chips/akida1.toml."""
