"""Exporter "pynn": a folder with a PyNN script that sPyNNaker users run as it is.

    network.py     build(sim, spike_times), run(...); python network.py [--backend brian2] [EVENTS.npz]
    network.npz    parameters of neurons, and pre, post, weight, delay_steps of synapses, in PyNN's units
    manifest.json  populations, projections, time step, depth
    check.npz      input events and the spikes that axonport's simulator computed for them
    README.md

Every number is exact in the machine's formats: sPyNNaker 7.4.1 writes the words that the program holds. It is told the
sum of weights to expect, so that its ring buffers get the program's shifts.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import UnsupportedNode
from neuro.hardware.export import Exporter
from neuro.hardware.export.folders import whole_folder
from neuro.hardware.export.pynn_script import SCRIPT
from neuro.hardware.program import Population, Program

MANIFEST = "manifest.json"
CHIP = "spinnaker1"
CHECK_STEPS = 64
ONE = 1 << 15
CELLS = {"curr_exp": "IF_curr_exp", "curr_delta": "IF_curr_delta"}
# PyNN's name -> word of the machine
PARAMETERS = {
    "v_rest": "v_rest",
    "cm": "c_m",
    "tau_m": "tau_m",
    "i_offset": "i_offset",
    "v_reset": "v_reset",
    "tau_refrac": "t_refract",
    "v_thresh": "threshold",
    "v_init": "v_init",
    "isyn_exc": "init_exc",
    "isyn_inh": "init_inh",
}
EXPONENTIAL = {"tau_syn_E": "tau_exc", "tau_syn_I": "tau_inh"}

_README = """\
# {title}

A spiking network for [sPyNNaker](https://github.com/SpiNNakerManchester/sPyNNaker) 7.4.1 (Apache-2.0), written by
axonport {version}.

    pip install "spynnaker==1!7.4.1" && python -m spynnaker.pyNN.setup_pynn
    python network.py                    # on a machine; with virtual_board = True in the cfg: mapping only
    python network.py --backend brian2   # PyNN 0.13 on another simulator, in floating point

{notes}
"""


def write(program: Program, path: Path | str, *, example: NDArray[np.uint8] | None = None) -> Path:
    """Write the folder ``path``. example: uint8[steps, n_inputs], one sample for check.npz; default random.

    Raises:
        UnsupportedNode: not a program for SpiNNaker 1, or one without lists of synapses.
        FormatError: ``path`` holds somebody else's files.
    """
    from neuro.hardware.simulate import simulate

    path = Path(path)
    _refuse(program)
    source = program.populations[program.input]
    if example is None:
        example = (np.random.default_rng(0).random((CHECK_STEPS, source.size)) < 0.1).astype(np.uint8)
    dense = np.asarray(example).reshape(len(example), 1, source.size)
    spikes = simulate(program, dense).spikes
    with whole_folder(path, MANIFEST) as folder:
        t, x = np.nonzero(dense[:, 0])
        check: dict[str, Any] = {"t": t, "x": x, "steps": np.array(len(dense))}
        for name, values in spikes.items():
            if name != program.input:
                check[f"{name}.t"], check[f"{name}.x"] = np.nonzero(values[:, 0])
        np.savez_compressed(folder / "check.npz", allow_pickle=False, **check)
        np.savez_compressed(folder / "network.npz", allow_pickle=False, **_arrays(program))
        (folder / "network.py").write_text(SCRIPT.replace("__TITLE__", _title(program)), encoding="utf-8")
        (folder / MANIFEST).write_text(json.dumps(manifest(program), indent=2) + "\n", encoding="utf-8")
        said = "\n".join(f"- {n}" for n in notes(program)) or "Nothing was replaced or approximated."
        text = _README.format(title=_title(program), version=version("axonport"), notes=said)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return path


def _refuse(program: Program) -> None:
    bad = []
    if program.chip != CHIP:
        bad.append(f"exporter 'pynn' takes a program for {CHIP}, this one is for {program.chip}")
    elif len(program.image["words"]) and not program.projections:
        bad.append("the program holds its synapses as rows only; exporter 'pynn' writes lists")
    if bad:
        raise UnsupportedNode("this program cannot be written for PyNN", bad)


def _title(program: Program) -> str:
    sizes = ", ".join(f"{p.name} {p.size}" for p in program.populations.values())
    return f"PyNN network of axonport: {sizes}"


def notes(program: Program) -> list[str]:
    """What the script cannot say, or axonport could not keep."""
    found = list(program.substitutions)
    for p in program.populations.values():
        if p.model != "input" and p.params["refract_init"].any():
            found.append(
                f"'{p.name}': {int((p.params['refract_init'] > 0).sum())} neuron(s) are held for "
                f"{int(p.params['refract_init'].max())} step(s) at the start, which PyNN cannot say: they start early"
            )
    return found


def manifest(program: Program) -> dict[str, Any]:
    """What network.py reads beside the arrays."""
    stateful = [p for p in program.populations.values() if p.model != "input"]
    source = program.populations[program.input]
    cores = [np.unique(program.placement.core_of[p.name], return_counts=True)[1] for p in stateful]
    return {
        "writer": f"axonport {version('axonport')}",
        "timestep_ms": int(stateful[0].params["time_step"].reshape(-1)[0]) / ONE,
        "depth": program.depth,
        "output": program.output,
        "readout": program.readout,
        "neurons_per_core": int(max(c.max() for c in cores)),
        "populations": [
            {"name": source.name, "size": source.size, "cell": "SpikeSourceArray"},
            *(_population(p) for p in stateful),
        ],
        "projections": [
            {"name": name, "source": p.source, "target": p.target, "receptor_type": kind}
            for name, p, kind, _ in _projections(program)
        ],
        "notes": notes(program),
    }


def _population(p: Population) -> dict[str, Any]:
    # sPyNNaker shifts by the power of two next above what it is told to expect
    expect = [0.75 * 2.0 ** int(p.params[name]) for name in ("shift_exc", "shift_inh")]
    return {
        "name": p.name,
        "size": p.size,
        "cell": CELLS[p.model],
        "parameters": list(_parameters(p)),
        "max_expected_summed_weight": expect,
    }


def _parameters(p: Population) -> dict[str, str]:
    return PARAMETERS | (EXPONENTIAL if p.model == "curr_exp" else {})


def _projections(program: Program) -> list[tuple[str, Any, str, NDArray[np.bool_]]]:
    """(name, projection, receptor type, which of its synapses), no empty one."""
    found = []
    for p in program.projections:
        for kind, sign in (("excitatory", 1), ("inhibitory", -1)):
            of = sign * p.weight_q > 0
            if of.any():
                found.append((f"{p.name} {kind}", p, kind, of))
    return found


def _arrays(program: Program) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for p in program.populations.values():
        if p.model != "input":
            for name, word in _parameters(p).items():
                arrays[f"{p.name}.{name}"] = np.broadcast_to(p.params[word], p.size) / ONE
    for name, q, kind, of in _projections(program):
        target = program.populations[q.target]
        shift = int(target.params["shift_exc" if kind == "excitatory" else "shift_inh"])
        arrays[f"{name}.pre"] = q.params["col"][of].astype(np.int32)
        arrays[f"{name}.post"] = q.params["row"][of].astype(np.int32)
        arrays[f"{name}.weight"] = q.weight_q[of] * (2.0**shift / ONE)
        arrays[f"{name}.delay_steps"] = q.params["delay_steps"][of].astype(np.int32)
    return arrays


EXPORTER = Exporter(
    "pynn",
    "PyNN script for sPyNNaker: a folder with network.py and network.npz",
    "program",
    write,
    chips=("spinnaker1",),
)
