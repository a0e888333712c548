"""From time constants to per-step coefficients: the only place where dt meets tau."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuro.errors import NetworkError
from neuro.ir import (
    IF,
    RULES,
    AdaptiveLIF,
    Array,
    CubaLI,
    CubaLIF,
    Delta,
    I,
    Network,
    Neuron,
    ResonateAndFire,
    SigmaDelta,
)


def _problem(tau: Array, dt: float, rule: str) -> str | None:
    if not (tau > 0).all():  # also where tau is NaN
        return f"a time constant must be positive seconds, the smallest is {tau.min():g}"
    if rule not in RULES:
        return f"discretisation must be one of {RULES}, got {rule!r}"
    if rule == "euler" and (dt > tau).any():
        return (
            f"explicit Euler with dt {dt:g} s overshoots for a time constant of {tau.min():g} s; "
            "use discretisation 'exact' or a smaller dt"
        )
    return None


def decay(tau: Array, dt: float, rule: str) -> Array:
    """Factor that survives one step: exp(-dt/tau) ("exact") or 1 - dt/tau ("euler").

    Args:
        tau: seconds, positive. dt: seconds. rule: "exact" or "euler".

    Raises:
        NetworkError: another rule; tau not positive; under "euler", dt > tau: the step would
            overshoot and oscillate.
    """
    tau = np.asarray(tau, dtype=np.float64)
    problem = _problem(tau, dt, rule)
    if problem:
        raise NetworkError(problem)
    with np.errstate(over="ignore"):  # dt / tau beyond float64 is a decay to nothing
        return np.exp(-dt / tau) if rule == "exact" else 1.0 - dt / tau


def check(net: Network) -> None:
    """Refuse a network whose rule overshoots for some time constant.

    Raises:
        NetworkError: every such node and constant.
    """
    bad = []
    for name in net.of(Neuron):
        for constant in ("tau_mem", "tau_syn", "tau_adapt"):
            tau = getattr(net.nodes[name], constant, None)
            problem = None if tau is None else _problem(tau, net.dt, net.discretisation)
            if problem:
                bad.append(f"'{name}' {constant}: {problem}")
    if bad:
        raise NetworkError("network cannot be stepped", bad)


class Coefficients(NamedTuple):
    """i = alpha i + gain_syn x;  v = beta v + gain_mem i + drive. Without a synapse alpha = 0, i = x.

    Of a `ResonateAndFire` beta is the factor of its amplitude; sigma-delta neurons forget nothing.
    """

    alpha: Array
    gain_syn: Array
    beta: Array
    gain_mem: Array
    drive: Array


def coefficients(node: Neuron, dt: float, rule: str) -> Coefficients:
    """Per-step coefficients of a neuron, each of the neuron's shape.

    Raises:
        NetworkError: as `decay`.
    """
    one, zero = np.ones(node.shape), np.zeros(node.shape)
    if isinstance(node, (IF, I)):
        return Coefficients(zero, one, one, node.r, zero)
    if isinstance(node, (Delta, SigmaDelta)):
        return Coefficients(zero, one, one, one, zero)
    beta = decay(node.tau_mem, dt, rule)  # type: ignore[attr-defined]  # every other Neuron has tau_mem
    if isinstance(node, ResonateAndFire):
        return Coefficients(zero, one, beta, one, zero)
    gain = (1.0 - beta) * node.r  # type: ignore[attr-defined]
    drive = (1.0 - beta) * node.v_leak  # type: ignore[attr-defined]
    if isinstance(node, (CubaLI, CubaLIF)):
        alpha = decay(node.tau_syn, dt, rule)
        return Coefficients(alpha, (1.0 - alpha) * node.w_in, beta, gain, drive)
    return Coefficients(zero, one, beta, gain, drive)


def adaptation(node: AdaptiveLIF, dt: float, rule: str) -> tuple[Array, Array, Array]:
    """(rho, a, b) of w = rho w + a v + b s, each of the neuron's shape.

    Raises:
        NetworkError: as `decay`.
    """
    rho = decay(node.tau_adapt, dt, rule)
    return rho, (1.0 - rho) * node.a_adapt, (1.0 - rho) * node.b_adapt


def tau(decay_per_step: float, dt: float, rule: str = "exact") -> float:
    """Inverse of `decay`: the time constant in seconds that leaves this factor after a step.

    Raises:
        NetworkError: the factor is not in (0, 1), dt is not positive, another rule.
    """
    bad = []
    if not 0.0 < decay_per_step < 1.0:
        bad.append(f"a decay per step must lie strictly between 0 and 1, got {decay_per_step!r}")
    if not 0.0 < dt < np.inf:
        bad.append(f"dt must be positive seconds, got {dt!r}")
    if rule not in RULES:
        bad.append(f"discretisation must be one of {RULES}, got {rule!r}")
    if bad:
        raise NetworkError("no time constant leaves this decay", bad)
    return -dt / float(np.log(decay_per_step)) if rule == "exact" else dt / (1.0 - decay_per_step)
