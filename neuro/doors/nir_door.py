"""From NIR: `neuro.load` for a path, and for a graph that the nir package holds in memory.

What a file does not say (dt, rule, reset, readout) and what is then taken is in `neuro.nir`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from neuro.errors import FormatError, NeuroError
from neuro.extend import require
from neuro.ir import Network
from neuro.nir import load


def from_nir(graph: Any, **options: Any) -> Network:
    """A NIR file or nir.NIRGraph as a `Network`.

    Args:
        graph: a path, or a graph of the nir package. options: of `neuro.load`.

    Raises:
        FormatError: neither; what `neuro.load` raises.
    """
    if isinstance(graph, (str, Path)):
        return load(graph, **options)
    nir = require("nir", extra="nir")
    if not isinstance(graph, nir.NIRGraph):
        raise FormatError(f"needs a path or a nir.NIRGraph, got {type(graph).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.nir"
        try:
            nir.write(path, graph)
        except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError) as cause:
            raise FormatError(f"the nir package cannot write this graph: {cause}") from cause
        try:
            return load(path, **options)
        except NeuroError as problem:  # the path means nothing to the caller
            title = problem.title.replace(str(path), "the graph")
            raise type(problem)(title, problem.violations) from problem


__all__ = ["from_nir"]
