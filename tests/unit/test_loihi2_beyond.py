"""Networks of sigma-delta, ternary and resonating neurons on Loihi 2: the integers mean what the network means."""

from __future__ import annotations

import numpy as np
import pytest
from event_sets import random_set
from lava_programs import needs_lava

from neuro import deploy, ir
from neuro.errors import DoesNotFit, PrecisionLoss, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.certify import certify
from neuro.reference import run

DT = 1e-3


def walk(rng, steps, batch, n, high=20):
    """A slow signal in 0..high."""
    return np.clip(np.cumsum(rng.integers(-2, 3, (steps, batch, n)), axis=0) + high // 2, 0, high).astype(np.uint8)


def sigma_delta(theta=0.0, seed=0, bias=True, cumulative=False):
    rng = np.random.default_rng(seed)
    nodes = {
        "in": ir.Input((6,), 20),
        "encode": ir.Delta(np.full(6, theta), cumulative=cumulative),
        "w1": ir.Linear(rng.normal(0, 0.5, (12, 6))),
        "h1": ir.SigmaDelta(np.full(12, theta), bias=rng.normal(0, 2, 12) * bias, cumulative=cumulative),
        "w2": ir.Linear(rng.normal(0, 0.5, (10, 12))),
        "h2": ir.SigmaDelta(np.full(10, theta), cumulative=cumulative),
        "w3": ir.Linear(rng.normal(0, 0.5, (4, 10))),
        "decode": ir.I(np.ones(4)),
        "out": ir.Output("last"),
    }
    return ir.chain(nodes, dt=DT)


def ternary():
    rng = np.random.default_rng(1)
    nodes = {
        "in": ir.Input((8,)),
        "w1": ir.Linear(rng.integers(-3, 4, (10, 8)) / 4),
        "h": ir.TernaryLIF(np.full(10, 20e-3), np.full(10, 0.05), np.full(10, -0.04)),
        "w2": ir.Linear(rng.integers(-3, 4, (3, 10)) / 4),
        "out": ir.LI(np.full(3, 30e-3)),
        "o": ir.Output("sum"),
    }
    return ir.chain(nodes, dt=DT)


def resonators(resets=False):
    rng = np.random.default_rng(2)
    nodes = {
        "in": ir.Input((4,)),
        "w1": ir.Linear(rng.uniform(0.2, 1.0, (6, 4))),
        "h": ir.ResonateAndFire(np.full(6, 0.03), np.linspace(8e-3, 30e-3, 6), np.full(6, 1.5), resets=resets),
        "w2": ir.Linear(rng.uniform(0.2, 1.0, (2, 6))),
        "out": ir.LI(np.full(2, 30e-3)),
        "o": ir.Output("max"),
    }
    return ir.chain(nodes, dt=DT)


def membrane(program, name, variable, dense):
    """Reals of a variable, aligned with the Network's steps."""
    trace = simulate(program, dense, probes=[(name, variable)])
    begin = program.skew[name]
    return trace.probes[name, variable][begin : begin + len(dense)] * program.scale[name]


def test_sigma_delta_without_threshold_computes_the_network_of_activations():
    network = sigma_delta()
    program = compile_network(network, readout_headroom=0.1)
    assert {p.model for p in program.populations.values()} == {"input", "delta", "sigma_delta", "sigma"}
    dense = walk(np.random.default_rng(3), 50, 3, 6)
    wanted = run(network, dense, record=("v",)).v
    for name, variable in (("encode", "act"), ("h1", "act"), ("h2", "act"), ("decode", "sigma")):
        ours = membrane(program, name, variable, dense)
        error = np.abs(ours - wanted[name]).max() / np.abs(wanted[name]).max()
        assert error < (1e-12 if name == "encode" else 0.01), name


@pytest.mark.parametrize("cumulative", [False, True])
def test_a_threshold_saves_messages_and_little_is_lost(cumulative):
    network = sigma_delta(0.5, cumulative=cumulative)
    program = compile_network(network, readout_headroom=0.1)
    dense = walk(np.random.default_rng(4), 50, 3, 6)
    trace = simulate(program, dense)
    full = simulate(compile_network(sigma_delta(), readout_headroom=0.1), dense)
    assert (trace.spikes["h2"] != 0).mean() < 0.9 * (full.spikes["h2"] != 0).mean()
    wanted = run(network, dense, record=("v",)).v["decode"]
    assert np.abs(membrane(program, "decode", "sigma", dense) - wanted).max() < 0.1 * np.abs(wanted).max()


def test_weights_on_the_grid_make_it_exact():
    nodes = {
        "in": ir.Input((2,), 9),
        "encode": ir.Delta(np.full(2, 2.0)),
        "w": ir.Linear(np.array([[0.5, -0.25], [0.75, 1.0]])),
        "h": ir.SigmaDelta(np.full(2, 1.0), bias=[0.5, -1.25]),
        "w2": ir.Linear(np.array([[2.0, -1.0]])),
        "decode": ir.I(np.ones(1)),
        "out": ir.Output("last"),
    }
    network = ir.chain(nodes, dt=DT)
    program = compile_network(network)
    dense = walk(np.random.default_rng(5), 40, 4, 2, high=9)
    program_free = compile_network(network.replace_nodes({"h": ir.SigmaDelta(np.full(2, 1.0))}), strict=True)
    assert not program_free.substitutions
    for made, net in ((program_free, network.replace_nodes({"h": ir.SigmaDelta(np.full(2, 1.0))})),):
        wanted = run(net, dense, record=("sent", "v"))
        trace = simulate(made, dense)
        begin = made.skew["h"]
        sent = trace.spikes["h"][begin : begin + 40] * made.scale["h"]
        assert np.array_equal(sent, wanted.sent["h"])
        assert np.array_equal(membrane(made, "decode", "sigma", dense), wanted.v["decode"])
    with pytest.raises(PrecisionLoss, match="bias"):
        compile_network(network, strict=True)
    assert any("bias" in line for line in program.substitutions)


def test_counted_inputs_drive_lif_neurons_by_their_number():
    nodes = {
        "in": ir.Input((3,), 200),
        "w": ir.Linear(np.array([[1.0, -1.0, 2.0]])),
        "n": ir.IF(np.full(1, 500.0)),
        "out": ir.Output(),
    }
    network = ir.chain(nodes, dt=DT)
    dense = np.random.default_rng(6).integers(0, 201, (60, 3, 3)).astype(np.uint8)
    program = compile_network(network, max_steps=100)
    begin = program.skew["n"]
    ours = simulate(program, dense).spikes["n"][begin : begin + 60]
    assert np.array_equal(ours, run(network, dense).spikes["n"])
    assert ours.any()


def test_ternary_neurons_send_both_signs():
    network = ternary()
    program = compile_network(network)
    dense = (np.random.default_rng(7).random((80, 3, 8)) < 0.2).astype(np.uint8)
    trace = simulate(program, dense)
    begin = program.skew["h"]
    ours = trace.spikes["h"][begin : begin + 80]
    wanted = run(network, dense, record=("sent",)).sent["h"]
    assert {-1, 0, 1} == set(np.unique(ours))
    assert (ours == wanted).mean() > 0.99


@pytest.mark.parametrize("resets", [False, True])
def test_resonators_keep_phase_and_amplitude(resets):
    network = resonators(resets)
    program = compile_network(network)
    dense = (np.random.default_rng(8).random((120, 2, 4)) < 0.15).astype(np.uint8)
    wanted = run(network, dense, record=("spikes", "v"))
    begin = program.skew["h"]
    ours = simulate(program, dense).spikes["h"][begin : begin + 120]
    assert ours.sum() > 20
    assert (ours == wanted.spikes["h"]).mean() > 0.99
    if not resets:
        off = np.abs(membrane(program, "h", "real", dense) - wanted.v["h"]).max()
        assert off < 0.01 * np.abs(wanted.v["h"]).max()


@needs_lava
@pytest.mark.lava
@pytest.mark.parametrize("network", [sigma_delta(0.5), ternary(), resonators(), resonators(True)])
def test_real_lava_computes_the_same(network):
    high = network.nodes["in"].high
    dense = walk(np.random.default_rng(9), 40, 2, network.shapes["in"][0], high)
    certificate = certify(compile_network(network, readout_headroom=0.1), dense, oracle="lava-inprocess")
    assert certificate.passed, certificate


def test_spikes_without_an_encoder_need_a_longest_sample():
    nodes = {
        "in": ir.Input((2,)),
        "w": ir.Linear(np.eye(2)),
        "s": ir.SigmaDelta(np.full(2, 0.5)),
        "d": ir.I(np.ones(2)),
        "o": ir.Output("last"),
    }
    network = ir.chain(nodes, dt=DT)
    with pytest.raises(DoesNotFit, match="max_steps"):
        compile_network(network)
    assert compile_network(network, max_steps=100).populations["s"].model == "sigma_delta"


def test_a_bias_in_front_of_a_sigma_delta_is_refused_by_name():
    nodes = {
        "in": ir.Input((2,), 3),
        "e": ir.Delta(np.zeros(2)),
        "w": ir.Affine(np.eye(2), bias=[0.5, 0.5]),
        "s": ir.SigmaDelta(np.full(2, 0.5)),
        "o": ir.Output("last"),
    }
    with pytest.raises(DoesNotFit, match="has a bias of its own"):
        compile_network(ir.chain(nodes, dt=DT))


def test_numbers_in_a_loop_are_refused_by_name():
    nodes = {
        "in": ir.Input((2,), 3),
        "e": ir.Delta(np.zeros(2)),
        "s": ir.SigmaDelta(np.full(2, 0.5)),
        "w": ir.Linear(np.eye(2)),
        "o": ir.Output("last"),
    }
    edges = (("in", "e"), ("e", "s"), ("s", "w"), ("w", "s"), ("s", "o"))
    with pytest.raises(UnsupportedNode, match="sends numbers back"):
        compile_network(ir.Network(nodes, edges, dt=DT))


def test_the_membrane_of_a_leaky_integrator_still_does_not_travel():
    nodes = {"in": ir.Input((2,)), "l": ir.LI(np.full(2, 0.01)), "n": ir.IF(np.ones(2)), "o": ir.Output()}
    with pytest.raises(UnsupportedNode, match="sends its membrane"):
        compile_network(ir.chain(nodes, dt=DT))


@needs_lava
@pytest.mark.lava
def test_a_sigma_delta_network_is_deployed_like_any_other(tmp_path):
    """Judged by the float interpreter (no torch layer computes it), simulated, certified, exported, drawn."""
    report = deploy(sigma_delta(1.0), random_set(6, 300, (6,), 3, 0.04), out=tmp_path / "out", certify_samples=2)
    found = report.chips["loihi2"]
    assert found.fits
    assert found.matches["status"] == "passed"
    assert found.agrees_with_float is not None
    assert found.agrees_with_float >= 5 / 6
    assert (tmp_path / "out" / "loihi2_membrane.png").stat().st_size > 0
