"""Sigma-delta, ternary and resonating neurons: their float meaning against closed forms, files, errors."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import ir, nir
from neuro.errors import NetworkError, UnsupportedLayer
from neuro.nn import bridge
from neuro.nn.bridge import to_module
from neuro.reference import run, scores

DT = 1e-3


def single(node, n=1, high=1, readout="sum"):
    return ir.chain({"in": ir.Input((n,), high), "n": node, "out": ir.Output(readout)}, dt=DT)


def sent(node, x):
    """(what is sent, v) [time] of one neuron that sees x[time]."""
    nodes = {"in": ir.Input((1,)), "w": ir.Linear(np.ones((1, 1))), "n": node, "out": ir.Output("last")}
    record = run(ir.chain(nodes, dt=DT), np.reshape(x, (-1, 1, 1)), record=("sent", "v"))
    return record.sent["n"][:, 0, 0], record.v["n"][:, 0, 0]


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("theta", [0.0, 1.0, 2.5])
def test_messages_of_a_delta_add_up_to_what_they_encode(theta, cumulative):
    x = np.random.default_rng(0).normal(0, 2, 200)
    message, v = sent(ir.Delta(theta, cumulative=cumulative), x)
    assert np.array_equal(v, x)
    assert np.allclose(np.cumsum(message), x, rtol=0, atol=theta + 1e-9 if not cumulative else 30)
    assert cumulative or np.abs(message[message != 0]).min() >= theta
    assert (message == 0).any() == (theta > 0)


def test_a_cumulative_delta_sends_where_the_small_changes_have_added_up():
    x = np.array([0.4, 0.8, 1.2, 1.2])
    assert np.array_equal(sent(ir.Delta(1.0), x)[0] != 0, [False, False, True, False])
    assert np.array_equal(sent(ir.Delta(1.0, cumulative=True), x)[0] != 0, [False, True, False, False])


def test_an_integrator_behind_a_sigma_delta_holds_its_activation():
    rng = np.random.default_rng(1)
    nodes = {
        "in": ir.Input((3,), 9),
        "encode": ir.Delta(np.zeros(3)),
        "w": ir.Linear(rng.normal(0, 1, (4, 3))),
        "hidden": ir.SigmaDelta(np.zeros(4), bias=rng.normal(0, 1, 4)),
        "w2": ir.Linear(rng.normal(0, 1, (2, 4))),
        "decode": ir.I(np.ones(2)),
        "out": ir.Output("last"),
    }
    net = ir.chain(nodes, dt=DT)
    x = rng.integers(0, 10, (20, 2, 3))
    record = run(net, x, record=("v",))
    wanted = np.maximum(x @ nodes["w"].weight.T + nodes["hidden"].bias, 0) @ nodes["w2"].weight.T
    assert np.allclose(record.v["decode"], wanted)
    assert np.allclose(scores(net, record), wanted[-1])


def test_a_ternary_neuron_sends_both_signs_and_resets():
    node = ir.TernaryLIF(tau_mem=1e-3, v_threshold=0.5, v_threshold_low=-0.25, v_reset=0.1)
    b = np.exp(-1.0)
    message, v = sent(node, [0.0, 1.0, -1.0, 0.3])
    assert np.array_equal(message, [0, 1, -1, 0])
    assert np.allclose(v, [0, 0.1, 0.1, b * 0.1 + (1 - b) * 0.3])


def test_a_resonator_answers_its_own_frequency():
    node = ir.ResonateAndFire(tau_mem=0.1, period=0.02, v_threshold=15.0)
    t = np.arange(400)
    tuned, detuned = (sent(node, np.cos(2 * np.pi * t / steps))[0].sum() for steps in (20, 33))
    assert tuned > 12
    assert detuned == 0


def test_a_resonator_is_a_damped_rotation():
    node = ir.ResonateAndFire(tau_mem=0.05, period=0.013, v_threshold=100.0)
    pulse = np.zeros(50)
    pulse[0] = 1
    t = np.arange(50)
    assert np.allclose(sent(node, pulse)[1], np.exp(-t * DT / 0.05) * np.cos(2 * np.pi * t * DT / 0.013))


def test_a_resetting_resonator_starts_from_below_its_threshold():
    message, v = sent(ir.ResonateAndFire(0.1, 0.02, 0.2, resets=True), [1.0, 0, 0, 0, 0])
    assert message[1] == 1
    assert v[1] == 0
    assert not message[2:].any()


NODES = {
    "ternary": ir.TernaryLIF(0.01, 1.0, -0.7, r=2.0, v_leak=0.1, v_reset=0.2),
    "integrator": ir.I(0.5),
    "delta": ir.Delta(0.25, cumulative=True),
    "identity": ir.SigmaDelta(0.25, bias=-0.5, activation="identity"),
    "relu": ir.SigmaDelta(0.5, cumulative=True),
    "resonator": ir.ResonateAndFire(0.02, 0.01, 1.5),
    "izhikevich": ir.ResonateAndFire(0.02, 0.01, 1.5, resets=True),
}


@pytest.mark.parametrize("name", NODES)
def test_files_keep_every_bit(name, tmp_path):
    node = NODES[name].expand((3,))
    net = single(node, 3)
    nir.save(net, tmp_path / "net.nir")
    back = nir.load(tmp_path / "net.nir").nodes["n"]
    assert type(back) is type(node)
    for key, value in vars(node).items():
        assert np.array_equal(getattr(back, key), value)
        assert type(getattr(back, key)) is type(value)


@pytest.mark.parametrize("name", ["ternary", "delta", "relu", "integrator"])
def test_messages_are_no_spikes_to_be_counted(name):
    with pytest.raises(NetworkError, match="sends none"):
        single(NODES[name], readout="count")


def test_nodes_that_no_torch_layer_computes_are_refused_by_name(monkeypatch):
    monkeypatch.delitem(bridge._IMPORT, ir.SigmaDelta)  # all nodes of this package have a layer by now
    with pytest.raises(UnsupportedLayer, match="'n' is a SigmaDelta"):
        to_module(single(NODES["relu"]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ir.Delta(-1.0), "must not be negative"),
        (lambda: ir.Delta(1.0, cumulative=2), "True or False"),
        (lambda: ir.SigmaDelta(1.0, activation="tanh"), "activation must be one of"),
        (lambda: ir.TernaryLIF(0.01, -1.0, 1.0), "must not lie above"),
        (lambda: ir.ResonateAndFire(0.01, 0.0, 1.0), "period must be positive"),
    ],
)
def test_bad_parameters_are_named(make, says):
    with pytest.raises(NetworkError, match=says):
        make()
