"""`from_exported`: a program of torch.export, in memory, as a graph.

    graph = from_exported(torch.export.load("net.pt2"))

Files are refused by name: torch reads a .pt2 by unpickling (weights and constants with weights_only=False) and by
evaluating expressions of the file, so that reading one runs its code. Who trusts a file reads it himself, as above.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from neuro.convert.from_torch import BATCH, compare, functional, walk
from neuro.convert.graph import Graph
from neuro.errors import ConversionError


def from_exported(program: Any, *, output: int | str | None = None) -> Graph:
    """The graph of an exported program whose inputs are [batch, ...]; the batch may be open or a number.

    Raises:
        ConversionError: a path (see the module), inputs that have no batch or are not real numbers, and as
            `neuro.convert.from_torch.from_torch`. UnsupportedLayer: all operations that have no place.
    """
    if isinstance(program, (str, Path)):
        raise ConversionError(
            f"{program} is not read: torch unpickles .pt2 files, which runs code of theirs. If you trust it, give "
            "from_exported(torch.export.load(path)); else export to ONNX (torch.onnx.export), which holds no code"
        )
    if not isinstance(program, torch.export.ExportedProgram):
        raise ConversionError(f"a torch.export.ExportedProgram is needed, got {type(program).__name__}")
    plain = functional(program)
    taken = set(program.graph_signature.user_inputs)
    values = [n.meta["val"] for n in plain.graph.nodes if n.op == "placeholder" and n.name in taken]
    bad = [
        f"an input of shape {tuple(v.shape)} and {v.dtype}" for v in values if not v.is_floating_point() or not v.ndim
    ]
    open_sizes = [v for v in values if any(isinstance(n, torch.SymInt) for n in v.shape[1:])]
    bad += [f"an input of shape {tuple(v.shape)}: sizes but that of the batch must be numbers" for v in open_sizes]
    if bad or not values:
        raise ConversionError("inputs must be real, [batch, ...]", bad or ["there are none"])
    first = values[0].shape[0]
    size = BATCH if isinstance(first, torch.SymInt) else int(first)
    graph = walk(plain, size, output, values[0].dtype)
    rng = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(size, *map(int, v.shape[1:]), generator=rng, dtype=v.dtype) for v in values)
    compare(program.module(), graph, inputs, output, (size,))
    return graph
