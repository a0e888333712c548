"""NIR files on disk: written whole or not at all, read so that no damage can take this process down.

HDF5 2.0.0 loops for ever or crashes on some damaged files, inside C where Python can do nothing. So a
file that we wrote ends in a line with the SHA-256 of all before it, which HDF5 does not see and drops
when it changes the file: if it is right, the file is as it was written and is read here. Any other file
is read in a process of its own (`neuro.hdf5_process`), which may crash or be ended.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuro.errors import FormatError
from neuro.files import atomic_path, hdf5_bytes
from neuro.hdf5_process import WORKER, Ended, Unstarted, answers
from neuro.nir_hdf5 import DAMAGE, MAX_BYTES, Tree, read_hdf5, write_group

VERSION = "1.0.8"  # of the nir package whose layout this is
SEAL = b"\naxonport sha256 "  # then 64 digits and a line end: the last bytes of a file
SEAL_SIZE = len(SEAL) + 65
NO_TREE = (ValueError, EOFError, KeyError, zipfile.BadZipFile)  # what a process that went mad may send
PATIENCE_S = 20.0  # for a foreign file, and one second more per 10 MB


def read_tree(path: Path | str, *, max_bytes: int = MAX_BYTES, root: str = "node") -> Tree:
    """The content of a group, /node where NIR keeps all, as nested dictionaries of arrays and strings.

    Raises:
        FormatError: no such file, not HDF5, truncated or damaged; no /node; a link, a data type, a
            filter or a size that a NIR file has no need of.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would block, a folder has no content
            raise FormatError(f"{path}: no such file")
        sealed = _seal_holds(path)
    except (OSError, ValueError) as cause:
        if isinstance(cause, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read ({cause})") from cause
    if sealed is False:
        raise FormatError(f"{path}: not as it was written, its SHA-256 differs; write or copy it again")
    return read_hdf5(path, max_bytes, root) if sealed else _read_guarded(path, max_bytes, root)


def _seal_holds(path: Path) -> bool | None:
    """Whether the file is what its last line says; None if it has no such line."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - SEAL_SIZE
        if size < 0:
            return None
        file.seek(size)
        line = file.read()
        if not line.startswith(SEAL):
            return None
        file.seek(0)
        return line == _seal(file, size)


def _seal(file: Any, size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0:
        block = file.read(min(size, 1 << 20))
        digest.update(block)
        size -= len(block)
    return SEAL + digest.hexdigest().encode() + b"\n"


def _read_guarded(path: Path, max_bytes: int, root: str) -> Tree:
    """The tree of a file that nobody vouches for, by way of a process of its own."""
    from neuro.nir_worker import unpack

    patience = PATIENCE_S + path.stat().st_size / 1e7
    question = (str(path.absolute()), str(max_bytes), str(math.ceil(patience)), root)
    try:
        return unpack(b"".join(answers(question, patience, WORKER)))
    except FormatError:  # the one that the reader met
        raise
    except Unstarted as cause:
        raise FormatError(f"{path}: no process could be started to read it ({cause})") from cause
    except (Ended, *NO_TREE) as how:
        raise FormatError(f"{path}: not a whole HDF5 file ({how})") from None


def write_tree(path: Path | str, tree: Mapping[str, Any]) -> None:
    """Write /version and /node, and seal the file. Atomic; the same tree gives the same bytes.

    Raises:
        FormatError: the file cannot be written there.
    """
    import h5py

    path = Path(path)
    try:
        image: list[bytes] = []
        with hdf5_bytes(image) as file:
            file.create_dataset("version", data=VERSION, dtype=h5py.string_dtype())
            write_group(file.create_group("node", track_order=True), tree)
        written = io.BytesIO(image[0])
        size = len(image[0])
        with atomic_path(path) as temporary:
            temporary.write_bytes(image[0] + _seal(written, size))
    except DAMAGE as cause:
        raise FormatError(f"{path}: cannot be written ({cause})") from cause
