"""A batch shared out over threads: compiled loops release the interpreter lock, so plain threads are enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np


def available() -> int:
    """NUMBA_NUM_THREADS, by default the processors at hand."""
    config: Any = numba.config  # its attributes are made at run time
    return int(config.NUMBA_NUM_THREADS)


def over_pieces(threads: int, batch: int, work: Callable[[Iterator[tuple[int, int]]], None]) -> None:
    """``work`` in so many threads, this one included, each taking pieces (first, end) of the batch as it gets on."""
    cuts = np.linspace(0, batch, min(batch, 4 * threads) + 1).astype(int).tolist()
    pieces = iter(list(itertools.pairwise(cuts)))
    if threads == 1:
        work(pieces)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, pieces) for _ in range(threads - 1)]
        try:
            work(pieces)
        finally:
            list(pieces)  # after Ctrl-C the others finish what they are at and find nothing more to do
    for other in others:
        other.result()
