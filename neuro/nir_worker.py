"""Reads one HDF5 file in a process of its own and hands the tree over as bytes; see `neuro.nir_file`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import FormatError
from neuro.nir_hdf5 import Tree, read_hdf5

OVERHEAD = 4 << 30  # bytes of address space for Python, its libraries and the packed result


def pack(tree: Tree) -> bytes:
    """A tree as an npz file: its arrays, and its shape and strings as JSON."""
    arrays: dict[str, NDArray[Any]] = {}
    outline = json.dumps(_outline(tree, arrays)).encode()
    content = io.BytesIO()
    np.savez(content, outline=np.frombuffer(outline, np.uint8), allow_pickle=False, **arrays)
    return content.getvalue()


def _outline(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        return {name: _outline(child, arrays) for name, child in value.items()}
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return [0, name]
    return [1, value]  # a string, or lists of them


def unpack(content: bytes) -> Tree:
    """What `pack` packed; or the error that stands in its place.

    Raises:
        FormatError: the one that the worker met.
    """
    if content.startswith(b"error "):
        raise FormatError(json.loads(content[6:]))
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        tree = _filled(json.loads(archive["outline"].tobytes()), archive)
    assert isinstance(tree, dict)
    return tree


def _filled(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        return {name: _filled(child, arrays) for name, child in value.items()}
    kind, content = value
    return content if kind else arrays[content]


def answer(path: Path, max_bytes: int, root: str = "node") -> bytes:
    """The packed tree of a file, or "error " and the message in JSON."""
    try:
        return pack(read_hdf5(path, max_bytes, root))
    except FormatError as refusal:
        return b"error " + json.dumps(str(refusal)).encode()


def serve(path: str, max_bytes: str, seconds: str, root: str = "node") -> None:
    """Write the answer to standard output, within limits that end this process if nobody is left to do it."""
    import resource  # POSIX only, as is everything that runs Lava

    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (OVERHEAD + 4 * int(max_bytes),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.buffer.write(answer(Path(path), int(max_bytes), root))
