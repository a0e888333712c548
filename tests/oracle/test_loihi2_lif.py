"""Neurons of the compiled kernel against what Lava's PyLifModelBitAcc recorded."""

from __future__ import annotations

import numpy as np
import pytest
from axon_vectors import batches, differences

from neuro.hardware.loihi2.kernels import update
from neuro.hardware.loihi2.packed import registers
from neuro.hardware.program import Population

NAMES = ("du", "dv", "vth", "bias_mant", "bias_exp")


def replay(batch):
    """u, v, s [T, n] of the compiled update, from the batch's initial state and input."""
    steps, n = batch["inp"].shape
    given = {name: batch[name] for name in NAMES}
    keep_u, keep_v, bias, threshold, _ = registers(Population("lif", "lif", "lif", (n,), given), np.arange(n))
    u = batch.get("u0", np.zeros(n)).astype(np.int32)
    v = batch.get("v0", np.zeros(n)).astype(np.int32)
    fired = np.zeros(n, np.uint8)
    out = np.zeros((3, steps, n), np.int64)
    for t in range(steps):
        a = batch["inp"][t].astype(np.int32)
        update(0, n, u, v, a, keep_u, keep_v, bias, threshold, fired, 0)
        assert not a.any()
        out[:, t] = u, v, fired
    return out


@pytest.mark.parametrize("batch", batches("loihi/lava_bitacc.npz") + batches("loihi/lava_lif_edge.npz"))
def test_membranes_and_spikes(batch):
    for name, ours in zip("uvs", replay(batch), strict=True):
        assert not differences(name, ours, batch[name].astype(np.int64))
