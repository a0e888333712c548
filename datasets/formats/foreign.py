"""Formats that faery reads correctly: EVT2, EVT3, AEDAT4, ES (LGPL-3.0, an extra; nothing of it is here)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.formats.recording import AGAIN, MAX_SIDE, Piece, Recording, columns
from neuro.errors import BadEventFile
from neuro.extend import require

KINDS = {"evt2": "evt", "evt3": "evt", "aedat4": "aedat", "es": "es"}


def _open(path: Path, name: str) -> Any:
    faery = require("faery", "events")
    version = {"evt2": "evt2", "evt3": "evt3"}.get(name)
    try:
        return faery.events_stream_from_file(path, file_type=KINDS[name], version_fallback=version)
    except BaseException as cause:  # its decoders are compiled: what they raise is not an Exception
        raise _refused(path, name, cause) from cause


def _refused(path: Path, name: str, cause: BaseException) -> BaseException:
    if isinstance(cause, (KeyboardInterrupt, SystemExit, MemoryError)):
        return cause
    return BadEventFile(f"{path} is no {name} file, or damaged: {type(cause).__name__}: {cause}. {AGAIN}")


def _recording(path: Path, name: str, polarity: str) -> Recording:
    width, height = (int(side) for side in _open(path, name).dimensions())
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise BadEventFile(f"{path} ({name}) says its sensor is {width} x {height} pixels, at most {MAX_SIDE}. {AGAIN}")

    def pieces() -> Iterator[Piece]:
        stream = iter(_open(path, name))
        while True:
            try:
                packet = next(stream, None)
            except BaseException as cause:
                raise _refused(path, name, cause) from cause
            if packet is None:
                return
            yield columns(packet["t"].astype(np.int64), packet["x"], packet["y"], packet["on"])

    return Recording(path, name, (width, height), "us", polarity, pieces)


def evt2(path: Path) -> Recording:
    """Prophesee EVT 2.0."""
    return _recording(path, "evt2", "1: CD_ON, brighter")


def evt3(path: Path) -> Recording:
    """Prophesee EVT 3.0."""
    return _recording(path, "evt3", "1: CD_ON, brighter")


def aedat4(path: Path) -> Recording:
    """iniVation AEDAT 4.0, its first event stream."""
    return _recording(path, "aedat4", "1: on")


def es(path: Path) -> Recording:
    """Event Stream (Marcireau et al.), DVS events."""
    return _recording(path, "es", "1: increase")
