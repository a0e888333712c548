"""Every random number of a run from (seed, stream, position): nothing depends on what was drawn before."""

from __future__ import annotations

import numpy as np
import torch


def seed_of(*parts: int) -> int:
    """A 63-bit seed from whole numbers >= 0, through numpy's SeedSequence hash."""
    high, low = np.random.SeedSequence(list(parts)).generate_state(2, np.uint32)
    return (int(high) << 32 | int(low)) & ((1 << 63) - 1)


def generator(*parts: int) -> torch.Generator:
    """A torch generator in the state that these numbers name."""
    return torch.Generator().manual_seed(seed_of(*parts))
