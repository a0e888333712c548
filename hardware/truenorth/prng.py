"""Who draws random numbers for stochastic synapses, leaks and thresholds; compiled with neuro.jit.

No source says what TrueNorth's generator is. Everything about it is a choice of this model: `bank.GENERATORS`
lists what there is. A further generator is one branch of `draw` (and its twin in plain.py), or needs no code at
all: its numbers, drawn beforehand, are played back by "table".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel

U32 = np.uint32
I64 = np.int64
XORSHIFT32, LFSR16, TABLE = 0, 1, 2  # the order of bank.GENERATORS


@kernel
def draw(
    generator: int, register: NDArray[np.uint32], place: NDArray[np.int64], draws: NDArray[np.uint32], c: int
) -> int:
    """The next number of core c, as an int64 in 0 .. 2^32 - 1."""
    if generator == TABLE:
        at = place[c]
        place[c] = at + 1 if at + 1 < draws.shape[1] else 0
        return I64(draws[c, at])  # type: ignore[return-value]
    x = I64(register[c])
    if generator == LFSR16:
        x = (x >> 1) ^ (0xB400 if x & 1 else 0)
    else:
        x ^= (x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x ^= (x << 5) & 0xFFFFFFFF
    register[c] = U32(x)
    return x  # type: ignore[return-value]
