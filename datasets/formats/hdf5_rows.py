"""Recordings of published sets in HDF5 (SHD, SSC, N-TIDIGITS18), one at a time from the process that reads the file.

See `neuro.hdf5_process` for why there is one. A frame is a note (JSON) and arrays; the first says what the file holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import BadEventFile

Row = tuple[Any, list[NDArray[Any]]]
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, MemoryError)


def rows(path: Path, wanted: str) -> Iterator[Row]:
    """(note, arrays) of a file. wanted: "heidelberg", or "ntidigits PART".

    Raises:
        BadEventFile: another layout, a damaged file, no process to read it.
    """
    from neuro.datasets.formats.hdf5_events import asked

    for content in asked(path, wanted):
        yield _unpacked(content, path)


def _packed(note: Any, *arrays: Any) -> bytes:
    plain = [np.ascontiguousarray(a) for a in arrays]
    if any(a.dtype.kind not in "buif" for a in plain):
        raise TypeError(f"arrays of {[str(a.dtype) for a in plain]}, numbers are needed")
    head = json.dumps([note, [[a.dtype.str, list(np.shape(b))] for a, b in zip(plain, arrays, strict=True)]]).encode()
    return b"+" + len(head).to_bytes(4, "big") + head + b"".join(a.tobytes() for a in plain)


def _unpacked(content: bytes, path: Path) -> Row:
    begin = 5 + int.from_bytes(content[1:5], "big")
    note, kinds = json.loads(content[5:begin])
    arrays = []
    for name, shape in kinds:
        kind = np.dtype(name)
        count = int(np.prod(shape, dtype=np.int64))
        if kind.kind not in "buif" or begin + count * kind.itemsize > len(content):
            raise BadEventFile(f"{path}: cannot be read, its reader sends what is no row. Fetch it again.")
        arrays.append(np.frombuffer(content, kind, count, begin).reshape(shape))
        begin += count * kind.itemsize
    return note, arrays


# ---------------------------------------------------------------- in the other process


def answer(path: Path, wanted: str) -> Iterator[bytes]:
    """The rows as bytes; or "error " and the message."""
    import h5py

    kind, _, part = wanted.partition(" ")
    try:
        with h5py.File(path, "r") as file:
            yield from _heidelberg(file) if kind == "heidelberg" else _ntidigits(file, part)
    except DAMAGE as cause:
        said = f"{path}: cannot be read as this data set's HDF5 ({cause}). Fetch it again."
        yield b"error " + json.dumps(said).encode()


def _heidelberg(file: Any) -> Iterator[bytes]:
    """First labels, speakers (their numbers where the file names none), names of classes; then (times, units)."""
    labels = np.asarray(file["labels"])
    extra = file.get("extra", {})
    speakers = np.asarray(extra["speaker"]) if "speaker" in extra else np.arange(len(labels))
    names = [_text(k) for k in np.asarray(extra["keys"])] if "keys" in extra else []
    times, units = file["spikes/times"], file["spikes/units"]
    yield _packed({"names": names, "times": len(times), "units": len(units)}, labels, speakers)
    for k in range(min(len(times), len(units), len(labels))):
        yield _packed(None, np.asarray(times[k]), np.asarray(units[k]))


def _ntidigits(file: Any, part: str) -> Iterator[bytes]:
    """(name, (times, units)) of every single digit."""
    for raw in np.asarray(file[f"{part}_labels"]):
        name = _text(raw)
        if len(name.rpartition("-")[2]) == 1:
            times, units = (np.asarray(file[f"{part}_{kind}"][name]) for kind in ("timestamps", "addresses"))
            yield _packed(name, times, units)


def _text(raw: Any) -> str:
    return raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)
