"""Batches of an epoch: order, resuming, prefetching, torch."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from event_sets import random_set

from neuro.datasets import loader
from neuro.datasets.loader import arrays, batches, order
from neuro.datasets.transforms import Augment
from neuro.errors import BadConfig

DATA = random_set(23, 40, (2, 6, 5), 0)
AUGMENT = Augment(shift=1.0, rotation=20.0, elastic=1.0, time_jitter=0.01, drop=0.3)
GRID = {"batch_size": 4, "dt": 0.01, "steps": 30}


def test_an_epoch_visits_every_recording_once() -> None:
    found = list(arrays(DATA, **GRID, seed=3, epoch=2))
    assert [x.shape for x, _ in found] == [(30, 4, 2, 6, 5)] * 5 + [(30, 3, 2, 6, 5)]
    visited = order(23, True, 3, 2)
    assert sorted(visited.tolist()) == list(range(23))
    assert np.array_equal(np.concatenate([y for _, y in found]), DATA.labels[visited])
    plain = DATA.batch(visited, 0.01, 30)
    assert np.array_equal(np.concatenate([x for x, _ in found], axis=1), plain)
    assert len(list(arrays(DATA, **GRID, drop_last=True))) == 5
    still = np.concatenate([y for _, y in arrays(DATA, **GRID, shuffle=False)])
    assert np.array_equal(still, DATA.labels)


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {(s, e): order(50, True, s, e).tolist() for s in range(3) for e in range(3)}
    assert len({tuple(o) for o in orders.values()}) == 9
    assert order(50, True, 1, 2).tolist() == orders[1, 2]
    # fixed for good: a run that resumes on another machine goes on in the same order
    assert order(8, True, 0, 0).tolist() == [3, 6, 4, 0, 7, 5, 2, 1]


@pytest.mark.parametrize("prefetch", [False, True])
def test_resuming_anywhere_gives_the_rest(prefetch: bool) -> None:
    whole = list(arrays(DATA, **GRID, seed=1, epoch=5, augment=AUGMENT))
    for start in range(7):
        rest = list(arrays(DATA, **GRID, seed=1, epoch=5, augment=AUGMENT, start=start, prefetch=prefetch))
        assert len(rest) == max(0, 6 - start)
        for (x, y), (x2, y2) in zip(whole[start:], rest, strict=True):
            assert np.array_equal(x, x2)
            assert np.array_equal(y, y2)


def test_torch_batches_share_memory_with_the_arrays() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    for (x, y), (a, b) in zip(
        batches(DATA, **GRID, augment=AUGMENT), arrays(DATA, **GRID, augment=AUGMENT), strict=True
    ):
        assert x.dtype == torch.uint8
        assert y.dtype == torch.int64
        assert np.array_equal(x.numpy(), a)
        assert np.array_equal(y.numpy(), b)


def test_the_module_loads_without_torch() -> None:
    code = "import sys, neuro.datasets.loader; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_the_thread_ends_with_the_iterator_and_passes_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    running = arrays(DATA, **GRID, prefetch=True)
    next(running)
    assert threading.active_count() == before + 1
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before

    def fails(*_: object, **__: object) -> np.ndarray:
        raise BadConfig("from the thread")

    monkeypatch.setattr(loader, "batch", fails)
    with pytest.raises(BadConfig, match="from the thread"):
        list(arrays(DATA, **GRID, prefetch=True))
    assert threading.active_count() == before


def test_an_iterator_that_is_never_started_leaves_no_thread() -> None:
    before = threading.active_count()
    running = arrays(DATA, **GRID, prefetch=True)
    del running
    gc.collect()
    assert threading.active_count() == before


def test_no_dense_copy_of_the_set() -> None:
    big = random_set(400, 50, (2, 34, 34), 1)
    dense = 400 * 30 * 2 * 34 * 34
    list(arrays(big, batch_size=1, dt=0.01, steps=30))  # compile
    tracemalloc.start()
    for _x, _y in arrays(big, batch_size=8, dt=0.01, steps=30, prefetch=True):
        pass
    assert tracemalloc.get_traced_memory()[1] < dense / 8
    tracemalloc.stop()


@pytest.mark.parametrize(
    "change", [{"batch_size": 0}, {"start": -1}, {"seed": -1}, {"steps": 0}, {"dt": 0.0}, {"dt": float("nan")}]
)
def test_what_cannot_be_is_named(change: dict[str, object]) -> None:
    with pytest.raises(BadConfig):
        list(arrays(DATA, **{**GRID, **change}))  # type: ignore[arg-type]
