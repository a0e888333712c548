"""Graphs as files: safetensors, the operations as JSON in its header. No code is in them, and none is run.

save(graph, "net.safetensors");  graph = load("net.safetensors")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

import neuro.convert.fs
import neuro.convert.ops_shape  # noqa: F401  # register their operations
from neuro.convert.graph import Graph
from neuro.convert.ops import OPS, Op
from neuro.errors import FormatError, NeuroError
from neuro.extend import did_you_mean
from neuro.files import atomic_path

FORMAT = "axonport graph 1"


def save(graph: Graph, path: str | Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OSError: as the system says.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Tensor] = {}
    ops: dict[str, Any] = {}
    for name, operation in graph.ops.items():
        plain: dict[str, Any] = {}
        for each in fields(operation):
            value = getattr(operation, each.name)
            if isinstance(value, Tensor):
                tensors[f"{name}/{each.name}"] = value.detach().contiguous().clone()
            else:
                plain[each.name] = value
        ops[name] = [type(operation).__name__, list(graph.takes[name]), plain]
    head = {"ops": ops, "output": graph.output, "metadata": dict(graph.metadata)}
    written = to_bytes(tensors, {"format": FORMAT, "graph": json.dumps(head)})
    with atomic_path(Path(path)) as part:
        part.write_bytes(written)


def load(path: str | Path) -> Graph:
    """Reads what `save` wrote.

    Raises:
        FormatError: not such a file, operations that are not known, tensors that are missing, all of them.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as cause:
        raise FormatError(f"{path} is not a graph: {cause}") from cause
    if head.get("format") != FORMAT:
        raise FormatError(f"{path} is not a graph: its format is {head.get('format')!r}, not {FORMAT!r}")
    try:
        return _graph(json.loads(head["graph"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, NeuroError) as cause:
        raise FormatError(f"{path} is damaged, or of another version: {cause}") from cause


def _graph(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Graph:
    ops: dict[str, Op] = {}
    takes: dict[str, tuple[str, ...]] = {}
    bad = []
    for name, (kind, sources, plain) in head["ops"].items():
        if kind not in OPS:
            bad.append(f"'{name}' is a {kind}. {did_you_mean(kind, OPS)}")
            continue
        values: dict[str, Any] = {key: _tuples(value) for key, value in plain.items()}
        for each in fields(OPS[kind]):
            if f"{name}/{each.name}" in tensors:
                values[each.name] = tensors[f"{name}/{each.name}"]
        ops[name], takes[name] = OPS[kind](**values), tuple(sources)
    if bad:
        raise FormatError("operations that are not known", bad)
    return Graph(ops, takes, head["output"], head["metadata"])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
