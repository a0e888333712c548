"""A sample starts on the chip as it does in the Network, whatever biases and resets have done before it arrives."""

from __future__ import annotations

import numpy as np
import pytest
from compile_networks import compare, dense_graph, events, in_float, on_chip
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro import ir, reference
from neuro.hardware import compile as compile_network
from neuro.hardware.loihi2.kernels import run
from neuro.hardware.loihi2.start import own_projection, population, projections
from neuro.hardware.program import Placement, Population, Program

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=25)


def quiet(seed: int, kind: str) -> ir.Network:
    """Two relays in front of one biased population whose threshold is just out of reach; off any grid."""
    rng = np.random.default_rng(seed)
    n = 6
    bias, delay = rng.normal(0, 0.1, n), rng.integers(0, 4, n)
    theta = 20.0  # out of reach: biases add up over about 20 steps
    constants = {"tau_mem": rng.uniform(0.005, 0.03, n), "v_threshold": np.full(n, theta)}
    if kind == "reset":
        constants |= {"v_reset": rng.uniform(-1.0, 1.0, n), "v_leak": rng.uniform(-0.5, 0.5, n)}
    if kind in ("cuba", "late"):
        tau_syn = rng.uniform(0.001, 0.02, n)
        node: ir.Neuron = ir.CubaLIF(tau_syn=tau_syn, r=constants["tau_mem"] / 1e-3, w_in=tau_syn / 1e-3, **constants)
        bias = bias / (tau_syn / 1e-3)
    else:
        node = ir.LIF(r=constants["tau_mem"] / 1e-3, **constants)
    weights = rng.normal(0, 0.5, (n, 4))
    relay = {"r1": ir.IF(v_threshold=np.full(4, 0.5)), "r2": ir.IF(v_threshold=np.full(4, 0.5))}
    tail = {"d": ir.Delay(delay)} if kind == "late" else {}
    nodes = {
        "in": ir.Input((4,)),
        **relay,
        "w": ir.Affine(weights, bias=bias),
        **tail,
        "p": node,
        "out": ir.Output("max"),
    }
    return ir.chain(nodes, dt=1e-3)


def membrane(network: ir.Network, **options: bool) -> tuple[np.ndarray, np.ndarray]:
    """v of 'p' on the chip, in reals, and in float: [time, n], without any input."""
    program = compile_network(network, **options)
    silent = np.zeros((40, 1, 4), np.uint8)
    trace = run(program, silent, (("p", "v"),))
    node = network.nodes["p"]
    assert isinstance(node, ir.Neuron)
    reset = getattr(node, "v_reset", np.zeros(6))
    on = trace.probes["p", "v"][program.skew["p"] :, 0] * program.scale["p"] + reset
    return on, reference.run(network, silent, record=("v",)).v["p"][:, 0]


@quick
@given(seeds, st.sampled_from(["lif", "cuba", "reset", "late"]))
def test_the_membrane_moves_as_in_float(seed: int, kind: str) -> None:
    network = quiet(seed, kind)
    assert compile_network(network, strict=True).substitutions == ()
    on, wanted = membrane(network)
    assert np.abs(on - wanted).max() < 0.05  # a quarter of a percent of the threshold
    early, _ = membrane(network, start_up=False)
    assert np.abs(early - wanted).max() > 2 * np.abs(on - wanted).max()


@quick
@given(seeds)
def test_biases_on_the_grid_are_exact(seed: int) -> None:
    """Integrate-and-fire graphs with biases, loops and delays: equal to the last spike, or said not to be."""
    network = dense_graph(seed, bias=True)
    dense = events(seed, network)
    program = compile_network(network)
    if program.substitutions:
        assert all("fire in the" in line for line in program.substitutions)
        return
    chip, wanted = on_chip(program, dense), in_float(network, dense)
    for name in set(wanted) & set(chip):
        np.testing.assert_array_equal(chip[name], wanted[name])


def test_neurons_that_would_fire_before_the_sample_are_held_down() -> None:
    """A bias of 0.4 thresholds would fire in the third step, the population is reached in the fourth."""
    relay = ir.IF(v_threshold=np.full(2, 0.5))
    nodes = {
        "in": ir.Input((2,)),
        "a": relay,
        "b": relay,
        "c": relay,
        "w": ir.Affine(np.eye(2) / 4, bias=np.array([0.5, 0.125])),
        "p": ir.IF(v_threshold=np.full(2, 1.125)),
        "out": ir.Output(),
    }
    network = ir.chain(nodes, dt=1e-3)
    assert compare(network, events(0, network)).substitutions == ()


def test_what_fires_at_once_cannot_be_held_and_is_listed() -> None:
    network = ir.chain(
        {
            "in": ir.Input((1,)),
            "w": ir.Affine(np.ones((1, 1)), bias=np.array([2.0])),
            "p": ir.IF(v_threshold=np.ones(1)),
            "out": ir.Output(),
        },
        dt=1e-3,
    )
    (line,) = compile_network(network).substitutions
    assert "1 neuron(s) of 'p' fire in the 1 step(s) before" in line


@pytest.mark.parametrize("steps", [1, 3])
def test_pulses_arrive_whole_and_once(steps: int) -> None:
    """Any amount, of both signs, up to the whole range of v, in the step it is meant for and no other."""
    amounts = np.array([0, 1, -1, 255, -256, 257, 511, -1023, 32641, -65000, 100_001])
    target = {"du": 4095, "dv": 0, "vth": 131071, "bias_mant": 0, "bias_exp": 0}
    n = len(amounts)
    populations = {
        "in": Population("in", "in", "input", (1,)),
        "start_up": population(),
        "p": Population("p", "p", "li", (n,), {k: np.array(v) for k, v in target.items()}),
    }
    parts = (own_projection(8), *projections("p", {steps: amounts}, 8))
    where = Placement({"start_up": np.zeros(1, np.int64), "p": np.zeros(n, np.int64)}, np.zeros((1, 2), np.int64))
    skew = {"in": 0, "start_up": 0, "p": 1}
    program = Program("loihi2", 1e-3, populations, parts, "in", "p", skew, {}, "last", where)
    trace = run(program, np.zeros((20_000, 1, 1), np.uint8), (("p", "u"),))
    u = trace.probes["p", "u"][:, 0]
    np.testing.assert_array_equal(u[steps], 64 * amounts)
    assert not u[[t for t in range(len(u)) if t != steps]].any()
    assert trace.spikes["start_up"].sum() == 1


def test_biases_between_weights_are_met_too() -> None:
    """Weights of 52 and -156 on a grid of 52, biases of 20 and -12, all over 128: only a grid of 4 holds them all."""
    network = dense_graph(18077986, bias=True)
    assert compare(network, events(18077986, network)).substitutions == ()
