"""Which places a pixel of a convolution's input reaches, and through which taps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]
KINDS = 32  # at most; what is rarer shares the last


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
    kind: NDArray[np.uint8]  # of each pixel: those of a kind have as many runs, which are as long
    group: NDArray[np.uint32]  # of each pixel: those of a group reach the same taps, at places as far from the first
    model: NDArray[np.uint32]  # of each group: its first pixel
    reach: NDArray[np.uint32]  # [runs, 4]: the same from the places' side, place, tap (C order), pixel, count

    @property
    def kinds(self) -> int:
        return int(self.kind.max()) + 1

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
    known: dict[tuple[int, ...], int] = {}
    lengths = [tuple(r[2] for r in runs[a:b]) for a, b in itertools.pairwise(start)]
    kind = np.array([min(known.setdefault(c, len(known)), KINDS - 1) for c in lengths], np.uint8)
    groups: dict[tuple[Any, ...], int] = {}
    alike = [tuple((r[0] - runs[a][0], *r[1:]) for r in runs[a:b]) for a, b in itertools.pairwise(start)]
    group = np.array([groups.setdefault(c, len(groups)) for c in alike], np.uint32)
    model = np.unique(group, return_index=True)[1].astype(np.uint32)
    reach = np.array(_reach(shape, (height, width), kernel, stride, padding, dilation), np.uint32).reshape(-1, 4)
    begins = np.array(start, np.uint32)
    return Geometry((height, width), order, begins, place_, tap_, count, kind, group, model, reach)


def _reach(shape: Pair, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> list[list[int]]:
    """[place, tap, pixel, count] of every run: taps and pixels side by side that a place is reached by."""
    runs: list[list[int]] = []
    for number, (y, x) in enumerate(np.ndindex(*size)):
        for ky in range(kernel[0]):
            row = y * stride[0] - padding[0] + ky * dilation[0]
            begin = len(runs)
            for kx in range(kernel[1]):
                column = x * stride[1] - padding[1] + kx * dilation[1]
                if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                    continue
                tap, pixel = ky * kernel[1] + kx, row * shape[1] + column
                last = runs[-1] if len(runs) > begin else None
                if last is not None and (last[1] + last[3], last[2] + last[3]) == (tap, pixel):
                    last[3] += 1
                else:
                    runs.append([number, tap, pixel, 1])
    return runs


def _axis(pixel: int, kernel: int, stride: int, padding: int, dilation: int, size: int) -> list[Pair]:
    """(place, tap) along one axis."""
    found = []
    for tap in range(kernel):
        place, rest = divmod(pixel + padding - tap * dilation, stride)
        if rest == 0 and 0 <= place < size:
            found.append((place, tap))
    return found
