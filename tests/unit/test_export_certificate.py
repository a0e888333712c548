"""A certificate passes only what was compared and equal, and finds the first value that is not."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from lava_programs import FAIL_AT_5, dense, even, needs_lava, population, program, spikes, spoil, two_layers

from neuro.errors import OracleError, SimulationError
from neuro.hardware.certify import certify
from neuro.hardware.export import lava_shim
from neuro.hardware.export.lava import write_graph
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.loihi2.compiler import TARGET

rng = np.random.default_rng


@pytest.fixture
def made():
    return two_layers(hidden=16)


@pytest.fixture
def given():
    return spikes(rng(0), 20, 2, 12, 0.4)


def test_without_lava_it_says_so_and_never_that_it_passed(made, given, monkeypatch):
    monkeypatch.setitem(sys.modules, "lava", None)
    for oracle in TARGET.oracles:
        certificate = certify(made, given, oracle=oracle)
        assert certificate.status == "not run"
        assert not certificate.passed
        assert certificate.compared == 0
        assert str(certificate).startswith("not run: lava-nc missing; pip install")
        assert "--no-deps --ignore-requires-python lava-nc==0.10.0" in certificate.reason


def test_a_version_of_lava_that_nobody_checked_is_not_trusted(made, given, monkeypatch):
    monkeypatch.setattr(lava_shim, "version", lambda _: "0.11.0")
    monkeypatch.setitem(sys.modules, "lava", sys)  # something that is there
    certificate = certify(made, given)
    assert certificate.status == "not run"
    assert "0.11.0" in certificate.reason


@pytest.mark.lava
@needs_lava
def test_one_changed_weight_in_the_exported_folder_is_found_and_located(made, given, tmp_path):
    write_graph(made, lower(made), tmp_path)
    with np.load(tmp_path / "weights.npz") as file:
        weights = {name: file[name] for name in file.files}
    weights["fc2.weights"] = weights["fc2.weights"].copy()
    weights["fc2.weights"][3, 5] += 2
    np.savez(tmp_path / "weights.npz", **weights)
    certificate = certify(made, given, oracle="lava-inprocess", folder=tmp_path)
    assert certificate.status == "failed"
    assert 0 < certificate.mismatches < certificate.compared
    first = certificate.first
    assert (first.population, first.variable, first.neuron) == ("out", "u", 3)
    assert abs(first.ours - first.theirs) == 2 << 6  # the weight, as it arrives in u
    assert certificate.to_json()["first"]["population"] == "out"


@pytest.mark.lava
@needs_lava
def test_the_folder_given_is_the_one_that_runs_and_the_result_is_json(made, given, tmp_path):
    write_graph(made, lower(made), tmp_path)
    certificate = certify(made, given, folder=tmp_path)
    assert certificate.passed
    assert certificate.compared == 3 * 23 * 22 * 2
    table = json.loads(json.dumps(certificate.to_json()))
    assert table["status"] == "passed"
    assert table["populations"] == ["hidden", "out"]
    assert "0 of 3036 values differ" in str(certificate)


@pytest.mark.lava
@needs_lava
def test_a_crash_of_lava_is_not_a_pass(made, given, tmp_path):
    write_graph(made, lower(made), tmp_path)
    spoil(tmp_path, FAIL_AT_5)
    certificate = certify(made, given, folder=tmp_path, timeout_s=60)
    assert certificate.status == "not run"
    assert "injected failure" in certificate.reason


@pytest.mark.lava
@needs_lava
def test_neurons_of_many_kinds_are_certified_in_one_process_and_it_says_so():
    g = rng(4)
    populations = [
        population("input", 6, "input"),
        population("p", 50, du=g.permutation(4000)[:50], dv=g.integers(0, 900, 50), vth=40),
        population("out", 5, du=1000, dv=100, vth=60),
    ]
    projections = [
        dense("f", "input", "p", even(g, (50, 6))),
        dense("rec", "p", "p", even(g, (50, 50), -20, 20), delay=g.integers(0, 4, (50, 50))),
        dense("o", "p", "out", even(g, (5, 50), 0, 30)),
    ]
    made = program(populations, projections)
    graph = lower(made)
    assert len(graph.parts) + len(graph.synapses) == 52 + 50 + 50 + 1  # not 50 x 50
    certificate = certify(made, spikes(g, 12, 1, 6, 0.5))
    assert certificate.passed, certificate
    assert "one process" in certificate.title


@pytest.mark.lava
@needs_lava
def test_what_lava_cannot_hold_is_a_reason_not_a_traceback(given):
    populations = [population("input", 12, "input"), population("out", 3)]
    late = np.full((3, 12), 64)
    made = program(populations, [dense("f", "input", "out", even(rng(0), (3, 12)), delay=late)], depth=1)
    certificate = certify(made, given)
    assert certificate.status == "not run"
    assert "delay_steps" in certificate.reason


def test_oracles_have_names(made, given):
    with pytest.raises(OracleError, match="Did you mean 'lava'"):
        certify(made, given, oracle="lave")


def test_input_that_does_not_suit_is_refused(made):
    with pytest.raises(SimulationError, match="dense array must be"):
        certify(made, np.zeros((4, 1, 3), np.uint8))
