"""`Events`, one sample as a simulator takes it, and `EventSet`, many recordings held compactly.

An `EventSet` keeps recorded times (seconds) and flat channels of all recordings in three arrays; it
is binned sample by sample or batch by batch, so a dense copy of a data set never exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import BadEventFile

Shape = tuple[int, ...]

LARGEST = np.iinfo(np.int32).max  # of steps and of channels: both are held as int32
LARGEST_COUNT = 255  # of events in a step and channel: dense arrays are bytes
MAX_DENSE_BYTES = 1 << 32  # a dense array beyond 4 GiB is a mistake in units


def _grid_problems(shape: object, steps: object, dt: object) -> list[str]:
    bad = []
    sizes: list[Any] = list(shape) if isinstance(shape, tuple) else []
    whole = bool(sizes) and all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes)
    if not whole or math.prod(int(n) for n in sizes) > LARGEST:
        bad.append(f"shape must be a tuple of positive integers, at most {LARGEST} channels, got {shape!r}")
    if not (isinstance(steps, (int, np.integer)) and 0 < steps <= LARGEST):
        bad.append(f"steps must be a whole number in 1..{LARGEST}, got {steps!r}")
    if not (isinstance(dt, (int, float, np.integer, np.floating)) and 0 < dt < math.inf):
        bad.append(f"dt must be positive seconds, got {dt!r}")
    return bad


def _vector(name: str, value: object, kinds: str, bad: list[str]) -> NDArray[Any]:
    """The array of a 1-D column of numbers; what is empty may have any dtype."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as cause:
        bad.append(f"{name} cannot be read as an array ({cause})")
        return np.zeros(0)
    if array.ndim != 1:
        bad.append(f"{name} must be a vector, got shape {array.shape}")
    elif array.size and array.dtype.kind not in kinds:
        bad.append(f"{name} must hold {'whole' if kinds == 'iu' else 'real'} numbers, got {array.dtype}")
    return array


def step_of(times: NDArray[Any], dt: float) -> NDArray[np.float64]:
    """Step that an event at each time (seconds, float32) falls into: the floor of time / dt.

    A time is taken up to one unit in the last place of float32 too small: float32(0.007) lies below 7 ms,
    and a recording with events exactly on the grid would lose half of them to the step before.
    """
    return np.floor(times.astype(np.float64) * (1 + 2.0**-23) / dt)


@dataclass(frozen=True, eq=False)
class Events:
    """One sample on the step grid. Several events in one (step, channel) are one spike, unless they are counted.

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
        bad = _grid_problems(self.shape, self.steps, self.dt)
        t, x = _vector("t", self.t, "iu", bad), _vector("x", self.x, "iu", bad)
        if t.size != x.size:
            bad.append(f"t has {t.size} events and x has {x.size}")
        if not bad and t.size:
            n = math.prod(self.shape)
            if t.min() < 0 or t.max() >= self.steps:
                bad.append(f"steps lie in {t.min()}..{t.max()}, allowed 0..{self.steps - 1}")
            if x.min() < 0 or x.max() >= n:
                bad.append(f"channels lie in {x.min()}..{x.max()}, allowed 0..{n - 1} for shape {self.shape}")
        if bad:
            raise BadEventFile("events cannot be used", bad)
        order = np.lexsort((x, t))
        for name, values in (("t", t), ("x", x)):
            column = values[order].astype(np.int32)
            column.setflags(write=False)
            object.__setattr__(self, name, column)

    def plot(self, ax: Any = None) -> Any:
        """Channel over time, a dot per event, on matplotlib axes (``ax``, or new ones)."""
        from neuro.object_plots import events

        return events(self, ax)

    def to_dense(self, high: int = 1) -> NDArray[np.uint8]:
        """uint8[steps, *shape]: events per step and channel, at most ``high`` (1..255); 1 for spikes, 0 and 1.

        Raises:
            BadEventFile: it would hold more than `MAX_DENSE_BYTES`; ``high`` is not in 1..255.
        """
        _check_high(high)
        dense = _dense(self.steps, 1, self.shape)
        count_events(dense[:, 0], self.t, self.x, high)
        return dense.reshape(self.steps, *self.shape)

    @classmethod
    def from_dense(cls, dense: ArrayLike, dt: float) -> Events:
        """From an array [steps, ...]; whatever is not zero becomes an event.

        Raises:
            BadEventFile: no numbers, NaN, no steps or channels, or as the constructor.
        """
        bad: list[str] = []
        try:
            array = np.asarray(dense)
        except (TypeError, ValueError, RuntimeError) as cause:
            raise BadEventFile(f"a dense sample must be an array ({cause})") from cause
        if array.ndim < 2 or 0 in array.shape:
            bad.append(f"a dense sample is [steps, channels...], got shape {array.shape}")
        if array.dtype.kind not in "buif":
            bad.append(f"a dense sample holds numbers, got {array.dtype}")
        elif not np.isfinite(array).all():
            bad.append("a dense sample holds NaN or infinite values")
        if bad:
            raise BadEventFile("events cannot be read", bad)
        t, x = np.nonzero(array.reshape(array.shape[0], -1))
        return cls(t, x, array.shape[1:], array.shape[0], dt)  # type: ignore[arg-type]  # int64 becomes int32


def count_events(dense: NDArray[np.uint8], t: NDArray[Any], x: NDArray[Any], high: int) -> None:
    """Fill dense [steps, n], zero before, with the events (t, x) of each step and channel, at most ``high``."""
    if high == 1:
        dense[t, x] = 1
        return
    at, counts = np.unique(t.astype(np.int64) * dense.shape[1] + x, return_counts=True)
    dense[at // dense.shape[1], at % dense.shape[1]] = np.minimum(counts, high)


def _check_high(high: object) -> None:
    if not isinstance(high, (int, np.integer)) or isinstance(high, bool) or not 1 <= high <= LARGEST_COUNT:
        raise BadEventFile(f"high must be a whole number in 1..{LARGEST_COUNT}, got {high!r}")


def _dense(steps: int, batch: int, shape: Shape) -> NDArray[np.uint8]:
    n = math.prod(shape)
    if steps * batch * n > MAX_DENSE_BYTES:
        raise BadEventFile(
            f"a dense array of {steps} steps x {batch} samples x {n} channels needs {steps * batch * n} bytes, "
            f"at most {MAX_DENSE_BYTES}; take fewer samples at once or a longer dt"
        )
    return np.zeros((steps, batch, n), np.uint8)


@dataclass(frozen=True, eq=False)
class EventSet:
    """Labelled recordings in one block of memory.

    times: float32[n_events] seconds from the start of its recording, sorted within a recording.
    channels: int32[n_events] flat index into shape. offsets: int64[n + 1], recording k holds events
    offsets[k]:offsets[k+1]. labels: int64[n]. groups: int64[n], what a split may not tear apart
    (repetition, speaker; the recording's id where there is nothing else). shape: of one step.
    duration: seconds that cover a recording. classes: names in the order of the labels.

    Raises:
        BadEventFile: columns that disagree, channels or labels out of range, times that are negative,
            not finite or not sorted; all of them at once.
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

    def __post_init__(self) -> None:
        bad = _grid_problems(self.shape, 1, self.duration)
        bad = [line.replace("dt must", "duration must") for line in bad]
        columns = {
            "times": _vector("times", self.times, "iuf", bad),
            **{n: _vector(n, getattr(self, n), "iu", bad) for n in ("channels", "offsets", "labels", "groups")},
        }
        if not bad:
            bad = self._disagreements(**columns)
        if bad:
            raise BadEventFile(f"'{self.name}' cannot be used as a set of recordings", bad)
        kinds = {"times": np.float32, "channels": np.int32}
        for name, values in columns.items():
            object.__setattr__(self, name, values.astype(kinds.get(name, np.int64), copy=False))
        object.__setattr__(self, "classes", tuple(self.classes))

    def _disagreements(
        self,
        times: NDArray[Any],
        channels: NDArray[Any],
        offsets: NDArray[Any],
        labels: NDArray[Any],
        groups: NDArray[Any],
    ) -> list[str]:
        bad = []
        n = math.prod(self.shape)
        if times.size != channels.size:
            bad.append(f"{times.size} times, but {channels.size} channels")
        if not offsets.size == labels.size + 1 == groups.size + 1:
            bad.append(f"{labels.size} labels need as many groups ({groups.size}) and one offset more ({offsets.size})")
        elif offsets[0] != 0 or offsets[-1] != times.size or (offsets[1:] < offsets[:-1]).any():
            bad.append(f"offsets must rise from 0 to the number of events, {times.size}")
        elif times.size:
            falls = np.flatnonzero(times[1:] < times[:-1]) + 1
            if not np.isin(falls, offsets).all():
                bad.append("times must be sorted within each recording")
        if times.size and not (np.isfinite(times).all() and times.min() >= 0):
            bad.append("times must be finite seconds, not negative")
        if channels.size and (channels.min() < 0 or channels.max() >= n):
            bad.append(f"channels lie in {channels.min()}..{channels.max()}, allowed 0..{n - 1} for shape {self.shape}")
        if labels.size and (labels.min() < 0 or labels.max() >= len(self.classes)):
            bad.append(f"labels lie in {labels.min()}..{labels.max()}, there are {len(self.classes)} classes")
        return bad

    def __len__(self) -> int:
        return len(self.labels)

    def recording(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """(times, channels) of one recording, views."""
        if not 0 <= index < len(self):
            raise IndexError(f"recording {index} of {len(self)}")  # IndexError: what a sequence raises
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.times[span], self.channels[span]

    def subset(self, indices: ArrayLike) -> EventSet:
        """The recordings with these indices, in this order; or those where a mask of all is true."""
        given = np.asarray(indices)
        chosen = np.flatnonzero(given) if given.dtype.kind == "b" else given.astype(np.int64)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        if outside.size or (given.dtype.kind == "b" and given.shape != self.labels.shape):
            asked = outside[:5].tolist() or given.shape
            raise IndexError(f"'{self.name}' has {len(self)} recordings, asked for {asked}")
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
        """One recording on a grid of ``steps`` steps of ``dt`` seconds; later events are dropped.

        Raises:
            BadEventFile: dt is not positive, or steps not a positive integer.
        """
        t, channels = self._binned(index, dt, steps)
        return Events(t, channels, self.shape, steps, dt)  # type: ignore[arg-type]  # int64 becomes int32

    def batch(
        self, indices: Sequence[int] | NDArray[np.int64], dt: float, steps: int, high: int = 1
    ) -> NDArray[np.uint8]:
        """Dense uint8[steps, batch, *shape] for some recordings only: events counted up to ``high`` (1..255),
        what `neuro.ir.Input.high` of the network says; 1 for spikes, 0 and 1.

        Raises:
            BadEventFile: as `events`; more than `MAX_DENSE_BYTES` at once; ``high`` is not in 1..255.
        """
        _check_high(high)
        bad = _grid_problems(self.shape, steps, dt)
        if bad:
            raise BadEventFile("events cannot be binned", bad)
        dense = _dense(steps, len(indices), self.shape)
        for column, index in enumerate(indices):
            t, channels = self._binned(int(index), dt, steps)
            count_events(dense[:, column], t, channels, high)
        return dense.reshape(steps, len(indices), *self.shape)

    def _binned(self, index: int, dt: float, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        bad = _grid_problems(self.shape, steps, dt)
        if bad:
            raise BadEventFile("events cannot be binned", bad)
        times, channels = self.recording(index)
        t = step_of(times, dt)
        keep = t < steps
        return t[keep].astype(np.int64), channels[keep]
