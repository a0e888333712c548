"""Exporter "lava": a folder with a readable Python module that builds the network in Lava.

    network.py     build(inputs) -> processes; run(inputs) -> spikes; python network.py [--check | EVENTS.npz]
    weights.npz    every matrix and bias, integers, in Lava's orientation
    manifest.json  which process holds which neuron of which population
    check.npz      inputs and the spikes that axonport's simulator computed for them
    README.md

The folder needs lava-nc and NumPy, nothing of axonport. What is written is `lava_graph.lower`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.export import Exporter
from neuro.hardware.export.folders import whole_folder
from neuro.hardware.export.lava_graph import LavaGraph, lower
from neuro.hardware.export.lava_module import identity, listing, module_text, title, uniform
from neuro.hardware.export.lava_shim import PIP, VERSION
from neuro.hardware.loihi2.models import graded, input_range
from neuro.hardware.program import Program

MANIFEST = "manifest.json"
CHECK_STEPS = 64

_README = """\
# {title}

A spiking network in Loihi 2 integers for [Lava](https://github.com/lava-nc/lava) {lava}, written by axonport {version}.

    {pip}
    python network.py --check          # real Lava, compared with check.npz: 0 differ
    python network.py EVENTS.npz

`network.build(inputs)` returns the processes, `inputs` being `[steps, {inputs}]` of {values}. On Python 3.10 lava-nc
installs without the extra flags.

{listing}

{notes}
"""


def write(program: Program, path: Path | str, *, example: NDArray[Any] | None = None) -> Path:
    """Write the folder ``path``. example: integers [steps, n_inputs], one sample for check.npz; default random.

    Raises:
        UnsupportedNode, DoesNotFit: see `lava_graph.lower`.
        FormatError: ``path`` holds somebody else's files.
    """
    from neuro.hardware.simulate import simulate

    path = Path(path)
    graph = lower(program)
    source = program.populations[program.input]
    given: NDArray[Any]
    if example is None:
        rng, (low, high) = np.random.default_rng(0), input_range(source)
        active = rng.random((CHECK_STEPS, source.size)) < 0.1
        given = active * (rng.integers(low, high + 1, active.shape) if (low, high) != (0, 1) else 1)
    else:
        given = np.asarray(example)
    dense = given.reshape(len(given), 1, source.size)
    trace = simulate(program, dense)
    with whole_folder(path, MANIFEST) as folder:
        write_graph(program, graph, folder)
        t, x = np.nonzero(dense[:, 0])
        check = {"t": t.astype(np.int32), "x": x.astype(np.int32), "steps": np.array(len(dense))}
        if graded(source):
            check["value"] = dense[t, 0, x].astype(np.int32)
        check |= {f"spikes.{n}": s[:, 0] for n, s in trace.spikes.items() if program.populations[n].model != "input"}
        np.savez_compressed(folder / "check.npz", allow_pickle=False, **check)
        (folder / "README.md").write_text(_readme(program, graph), encoding="utf-8")
    return path


def write_graph(program: Program, graph: LavaGraph, folder: Path) -> None:
    """The three files that a runner needs, into an existing folder."""
    (folder / "network.py").write_text(module_text(program, graph), encoding="utf-8")
    np.savez_compressed(folder / "weights.npz", allow_pickle=False, **_arrays(graph))
    (folder / MANIFEST).write_text(json.dumps(manifest(program, graph), indent=2) + "\n", encoding="utf-8")


def manifest(program: Program, graph: LavaGraph) -> dict[str, Any]:
    """Which process holds which neurons; what a runner of the folder needs to know."""
    return {
        "writer": f"axonport {version('axonport')}",
        "lava": VERSION,
        "dt": program.dt,
        "input": program.input,
        "values": list(input_range(program.populations[program.input])),
        "output": program.output,
        "readout": program.readout,
        "depth": program.depth,
        "processes": len(graph.parts) + len(graph.synapses),
        "populations": [
            {
                "name": p.name,
                "model": p.model,
                "size": p.size,
                "parts": [
                    {"process": q.name, "index": None if identity(q) else f"{q.name}.index"} for q in graph.of(p.name)
                ],
            }
            for p in program.populations.values()
        ],
        "learning": [
            {"projection": s.projection, "process": s.name} for s in graph.synapses if s.kind == "LearningDense"
        ],
        "notes": list(graph.notes),
    }


def _arrays(graph: LavaGraph) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for part in graph.parts:
        if not identity(part):
            arrays[f"{part.name}.index"] = part.index
        for name, values in part.arrays.items():
            if not uniform(values):
                arrays[f"{part.name}.{name}"] = values.reshape(part.shape).astype(np.int32)
    for synapses in graph.synapses:
        for name, values in synapses.arrays.items():
            wide = name in ("delays", "row", "col")  # Lava insists on delays of numpy's int
            arrays[f"{synapses.name}.{name}"] = values.astype(np.int64 if wide else np.int32)
    return arrays


def _readme(program: Program, graph: LavaGraph) -> str:
    low, high = input_range(program.populations[program.input])
    said = [f"- {n}" for n in (*graph.notes, *program.substitutions)]
    return _README.format(
        title=title(program),
        lava=VERSION,
        version=version("axonport"),
        pip=PIP.split("&& ")[-1],
        inputs=program.populations[program.input].size,
        values="0 and 1" if (low, high) == (0, 1) else f"integers in {low}..{high}",
        listing=listing(program),
        notes="\n".join(said) if said else "Nothing was split, replaced or approximated.",
    )


EXPORTER = Exporter(
    "lava", "Lava process graph: a folder with network.py and weights.npz", "program", write, chips=("loihi2", "loihi1")
)
