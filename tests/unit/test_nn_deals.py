"""Phases whose pieces threads take (`neuro.nn.deals`): each once, in the order of phases, nobody waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from neuro.jit import disjoint
from neuro.nn import LIF, SpikingNetwork, deals, kernels
from neuro.nn.deals import hands, take, tell, wait
from neuro.nn.spikes import Spikes

A = NDArray[Any]
FIRST, SECOND, PHASES = range(3)
EVERY = 1 << 60  # elements: worth as many threads as there are


@disjoint
def turned_back(state: A, me: int, total: A, x: A, y: A, z: A, times: A) -> None:
    """y = 2 x, row by row; then z = the rows of y, the last first, plus the sum of all of y."""
    rows = x.shape[0]
    k = take(state, FIRST, me, rows)
    while k < rows:
        for j in range(x.shape[1]):
            y[k, j] = 2 * x[k, j]
        times[0, k] += 1
        tell(state, FIRST)
        k = take(state, FIRST, me, rows)
    wait(state, FIRST, rows)
    total[0] = 0
    for r in range(rows):
        for j in range(x.shape[1]):
            total[0] += y[r, j]
    k = take(state, SECOND, me, rows)
    while k < rows:
        for j in range(x.shape[1]):
            z[k, j] = y[rows - 1 - k, j] + total[0]
        times[1, k] += 1
        tell(state, SECOND)
        k = take(state, SECOND, me, rows)
    wait(state, SECOND, rows)


@disjoint
def taken(state: A, me: int, mine: A, pieces: int) -> None:
    """mine [pieces]: how often this hand was given which."""
    k = take(state, FIRST, me, pieces)
    while k < pieces:
        mine[k] += 1
        k = take(state, FIRST, me, pieces)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setattr(torch, "get_num_threads", lambda: count)


def run(rows: int, columns: int, seed: int, size: int = EVERY) -> None:
    x = np.random.default_rng(seed).integers(-1000, 1000, (rows, columns))
    y, z, times = np.full_like(x, -1), np.full_like(x, -1), np.zeros((2, rows), np.int64)
    own = hands(PHASES, size, turned_back, (x, y, z, times), lambda: [np.zeros(1, np.int64)])
    assert own[0][0] == 2 * x.sum()
    assert np.array_equal(z, 2 * x[::-1] + 2 * x.sum())
    assert (times == 1).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_piece_once_and_each_phase_after_the_one_before(count: int, threads: Callable[[int], None]) -> None:
    threads(count)
    for seed in range(60):
        run((0, 1, 2, 5, 64, 301)[seed % 6], (1, 40, 700)[seed % 3], seed)


def test_hands_that_do_nothing_but_take_are_given_different_pieces(threads: Callable[[int], None]) -> None:
    threads(3)
    rooms: list[A] = []

    def room() -> list[A]:
        rooms.append(np.zeros(1_000_003, np.int64))
        return rooms[-1:]

    hands(PHASES, EVERY, taken, (1_000_003,), room)
    assert len(rooms) == 3
    assert (sum(rooms) == 1).all()


def test_many_callers_share_a_pool_that_has_too_few_threads(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(4)
    with ThreadPoolExecutor(2) as few, ThreadPoolExecutor(6) as callers:
        monkeypatch.setattr(deals, "pool", lambda _: few)
        list(callers.map(lambda seed: run(97, 50, seed), range(60), timeout=60))


def test_a_hand_that_never_comes_is_not_waited_for(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(2)
    free = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        busy.submit(free.wait)
        monkeypatch.setattr(deals, "pool", lambda _: busy)
        try:
            run(50, 20, 1)
        finally:
            free.set()


def test_what_is_not_worth_a_thread_is_done_by_one(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(2)
    monkeypatch.setattr(deals, "pool", lambda _: pytest.fail("a thread was asked for"))
    run(50, 20, 1, kernels.WORTH_A_THREAD)


def test_uneven_work_does_not_show() -> None:
    """All spikes lie in the first samples, so one hand helps the other, whose gradients it has to wait for."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = {"conv": nn.Conv2d(24, 32, 3, 1, 1), "norm": nn.BatchNorm2d(32), "lif": LIF(0.8)}
    model = SpikingNetwork(layers, input_shape=(24, 16, 16), dt=1e-3, readout="count")
    fired = np.random.default_rng(2).random((6, 8, 24, 16, 16)) < 0.1
    fired[:, 4:] = False
    g = torch.from_numpy(np.random.default_rng(3).normal(size=(6, 8, 32, 16, 16))).float()
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, *[2] * 12):
            torch.set_num_threads(count)
            x = Spikes.pack(torch.from_numpy(fired).float()).requires_grad_()
            (model(x) * g).sum().backward()
            assert x.grad is not None
            found.append(x.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def _trained(count: int) -> list[torch.Tensor]:
    """Spikes and gradients of two convolutions, by so many hands."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 6, 3, 2, 1), nn.BatchNorm2d(6), LIF(0.8), nn.Conv2d(6, 9, 3), LIF(0.9)]
        model = SpikingNetwork(
            {str(k): v for k, v in enumerate(layers)}, input_shape=(2, 13, 12), dt=1e-3, readout="count"
        )
    x = Spikes.pack(torch.from_numpy(np.random.default_rng(2).random((7, 5, 2, 13, 12)) < 0.2).float())
    y = model(x)
    (y * torch.from_numpy(np.random.default_rng(3).normal(size=y.shape)).float()).sum().backward()
    return [y.detach().clone(), *(p.grad for p in model.parameters() if p.grad is not None)]


def test_convolutions_do_not_depend_on_who_took_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deals.kernels, "WORTH_A_THREAD", 1)
    seen: set[int] = set()
    real = deals.hands

    def noted(phases: int, size: int, function: Any, arguments: Any, room: Any) -> Any:
        def watched(state: A, me: int, *rest: Any) -> None:
            seen.add(me)
            function(state, me, *rest)

        return real(phases, size, watched, arguments, room)

    before = torch.get_num_threads()
    expected = _trained(1)
    monkeypatch.setattr("neuro.nn.conv_function.hands", noted)
    monkeypatch.setattr("neuro.nn.conv_gradients.hands", noted)
    try:
        for count in (1, 2, 3) * 8:
            torch.set_num_threads(count)
            assert all(torch.equal(a, b) for a, b in zip(expected, _trained(count), strict=True))
    finally:
        torch.set_num_threads(before)
    assert {0, 1} <= seen
