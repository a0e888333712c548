"""From time constants to per-step coefficients: the only place where dt meets tau."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuro.errors import NetworkError
from neuro.ir import IF, Array, CubaLI, CubaLIF, Neuron


def decay(tau: Array, dt: float, rule: str) -> Array:
    """Factor that survives one step: exp(-dt/tau) ("exact") or 1 - dt/tau ("euler").

    Args:
        tau: seconds, positive. dt: seconds. rule: "exact" or "euler".

    Raises:
        NetworkError: under "euler", dt > tau: the step would overshoot and oscillate.
    """
    tau = np.asarray(tau, dtype=np.float64)
    if rule == "exact":
        return np.exp(-dt / tau)
    if (dt > tau).any():
        raise NetworkError(
            f"explicit Euler with dt {dt:g} s is unstable for a time constant of {tau.min():g} s; "
            "use discretisation 'exact' or a smaller dt"
        )
    return 1.0 - dt / tau


class Coefficients(NamedTuple):
    """i = alpha i + gain_syn x;  v = beta v + gain_mem i + drive. Without a synapse alpha = 0, i = x."""

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
    if isinstance(node, IF):
        return Coefficients(zero, one, one, node.r, zero)
    beta = decay(node.tau_mem, dt, rule)  # type: ignore[attr-defined]  # every Neuron but IF has tau_mem
    gain = (1.0 - beta) * node.r  # type: ignore[attr-defined]
    drive = (1.0 - beta) * node.v_leak  # type: ignore[attr-defined]
    if isinstance(node, (CubaLI, CubaLIF)):
        alpha = decay(node.tau_syn, dt, rule)
        return Coefficients(alpha, (1.0 - alpha) * node.w_in, beta, gain, drive)
    return Coefficients(zero, one, beta, gain, drive)


def tau(decay_per_step: float, dt: float, rule: str = "exact") -> float:
    """Inverse of `decay`: the time constant in seconds that leaves this factor after a step.

    Raises:
        NetworkError: the factor is not in (0, 1).
    """
    if not 0.0 < decay_per_step < 1.0:
        raise NetworkError(f"a decay per step must lie strictly between 0 and 1, got {decay_per_step!r}")
    return -dt / float(np.log(decay_per_step)) if rule == "exact" else dt / (1.0 - decay_per_step)
