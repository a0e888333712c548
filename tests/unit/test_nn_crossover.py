"""Events or a product: the choice follows the stated rates, and nothing but shapes and counts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuro.nn import LIF, Recurrent, SpikingNetwork, crossover, dense, recurrent
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes

ROWS = 1000


def exactly(count: int, sources: int, rows: int = ROWS) -> Spikes:
    """Spikes [rows, 1, sources], ``count`` of them, wherever."""
    bits = np.zeros(rows * sources, np.uint8)
    bits[np.random.default_rng(0).permutation(bits.size)[:count]] = 1
    return Spikes.pack(torch.from_numpy(bits.reshape(rows, 1, sources)), torch.float32)


@pytest.mark.parametrize(("sources", "share"), [(64, 0.3575), (256, 0.216875), (4096, 0.1729296875)])
def test_the_rate_of_a_layer(sources: int, share: float) -> None:
    limit = math.floor(share * ROWS * sources)
    assert crossover.layer(limit, ROWS, sources)
    assert not crossover.layer(limit + 1, ROWS, sources)


@pytest.mark.parametrize(
    ("sources", "n", "part"), [(64, 64, 1.0), (768, 512, 1.0), (1536, 512, 0.5), (512, 1536, 0.5), (3072, 1024, 0.125)]
)
def test_the_rates_fall_with_what_lies_outside_the_cache(sources: int, n: int, part: float) -> None:
    for choose, share in ((crossover.gather, 0.3), (crossover.scatter, 0.15)):
        limit = math.floor(share * part * ROWS * sources + 1e-6)
        assert choose(limit - 1, ROWS, sources, n)
        assert not choose(limit + 1, ROWS, sources, n)


@pytest.mark.parametrize(("asked", "share"), [(recurrent.gathers, 0.3), (recurrent.scatters, 0.15)])
def test_spikes_are_counted(asked: Callable[[Spikes, int], bool], share: float) -> None:
    limit = round(share * 70 * 100)
    assert asked(exactly(limit - 1, 70, 100), 20)
    assert not asked(exactly(limit + 1, 70, 100), 20)


def test_a_sample_in_pieces_goes_by_events() -> None:
    everything = exactly(7000, 70, 100)
    assert not recurrent.gathers(everything, 20)
    assert recurrent.gathers(everything, 20, Carry())


def test_nothing_is_few() -> None:
    for choose in (crossover.gather, crossover.scatter):
        assert choose(0, 0, 0, 0)
        assert choose(0, ROWS, 1 << 20, 1 << 20)
    assert isinstance(dense.sparse(exactly(0, 70)), dense.Lists)


def test_a_layer_asks_it() -> None:
    """Lists are padded by up to three a row, and so is the limit."""
    assert isinstance(dense.sparse(exactly(ROWS * 30, 128)), dense.Lists)
    assert isinstance(dense.sparse(exactly(ROWS * 40, 128)), Spikes)


@pytest.mark.parametrize("rate", [0.02, 0.14, 0.16, 0.29, 0.31, 0.6])
def test_the_choice_does_not_depend_on_threads(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[bool]] = []
    net = SpikingNetwork(
        {"a": nn.Linear(70, 40), "n": Recurrent(LIF(0.9, surrogate="atan"), 40), "b": nn.Linear(40, 9), "m": LIF(0.9)},
        input_shape=(70,), dt=1e-3,
    )  # fmt: skip
    x = exactly(round(rate * 70 * 200), 70, 200)
    bits = []
    for threads in (1, 2, 3):
        chosen.append([])
        for name in ("layer", "gather", "scatter"):
            monkeypatch.setattr(crossover, name, _noted(getattr(crossover, name), chosen[-1]))
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        net.zero_grad()
        net(x).sum().backward()
        bits.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        monkeypatch.undo()
    assert chosen[0]
    assert chosen[0] == chosen[1] == chosen[2]
    assert all(torch.equal(a, b) for other in bits[1:] for a, b in zip(bits[0], other, strict=True))


def _noted(choose: Callable[..., bool], into: list[bool]) -> Callable[..., bool]:
    def noted(*arguments: Any) -> bool:
        into.append(choose(*arguments))
        return into[-1]

    return noted


@pytest.mark.parametrize(("sources", "n"), [(1, 1), (70, 130), (130, 70), (64, 64), (700, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_by_events_is_the_sum_of_the_rows(sources: int, n: int, dtype: torch.dtype) -> None:
    """In the order of the rows, to the last bit, however many threads share the columns."""
    rng, found = np.random.default_rng(1), []
    fired = rng.random((30, sources)) < 0.2
    d = torch.from_numpy(rng.normal(size=(30, n))).to(dtype)
    words = Spikes.pack(torch.from_numpy(fired[:, None].astype(np.uint8)), dtype).words
    wanted = np.zeros((n, sources), d.numpy().dtype)
    for row, given in zip(fired, d.numpy(), strict=True):
        wanted[:, row] += given[:, None]
    for threads in (1, 2, 3, 8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            patch.setattr("neuro.nn.kernels.WORTH_A_THREAD", 1)
            found.append(recurrent.to_weight(words[:3], words[3:], d, sources))
    for one in found:
        assert one.shape == (n, sources)
        assert np.array_equal(one.numpy(), wanted)


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (130, 64), (256, 700)])
def test_a_table_is_the_matrix_turned_with_a_row_of_zeros(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for given in (weight, weight.t().contiguous().t()):
        table = recurrent.table_of(given)
        assert np.array_equal(table[:-1], weight.numpy().T)
        assert not table[-1].any()


def test_the_measurement_belongs_to_these_constants() -> None:
    path = Path(__file__).parents[2] / "docs" / "results" / "bench_crossover.json"
    constants = json.loads(path.read_text(encoding="utf-8"))["constants"]
    assert constants == {"R": crossover.R, "S": crossover.S, "G": crossover.G, "C": crossover.C, "NEAR": crossover.NEAR}
