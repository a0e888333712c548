"""What travels as NIR metadata: ours under "axonport.", everybody else's as `Network.metadata`.

A key "node/key" of `Network.metadata` is metadata of that node, any other of the graph. In a file each
is a string of its own, where other tools find it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuro.errors import FormatError
from neuro.nir_graph import FlatGraph
from neuro.nir_hdf5 import Tree

OURS = "axonport."
FORMAT = 1  # of our metadata


def metadata_of(fields: Tree) -> Tree:
    """The metadata of a node or graph; empty if it has none."""
    found = fields.get("metadata", {})
    if not isinstance(found, dict):
        raise FormatError(f"metadata must be a group, got {found!r:.100}")
    return found


def file_dt(said: Tree) -> float | None:
    """Seconds per step, from the graph's metadata; None where it does not say."""
    version, dt = said.get(OURS + "format"), said.get(OURS + "dt")
    if version is not None and (not isinstance(version, np.ndarray) or version.size != 1 or version.item() != FORMAT):
        raise FormatError(f"metadata '{OURS}format' is {version!r:.100}, this version of axonport reads {FORMAT}")
    if dt is None:
        return None
    if not isinstance(dt, np.ndarray) or dt.size != 1 or not 0 < dt.item() < math.inf:
        raise FormatError(f"metadata '{OURS}dt' must be positive seconds, got {dt!r:.100}")
    return float(dt.item())


def from_json(text: Any) -> Any:
    """A value from JSON text."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as cause:
        raise FormatError(f"metadata holds broken JSON ({cause})") from cause


def is_name(name: str) -> bool:
    """Whether HDF5 can give a group or dataset this name."""
    return "/" not in name and name not in ("", ".") and _is_text(name) and len(name.encode()) <= 1 << 15


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return "\0" not in text


def put_notes(notes: Mapping[str, str], nodes: Tree, said: Tree) -> None:
    """Spread `Network.metadata` over graph and nodes; what HDF5 cannot name or hold goes into one JSON text."""
    rest: dict[str, str] = {}
    for key, text in notes.items():
        node, _, own = key.rpartition("/")
        held, name = (nodes[node]["metadata"], own) if node in nodes else (said, key)
        if is_name(name) and not name.startswith(OURS) and _is_text(text):
            held[name] = text
        else:
            rest[key] = text
    if rest:
        said[OURS + "notes"] = json.dumps(rest)
    if notes:
        said[OURS + "keys"] = json.dumps(list(notes))


def take_notes(said: Tree, flat: FlatGraph) -> dict[str, str]:
    """Everything in the graph's and nodes' metadata that is not ours: strings, other values as JSON."""
    found: dict[str, str] = {}
    for prefix, table in (("", said), *((f"{n}/", metadata_of(fields)) for n, fields in flat.nodes.items())):
        found.update({prefix + key: _as_text(value) for key, value in table.items() if not key.startswith(OURS)})
    rest, keys = from_json(said.get(OURS + "notes", "{}")), from_json(said.get(OURS + "keys", "[]"))
    if not isinstance(rest, dict) or not all(isinstance(text, str) for text in rest.values()):
        raise FormatError(f"metadata '{OURS}notes' must map strings to strings")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError(f"metadata '{OURS}keys' must be a list of strings")
    found.update(rest)
    return {key: found[key] for key in dict.fromkeys((*keys, *found)) if key in found}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=lambda array: array.tolist())
