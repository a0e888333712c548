"""Counter-based random numbers: which number comes out depends on what it is for, never on who asks or when.

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11): a bijection
of 128-bit counters under a 64-bit key. The key is the seed of a circuit; the counter names the number: which synapse
of which projection, or which neuron in which step. So neither threads nor checkpoints can change a draw.
Compiled with neuro.jit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel

U = np.uintp
U32 = np.uint32
U64 = np.uint64
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
UNIT = 2.0**-32
BLOCK = 64  # neurons that draw together
# what a number is for: the last word of the counter
TARGETS, VALUES, START, NEURONS = 0, 1, 2, 3

Four = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


@kernel
def philox(c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64) -> Four:
    """Four numbers of 32 bits, each in a uint64, from a counter and a key of 32-bit words, each in a uint64."""
    for _ in range(10):
        p0, p1 = U64(M0 * c0), U64(M1 * c2)
        c0, c1, c2, c3 = U64((p1 >> HALF) ^ c1 ^ k0), U64(p1 & LOW), U64((p0 >> HALF) ^ c3 ^ k1), U64(p0 & LOW)
        k0, k1 = U64((k0 + W0) & LOW), U64((k1 + W1) & LOW)
    return c0, c1, c2, c3


@kernel
def draw_block(out: NDArray[np.uint32], block: int, step: int, stream: int, seed: int) -> None:
    """out[0:64]: the numbers of neurons 64 block .. 64 block + 63 of a stream in a step."""
    first, when, what = U64(block) * U64(16), U64(step), U64(stream)
    late = U64((when >> HALF) << U64(2)) | U64(NEURONS)
    key = U64(seed)
    for q in range(U(16)):
        a, b, c, d = philox(U64(first + U64(q)), when & LOW, what, late, key & LOW, key >> HALF)
        out[U(q)] = U32(a)
        out[U(q) + U(16)] = U32(b)
        out[U(q) + U(32)] = U32(c)
        out[U(q) + U(48)] = U32(d)


@kernel
def uniform(word: np.uint64) -> float:
    """Inside (0, 1)."""
    return (float(word) + 0.5) * UNIT


@kernel
def normal(a: np.uint64, b: np.uint64) -> float:
    """Standard normal from two numbers (Box and Muller 1958)."""
    return math.sqrt(-2.0 * math.log(uniform(a))) * math.cos(2.0 * math.pi * uniform(b))
