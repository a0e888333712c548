"""Columns in a container: npz with arrays t, x, y, p; what it shares with HDF5."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.formats.plain import NAMES
from neuro.datasets.formats.recording import AGAIN, PIECE, Piece, Recording, columns
from neuro.errors import BadEventFile

MAX_NPZ = 1 << 33  # bytes unpacked: an npz cannot be read in pieces


def named(found: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
    """What is called t, x, y and p, by any of their names."""
    chosen = {key: [n for n in known if n in found] for key, known in NAMES.items()}
    missing = [key for key, names in chosen.items() if not names]
    if missing:
        raise BadEventFile(f"{path}{where}: no columns {missing}; found {sorted(found)[:12]}")
    return {key: found[names[0]] for key, names in chosen.items()}


def is_seconds(t: Any) -> bool:
    """Whether times are seconds: real numbers with fractions."""
    return t.dtype.kind == "f" and bool((np.asarray(t[:1000]) % 1 != 0).any())


def micro(t: Any, seconds: bool, path: Path) -> Any:
    """Times as whole microseconds."""
    if t.dtype.kind == "f" and not np.isfinite(t).all():
        raise BadEventFile(f"{path}: times that are NaN or infinite")
    scaled = np.rint(np.asarray(t, np.float64) * 1e6) if seconds else t
    if scaled.dtype.kind == "f" and (np.abs(scaled) > 2**53).any():
        raise BadEventFile(f"{path}: times beyond {2**53} us, which no clock reaches")
    return np.asarray(scaled).astype(np.int64)


def npz(path: Path) -> Recording:
    """An npz of four arrays t, x, y, p, or of one structured array with these fields; no pickled objects.

    Raises:
        BadEventFile: no such arrays; more than 8 GiB unpacked.
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
    sets = named(found, path, " (npz)")
    shapes = {key: value.shape for key, value in sets.items()}
    if len(set(shapes.values())) > 1 or any(v.ndim != 1 or v.dtype.kind not in "buif" for v in sets.values()):
        raise BadEventFile(f"{path} (npz): {shapes} must be four plain columns of one length")
    seconds = is_seconds(sets["t"]) if len(sets["t"]) else False

    def pieces() -> Iterator[Piece]:
        for begin in range(0, len(sets["t"]), PIECE):
            part = {key: d[begin : begin + PIECE] for key, d in sets.items()}
            yield columns(micro(part["t"], seconds, path), part["x"], part["y"], part["p"])

    return Recording(path, "npz", None, "s" if seconds else "us", "1: positive", pieces)
