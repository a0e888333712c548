"""HDF5 groups as trees of names, arrays and strings, read with suspicion.

A NIR file is HDF5: /version, and /node with a dataset per field and a group per child. Reading runs no
code and follows no link: only groups, and datasets of plain numbers or strings that lie in the file
itself; sizes are checked before anything is read. What HDF5 itself does with a damaged file is another
matter, see `neuro.nir_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro.errors import FormatError, NeuroError

if TYPE_CHECKING:
    import h5py

Tree = dict[str, Any]  # of a name: a Tree, a string, nested lists of strings, or an array of numbers

KINDS = {"node": "NIR", "layer": "netx"}  # the group in which a kind of file keeps everything
MAX_BYTES = 1 << 30  # of all arrays in a file
MAX_OBJECTS = 1 << 17  # groups and datasets
MAX_DEPTH = 16  # of groups
STRING_BYTES = 1 << 26  # of strings read at once
# what h5py raises for a damaged file; which one depends on the byte that is wrong
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError)
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scale-offset", 32000: "lzf"}


@dataclass
class _Budget:
    path: Path
    bytes_left: int
    objects_left: int
    file_size: int


def read_hdf5(path: Path, max_bytes: int, root: str = "node") -> Tree:
    """The content of a group of the file, /node where NIR keeps all, as nested dictionaries of arrays and strings.

    Raises:
        FormatError: not HDF5, truncated or damaged; no such group; a link, a data type, a
            filter or a size that a NIR file has no need of.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            budget = _Budget(path, max_bytes, MAX_OBJECTS, path.stat().st_size)
            node = _child(file, root, f"/{root}", budget)
            if not isinstance(node, h5py.Group):
                raise FormatError(f"{path}: /{root} is not a group, so this is not a {KINDS[root]} file")
            return _group(node, f"/{root}", 0, budget)
    except NeuroError:
        raise
    except DAMAGE as cause:
        raise FormatError(f"{path}: not a whole HDF5 file ({cause})") from cause


def _child(group: h5py.Group, name: str, where: str, budget: _Budget) -> Any:
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise FormatError(f"{budget.path}: {where} is missing, so this is not a {KINDS.get(name, 'NIR')} file")
    if not isinstance(link, h5py.HardLink):
        raise FormatError(f"{budget.path}: {where} is a {type(link).__name__}; links are not followed")
    budget.objects_left -= 1
    if budget.objects_left < 0:
        raise FormatError(f"{budget.path}: more than {MAX_OBJECTS} groups and datasets")
    return group[name]


def _group(group: h5py.Group, where: str, depth: int, budget: _Budget) -> Tree:
    import h5py

    if depth > MAX_DEPTH:
        raise FormatError(f"{budget.path}: groups are nested more than {MAX_DEPTH} deep at {where[:200]}")
    tree: Tree = {}
    for name in group:
        name.encode()  # UnicodeEncodeError, a ValueError, where the file has other bytes than UTF-8
        below = f"{where}/{name}"
        child = _child(group, name, below, budget)
        if isinstance(child, h5py.Group):
            tree[name] = _group(child, below, depth + 1, budget)
        elif isinstance(child, h5py.Dataset):
            tree[name] = _dataset(child, below, budget)
        else:
            raise FormatError(f"{budget.path}: {below} is neither a group nor a dataset")
    return tree


def _dataset(data: h5py.Dataset, where: str, budget: _Budget) -> Any:
    import h5py

    said = f"{budget.path}: {where}"
    if data.is_virtual or data.external:
        raise FormatError(f"{said} keeps its data in another file; that is not followed")
    if data.shape is None:
        raise FormatError(f"{said} is empty")
    creation = data.id.get_create_plist()
    used = [creation.get_filter(k)[0] for k in range(creation.get_nfilters())]
    if any(code not in FILTERS for code in used):
        raise FormatError(f"{said} is packed by filter {used}; known are {FILTERS}")
    # a chunk is unpacked whole, and may be larger than the dataset
    values = max(data.size, int(np.prod(data.chunks or (1,), dtype=object)))
    budget.bytes_left -= values * data.dtype.itemsize
    if budget.bytes_left < 0:
        raise FormatError(
            f"{said} of shape {data.shape} takes the file beyond the {budget.bytes_left + values * data.dtype.itemsize}"
            " bytes that are left of max_bytes; raise it if the file is trusted"
        )
    if h5py.check_string_dtype(data.dtype):
        return _strings(data, budget)
    if data.dtype.kind not in "buif" or data.dtype.itemsize > 8:
        raise FormatError(f"{said} has dtype {data.dtype}; NIR holds real numbers and strings")
    return np.asarray(data[()], dtype=data.dtype.newbyteorder("="))


def _strings(data: h5py.Dataset, budget: _Budget) -> str | list[Any]:
    """A string, or nested lists of them. Many entries may share one long text: read a few at a time."""
    text = data.asstr()
    if data.shape == ():
        return str(text[()])
    rows: list[Any] = []
    if data.size == 0:
        return []
    at_once = max(1, STRING_BYTES // (budget.file_size * max(1, data.size // data.shape[0])))
    for start in range(0, data.shape[0], at_once):
        rows += text[start : start + at_once].tolist()
        budget.bytes_left -= sum(len(s) for s in np.ravel(np.array(rows[start:], dtype=object)))
        if budget.bytes_left < 0:
            raise FormatError(f"{budget.path}: its strings take more than max_bytes")
    return rows


def write_group(group: h5py.Group, tree: Mapping[str, Any]) -> None:
    """A tree as groups and datasets; every array carries a checksum."""
    import h5py

    for name, value in tree.items():
        if isinstance(value, Mapping):
            write_group(group.create_group(name, track_order=True), value)  # nir then sees our order
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, list):
            group.create_dataset(name, data=np.array(value, dtype=object), dtype=h5py.string_dtype())
        else:
            array = np.asarray(value)
            packed = {"compression": "gzip", "shuffle": True, "fletcher32": True} if array.ndim else {}
            group.create_dataset(name, data=array, **packed)
