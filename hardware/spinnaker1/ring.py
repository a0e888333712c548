"""Synaptic words and the ring buffers they are added to. Masks are compiled into kernels (neuro.jit).

A synapse is one 32-bit word; a row of them belongs to one source neuron and one target core:

    weight [31:16] | nothing | delay | type | index          index of the target neuron on its core

A core has one 16-bit ring buffer per delay slot, synapse type and neuron, at ``slot | type | index``: the low
fields of the word, so that the word plus the time, masked, is the place to add to. A sum beyond 0xFFFF stays at
0xFFFF and is counted. Step t takes and clears slot t mod slots, before the spikes of step t are processed;
so a delay field of 0 means as many steps as there are slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.hardware.spinnaker1.fixed import Integer
from neuro.jit import kernel

Words = NDArray[np.uint32]
Ring = NDArray[np.uint16]
FULL = np.int64(0xFFFF)


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


@kernel
def add(ring: Ring, at: Integer, weight: Integer) -> Any:
    """Add a weight (0..0xFFFF) to ring[at]; 1 if it saturates, else 0."""
    total = np.int64(ring[at]) + np.int64(weight)
    over = np.int64(total >> 16)
    ring[at] = np.uint16(FULL if over != 0 else total)
    return over


@kernel
def add_row(
    ring: Ring, base: Integer, words: Words, begin: Integer, end: Integer, t: Integer, shift: Integer, mask: Integer
) -> Any:
    """Process words[begin:end] of a row that arrives in step t, in order; how many of them saturate.

    ring[base:base + mask + 1] are the buffers of the core; shift, mask: of its `Layout`."""
    saturated = 0
    later = t << shift
    for k in range(np.uintp(begin), np.uintp(end)):
        word = np.int64(words[np.uintp(k)])
        saturated += add(ring, np.uintp(base + ((word + later) & mask)), word >> 16)
    return saturated
