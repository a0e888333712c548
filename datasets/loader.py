"""Batches for training: shuffled, augmented and binned on the way; nothing dense but the batch at hand.

The order of an epoch and every augmentation depend on (seed, epoch) and the recording only, so training
that was broken off resumes at any batch with ``start`` and sees what it would have seen.
"""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.transforms import Augment, batch, packed
from neuro.errors import BadConfig
from neuro.events import EventSet
from neuro.extend import require

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
AHEAD = 2  # batches that wait for the caller: one that took long is made up for


def order(n: int, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """int64[n]: the recordings in the order of this epoch."""
    if not shuffle:
        return np.arange(n)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return rng.permutation(n)


def batch_count(n: int, batch_size: int, drop_last: bool = False) -> int:
    """Number of batches in an epoch of n recordings."""
    return n // batch_size if drop_last else -(-n // batch_size)


def arrays(
    event_set: EventSet,
    batch_size: int,
    dt: float,
    steps: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    augment: Augment | None = None,
    drop_last: bool = False,
    start: int = 0,
    prefetch: bool = False,
    threads: int = 1,
    high: int = 1,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """(uint8[steps, batch, *shape], labels int64[batch]) for one epoch, from batch number ``start`` on.

    prefetch: make the next batches in a background thread while the caller works on this one; the
    batches are the same. high: events of a step and channel are counted up to this.

    Raises:
        BadConfig: sizes that cannot be; otherwise as `neuro.datasets.transforms.batch`.
    """

    def make(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        return batch(event_set, chosen, dt, steps, augment, seed=seed, epoch=epoch, threads=threads, high=high)

    return _epoch(make, event_set, batch_size, dt, shuffle, seed, epoch, drop_last, start, prefetch)


def words(
    event_set: EventSet,
    batch_size: int,
    dt: float,
    steps: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    augment: Augment | None = None,
    drop_last: bool = False,
    start: int = 0,
    prefetch: bool = False,
    threads: int = 1,
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """`arrays` with high = 1 as bits, (uint64[steps * batch, ceil(n / 64)], labels int64[batch]); see
    `neuro.datasets.transforms.packed`.

    Raises:
        BadConfig: as `arrays`.
    """

    def make(chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
        return packed(event_set, chosen, dt, steps, augment, seed=seed, epoch=epoch, threads=threads)

    return _epoch(make, event_set, batch_size, dt, shuffle, seed, epoch, drop_last, start, prefetch)


def _epoch(
    make: Callable[[NDArray[np.int64]], Item],
    event_set: EventSet,
    batch_size: int,
    dt: float,
    shuffle: bool,
    seed: int,
    epoch: int,
    drop_last: bool,
    start: int,
    prefetch: bool,
) -> Iterator[tuple[Item, NDArray[np.int64]]]:
    if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1 or start < 0:
        raise BadConfig(f"batch_size must be 1 or more and start not negative, got {batch_size!r} and {start!r}")
    if min(seed, epoch) < 0 or not math.isfinite(dt):
        raise BadConfig(f"seed and epoch must not be negative, dt must be finite, got {seed}, {epoch}, {dt}")
    sequence = order(len(event_set), shuffle, seed, epoch)
    numbers = range(start, batch_count(len(event_set), batch_size, drop_last))

    def one(number: int) -> tuple[Item, NDArray[np.int64]]:
        chosen = sequence[number * batch_size : (number + 1) * batch_size]
        return make(chosen), event_set.labels[chosen]

    return _ahead(one, numbers) if prefetch else map(one, numbers)


def batches(
    event_set: EventSet,
    batch_size: int,
    dt: float,
    steps: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    augment: Augment | None = None,
    drop_last: bool = False,
    start: int = 0,
    prefetch: bool = False,
    threads: int = 1,
    high: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`arrays` as torch tensors that share their memory: (uint8 [steps, batch, *shape], int64 [batch]).

    Raises:
        BadConfig: as `arrays`. MissingExtra: torch is not installed.
    """
    torch_module = require("torch", "torch")
    found = arrays(
        event_set,
        batch_size,
        dt,
        steps,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        augment=augment,
        drop_last=drop_last,
        start=start,
        prefetch=prefetch,
        threads=threads,
        high=high,
    )
    return ((torch_module.from_numpy(x), torch_module.from_numpy(labels)) for x, labels in found)


def _ahead(make: Callable[[int], Item], numbers: range) -> Iterator[Item]:
    """make(number) for all numbers, AHEAD of the caller in a thread that ends with the iterator."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=AHEAD)
    stop = threading.Event()

    def put(item: tuple[Item | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own: this one takes what the others leave
            with suppress(OSError):  # where that is forbidden it is only slower
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            for number in numbers:
                if not put((make(number), None)):
                    return
        except BaseException as error:  # handed to the caller's thread, which raises it
            put((None, error))

    thread = threading.Thread(target=work, name="neuro-prefetch", daemon=True)
    thread.start()
    try:
        for _ in numbers:
            item, error = ready.get()
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        stop.set()
        thread.join()
