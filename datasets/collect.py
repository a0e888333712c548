"""Put recordings together into an `EventSet` without holding them twice."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.aer import Columns
from neuro.errors import BadEventFile
from neuro.events import EventSet, Shape

MICROSECOND = 1e-6
SPILL = 64 * 2**20  # events; beyond it (512 MiB) the two columns live in an unnamed temporary file


def seconds(t_us: NDArray[Any]) -> NDArray[np.float32]:
    """Whole microseconds as float32 seconds; `ticks` gives them back exactly below 8.3 s (2**23 us)."""
    return (t_us.astype(np.float64) * MICROSECOND).astype(np.float32)


def ticks(times: NDArray[np.float32]) -> NDArray[np.int64]:
    """The whole microseconds nearest to times in seconds."""
    return np.rint(times.astype(np.float64) / MICROSECOND).astype(np.int64)


class Collector:
    """Appends recordings; ``finish`` gives the `EventSet`. Large sets spill to an unnamed file."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
        self._held = 0
        self._spilled = 0
        self._files: tuple[Any, Any] | None = None
        self._lengths: list[int] = []
        self.labels: list[int] = []
        self.groups: list[int] = []
        self.classes: list[str] = []  # where the files name them

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, times: NDArray[np.float32], channels: NDArray[np.int32], label: int, group: int) -> None:
        """One recording, its events sorted by time."""
        self._parts.append((times, channels))
        self._lengths.append(len(times))
        self.labels.append(label)
        self.groups.append(group)
        self._held += len(times)
        if self._held > SPILL:
            self._spill()

    def _spill(self) -> None:
        if self._files is None:
            self._files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115  the EventSet maps them
        for times, channels in self._parts:
            np.ascontiguousarray(times, np.float32).tofile(self._files[0])
            np.ascontiguousarray(channels, np.int32).tofile(self._files[1])
        self._spilled += self._held
        self._parts, self._held = [], 0

    def finish(self, shape: Shape, duration: float | None, classes: tuple[str, ...], name: str) -> EventSet:
        """duration: seconds; None takes the last event's."""
        times: NDArray[np.float32]
        channels: NDArray[np.int32]
        if self._files is not None:
            self._spill()
            for file in self._files:
                file.flush()
            times = np.memmap(self._files[0], np.float32, "r", shape=(self._spilled,))
            channels = np.memmap(self._files[1], np.int32, "r", shape=(self._spilled,))
            for file in self._files:
                file.close()  # the maps keep the content, and it goes with them
        else:
            times = np.concatenate([p[0] for p in self._parts] or [np.zeros(0, np.float32)])
            channels = np.concatenate([p[1] for p in self._parts] or [np.zeros(0, np.int32)])
        offsets = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]).astype(np.int64)
        if duration is None:
            duration = float(times.max()) + MICROSECOND if len(times) else 1.0
        columns = (times, channels, offsets, np.array(self.labels, np.int64), np.array(self.groups, np.int64))
        for column in columns:
            column.setflags(write=False)
        return EventSet(*columns, shape, duration, classes, name)


def pixel_channels(events: Columns, shape: Shape) -> NDArray[np.int32]:
    """Flat index into shape (polarities, height, width)."""
    _, height, width = shape
    return ((events.p * height + events.y) * width + events.x).astype(np.int32)


def check_complete(file: str, labels: dict[int, int], found: set[int], classes: int) -> None:
    """Labels and recordings must name each other, and every label must be a class.

    Raises:
        BadEventFile: with every kind of disagreement.
    """
    bad = []
    for title, ids in (
        ("recordings without a label", sorted(found - labels.keys())),
        ("labels without a recording (the file may be cut)", sorted(labels.keys() - found)),
        (f"labels outside 0..{classes - 1}", sorted(i for i, label in labels.items() if not 0 <= label < classes)),
    ):
        if ids:
            bad.append(f"{len(ids)} {title}, such as {', '.join(map(str, ids[:3]))}")
    if bad:
        raise BadEventFile(f"{file}: labels and recordings disagree", bad)


def side(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the fifth of recordings that validates; depends on nothing but the id itself.

    A recording stays on its side whatever file it comes in, so a training set never meets another
    file's validation set. Fibonacci hashing: the fractional part of id / golden ratio + 1/2, below
    1/5; consecutive ids are spread as evenly as ids allow.
    """
    golden = (math.sqrt(5) - 1) / 2
    return (ids.astype(np.float64) * golden + 0.5) % 1.0 < 0.2
