"""Ring buffers that synaptic words are added to. Masks are compiled into kernels (neuro.jit).

A core has one 16-bit ring buffer per delay slot, synapse type and neuron, at ``slot | type | index``: the low
fields of the word, so that the word plus the time, masked, is the place to add to. A sum beyond 0xFFFF stays at
0xFFFF and is counted. Step t takes and clears slot t mod slots, before the spikes of step t are processed;
so a delay field of 0 means as many steps as there are slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spinnaker1.fixed import Integer
from neuro.hardware.spinnaker1.words import Layout, Synapse, Words, bits_for, synapses_of, words_of
from neuro.jit import kernel

__all__ = ["Layout", "Ring", "Synapse", "Words", "add", "add_row", "bits_for", "synapses_of", "words_of"]

Ring = NDArray[np.uint16]
FULL = np.int64(0xFFFF)


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
