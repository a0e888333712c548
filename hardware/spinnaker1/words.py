"""The words a machine is given: of each neuron, and of each synapse. Synapses are one 32-bit word:

    weight [31:16] | nothing | delay | type | index          index of the target neuron on its core

Rows of them belong to one source neuron and one target core; `ring` says how they are added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]
BLOCK = ("v_init", "v_rest", "c_m", "tau_m", "i_offset", "v_reset", "t_refract", "refract_init", "time_step")
WORDS = {  # those of a neuron's block, then those of its threshold, input and synapse types
    "curr_exp": (*BLOCK, "threshold", "tau_exc", "init_exc", "tau_inh", "init_inh", "synapse_step"),
    "curr_delta": (*BLOCK, "input_step", "threshold", "init_exc", "init_inh"),
}


class Layout(NamedTuple):
    """How many bits each field of a word has, lowest first."""

    index_bits: int
    type_bits: int
    delay_bits: int

    @property
    def slots(self) -> int:
        return 1 << self.delay_bits

    @property
    def shift(self) -> int:
        """Of the slot within the address of a ring buffer."""
        return self.index_bits + self.type_bits

    @property
    def entries(self) -> int:
        """Ring buffers of a core."""
        return 1 << (self.shift + self.delay_bits)

    @property
    def mask(self) -> int:
        return self.entries - 1


def bits_for(count: int) -> int:
    """Bits that tell ``count`` things apart; 0 for one."""
    return int(count - 1).bit_length()


def words_of(layout: Layout, weight: ArrayLike, delay: ArrayLike, kind: ArrayLike, index: ArrayLike) -> Words:
    """Synaptic words. weight 0..0xFFFF; delay 1..slots in steps; kind 0 excitatory, 1 inhibitory; index on the core."""
    w, d, k, i = (np.asarray(a, np.int64) for a in (weight, delay, kind, index))
    assert not w.size or (w.min() >= 0 and w.max() <= 0xFFFF)
    assert not d.size or (d.min() >= 1 and d.max() <= layout.slots)
    field = (d & (layout.slots - 1)) << layout.shift
    return ((w << 16) | field | (k << layout.index_bits) | i).astype(np.uint32)


class Synapse(NamedTuple):
    """Fields of words, int64 arrays. delay: steps, 1..slots."""

    weight: NDArray[np.int64]
    delay: NDArray[np.int64]
    kind: NDArray[np.int64]
    neuron: NDArray[np.int64]


def synapses_of(layout: Layout, words: NDArray[np.unsignedinteger[Any]]) -> Synapse:
    """What the words mean, for rows that do not learn."""
    w = words.astype(np.int64)
    delay = (w >> layout.shift) & (layout.slots - 1)
    return Synapse(
        w >> 16,
        np.where(delay == 0, layout.slots, delay),
        (w >> layout.index_bits) & ((1 << layout.type_bits) - 1),
        w & ((1 << layout.index_bits) - 1),
    )
