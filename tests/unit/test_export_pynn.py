"""Exporter "pynn": the numbers are the machine's, and another simulator gives the same spikes.

The script runs in the Python that NEURO_PYNN names (default: this one), with whichever back ends PyNN has there.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from neuro import ir
from neuro.errors import FormatError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware.export import export
from neuro.hardware.spinnaker1.compiler import TARGET

PYTHON = os.environ.get("NEURO_PYNN", sys.executable)
ONE = 1 << 15


@functools.cache
def has(backend: str) -> bool:
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", f"import pyNN.{backend}"], capture_output=True, check=False)
    return done.returncode == 0


def needs(backend: str) -> None:
    if not has(backend):
        pytest.skip(f"needs PyNN 0.13 with pyNN.{backend} in the Python of NEURO_PYNN")


def network(exponential: bool) -> ir.Network:
    """Three layers with a bias, a loop and delays; nothing on a grid."""
    rng = np.random.default_rng(3)

    def neuron(n: int) -> ir.Neuron:
        if exponential:
            return ir.CubaLIF(np.full(n, 0.005), np.full(n, 0.02), np.full(n, 0.1))
        return ir.LIF(np.full(n, 0.02), np.full(n, 0.1))

    size = 4.0 if exponential else 1.8
    nodes: dict[str, ir.Node] = {
        "in": ir.Input((20,)),
        "w": ir.Affine(rng.normal(0, size, (30, 20)), bias=rng.normal(0, 0.1, 30)),
        "h": neuron(30),
        "back": ir.Linear(rng.normal(0, 0.5, (30, 30))),
        "w2": ir.Linear(rng.normal(0, size, (25, 30)), rng.integers(0, 40, (25, 30))),
        "h2": neuron(25),
        "out": ir.Output("count"),
    }
    edges = (("in", "w"), ("w", "h"), ("h", "back"), ("back", "h"), ("h", "w2"), ("w2", "h2"), ("h2", "out"))
    return ir.Network(nodes, edges, 1e-3)


@functools.cache
def written(exponential: bool, root: str):
    program = compile_network(network(exponential), "spinnaker1")
    example = (np.random.default_rng(1).random((150, 20)) < 0.1).astype(np.uint8)
    return program, export(program, f"{root}/{exponential}", to="pynn", example=example)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("pynn"))
    return lambda exponential: written(exponential, root)


@pytest.mark.parametrize("exponential", [False, True])
def test_every_number_is_the_machines(folder, exponential):
    """As sPyNNaker 7.4.1 reads them: parameters round(x 2^15), weights rint(|w| 2^(15 - shift)) with its shift."""
    program, path = folder(exponential)
    arrays, info = np.load(path / "network.npz", allow_pickle=False), json.loads((path / "manifest.json").read_text())
    for p in info["populations"][1:]:
        params = program.populations[p["name"]].params
        for name, word in (("cm", "c_m"), ("tau_m", "tau_m"), ("v_thresh", "threshold"), ("v_init", "v_init")):
            assert np.array_equal(
                np.rint(arrays[f"{p['name']}.{name}"] * ONE), np.broadcast_to(params[word], p["size"])
            )
        for expected, shift in zip(p["max_expected_summed_weight"], ("shift_exc", "shift_inh"), strict=True):
            power = int(np.ceil(max(0.0, np.log2(expected))))
            assert power + (2.0**power <= expected) == int(params[shift])
    found = []
    for c in info["projections"]:
        target, kind = program.populations[c["target"]], c["receptor_type"]
        shift = int(target.params["shift_exc" if kind == "excitatory" else "shift_inh"])
        word = np.rint(np.abs(arrays[c["name"] + ".weight"]) * 2.0 ** (15 - shift)).astype(np.int64)
        sign = 1 if kind == "excitatory" else -1
        columns = (arrays[c["name"] + "." + k] for k in ("post", "pre", "delay_steps"))
        found += zip([c["target"]] * word.size, [c["source"]] * word.size, *columns, sign * word, strict=True)
    wanted = []
    for q in program.projections:
        columns = (q.params["row"], q.params["col"], q.params["delay_steps"], q.weight_q)
        wanted += zip([q.target] * q.weight_q.size, [q.source] * q.weight_q.size, *columns, strict=True)
    assert sorted(found) == sorted(wanted)


def test_the_script_needs_numpy_and_pynn_only(folder):
    _, path = folder(False)
    tree = ast.parse((path / "network.py").read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.split(".")[0] for n in names} - set(sys.stdlib_module_names) == {"numpy", "brian2"}
    assert "brian2" not in {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    assert sorted(f.name for f in path.iterdir()) == [
        "README.md",
        "check.npz",
        "manifest.json",
        "network.npz",
        "network.py",
    ]


def run_script(path, backend):
    command = [PYTHON, "-W", "ignore", "network.py", "--backend", backend]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pattern = r"^(\w+): (\d+) spikes, axonport has (\d+), the same step: (\d+)"
    return {name: [int(x) for x in counts] for name, *counts in re.findall(pattern, done.stdout, flags=re.M)}


def test_brian2_fires_the_same_spikes(folder):
    """In floating point: the last bit of a decay decides now and then, and the loop carries it on."""
    needs("brian2")
    found = run_script(folder(False)[1], "brian2")
    assert set(found) == {"h", "h2"}
    for theirs, ours, same in found.values():
        assert ours > 300
        assert same >= 0.97 * max(theirs, ours)


def test_brian2_is_close_with_exponential_synapses(folder):
    """Its currents change within a step, the machine's do not."""
    needs("brian2")
    found = run_script(folder(True)[1], "brian2")
    theirs, ours, same = found["h"]
    assert ours > 300
    assert same > 0.8 * max(theirs, ours)


def test_the_mock_runs_it(folder):
    needs("mock")
    assert set(run_script(folder(True)[1], "mock")) == {"h", "h2"}


def test_what_cannot_be_written(folder, tmp_path):
    with pytest.raises(UnsupportedNode, match="takes a program for spinnaker1, this one is for loihi2"):
        export(compile_network(network(False), "loihi2"), tmp_path / "x", to="pynn")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FormatError, match="other files"):
        export(folder(False)[0], tmp_path / "mine", to="pynn")
    assert TARGET.exporters == ("pynn",)
