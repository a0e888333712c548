"""Lava's own models as oracles of a Loihi 2 program: its runtime, its process models alone, and from a netx file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.hardware.target import Oracle, Visit

Bytes = NDArray[np.uint8]
INPROCESS = "the exported graph in Lava's process models, one process"


def _version() -> str:
    from neuro.hardware.export.lava_shim import import_lava, lava_version

    import_lava()
    return f"lava-nc {lava_version()}"


def _lava(program: Program, dense: Bytes, visit: Visit, timeout_s: float, folder: Path | None) -> str | None:
    """The runtime starts one operating-system process per Lava process; beyond what one can be asked for, the same
    graph and models run without it, and the certificate says so."""
    from neuro.hardware.export.lava_graph import lower
    from neuro.hardware.export.lava_runtime import MAX_PROCESSES, run_lava

    graph = lower(program)
    if len(graph.parts) + len(graph.synapses) > MAX_PROCESSES:
        _lava_inprocess(program, dense, visit, timeout_s, folder)
        return INPROCESS
    run_lava(folder or program, dense, timeout_s, visit)
    return None


def _lava_inprocess(program: Program, dense: Bytes, visit: Visit, timeout_s: float, folder: Path | None) -> None:
    from neuro.hardware.export.lava_inprocess import prepare

    graph = prepare(folder or program)
    for k in range(dense.shape[1]):
        visit(k, {key: values[:, 0] for key, values in graph.run(dense[:, k : k + 1]).items()})


def _netx(program: Program, dense: Bytes, visit: Visit, timeout_s: float, folder: Path | None) -> None:
    import tempfile

    from neuro.hardware.export.netx import layers_of, write
    from neuro.hardware.export.netx_lava import build_netx

    names = [layer.population.name for layer in layers_of(program)]
    with tempfile.TemporaryDirectory(prefix="axonport-netx-") as temporary:
        graph = build_netx(folder or write(program, Path(temporary) / "program.net"))
        for k in range(dense.shape[1]):
            values = graph.run(dense[:, k : k + 1], program.depth)
            visit(k, {(names[int(layer)], v): a[:, 0] for (layer, v), a in values.items()})


ORACLES = {
    "lava": Oracle("the exported graph in Lava's runtime", _lava, _version),
    "lava-inprocess": Oracle(INPROCESS, _lava_inprocess, _version),
    "netx": Oracle("the netx file, built from Lava's processes, one process", _netx, _version),
}
