"""Pair STDP of the compiled kernels against what the sPyNNaker 7.4.1 kernels recorded, word by word."""

from __future__ import annotations

import os

import numpy as np
import pytest
from axon_spinnaker_stdp import core_of, replay
from axon_vectors import batches, differences

from neuro.hardware.spinnaker1 import stdp_plain as plain

FILES = ("spinnaker/stdp_pair.npz", "spinnaker/edge_stdp_pair.npz")
BATCHES = [
    pytest.param(*p.values, id=f"{name.split('/')[-1].removesuffix('.npz')}-{p.id}", marks=p.marks)
    for name in FILES
    for p in batches(name)
]


@pytest.mark.parametrize("batch", BATCHES)
def test_state_and_row_memory_after_each_step(batch):
    ours = replay(core_of(batch))
    assert not differences("state", ours["state"], batch["state"])
    assert not differences("row_mem", ours["row_mem"], batch["row_mem"])
    if "sat" in batch:
        assert int(ours["sat"]) == int(batch["sat"])


@pytest.mark.skipif("NEURO_VECTORS" in os.environ, reason="about the embedded vectors, NEURO_VECTORS names others")
def test_the_vectors_reach_what_they_must():
    """Nothing is proven by vectors without spikes, weights that move, or sums that saturate."""
    found = [p.values[0] for p in BATCHES if p.values[0] is not None]
    assert all((b["state"][:, :, 4] != 0).any() for b in found)
    assert all((b["row_mem"][0] != b["row_mem"][-1]).any() for b in found)
    assert {str(b["rule"]) for b in found} >= {"additive_one_term", "multiplicative"}
    assert sum(int(b.get("sat", np.array(0))) for b in found) > 0


@pytest.mark.parametrize("batch", BATCHES)
def test_the_plain_model_gives_the_same(batch):
    core = core_of(batch)
    if not batch["row_len"].size or core.steps > 100:  # the long ones take it half a minute
        core = core._replace(steps=60)
    ours = plain.replay(core)
    assert not differences("state", ours["state"], batch["state"][: core.steps].astype(np.int64))
    assert not differences("row_mem", ours["row_mem"], batch["row_mem"][: core.steps])
    if "sat" in batch and core.steps == int(batch["T"]):
        assert ours["sat"] == int(batch["sat"])
