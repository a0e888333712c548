"""Columns in a container: HDF5 and npz with datasets t, x, y, p."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.formats.plain import NAMES
from neuro.datasets.formats.recording import AGAIN, MAX_SIDE, PIECE, Piece, Recording, columns
from neuro.errors import BadEventFile

MAX_NPZ = 1 << 33  # bytes unpacked: an npz cannot be read in pieces


def _named(found: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
    chosen = {key: [n for n in known if n in found] for key, known in NAMES.items()}
    missing = [key for key, names in chosen.items() if not names]
    if missing:
        raise BadEventFile(f"{path}{where}: no columns {missing}; found {sorted(found)[:12]}")
    return {key: found[names[0]] for key, names in chosen.items()}


def _unit(t: Any) -> bool:
    """Whether times are seconds: real numbers with fractions."""
    return t.dtype.kind == "f" and bool((np.asarray(t[:1000]) % 1 != 0).any())


def hdf5(path: Path) -> Recording:
    """One group with four one-dimensional datasets of equal length; times in us, or in s where real with fractions.

    Links that leave the file are refused.

    Raises:
        BadEventFile: no such group, or several; datasets of other shapes or kinds, or kept in other files.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            groups: dict[str, None] = {}
            _walk(file, "", groups, path, 0)
            if len(groups) != 1:
                raise BadEventFile(f"{path} (hdf5): {len(groups)} groups hold events {list(groups)[:8]}, needed is one")
            name = next(iter(groups))
            sets = _named(dict(file[name or "/"].items()), path, f" (hdf5) {name or '/'}")
            lengths = {key: d.shape for key, d in sets.items()}
            strange = [
                k for k, d in sets.items() if d.ndim != 1 or d.dtype.kind not in "buif" or d.external or d.is_virtual
            ]
            if strange or len(set(lengths.values())) > 1:
                raise BadEventFile(f"{path} (hdf5): {strange or lengths} must be four plain columns of one length")
            seconds = _unit(sets["t"])
            keys = {key: d.name for key, d in sets.items()}
            sensor = _sensor(file[name or "/"].attrs.get("sensor"), path)
    except (OSError, RuntimeError, KeyError, ValueError) as cause:
        if isinstance(cause, BadEventFile):
            raise
        raise BadEventFile(f"{path} is no HDF5 file, or damaged: {cause}. {AGAIN}") from cause

    def pieces() -> Iterator[Piece]:
        try:
            with h5py.File(path, "r") as file:
                columns_of = {key: file[where] for key, where in keys.items()}
                for begin in range(0, len(columns_of["t"]), PIECE):
                    part = {key: d[begin : begin + PIECE] for key, d in columns_of.items()}
                    yield columns(_micro(part["t"], seconds, path), part["x"], part["y"], part["p"])
        except (OSError, RuntimeError, KeyError) as cause:
            raise BadEventFile(f"{path} (hdf5) is damaged: {cause}. {AGAIN}") from cause

    return Recording(path, "hdf5", sensor, "s" if seconds else "us", "1: positive", pieces)


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


def _micro(t: Any, seconds: bool, path: Path) -> Any:
    if t.dtype.kind == "f" and not np.isfinite(t).all():
        raise BadEventFile(f"{path}: times that are NaN or infinite")
    scaled = np.rint(np.asarray(t, np.float64) * 1e6) if seconds else t
    if scaled.dtype.kind == "f" and (np.abs(scaled) > 2**53).any():
        raise BadEventFile(f"{path}: times beyond {2**53} us, which no clock reaches")
    return np.asarray(scaled).astype(np.int64)


def npz(path: Path) -> Recording:
    """An npz of four arrays t, x, y, p, or of one structured array with these fields; no pickled objects.

    Raises:
        BadEventFile: as `hdf5`; more than 8 GiB unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_NPZ:
                raise BadEventFile(f"{path} (npz) unpacks to {size:,} bytes, at most {MAX_NPZ:,}; convert it to hdf5")
        with np.load(path, allow_pickle=False) as arrays:
            if {"t", "x", "offsets"} <= set(arrays.files):
                raise BadEventFile(
                    f"{path} holds samples of `neuro simulate`, not one recording; give it to that command"
                )
            found: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    except BadEventFile:
        raise
    except Exception as cause:  # zip, npy header, dtype: each raises its own
        raise BadEventFile(
            f"{path} is no npz of arrays, or damaged: {type(cause).__name__}: {cause}. {AGAIN}"
        ) from cause
    for value in list(found.values()):
        if value.dtype.names:
            found |= {name: value[name] for name in value.dtype.names}
    sets = _named(found, path, " (npz)")
    shapes = {key: value.shape for key, value in sets.items()}
    if len(set(shapes.values())) > 1 or any(v.ndim != 1 or v.dtype.kind not in "buif" for v in sets.values()):
        raise BadEventFile(f"{path} (npz): {shapes} must be four plain columns of one length")
    seconds = _unit(sets["t"]) if len(sets["t"]) else False

    def pieces() -> Iterator[Piece]:
        for begin in range(0, len(sets["t"]), PIECE):
            part = {key: d[begin : begin + PIECE] for key, d in sets.items()}
            yield columns(_micro(part["t"], seconds, path), part["x"], part["y"], part["p"])

    return Recording(path, "npz", None, "s" if seconds else "us", "1: positive", pieces)
