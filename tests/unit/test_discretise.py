"""Where dt meets tau: closed forms, the inverse, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from neuro import ir
from neuro.discretise import check, coefficients, decay, tau
from neuro.errors import NetworkError


def test_exact_decay_is_the_solution_of_the_equation() -> None:
    assert decay(np.array(5e-3), 1e-3, "exact") == pytest.approx(math.exp(-0.2), rel=1e-15)
    # two half steps are one step
    half = decay(np.array(5e-3), 0.5e-3, "exact")
    assert half * half == pytest.approx(float(decay(np.array(5e-3), 1e-3, "exact")), rel=1e-15)


def test_euler_decay_is_a_rational() -> None:
    assert Fraction(float(decay(np.array(4.0), 1.0, "euler"))) == Fraction(3, 4)
    assert decay(np.array(1.0), 1.0, "euler") == 0.0


def test_extremes_of_decay_stay_quiet() -> None:
    assert decay(np.array(5e-324), 1e300, "exact") == 0.0
    assert decay(np.array(1e300), 1e-300, "exact") == 1.0


@pytest.mark.parametrize(
    ("tau_s", "dt", "rule", "says"),
    [
        (1e-3, 2e-3, "euler", "overshoots"),
        (1e-3, 1e-3, "midpoint", "must be one of"),
        (0.0, 1e-3, "exact", "must be positive"),
        (-1.0, 1e-3, "euler", "must be positive"),
        (math.nan, 1e-3, "exact", "must be positive"),
    ],
)
def test_decay_refuses(tau_s: float, dt: float, rule: str, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        decay(np.array([tau_s, 1.0]), dt, rule)


@pytest.mark.parametrize("rule", ir.RULES)
@pytest.mark.parametrize("factor", [0.1, 0.5, 0.999])
def test_tau_inverts_decay(rule: str, factor: float) -> None:
    assert decay(np.array(tau(factor, 1e-3, rule)), 1e-3, rule) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("factor", "dt", "rule", "says"),
    [
        (0.0, 1e-3, "exact", "strictly between"),
        (1.0, 1e-3, "exact", "strictly between"),
        (math.nan, 1e-3, "exact", "strictly between"),
        (0.5, 0.0, "exact", "dt must be"),
        (0.5, 1e-3, "other", "must be one of"),
    ],
)
def test_tau_refuses(factor: float, dt: float, rule: str, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        tau(factor, dt, rule)


def test_coefficients_of_every_neuron() -> None:
    dt, a, b = 1e-3, math.exp(-1 / 2), math.exp(-1 / 5)
    node = ir.CubaLIF(2e-3, 5e-3, 1.0, r=3.0, v_leak=0.25, w_in=7.0)
    c = coefficients(node, dt, "exact")
    assert [float(x) for x in c] == pytest.approx([a, (1 - a) * 7, b, (1 - b) * 3, (1 - b) * 0.25], rel=1e-14)
    c = coefficients(ir.CubaLI(2e-3, 5e-3), dt, "euler")
    assert [float(x) for x in c] == pytest.approx([0.5, 0.5, 0.8, 0.2, 0.0], rel=1e-14)
    c = coefficients(ir.LIF(5e-3, 1.0, r=2.0), dt, "exact")
    assert [float(x) for x in c] == pytest.approx([0, 1, b, (1 - b) * 2, 0], rel=1e-14)
    assert [float(x) for x in coefficients(ir.LI(5e-3), dt, "exact")] == pytest.approx([0, 1, b, 1 - b, 0])
    # r of an integrator acts per step: dt and rule do not matter
    assert [float(x) for x in coefficients(ir.IF(1.0, r=0.5), 123.0, "euler")] == [0, 1, 1, 0.5, 0]


def test_coefficients_have_the_neurons_shape() -> None:
    for c in coefficients(ir.LIF(np.full((2, 1), 5e-3), np.ones((2, 3))), 1e-3, "exact"):
        assert c.shape == (2, 3)


def test_network_that_overshoots_is_refused_with_all_constants() -> None:
    nodes = {"i": ir.Input((1,)), "a": ir.CubaLIF(1e-4, 2e-4, 1.0), "b": ir.IF(1.0), "o": ir.Output()}
    with pytest.raises(NetworkError) as caught:
        ir.chain(nodes, 1e-3, discretisation="euler")
    assert [str(v).split(":")[0] for v in caught.value.violations] == ["'a' tau_mem", "'a' tau_syn"]
    check(ir.chain(nodes, 1e-3, discretisation="exact"))
