"""Recordings in HDF5: one group with columns t, x, y, p; read in a process of its own, piece by piece.

The HDF5 library can crash on a damaged file, or never end (`neuro.hdf5_process`): this process opens none. The other
one sends what the file says of itself, or its events, in pieces of `PIECE` that wait until they are taken; a damaged
file costs that process and is one error here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.formats.plain import NAMES
from neuro.datasets.formats.recording import AGAIN, EVENT, MAX_SIDE, PIECE, Piece, Recording, columns
from neuro.datasets.formats.tables import is_seconds, micro, named
from neuro.errors import BadEventFile
from neuro.hdf5_process import WORKER, Ended, Unstarted, answers

PATIENCE_S = 20.0  # for a piece
MAX_CHUNK = 1 << 28  # bytes; a chunk is unpacked whole
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError,
          OverflowError)  # fmt: skip


def hdf5(path: Path) -> Recording:
    """One group with four one-dimensional datasets of equal length; times in us, or in s where real with fractions.

    Links are refused.

    Raises:
        BadEventFile: no such group, or several; datasets of other shapes or kinds, or kept in other files.
    """
    (head,) = asked(path, "events head")
    said = json.loads(head)
    sensor = None if said["sensor"] is None else (int(said["sensor"][0]), int(said["sensor"][1]))

    def pieces() -> Iterator[Piece]:
        for content in asked(path, "events"):
            size = len(content) - 1  # a mark, so that no piece looks like an error
            if size % EVENT.itemsize or size > PIECE * EVENT.itemsize:
                raise BadEventFile(f"{path} (hdf5) is damaged: {size} bytes are no piece of it. {AGAIN}")
            yield np.frombuffer(content, EVENT, offset=1).copy()

    return Recording(path, "hdf5", sensor, "s" if said["seconds"] else "us", "1: positive", pieces)


def asked(path: Path, wanted: str) -> Iterator[bytes]:
    """Frames from the other process, which ends when this generator does. wanted: see `neuro.hdf5_child`.

    Raises:
        BadEventFile: what that process says is wrong with the file, or how it ended.
    """
    question = (str(path.absolute()), str(4 * MAX_CHUNK), str(math.ceil(PATIENCE_S)), wanted)
    found, refusal = False, ""
    try:
        for content in answers(question, PATIENCE_S, WORKER):
            found = True
            if content.startswith(b"error "):  # the last frame; the process may be asked again once it has ended
                refusal = json.loads(content[6:]).replace(str(path.absolute()), str(path))
            else:
                yield content
    except Ended as how:
        raise BadEventFile(f"{path} is no HDF5 file, or damaged: {how}. {AGAIN}") from None
    except Unstarted as cause:
        raise BadEventFile(f"{path}: no process could be started to read it ({cause})") from cause
    if refusal:
        raise BadEventFile(refusal)
    if wanted == "events head" and not found:
        raise BadEventFile(f"{path} is no HDF5 file, or damaged: nothing was read. {AGAIN}")


# ---------------------------------------------------------------- in the other process


def answer(path: Path, head: bool) -> Iterator[bytes]:
    """JSON of sensor and seconds for ``head``, else the events as bytes of `EVENT`; or "error " and the message."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            sets, sensor = _columns(file, path)
            seconds = is_seconds(sets["t"])
            if head:
                yield json.dumps({"sensor": sensor, "seconds": seconds}).encode()
                return
            for begin in range(0, len(sets["t"]), PIECE):
                part = {key: d[begin : begin + PIECE] for key, d in sets.items()}
                yield b"+" + columns(micro(part["t"], seconds, path), part["x"], part["y"], part["p"]).tobytes()
    except BadEventFile as refusal:
        yield b"error " + json.dumps(str(refusal)).encode()
    except DAMAGE as cause:
        said = f"{path} is no HDF5 file, or damaged: {cause}. {AGAIN}"
        yield b"error " + json.dumps(said).encode()


def _columns(file: Any, path: Path) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """The four datasets, and the sensor that the file states."""
    groups: dict[str, None] = {}
    _walk(file, "", groups, path, 0)
    if len(groups) != 1:
        raise BadEventFile(f"{path} (hdf5): {len(groups)} groups hold events {list(groups)[:8]}, needed is one")
    name = next(iter(groups))
    group = file[name or "/"]
    sets = named(dict(group.items()), path, f" (hdf5) {name or '/'}")
    for key, found in sets.items():
        if not hasattr(found, "chunks"):
            raise BadEventFile(f"{path} (hdf5): '{key}' is no dataset")
    lengths = {key: d.shape for key, d in sets.items()}
    strange = [k for k, d in sets.items() if d.ndim != 1 or d.dtype.kind not in "buif" or d.external or d.is_virtual]
    if strange or len(set(lengths.values())) > 1:
        raise BadEventFile(f"{path} (hdf5): {strange or lengths} must be four plain columns of one length")
    for key, d in sets.items():
        if d.chunks and d.chunks[0] * d.dtype.itemsize > MAX_CHUNK:
            raise BadEventFile(
                f"{path} (hdf5): '{key}' is kept in chunks of {d.chunks[0]:,} events, which are unpacked whole, at "
                f"most {MAX_CHUNK:,} bytes; repack it (h5repack -l CHUNK=65536)"
            )
    return sets, _sensor(group.attrs.get("sensor"), path)


def _sensor(said: Any, path: Path) -> tuple[int, int] | None:
    if said is None:
        return None
    sides = np.asarray(said).ravel()
    if sides.dtype.kind not in "iu" or len(sides) != 2 or not all(0 < side <= MAX_SIDE for side in sides.tolist()):
        raise BadEventFile(
            f"{path} (hdf5) says its sensor is {said!r:.60}; two whole numbers up to {MAX_SIDE}. {AGAIN}"
        )
    return int(sides[0]), int(sides[1])


def _walk(group: Any, name: str, found: dict[str, None], path: Path, depth: int) -> None:
    import h5py

    if depth > 8:
        raise BadEventFile(f"{path} (hdf5): groups are nested deeper than 8")
    if all(any(n in group for n in known) for known in NAMES.values()):
        found[name] = None
    for key in list(group)[:1000]:
        link = group.get(key, getlink=True)
        if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
            raise BadEventFile(
                f"{path} (hdf5): '{name}/{key}' is a link, which is not followed; copy the data into the file"
            )
        if group.get(key, getclass=True) is h5py.Group:
            _walk(group[key], f"{name}/{key}", found, path, depth + 1)
