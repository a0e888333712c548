"""The exported folder: self-contained, whole or absent, readable, and refused by name where Lava cannot hold it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from lava_programs import conv, dense, even, needs_lava, population, program, sparse, spikes, two_layers

from neuro.errors import DoesNotFit, FormatError, NeuroError, SimulationError, UnsupportedNode
from neuro.hardware.export import export, exporters, lava, load_exporter
from neuro.hardware.export.lava_folder import load_folder
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.simulate import simulate

FILES = {"network.py", "weights.npz", "manifest.json", "check.npz", "README.md"}
FRESH = """
import runpy, sys
sys.argv = ["network.py", *sys.argv[2:], *[]]
try:
    runpy.run_path(PATH, run_name="__main__")
except SystemExit as end:
    assert not any(m == "neuro" or m.startswith("neuro.") for m in sys.modules), "the folder needs axonport"
    raise
"""


def rng(seed=0):
    return np.random.default_rng(seed)


def fresh(folder, *arguments, cwd):
    """Run network.py in a fresh interpreter that has never seen axonport."""
    code = FRESH.replace("PATH", repr(str(folder / "network.py"))).replace("sys.argv[2:]", "sys.argv[1:]")
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.lava
@needs_lava
def test_the_folder_runs_in_a_fresh_interpreter_and_checks_itself(tmp_path):
    folder = export(two_layers(hidden=16), tmp_path / "exported")
    assert {p.name for p in folder.iterdir()} == FILES
    done = fresh(folder, "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{23 * 66} spikes of 2 populations compared, 0 differ" in done.stdout
    with np.load(folder / "weights.npz") as file:
        weights = {name: file[name] for name in file.files}
    weights["fc2.weights"] = -weights["fc2.weights"]
    np.savez(folder / "weights.npz", **weights)
    done = fresh(folder, "--check", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " 0 differ" not in done.stdout


@pytest.mark.lava
@needs_lava
def test_the_folder_takes_events_from_a_file(tmp_path):
    made = two_layers(hidden=16)
    folder = export(made, tmp_path / "exported")
    given = spikes(rng(1), 20, 1, 12, 0.5)
    t, x = np.nonzero(given[:, 0])
    np.savez(tmp_path / "events.npz", t=t, x=x, steps=20)
    done = fresh(folder, tmp_path / "events.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = simulate(made, given).spikes["out"][:, 0].sum(axis=0).tolist()
    assert sum(counts) > 0
    assert f"spikes of out per neuron: {counts}" in done.stdout


def test_the_same_program_gives_the_same_bytes(tmp_path):
    made = two_layers(hidden=16)
    one, two = export(made, tmp_path / "one"), export(made, tmp_path / "two")
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_names_cannot_become_code(tmp_path):
    hostile = 'x""" \nimport os; os._exit(9)\\'
    populations = [population("in/put", 3, "input"), population(hostile, 4), population("in put", 2)]
    projections = [
        dense("0; 1", "in/put", hostile, even(rng(), (4, 3))),
        dense("0 1", hostile, "in put", even(rng(), (2, 4))),
    ]
    folder = export(program(populations, projections), tmp_path / "exported")
    tree = ast.parse((folder / "network.py").read_text(), feature_version=(3, 10))
    assert "_exit" not in {getattr(n, "attr", "") for n in ast.walk(tree)}
    assert sum(isinstance(n, ast.Import) for n in ast.walk(tree)) == 7
    loaded = load_folder(folder)
    assert set(loaded.populations) == {hostile, "in put"}
    assert len(set(loaded.processes)) == 2


def test_an_older_export_is_replaced_and_foreign_files_are_not(tmp_path):
    folder = export(two_layers(hidden=16), tmp_path / "exported")
    first = (folder / "weights.npz").read_bytes()
    export(two_layers(1, hidden=16), folder)
    assert (folder / "weights.npz").read_bytes() != first
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(FormatError, match="left alone"):
        export(two_layers(hidden=16), other)
    with pytest.raises(FormatError, match="is a file"):
        export(two_layers(hidden=16), other / "thesis.tex")
    assert (other / "thesis.tex").read_text() == "years of work"
    assert {p.name for p in tmp_path.iterdir()} == {"exported", "mine"}


def test_a_failure_in_the_middle_leaves_the_older_export_and_nothing_else(tmp_path, monkeypatch):
    folder = export(two_layers(hidden=16), tmp_path / "exported")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(lava, "_readme", fail)
    with pytest.raises(OSError, match="disk full"):
        export(two_layers(1, hidden=16), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(OSError, match="disk full"):
        export(two_layers(1, hidden=16), tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["exported"]


def test_a_writer_that_was_killed_leaves_no_export_and_the_next_one_tidies_up(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from lava_programs import two_layers\n"
        "from neuro.hardware.export import export, lava\n"
        "lava._readme = lambda *_: os.kill(os.getpid(), 9)\n"
        "export(two_layers(hidden=16), sys.argv[1])\n"
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "exported"), tests], timeout=120)
    assert killed.returncode == -9
    assert not (tmp_path / "exported").exists()
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    export(two_layers(hidden=16), tmp_path / "exported")
    assert [p.name for p in tmp_path.iterdir()] == ["exported"]


def test_a_population_is_split_by_its_parameters_and_only_by_them():
    du = np.array([5, 9, 5, 9, 5])
    populations = [
        population("input", 3, "input"),
        population("p", 5, du=du, bias_mant=np.arange(5)),
        population("q", 2),
    ]
    weight = even(rng(), (5, 3))
    projections = [dense("f", "input", "p", weight), dense("g", "p", "q", even(rng(), (2, 5)), exponent=2)]
    graph = lower(program(populations, projections))
    parts = graph.of("p")
    assert [(p.scalars["du"], p.index.tolist(), p.arrays["bias_mant"].tolist()) for p in parts] == [
        (5, [0, 2, 4], [0, 2, 4]),
        (9, [1, 3], [1, 3]),
    ]
    blocks = [s for s in graph.synapses if s.projection == "f"]
    assert np.array_equal(blocks[1].arrays["weights"], weight[[1, 3]])
    assert any("2 LIF processes" in note for note in graph.notes)


def test_columns_of_a_negative_exponent_are_never_split():
    du = np.array([5, 9, 5, 9, 5])
    populations = [population("input", 3, "input"), population("p", 5, du=du), population("q", 2)]
    projections = [
        dense("f", "input", "p", even(rng(), (5, 3))),
        dense("g", "p", "q", even(rng(), (2, 5)), exponent=-1),
    ]
    graph = lower(program(populations, projections))
    (block,) = [s for s in graph.synapses if s.projection == "g"]
    assert block.sources == ("p_0", "p_1")
    assert [p.size for p in graph.of("p")] == [5, 5]


def test_everything_that_lava_cannot_hold_is_said_at_once(tmp_path):
    populations = [
        population("input", 3, "input"),
        population("p", 5, du=4096, dv=-1, vth=131072, bias_mant=4096, bias_exp=8),
    ]
    projections = [
        dense("f", "input", "p", even(rng(), (5, 3)), exponent=8, delay=np.full((5, 3), 64)),
        sparse("g", "p", "p", ([0, 0], [1, 1]), [2, 2], bits=9),
    ]
    with pytest.raises(DoesNotFit) as refusal:
        export(program(populations, projections), tmp_path / "exported")
    said = {(v.node, v.limit) for v in refusal.value.violations}
    assert said == {
        *(("p", n) for n in ("du", "dv", "vth", "bias_mant", "bias_exp")),
        ("f", "weight_exp"),
        ("f", "delay_steps"),
        ("g", "weight format"),
        ("g", "synapses between one pair"),
    }
    assert not list(tmp_path.iterdir())


def test_unknown_models_and_kinds_are_named():
    import dataclasses

    populations = [population("input", 3, "input"), population("p", 5, "izhikevich")]
    odd = dataclasses.replace(dense("f", "input", "p", even(rng(), (5, 3))), kind="graded")
    with pytest.raises(UnsupportedNode) as refusal:
        lower(program(populations, [odd], depth=1))
    assert len(refusal.value.violations) == 2
    assert "izhikevich" in str(refusal.value)
    assert "graded" in str(refusal.value)


def test_a_convolution_too_large_for_lavas_int8_becomes_sparse_and_says_so():
    populations = [population("input", (1, 2, 140), "input"), population("p", (1, 2, 138), vth=1)]
    graph = lower(program(populations, [conv("c", "input", "p", rng().integers(-9, 9, (1, 1, 1, 3)))], depth=1))
    assert {s.kind for s in graph.synapses} == {"Sparse"}
    assert "int8" in graph.notes[0]
    populations = [population("input", (1, 2, 140), "input"), population("p", (1, 2, 138), vth=1)]
    with pytest.raises(DoesNotFit, match="which holds 8 bits"):
        lower(program(populations, [conv("c", "input", "p", np.full((1, 1, 1, 3), 256))], depth=1))


def test_the_manifest_places_every_neuron_once(tmp_path):
    du = rng().choice([5, 9, 100], 30)
    populations = [
        population("input", (2, 3, 4), "input"),
        population("c", (3, 2, 3), vth=3),
        population("p", 30, du=du),
    ]
    projections = [
        conv("k", "input", "c", rng().integers(-9, 9, (3, 2, 2, 2))),
        dense("f", "c", "p", even(rng(), (30, 18))),
    ]
    folder = load_folder(export(program(populations, projections), tmp_path / "exported"))
    for name, parts in folder.populations.items():
        places = np.sort(np.concatenate([folder.index[p] for p in parts]))
        assert np.array_equal(places, np.arange(made_size(populations, name)))
    assert json.loads((tmp_path / "exported" / "manifest.json").read_text())["depth"] == 2


def made_size(populations, name):
    return next(p.size for p in populations if p.name == name)


def test_exporters_are_found_by_name_and_check_what_they_are_given(tmp_path):
    assert {"lava", "netx", "nir"} <= set(exporters())
    assert load_exporter("nir").takes == "network"
    with pytest.raises(NeuroError, match="Did you mean 'lava'"):
        export(two_layers(hidden=4), tmp_path / "x", to="lavas")
    with pytest.raises(SimulationError, match="takes a Network"):
        export(two_layers(hidden=4), tmp_path / "x", to="nir")
    assert not list(tmp_path.iterdir())
