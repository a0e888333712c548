"""Records of a batch past the caches, and their memory given out again: nothing of an earlier batch shows."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.hardware.loihi2 import kernels, stream
from neuro.hardware.program import Placement, Population, Program, Projection

STEPS, BATCH = 40, 70


def program(sizes: tuple[int, int, int]) -> Program:
    rng = np.random.default_rng(0)
    names = [f"l{k}" for k in range(3)]
    registers = {"du": 4095, "dv": 200, "vth": 600, "bias_mant": 0, "bias_exp": 0}
    matrix = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": 1}
    populations = {
        n: Population(n, n, "lif" if k else "input", (size,), registers if k else {})
        for k, (n, size) in enumerate(zip(names, sizes, strict=True))
    }
    projections = tuple(
        Projection(
            f"w{k}", f"w{k}", names[k], names[k + 1], "dense",
            2 * rng.integers(-60, 61, (sizes[k + 1], sizes[k])), matrix,
        )
        for k in range(2)
    )  # fmt: skip
    core_of = {n: np.full(populations[n].size, k) for k, n in enumerate(names[1:])}
    placement = Placement(core_of, np.array([[0, 0], [1, 0]]))
    skew = {n: k for k, n in enumerate(names)}
    return Program("loihi2", 1e-2, populations, projections, "l0", "l2", skew, {}, "count", placement)


def spikes(sizes: tuple[int, int, int], seed: int, rate: float = 0.06) -> np.ndarray:
    return (np.random.default_rng(seed).random((STEPS, BATCH, sizes[0])) < rate).astype(np.uint8)


@pytest.mark.parametrize("sizes", [(256, 256, 256), (256, 192, 250), (250, 256, 256)])
def test_a_large_batch_is_recorded_as_its_samples_are(sizes: tuple[int, int, int]) -> None:
    made, given = program(sizes), spikes(sizes, 1, 0.2)
    whole = kernels.run(made, np.tile(given, (1, 3, 1)))
    assert min(BATCH * 3 * STEPS * n for n in (sizes[0], sizes[1] + sizes[2])) >= stream.WORTH, "or nothing is sent"
    for b in (0, BATCH - 1, BATCH, 3 * BATCH - 1):
        alone = kernels.run(made, given[:, b % BATCH : b % BATCH + 1])
        for name, fired in alone.spikes.items():
            assert np.array_equal(whole.spikes[name][:, b : b + 1], fired), (name, b)
    assert whole.spikes["l1"].any()
    assert whole.spikes["l2"].any()


def test_memory_comes_again_only_when_nobody_looks() -> None:
    made, sizes = program((256, 256, 256)), (256, 256, 256)
    first = kernels.run(made, np.tile(spikes(sizes, 1), (1, 3, 1)))
    kept = {name: fired.copy() for name, fired in first.spikes.items()}
    at = first.spikes["l1"].ctypes.data
    second = kernels.run(made, np.tile(spikes(sizes, 2), (1, 3, 1)))
    assert second.spikes["l1"].ctypes.data != at
    for name, fired in first.spikes.items():
        assert np.array_equal(fired, kept[name]), name
    a_view = first.spikes["l1"][3:5]
    before = a_view.copy()
    del first, fired
    third = kernels.run(made, np.tile(spikes(sizes, 3), (1, 3, 1)))
    assert third.spikes["l1"].ctypes.data != at, "a view is a reference too"
    assert np.array_equal(a_view, before)
    del a_view
    fourth = kernels.run(made, np.tile(spikes(sizes, 1), (1, 3, 1)))
    assert fourth.spikes["l1"].ctypes.data == at, "given out again"
    for name, fired in fourth.spikes.items():
        assert np.array_equal(fired, kept[name]), "nothing of what stood there before"


def test_what_is_kept_is_bounded() -> None:
    for k in range(4):
        stream.room((stream.KEPT // 2 - stream.BLOCK * k,))
    assert sum(a.size for a in stream._kept) <= stream.KEPT
    stream._kept.clear()
