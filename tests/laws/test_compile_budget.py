"""The error budget says what quantisation did, and weights from the chip's grid lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro import ir
from neuro.discretise import coefficients
from neuro.hardware import compile as compile_network
from neuro.hardware.program import Program

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=20)


def cuba(seed: int) -> ir.Network:
    """Input, CubaLIF with per-neuron constants, CubaLI readout; ordinary random weights."""
    rng = np.random.default_rng(seed)
    n_in, n = (int(k) for k in rng.integers(2, 30, 2))
    hidden = ir.CubaLIF(
        tau_syn=rng.uniform(2e-3, 2e-2, n),
        tau_mem=rng.uniform(5e-3, 5e-2, n),
        v_threshold=rng.uniform(0.5, 2, n),
        r=rng.uniform(5, 20, n),
        w_in=rng.uniform(1, 5, n),
    )
    nodes = [
        ("in", ir.Input((n_in,))),
        ("w", ir.Affine(rng.normal(0, 0.5, (n, n_in)), bias=rng.normal(0, 0.02, n))),
        ("h", hidden),
        ("v", ir.Linear(rng.normal(0, 0.5, (5, n)))),
        ("o", ir.CubaLI(tau_syn=np.full(5, 5e-3), tau_mem=0.02)),
        ("out", ir.Output("sum")),
    ]
    return ir.chain(nodes, dt=1e-3)


def rows(program: Program, quantity: str) -> dict[str, object]:
    return {b.node: b for b in program.budget if b.quantity == quantity}


@quick
@given(seeds)
def test_integers_times_their_scale_are_the_network_within_the_budget(seed: int) -> None:
    network = cuba(seed)
    program = compile_network(network)
    for projection in program.projections:
        if projection.source == "start_up":
            continue
        node = network.nodes[projection.target]
        assert isinstance(node, ir.Neuron)
        c = coefficients(node, network.dt, network.discretisation)
        linear = network.nodes[projection.node]
        assert isinstance(linear, ir.Linear)
        real = linear.weight * (c.gain_mem * c.gain_syn)[:, None]
        unit = 64 * program.scale[projection.target] * 2.0 ** int(projection.params["weight_exp"])
        error = np.abs(projection.weight_q * unit - real) / np.abs(real).max()
        budget = rows(program, "weight")[projection.node]
        assert error.max() == pytest.approx(budget.max_error, rel=1e-9)  # type: ignore[attr-defined]
        inside = (projection.weight_q > -256) & (projection.weight_q < 254)
        assert (error[inside] * np.abs(real).max() <= unit * (1 + 1e-9)).all()  # half of a step of two
        assert budget.rms_error < 0.01  # type: ignore[attr-defined]
    params = program.populations["h"].params
    hidden = network.nodes["h"]
    assert isinstance(hidden, ir.CubaLIF)
    vth = params["vth"] * 64 * program.scale["h"]
    relative = np.abs(vth - hidden.v_threshold).max() / hidden.v_threshold.max()
    assert relative == pytest.approx(rows(program, "threshold")["h"].max_error, rel=1e-9)  # type: ignore[attr-defined]
    assert relative < 5e-3
    c = coefficients(hidden, network.dt, network.discretisation)
    np.testing.assert_allclose((4095 - params["du"]) / 4096, c.alpha, atol=0.5001 / 4096)
    np.testing.assert_allclose((4096 - params["dv"]) / 4096, c.beta, atol=0.5001 / 4096)
    bias = params["bias_mant"] * 2.0 ** params["bias_exp"] * program.scale["h"]
    affine = network.nodes["w"]
    assert isinstance(affine, ir.Affine)
    steady = affine.bias * c.gain_syn * c.gain_mem / (1 - c.alpha)
    np.testing.assert_allclose(bias, steady, atol=2.0 ** int(params["bias_exp"]) * program.scale["h"] * 0.5001)


@quick
@given(seeds, st.floats(1e-6, 1e6), st.integers(1, 127), st.booleans())
def test_weights_trained_on_a_grid_come_back_exactly(seed: int, step: float, most: int, one_sided: bool) -> None:
    """Any step, any number of levels, stored as float32 as training does."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0 if one_sided else -most, most + 1, (6, 9))
    whole[0, 0] = most
    weight = (whole * np.float32(step)).astype(np.float32)
    theta = float(np.float32(step)) * int(rng.integers(1, 5000)) / 16  # finer than the weights
    network = ir.chain(
        [
            ("in", ir.Input((9,))),
            ("w", ir.Linear(weight)),
            ("p", ir.LIF(tau_mem=np.full(6, 0.02), v_threshold=theta, r=1 / (1 - np.exp(-0.05)))),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    program = compile_network(network)
    (projection,) = program.projections
    divisor = projection.weight_q[0, 0] / most
    assert divisor > 0
    np.testing.assert_array_equal(projection.weight_q, whole * divisor)
    assert rows(program, "weight")["w"].max_error < 1e-5  # type: ignore[attr-defined]
    assert rows(program, "threshold")["p"].max_error < 1e-5  # type: ignore[attr-defined]


@quick
@given(seeds)
def test_kernels_on_a_grid_come_back_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-127, 128, (4, 2, 3, 3))
    step = float(rng.uniform(1e-3, 1e-1))
    network = ir.chain(
        [
            ("in", ir.Input((2, 6, 6))),
            ("w", ir.Conv2d((whole * step).astype(np.float32))),
            ("p", ir.IF(v_threshold=step * 300)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    (projection,) = compile_network(network).projections
    np.testing.assert_array_equal(projection.weight_q * np.gcd.reduce(whole.ravel()), whole)


def test_same_sign_gains_a_bit() -> None:
    """All weights positive: excitatory synapses hold 0..255 in steps of one, against 0..254 in steps of two."""
    rng = np.random.default_rng(1)
    positive = rng.uniform(0.1, 1, (20, 20))

    def error(weight: np.ndarray) -> tuple[float, int]:
        network = ir.chain(
            [("in", ir.Input((20,))), ("w", ir.Linear(weight)), ("p", ir.IF(v_threshold=3.0)), ("out", ir.Output())],
            dt=1e-3,
        )
        program = compile_network(network)
        return rows(program, "weight")["w"].rms_error, int(program.projections[0].params["sign_mode"])  # type: ignore[attr-defined]

    exc, inh = error(positive), error(-positive)
    mixed = positive.copy()
    mixed[0, 0] = -0.5
    assert (exc[1], inh[1], error(mixed)[1]) == (2, 3, 1)
    assert max(exc[0], inh[0]) < 0.6 * error(mixed)[0]
