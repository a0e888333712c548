"""Synaptic rows built block by block: 4 bytes a synapse, one row per source neuron and target core.

A block holds what one source population sends to one core, and is put in order as it is added, so a network need
never be held as a list: draw the synapses of one core from one population, add them, forget them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.hardware.program import Integers
from neuro.hardware.spinnaker1.words import Layout, Words, words_of

Int64 = NDArray[np.int64]


def _by_source(pre: Int64, sources: int) -> tuple[Int64, NDArray[np.uint32]]:
    """(order that sorts by source and leaves the rest alone, first of each source and the end)."""
    narrow = pre.astype(np.uint16) if sources <= 1 << 16 else pre  # numpy sorts 16 bits by radix
    start = np.zeros(sources + 1, np.uint32)
    np.cumsum(np.bincount(pre, minlength=sources), out=start[1:])
    return np.argsort(narrow, kind="stable"), start


class Rows:
    """Collects blocks; `image` gives them. sizes: neurons of each source population, the input's first.

    synapses: how many will be added, if known: then their memory is taken once."""

    def __init__(self, sizes: list[int] | tuple[int, ...], synapses: int | None = None) -> None:
        self.sizes = tuple(sizes)
        self.words = np.zeros(synapses or 1024, np.uint32)
        self.used = 0
        self.rows: list[NDArray[np.uint32]] = []
        self.row_used = 0
        self.blocks: list[tuple[int, int, int, int, int]] = []

    def add(
        self,
        core: int,
        source: int,
        layout: Layout,
        pre: ArrayLike,
        index: ArrayLike,
        weight: ArrayLike,
        delay: ArrayLike,
        kind: ArrayLike,
    ) -> None:
        """The synapses of population ``source`` on one core, all arrays [synapses] or scalars.

        pre: neuron of the source, index: neuron on the core, weight: 0..0xFFFF, delay: steps >= 1, kind: 0 or 1.
        Delays beyond layout.slots are split: d = late + rest, late a multiple of slots, which is `late` of a block
        of its own."""
        arrays = np.broadcast_arrays(*(np.asarray(a, np.int64) for a in (pre, index, weight, delay, kind)))
        pre, index, weight, delay, kind = (np.ravel(a) for a in arrays)
        late = (delay - 1) // layout.slots * layout.slots
        for lag in np.unique(late).tolist():
            of = late == lag if (late != lag).any() else slice(None)
            word = words_of(layout, weight[of], delay[of] - lag, kind[of], index[of])
            self._append(core, source, lag, np.ascontiguousarray(pre[of]), word)

    def _append(self, core: int, source: int, lag: int, pre: Int64, word: Words) -> None:
        end = self.used + word.size
        if end > self.words.size:
            grown = np.zeros(max(end, 2 * self.words.size), np.uint32)
            grown[: self.used] = self.words[: self.used]
            self.words = grown
        order, row_start = _by_source(pre, self.sizes[source])
        self.words[self.used : end] = word[order]
        self.blocks.append((core, source, lag, self.row_used, self.used))
        self.rows.append(row_start)
        self.row_used += row_start.size
        self.used = end

    def image(self, relays: ArrayLike = ()) -> dict[str, Integers]:
        """What a Program's image holds, see contract.py. The collector is empty afterwards."""
        blocks = np.array(self.blocks, np.int64).reshape(-1, 5)
        found: dict[str, Any] = {
            "blocks": blocks[np.lexsort((blocks[:, 2], blocks[:, 1], blocks[:, 0]))],
            "row_start": np.concatenate([*self.rows, np.zeros(0, np.uint32)]),
            "words": self.words[: self.used],
            "relays": np.asarray(relays, np.int64).reshape(-1, 4),
        }
        self.words, self.used, self.rows, self.blocks = np.zeros(0, np.uint32), 0, [], []
        return found
