"""Circuits of the event benchmarks, and statistics of their spikes.

- `table`: every neuron of n fires every 1/rate steps, of ``degree`` random targets each; weights too small to matter.
- `cuba`: the current-based network of Vogels and Abbott (2005), with the numbers of Brian 2's published example.
- `brunel`: Brunel (2000), J. Comput. Neurosci. 8:183, model A, any size: in-degrees n_e / 10 and n_i / 10, J scaled
  so that C_E J is that of 10,000 excitatory neurons and 0.1 mV.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine.circuit import (
    LIF,
    Circuit,
    Drive,
    Exponential,
    FixedInDegree,
    FixedProbability,
    Population,
    Projection,
    Uniform,
)

TABLE = {"circuit": "table", "dt": 1e-4, "weight": 1e-5, "constant": False, "delays": 1}
CUBA = {"circuit": "cuba", "n": 4000, "dt": 1e-4, "probability": 0.02, "we": 60 * 0.27e-4, "wi": -20 * 4.5e-4}
# g, external rate over threshold rate: Brunel's figure 8 A to D
REGIMES = {"SR": (3.0, 2.0), "SI fast": (6.0, 4.0), "AI": (5.0, 2.0), "SI slow": (4.5, 0.9)}
TAU, THETA, RESET, REFRACTORY, C_E, J = 20e-3, 20e-3, 10e-3, 2e-3, 1000, 0.1e-3


def table_arguments(n: int, degree: int, rate: float = 0.05, **over: Any) -> dict[str, Any]:
    """drive: the constant input with which a membrane goes from 0 to 1 in 1/rate steps of dt."""
    tau = 10 / rate * TABLE["dt"]
    drive = 1 / (1 - math.exp(-(1 / rate - 0.5) * TABLE["dt"] / tau))
    return TABLE | {"n": n, "degree": degree, "rate": rate, "tau": tau, "drive": drive} | over


def brunel_arguments(regime: str, n: int = 12_500) -> dict[str, Any]:
    g, eta = REGIMES[regime]
    j = J * C_E / (n * 4 // 50)
    threshold_rate = THETA / (J * C_E * TAU)
    return {"circuit": "brunel", "n": n, "dt": 1e-4, "g": g, "j": j, "external": eta * threshold_rate, "delay": 1.5e-3}


def circuit_of(arguments: dict[str, Any], seed: int = 0) -> Circuit:
    """The circuit that tests/bench/peer_brian2.py builds from the same arguments."""
    return {"table": _table, "cuba": _cuba, "brunel": _brunel}[arguments["circuit"]](arguments, seed)


def _table(a: dict[str, Any], seed: int) -> Circuit:
    cell = LIF(tau_mem=a["tau"], v_threshold=1.0, i_ext=a["drive"], v_start=Uniform(0.0, 1.0))
    weight = a["weight"] if a["constant"] else Uniform(-a["weight"], a["weight"])
    # whole steps 0 to delays - 1, equally often
    delay = 0.0 if a["delays"] == 1 else Uniform(-0.499999 * a["dt"], (a["delays"] - 0.500001) * a["dt"])
    rule = FixedProbability(a["degree"] / a["n"])
    return Circuit({"g": Population(a["n"], cell)}, [Projection("g", "g", rule, weight, delay)], dt=a["dt"], seed=seed)


def _cuba(a: dict[str, Any], seed: int) -> Circuit:
    cell = LIF(
        tau_mem=20e-3,
        v_threshold=-50e-3,
        v_reset=-60e-3,
        v_rest=-49e-3,
        refractory=5e-3,
        v_start=Uniform(-60e-3, -50e-3),
        receptors={"exc": Exponential(5e-3), "inh": Exponential(10e-3)},
    )
    n_e = 4 * a["n"] // 5
    rule = FixedProbability(a["probability"])
    projections = [
        Projection(source, target, rule, weight, 0.0, receptor)
        for source, weight, receptor in (("E", a["we"], "exc"), ("I", a["wi"], "inh"))
        for target in "EI"
    ]
    return Circuit(
        {"E": Population(n_e, cell), "I": Population(a["n"] - n_e, cell)}, projections, dt=a["dt"], seed=seed
    )


def _brunel(a: dict[str, Any], seed: int) -> Circuit:
    cell = LIF(TAU, THETA, RESET, 0.0, REFRACTORY)
    n_e = a["n"] * 4 // 5
    n_i = n_e // 4
    projections = [
        Projection(source, target, FixedInDegree(count), weight, a["delay"])
        for source, count, weight in (("E", n_e // 10, a["j"]), ("I", n_i // 10, -a["g"] * a["j"]))
        for target in "EI"
    ]
    drives = [Drive(target, a["external"], a["j"], n_e // 10) for target in "EI"]
    return Circuit({"E": Population(n_e, cell), "I": Population(n_i, cell)}, projections, drives, dt=a["dt"], seed=seed)


def brunel_rate_hz(regime: str) -> float:
    """Stationary rate of the diffusion approximation: Brunel's equations 4 and 21 (Siegert), solved by bisection.

    1/nu = tau_ref + tau sqrt(pi) integral from (V_r - mu)/sigma to (theta - mu)/sigma of exp(x^2) (1 + erf x) dx.
    """
    g, eta = REGIMES[regime]
    outside = eta * THETA / (J * C_E * TAU)

    def response(nu: float) -> float:
        mu = C_E * J * TAU * (outside + nu * (1 - g / 4))
        sigma = J * math.sqrt(C_E * TAU * (outside + nu * (1 + g * g / 4)))
        x, weight = np.polynomial.legendre.leggauss(400)
        low, high = max((RESET - mu) / sigma, -5.0), (THETA - mu) / sigma
        if high <= low:
            return 1 / (REFRACTORY + TAU * math.log((mu - RESET) / (mu - THETA)))
        x = low + (x + 1) * (high - low) / 2
        tail = 0.0
        if (RESET - mu) / sigma < -5.0:  # there exp(x^2)(1 + erf x) is 1 / (sqrt(pi) |x|)
            tail = math.log((mu - RESET) / sigma / 5.0) / math.sqrt(math.pi)
        inside = [math.exp(v * v) * math.erfc(-v) for v in x.tolist()]
        whole = (high - low) / 2 * float((weight * inside).sum()) + tail
        return 1 / (REFRACTORY + TAU * math.sqrt(math.pi) * whole)

    low, high = 0.0, 1 / REFRACTORY
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if response(middle) > middle else (low, middle)
    return low


def statistics_of(
    trains: dict[str, tuple[NDArray[Any], NDArray[Any]]], sizes: dict[str, int], dt: float, settle: int, steps: int
) -> dict[str, Any]:
    """Of spikes from step ``settle`` on: rate of each neuron (hertz), CV of the intervals of neurons with six spikes or
    more, intervals (seconds), and how much the activity of 5 ms bins varies more than that of independent neurons."""
    found: dict[str, Any] = {}
    rates, cvs, gaps, when = [], [], [], []
    for name, (step, neuron) in trains.items():
        late = step >= settle
        step, neuron = step[late], neuron[late].astype(np.int64)
        order = np.lexsort((step, neuron))
        s, n = step[order], neuron[order]
        gap = np.diff(s)[np.diff(n) == 0] * dt
        owner = n[1:][np.diff(n) == 0]
        count = np.bincount(owner, minlength=sizes[name])
        mean = np.bincount(owner, gap, sizes[name]) / np.maximum(count, 1)
        square = np.bincount(owner, gap**2, sizes[name]) / np.maximum(count, 1)
        enough = count >= 5
        spread = np.sqrt(np.maximum(square - mean**2, 0)[enough] * (count / np.maximum(count - 1, 1))[enough])
        cvs.append(spread / mean[enough])
        rates.append(np.bincount(neuron, minlength=sizes[name]) / ((steps - settle) * dt))
        gaps.append(gap)
        when.append(step)
        found[f"rate_{name}_hz"] = float(rates[-1].mean())
    bins = np.bincount((np.concatenate(when) - settle) // round(5e-3 / dt), minlength=1).astype(float)
    found["cv"] = float(np.concatenate(cvs).mean()) if sum(map(len, cvs)) else 0.0
    found["fano"] = float(bins[:-1].var() / max(bins[:-1].mean(), 1e-9))
    found["rates"], found["gaps"], found["cvs"] = (np.concatenate(a) for a in (rates, gaps, cvs))
    return found


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Kolmogorov and Smirnov's: the largest difference of two cumulative distributions."""
    if not (a.size and b.size):
        return float(a.size != b.size)
    both = np.concatenate([a, b])
    both.sort()
    below = [np.searchsorted(np.sort(x), both, side="right") / x.size for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())
