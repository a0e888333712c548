"""NumPy ``.npz`` files read without trust, and EVENTS.npz, the samples that commands exchange."""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import BadEventFile
from neuro.events import Events
from neuro.files import atomic_path

MAX_ARRAY = 2 * 2**30
DAMAGE = (  # what zipfile and numpy raise on spoiled files
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    NotImplementedError,
    RuntimeError,  # an encrypted member
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    SyntaxError,
    MemoryError,
    OverflowError,
)


class Wanted(NamedTuple):
    """What an array must be. kinds: letters of dtype.kind; ndim: number of axes."""

    kinds: str
    ndim: int
    required: bool = True


def _array(archive: zipfile.ZipFile, member: str, limit: int) -> NDArray[Any]:
    """One ``.npy`` member, not larger than ``limit`` bytes."""
    size = archive.getinfo(member).file_size
    if size > limit:
        raise ValueError(f"'{member}' unpacks to {size} bytes, allowed {limit}")
    with archive.open(member) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"'{member}' unpacks to more than {limit} bytes")
    return array_of(data, f"'{member}'")


def array_of(data: bytes, name: str) -> NDArray[Any]:
    """The array of a ``.npy`` file's content; one of `DAMAGE` when it cannot be, never a pickle."""
    handle = io.BytesIO(data)
    version = np.lib.format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has npy version {version}, allowed 1.0 and 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, which are never loaded")
    rest = len(data) - handle.tell()
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{name} promises shape {shape} of {dtype}, {rest} bytes are there")
    array = np.frombuffer(data, dtype, math.prod(shape), handle.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def read_arrays(path: Path | str, wanted: Mapping[str, Wanted], limit: int = MAX_ARRAY) -> dict[str, NDArray[Any]]:
    """The wanted arrays of an ``.npz`` by name; optional ones may be absent.

    Raises:
        BadEventFile: not an npz, damaged, an array missing, of another kind or larger than limit bytes.
    """
    found: dict[str, NDArray[Any]] = {}
    bad = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            for name, want in wanted.items():
                if f"{name}.npy" not in members:
                    if want.required:
                        bad.append(f"no array '{name}' (it has {', '.join(sorted(members)[:10]) or 'none'})")
                    continue
                array = _array(archive, f"{name}.npy", limit)
                if array.dtype.kind not in want.kinds or array.ndim != want.ndim:
                    bad.append(
                        f"'{name}' is {array.dtype} with {array.ndim} axes, expected kind {want.kinds} with {want.ndim}"
                    )
                found[name] = array
    except DAMAGE as cause:
        raise BadEventFile(f"{path}: not a readable npz file ({cause}). Write or fetch it again.") from cause
    if bad:
        raise BadEventFile(f"{path}: arrays do not fit", bad)
    return found


def write_npz(path: Path | str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` whole or not at all: a temporary file beside it, then a rename."""
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


_EVENTS = {
    "t": Wanted("iu", 1),
    "x": Wanted("iu", 1),
    "shape": Wanted("iu", 1),
    "dt": Wanted("f", 0),
    "steps": Wanted("iu", 0),
    "offsets": Wanted("iu", 1, required=False),
    "labels": Wanted("iu", 1, required=False),
}


class EventFile(NamedTuple):
    """Samples of one shape, dt and number of steps; labels: int64[n], or None where nobody knows."""

    samples: tuple[Events, ...]
    labels: NDArray[np.int64] | None


def save_events_npz(
    path: Path | str, samples: Sequence[Events], labels: Sequence[int] | NDArray[np.int64] | None = None
) -> None:
    """Write EVENTS.npz.

    t: int32[n_events] step; x: int32[n_events] flat channel; offsets: int64[n + 1], sample k holds
    events offsets[k]:offsets[k+1]; shape: int64[axes]; dt: float64 seconds; steps: int64;
    labels: int64[n] where given.

    Raises:
        BadEventFile: no sample, samples that differ in shape, dt or steps, another number of labels.
    """
    grids = {(s.shape, s.dt, s.steps) for s in samples}
    if len(grids) != 1:
        raise BadEventFile(
            f"{path}: a file holds samples of one shape, dt and number of steps, got {len(grids)} different ones"
        )
    if labels is not None and len(labels) != len(samples):
        raise BadEventFile(f"{path}: {len(labels)} labels for {len(samples)} samples")
    shape, dt, steps = grids.pop()
    arrays: dict[str, NDArray[Any]] = {
        "t": np.concatenate([s.t for s in samples]),
        "x": np.concatenate([s.x for s in samples]),
        "offsets": np.cumsum([0] + [len(s.t) for s in samples], dtype=np.int64),
        "shape": np.array(shape, np.int64),
        "dt": np.array(dt, np.float64),
        "steps": np.array(steps, np.int64),
    }
    if labels is not None:
        arrays["labels"] = np.asarray(labels, np.int64)
    write_npz(path, arrays)


def load_events_npz(path: Path | str) -> EventFile:
    """Read EVENTS.npz; without ``offsets`` the file is one sample.

    Raises:
        BadEventFile: damaged, arrays missing or contradicting each other, events outside the grid.
    """
    arrays = read_arrays(path, _EVENTS)
    t, x = arrays["t"], arrays["x"]
    shape, dt, steps = tuple(int(n) for n in arrays["shape"]), float(arrays["dt"]), int(arrays["steps"])
    offsets = arrays.get("offsets", np.array([0, len(t)])).astype(np.int64)
    labels = arrays.get("labels")
    bad = []
    if len(t) != len(x):
        bad.append(f"t has {len(t)} events, x has {len(x)}")
    if not shape or min(shape) < 1 or math.prod(shape) >= 1 << 31:
        bad.append(f"shape {shape}, allowed positive sizes with a product below 2**31")
    if not (np.isfinite(dt) and dt > 0):
        bad.append(f"dt is {dt}, allowed positive seconds")
    if not 0 < steps < 1 << 31:
        bad.append(f"steps is {steps}, allowed 1..2**31-1")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(t) or bool((np.diff(offsets) < 0).any()):
        bad.append(f"offsets must rise from 0 to the {len(t)} events")
    if labels is not None and len(labels) != len(offsets) - 1:
        bad.append(f"{len(labels)} labels for {len(offsets) - 1} samples")
    if bad:
        raise BadEventFile(f"{path}: arrays contradict each other", bad)
    try:
        samples = tuple(Events(t[a:b], x[a:b], shape, steps, dt) for a, b in pairwise(offsets))
    except BadEventFile as error:
        raise BadEventFile(f"{path}: {error}") from error
    return EventFile(samples, None if labels is None else labels.astype(np.int64))
