"""`Recording`: an event file that is read in pieces, whatever its format, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import BadEventFile

# t in microseconds from the recording's own zero, x column, y row, p polarity (1: brighter)
EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
PIECE = 1 << 16  # events of a piece
MAX_SIDE = 1 << 14  # pixels: no sensor is wider, a header that says so is damaged
MAX_TIME = 1 << 53  # microseconds, 285 years

Piece = NDArray[Any]
AGAIN = "Fetch or copy the file again."


@dataclass(frozen=True)
class Recording:
    """An event file whose format is known.

    format: its name. sensor: (width, height) as the file says, None where it does not. unit: of the file's times.
    polarity: what the file stores. pieces: opens it anew and gives its events in the order of the file.
    """

    path: Path
    format: str
    sensor: tuple[int, int] | None
    unit: str
    polarity: str
    source: Callable[[], Iterator[Piece]]

    def pieces(self) -> Iterator[Piece]:
        """Arrays of `EVENT`, none empty, each checked.

        Raises:
            BadEventFile: the file is cut or damaged, or holds what no sensor sends.
        """
        number = 0
        for piece in self.source():
            if len(piece):
                check(piece, self, number)
                number += len(piece)
                yield piece

    def read(self, most: int = 100_000_000) -> Piece:
        """All events in one array.

        Raises:
            BadEventFile: as `pieces`; more than ``most`` events.
        """
        found, count = [], 0
        for piece in self.pieces():
            count += len(piece)
            if count > most:
                raise BadEventFile(
                    f"{self.path} holds more than {most:,} events; read it in pieces, or raise the limit"
                )
            found.append(piece)
        return np.concatenate(found) if found else np.empty(0, EVENT)


def check(piece: Piece, recording: Recording, number: int) -> None:
    """Refuse times and addresses that no recording holds. number: events before this piece."""
    width, height = recording.sensor or (MAX_SIDE, MAX_SIDE)
    wrong = (piece["x"] >= width) | (piece["y"] >= height)
    if wrong.any():
        first = int(wrong.argmax())
        raise BadEventFile(
            f"{recording.path} ({recording.format}): event {number + first} lies at pixel ({piece['x'][first]}, "
            f"{piece['y'][first]}), the sensor is {width} x {height}. It is damaged or of another sensor. {AGAIN}"
        )
    strange = (piece["t"] < 0) | (piece["t"] > MAX_TIME)
    if strange.any():
        first = int(strange.argmax())
        raise BadEventFile(
            f"{recording.path} ({recording.format}): event {number + first} is at {piece['t'][first]} us, which is no "
            f"time. It is damaged. {AGAIN}"
        )


def columns(t: Any, x: Any, y: Any, p: Any) -> Piece:
    """Columns of any number type as `EVENT`; values that do not fit become what `check` refuses."""
    made = np.empty(len(t), EVENT)
    made["t"] = t
    for name, value in (("x", x), ("y", y)):
        given = np.asarray(value)
        if given.dtype.kind in "if":
            given = np.where((given < 0) | (given >= 1 << 16), (1 << 16) - 1, given)
        elif given.dtype.itemsize > 2:
            given = np.minimum(given, (1 << 16) - 1)
        made[name] = given
    made["p"] = np.asarray(p) > 0
    return made


@dataclass(frozen=True)
class Info:
    """What a whole recording holds. sensor: as the file says, else the smallest that holds all events."""

    format: str
    events: int
    first_us: int
    last_us: int
    sensor: tuple[int, int]
    sensor_known: bool
    on: int
    unordered: int
    unit: str
    polarity: str

    @property
    def seconds(self) -> float:
        return (self.last_us - self.first_us) / 1e6


def info(recording: Recording) -> Info:
    """Read a recording once, piece by piece, and say what is in it. unordered: events earlier than the one before."""
    events = on = unordered = 0
    first = last = before = None
    width = height = 0
    for piece in recording.pieces():
        t = piece["t"]
        unordered += int((np.diff(t) < 0).sum()) + int(before is not None and t[0] < before)
        before = int(t[-1])
        first = int(t.min()) if first is None else min(first, int(t.min()))
        last = int(t.max()) if last is None else max(last, int(t.max()))
        width, height = max(width, int(piece["x"].max()) + 1), max(height, int(piece["y"].max()) + 1)
        events, on = events + len(piece), on + int(piece["p"].sum())
    return Info(
        recording.format, events, first or 0, last or 0, recording.sensor or (width, height),
        recording.sensor is not None, on, unordered, recording.unit, recording.polarity,
    )  # fmt: skip
