"""Which places a pixel of a convolution's input reaches, and through which taps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Pixel p of the input, in C order, reaches for k in start[p]:start[p + 1] the places place[k], place[k] + 1, ...
    of the output, count[k] of them, through the taps tap[k], tap[k] + 1, ...

    Tap j is the tap order[j] of the kernel in C order. Taps are ordered so that places side by side in a row read
    taps side by side: a kernel row from its end, in steps of the stride. With groups each run has one place: the
    channels of a group are not the whole of a place.
    """

    size: Pair  # of the output
    order: NDArray[np.int64]
    start: NDArray[np.uint32]
    place: NDArray[np.uint32]
    tap: NDArray[np.uint32]
    count: NDArray[np.uint32]

    @property
    def tables(self) -> tuple[Any, ...]:
        """As the kernels take them."""
        return self.start, self.place, self.tap, self.count


@lru_cache(64)
def geometry(shape: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, alone: bool) -> Geometry:
    """The geometry of a `torch.nn.Conv2d` over [height, width]. alone: runs of one place."""
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation, strict=True)
    )
    step = stride[1] // dilation[1] if stride[1] % dilation[1] == 0 else 1
    row = [x for first in range(min(step, kernel[1])) for x in reversed(range(first, kernel[1], step))]
    order = np.array([y * kernel[1] + x for y in range(kernel[0]) for x in row], np.int64)
    rank = np.argsort(order)
    start = [0]
    runs: list[list[int]] = []
    for pixel in np.ndindex(*shape):
        reached = [
            (y * width + x, int(rank[ky * kernel[1] + kx]))
            for y, ky in _axis(pixel[0], kernel[0], stride[0], padding[0], dilation[0], height)
            for x, kx in _axis(pixel[1], kernel[1], stride[1], padding[1], dilation[1], width)
        ]
        begin = len(runs)
        for place, tap in sorted(reached):
            last = runs[-1] if len(runs) > begin and not alone else None
            if last is not None and (last[0] + last[2], last[1] + last[2]) == (place, tap):
                last[2] += 1
            else:
                runs.append([place, tap, 1])
        start.append(len(runs))
    columns = np.array(runs, np.uint32).reshape(-1, 3).T
    place_, tap_, count = (np.ascontiguousarray(c) for c in columns)
    return Geometry((height, width), order, np.array(start, np.uint32), place_, tap_, count)


def _axis(pixel: int, kernel: int, stride: int, padding: int, dilation: int, size: int) -> list[Pair]:
    """(place, tap) along one axis."""
    found = []
    for tap in range(kernel):
        place, rest = divmod(pixel + padding - tap * dilation, stride)
        if rest == 0 and 0 <= place < size:
            found.append((place, tap))
    return found
