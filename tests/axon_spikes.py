"""What `neuro.hardware.spikes` adds up and finds, as numbers: with NUMBA_DISABLE_JIT=1 without the compiler.

NUMBA_DISABLE_JIT=1 python axon_spikes.py 3 7 11
"""

from __future__ import annotations

import sys
import zlib

import numpy as np

from neuro.hardware import spikes


def numbers(seed: int) -> tuple[int, ...]:
    """Checksums of a ring of sums after random events, and of the events that stand in random flags."""
    rng = np.random.default_rng([13, seed])
    sources, parts = int(rng.integers(4, 30)), np.array([0, 20, 37])
    target, source = np.nonzero(rng.random((37, sources)) < rng.choice([0.1, 1.0]))
    late, weight = rng.integers(0, 1 + 2 * (seed % 2), source.size), rng.integers(-1000, 1000, source.size)
    blocks = spikes.blocks_of(source, late, target, weight, sources, parts)
    width = spikes.width_of(37)
    flags, events = np.zeros(8, np.uint64), np.zeros(64 + spikes.AHEAD, np.int32)
    flags.view(np.uint8)[:sources] = rng.random(sources) < 0.6
    count = int(spikes.collect(flags, np.int64(0), np.int64(1), events, np.int64(0)))
    sums = np.zeros(4 * width, np.int32)
    spikes.spread(sums, sums.size, width * (seed % 4), events, 0, count, blocks)
    return zlib.crc32(events[:count].tobytes()), zlib.crc32(sums.tobytes()), count


if __name__ == "__main__":
    for one in map(int, sys.argv[1:]):
        print(one, *numbers(one))
