"""`Events`, one sample as a simulator takes it, and `EventSet`, many recordings held compactly.

An `EventSet` keeps recorded times (seconds) and flat channels of all recordings in three arrays; it
is binned sample by sample or batch by batch, so a dense copy of a data set never exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import BadEventFile

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Events:
    """One sample on the step grid. Several events in one (step, channel) count as one spike.

    t: int32[n] step of each event, sorted. x: int32[n] flat channel (row-major index into shape).
    shape: of one step. steps: number of steps. dt: seconds per step.

    Raises:
        BadEventFile: an event outside the grid, arrays of different length, wrong dtype.
    """

    t: NDArray[np.int32]
    x: NDArray[np.int32]
    shape: Shape
    steps: int
    dt: float

    def __post_init__(self) -> None:
        t, x = np.asarray(self.t), np.asarray(self.x)
        n = math.prod(self.shape)
        bad = []
        if t.ndim != 1 or t.shape != x.shape:
            bad.append(f"t {t.shape} and x {x.shape} must be vectors of one length")
        if t.dtype.kind not in "iu" or x.dtype.kind not in "iu":
            bad.append(f"t and x must be integers, got {t.dtype} and {x.dtype}")
        if not (isinstance(self.steps, (int, np.integer)) and self.steps > 0):
            bad.append(f"steps must be a positive integer, got {self.steps!r}")
        if not (np.isfinite(self.dt) and self.dt > 0):
            bad.append(f"dt must be positive seconds, got {self.dt!r}")
        if not bad and t.size:
            if t.min() < 0 or t.max() >= self.steps:
                bad.append(f"steps lie in {t.min()}..{t.max()}, allowed 0..{self.steps - 1}")
            if x.min() < 0 or x.max() >= n:
                bad.append(f"channels lie in {x.min()}..{x.max()}, allowed 0..{n - 1} for shape {self.shape}")
        if bad:
            raise BadEventFile("events cannot be used", bad)
        order = np.lexsort((x, t))
        for name, values in (("t", t), ("x", x)):
            values = np.ascontiguousarray(values[order], dtype=np.int32)
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def to_dense(self) -> NDArray[np.uint8]:
        """uint8[steps, *shape] of 0 and 1."""
        dense = np.zeros((self.steps, math.prod(self.shape)), np.uint8)
        dense[self.t, self.x] = 1
        return dense.reshape(self.steps, *self.shape)

    @classmethod
    def from_dense(cls, dense: ArrayLike, dt: float) -> Events:
        """From an array [steps, ...]; whatever is not zero becomes an event."""
        array = np.asarray(dense)
        if array.ndim < 2 or 0 in array.shape:
            raise BadEventFile(f"a dense sample is [steps, channels...], got shape {array.shape}")
        t, x = np.nonzero(array.reshape(array.shape[0], -1))
        return cls(t.astype(np.int32), x.astype(np.int32), array.shape[1:], array.shape[0], dt)


@dataclass(frozen=True, eq=False)
class EventSet:
    """Labelled recordings in one block of memory.

    times: float32[n_events] seconds from the start of its recording, sorted within a recording.
    channels: int32[n_events] flat index into shape. offsets: int64[n + 1], recording k holds events
    offsets[k]:offsets[k+1]. labels: int64[n]. groups: int64[n], what a split may not tear apart
    (repetition, speaker; the recording's id where there is nothing else). shape: of one step.
    duration: seconds that cover a recording. classes: names in the order of the labels.
    """

    times: NDArray[np.float32]
    channels: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    shape: Shape
    duration: float
    classes: tuple[str, ...]
    name: str = "events"

    def __len__(self) -> int:
        return len(self.labels)

    def recording(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """(times, channels) of one recording, views."""
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.times[span], self.channels[span]

    def subset(self, indices: ArrayLike) -> EventSet:
        """The recordings with these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        take = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            times=self.times[take],
            channels=self.channels[take],
            offsets=offsets,
            labels=self.labels[chosen],
            groups=self.groups[chosen],
        )

    def events(self, index: int, dt: float, steps: int) -> Events:
        """One recording on a grid of ``steps`` steps of ``dt`` seconds; later events are dropped."""
        times, channels = self.recording(index)
        t = np.floor(times.astype(np.float64) / dt).astype(np.int32)
        keep = (t >= 0) & (t < steps)
        return Events(t[keep], channels[keep], self.shape, steps, dt)

    def batch(self, indices: Sequence[int] | NDArray[np.int64], dt: float, steps: int) -> NDArray[np.uint8]:
        """Dense uint8[steps, batch, *shape] of 0 and 1 for some recordings only."""
        n = math.prod(self.shape)
        dense = np.zeros((steps, len(indices), n), np.uint8)
        for column, index in enumerate(indices):
            times, channels = self.recording(int(index))
            t = np.floor(times.astype(np.float64) / dt).astype(np.int64)
            keep = (t >= 0) & (t < steps)
            dense[t[keep], column, channels[keep]] = 1
        return dense.reshape(steps, len(indices), *self.shape)
