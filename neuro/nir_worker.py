"""A tree of an HDF5 file as bytes, and back: what the process that reads it hands over; see `neuro.hdf5_child`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import FormatError
from neuro.nir_hdf5 import Tree, read_hdf5


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
