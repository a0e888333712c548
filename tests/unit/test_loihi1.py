"""Loihi 1's compiler: what it keeps, what it refuses by name, and that following a remedy helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compile_networks import dense_graph, events, image_graph, in_float

from neuro import ir
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import export
from neuro.hardware.certify import certify
from neuro.hardware.loihi1 import compiler
from neuro.hardware.loihi1.compiler import CHIP
from neuro.hardware.simulate import simulate

PRESETS = ("lava", "nengo", "brian2loihi")


def limited(monkeypatch, **limits):
    tight = {n: replace(CHIP.limits[n], value=v) for n, v in limits.items()}
    monkeypatch.setattr(compiler, "CHIP", replace(CHIP, limits={**CHIP.limits, **tight}))


def one_layer(n_in=6, n=4, *, readout="count", bias=False, weight=1.0, threshold=1.0):
    rng = np.random.default_rng(0)
    w = rng.choice([-weight, weight], (n, n_in))
    layer = ir.Affine(w, bias=np.full(n, 0.1)) if bias else ir.Linear(w)
    nodes = [("in", ir.Input((n_in,))), ("w", layer), ("p", ir.IF(np.full(n, threshold))), ("out", ir.Output(readout))]
    return ir.chain(nodes, dt=1e-3)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("make", [dense_graph, image_graph])
def test_a_network_on_the_grid_spikes_as_the_float_reference(preset, make):
    for seed in range(6):
        network = make(seed)
        program = compile_network(network, "loihi1", preset=preset, max_steps=30)
        assert not program.substitutions
        dense = events(seed, network, steps=30, batch=2)
        trace = simulate(program, dense)
        for name, theirs in in_float(network, dense).items():
            late = program.skew[name]
            assert np.array_equal(trace.spikes[name][late : late + 30], theirs), (seed, name)


@pytest.mark.parametrize("preset", ["nengo", "brian2loihi"])
def test_a_certificate_of_the_presets_without_a_simulator_of_their_own(preset):
    program = compile_network(dense_graph(2), "loihi1", preset=preset)
    n = program.populations[program.input].size
    dense = (np.random.default_rng(1).random((20, 3, n)) < 0.4).astype(np.uint8)
    certificate = certify(program, dense)
    assert certificate.passed, certificate
    assert "golden vectors" in certificate.title
    assert certificate.compared == 3 * 3 * (20 + program.depth) * program.neurons


@pytest.mark.lava
def test_the_lava_preset_is_certified_by_lava():
    from neuro.hardware.export.lava_shim import MISSING, available

    if not available():
        pytest.skip(MISSING)
    program = compile_network(dense_graph(2), "loihi1")
    n = program.populations[program.input].size
    dense = (np.random.default_rng(1).random((20, 2, n)) < 0.4).astype(np.uint8)
    certificate = certify(program, dense)
    assert certificate.passed, certificate
    assert "Lava" in certificate.title


def test_options():
    with pytest.raises(ChipError, match="Did you mean 'nengo'"):
        compile_network(one_layer(), "loihi1", preset="nengoo")
    with pytest.raises(UnsupportedNode, match="use preset lava or nengo"):
        compile_network(one_layer(bias=True), "loihi1", preset="brian2loihi")
    compile_network(one_layer(bias=True), "loihi1", preset="nengo")


def test_only_the_lava_preset_is_written_for_lava(tmp_path):
    with pytest.raises(UnsupportedNode, match="preset lava"):
        export(compile_network(one_layer(), "loihi1", preset="nengo"), tmp_path / "a", to="lava")
    assert not list(tmp_path.iterdir())
    assert export(compile_network(one_layer(), "loihi1"), tmp_path / "b", to="lava").is_dir()


def test_strict_refuses_what_a_preset_cannot_hold():
    """600 inputs: together more than the 22 bits of nengo's input can hold."""
    whole = np.random.default_rng(0).integers(-127, 128, (2, 600)) * 2.0
    ends = [("p", ir.IF(np.full(2, 2e4))), ("o", ir.Output("count"))]
    network = ir.chain([("in", ir.Input((600,))), ("w", ir.Linear(whole)), *ends], dt=1e-3)
    assert compile_network(network, "loihi1", strict=True, max_steps=5)
    with pytest.raises(PrecisionLoss, match="wraps beyond"):
        compile_network(network, "loihi1", preset="nengo", strict=True, max_steps=5)


def test_every_limit_of_a_core_starts_another_core(monkeypatch):
    program = compile_network(one_layer(6, 40), "loihi1")
    assert program.placement.cores == 1
    for limit, value, cores in (
        ("compartments_per_core", 10, 4),
        ("synapse_bits_per_core", 24 * 6 * 8, 5),
        ("cores_per_tile", 1, 1),
    ):
        limited(monkeypatch, **{limit: value})
        assert compile_network(one_layer(6, 40), "loihi1").placement.cores == cores, limit


def test_thresholds_of_many_values_take_several_cores(monkeypatch):
    nodes = [
        ("in", ir.Input((2,))),
        ("w", ir.Linear(np.ones((8, 2)))),
        ("p", ir.IF(np.arange(1, 9) * 2.0)),
        ("out", ir.Output("count")),
    ]
    limited(monkeypatch, thresholds_per_core=3)
    assert compile_network(ir.chain(nodes, dt=1e-3), "loihi1").placement.cores == 3


def test_input_axons_split_a_layer_until_one_neuron_has_too_many(monkeypatch):
    local = np.kron(np.eye(8), np.ones((1, 4)))  # each neuron has four inputs of its own
    nodes = [("in", ir.Input((32,))), ("w", ir.Linear(local)), ("p", ir.IF(np.ones(8))), ("out", ir.Output("count"))]
    network = ir.chain(nodes, dt=1e-3)
    limited(monkeypatch, in_axons_per_core=8)
    assert compile_network(network, "loihi1").placement.cores == 4
    limited(monkeypatch, in_axons_per_core=3)
    with pytest.raises(DoesNotFit, match="input axons") as caught:
        compile_network(network, "loihi1")
    assert [(v.wanted, v.allowed) for v in caught.value.violations] == [(4, 3)]
    pruned = np.where(np.arange(32) % 4 == 0, 0.0, local)  # the remedy: prune
    nodes[1] = ("w", ir.Linear(pruned))
    assert compile_network(ir.chain(nodes, dt=1e-3), "loihi1").placement.cores == 8


def test_output_axons_spread_a_layer(monkeypatch):
    nodes = [
        ("in", ir.Input((2,))),
        ("w1", ir.Linear(np.ones((8, 2)))),
        ("a", ir.IF(np.ones(8))),
        ("w2", ir.Linear(np.ones((30, 8)))),
        ("b", ir.IF(np.ones(30))),
        ("out", ir.Output("count")),
    ]
    limited(monkeypatch, compartments_per_core=10, out_axons_per_core=12)
    program = compile_network(ir.chain(nodes, dt=1e-3), "loihi1")  # each neuron of a reaches 3 cores of b
    cores = program.placement.core_of["a"]
    assert np.bincount(cores).max() * 3 <= 12
    limited(monkeypatch, compartments_per_core=10, out_axons_per_core=2)
    with pytest.raises(DoesNotFit, match="output axons of one neuron is 3, allowed 2"):
        compile_network(ir.chain(nodes, dt=1e-3), "loihi1")


def test_every_violation_at_once(monkeypatch):
    limited(monkeypatch, cores=1, compartments_per_core=3, in_axons_per_core=4, delay_steps=2)
    nodes = [
        ("in", ir.Input((6,))),
        ("w", ir.Linear(np.ones((8, 6)), delay_steps=np.full((8, 6), 5))),
        ("p", ir.IF(np.ones(8))),
        ("out", ir.Output("count")),
    ]
    with pytest.raises(DoesNotFit) as caught:
        compile_network(ir.chain(nodes, dt=1e-3), "loihi1")
    assert {v.limit.split(" of ")[0] for v in caught.value.violations} == {"delay", "input axons", "cores"}


def test_a_convolution_is_placed_in_patches(monkeypatch):
    rng = np.random.default_rng(0)
    nodes = [
        ("in", ir.Input((2, 12, 12))),
        ("c", ir.Conv2d(rng.normal(size=(4, 2, 3, 3)), padding=(1, 1))),
        ("p", ir.IF(np.full((4, 12, 12), 1.0))),
        ("f", ir.Flatten()),
        ("out", ir.Output("count")),
    ]
    limited(monkeypatch, in_axons_per_core=2 * 12 * 5)  # five rows of the input
    program = compile_network(ir.chain(nodes, dt=1e-3), "loihi1")
    rows = program.placement.core_of["p"].reshape(4, 12, 12)
    assert (rows == rows[:1]).all(), "all channels of a pixel share a core"
    assert program.placement.cores == 4
    assert all(u["input axons"] <= 1 for u in program.placement.utilisation)


def test_probes_have_names():
    program = compile_network(one_layer(), "loihi1", preset="nengo")
    with pytest.raises(SimulationError, match="cannot probe 'w'"):
        simulate(program, np.zeros((3, 6), np.uint8), probes=[("p", "w")])
