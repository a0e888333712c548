"""Circuits for tests of the event engine, and their equations once more: whole arrays, float64, step by step.

`stepped` shares nothing with `neuro.engine` but the list of synapses: it keeps arrivals of all steps in one big array
and time stamps instead of countdowns.
"""

from __future__ import annotations

import numpy as np

from neuro.engine.circuit import LIF, Alpha, Circuit, Conductance, Delta, Exponential, Given
from neuro.engine.simulation import Simulation


def stepped(simulation: Simulation, steps: int) -> dict[str, np.ndarray]:
    """bool[steps, n] of each population, and float64[steps, n] membranes under (name, "v")."""
    c: Circuit = simulation.circuit
    dt, exact = c.dt, c.method == "exact"
    arrivals = {
        (name, r): np.zeros((steps + 300, p.size)) for name, p in c.populations.items() for r in c.receptors(name)
    }
    links = [simulation.connections(k) for k in range(len(c.projections))]
    v, last, kept, out = {}, {}, {}, {}
    for name, p in c.populations.items():
        out[name] = np.zeros((steps, p.size), bool)
        if isinstance(p.model, Given):
            out[name][np.asarray(p.model.steps), np.asarray(p.model.neurons)] = True
            continue
        v[name] = np.full(p.size, p.model.v_rest if p.model.v_start is None else p.model.v_start, float)
        last[name] = np.full(p.size, -(10**9))
        out[name, "v"] = np.zeros((steps, p.size))
        kept |= {(name, r): np.zeros((2, p.size)) for r in p.model.receptors}
    for t in range(steps):
        for name in list(v):
            m: LIF = c.populations[name].model
            hold = max(1, round(m.refractory / dt))
            jump, current = np.zeros_like(v[name]), np.full_like(v[name], 1.0) * np.asarray(m.i_ext)
            keep = np.exp(-dt / m.tau_mem) if exact else 1 - dt / m.tau_mem
            moved = m.r_mem * current * (1 - keep)
            order = sorted(m.receptors.items(), key=lambda item: not isinstance(item[1], Delta))
            for r, kind in order:
                x, state = arrivals[name, r][t], kept[name, r]
                if isinstance(kind, Delta):
                    jump += x
                    continue
                k = np.exp(-dt / kind.tau) if exact else 1 - dt / kind.tau
                if isinstance(kind, Alpha):
                    state[1] += np.e * x
                    one, two = gains(m, kind.tau, dt) if exact else (m.r_mem * dt / m.tau_mem, 0.0)
                    moved += one * state[0] + two * state[1]
                    state[0] = k * state[0] + (k if exact else 1) * dt / kind.tau * state[1]
                    state[1] *= k
                    continue
                state[0] += x
                if isinstance(kind, Conductance):
                    moved += m.r_mem * dt / m.tau_mem * state[0] * (kind.reversal - v[name] - jump)
                else:
                    moved += (gains(m, kind.tau, dt)[0] if exact else m.r_mem * dt / m.tau_mem) * state[0]
                state[0] *= k
            since = t - last[name]
            here = v[name] + np.where(since > hold, jump, 0.0)
            there = np.where(since >= hold, m.v_rest + keep * (here - m.v_rest) + moved, here)
            fires = there > m.v_threshold
            v[name] = np.where(fires, m.v_reset, there)
            last[name][fires] = t
            out[name][t] = fires
            out[name, "v"][t] = v[name]
        for projection, (source, target, weight, delay) in zip(c.projections, links, strict=True):
            on = out[projection.source][t][source]
            np.add.at(
                arrivals[projection.target, projection.receptor],
                (t + 1 + delay[on], target[on]),
                weight[on].astype(float),
            )
    return out


def gains(m: LIF, tau: float, dt: float) -> tuple[float, float]:
    """Volts per ampere after dt, of a current exp(-s/tau) and of one (s/tau) exp(-s/tau), by Gauss's quadrature."""
    x, weight = np.polynomial.legendre.leggauss(12)
    s, weight = (x + 1) * dt / 2, weight * dt / 2
    reach = m.r_mem / m.tau_mem * np.exp(-s / tau - (dt - s) / m.tau_mem)
    return float((weight * reach).sum()), float((weight * reach * s / tau).sum())


def dense(recording, population: str) -> np.ndarray:
    """bool[steps, n] of a recording."""
    found = np.zeros((recording.steps, recording.sizes[population]), bool)
    step, neuron = recording.spikes[population]
    found[step - recording.start, neuron] = True
    return found


def everything(seed: int = 0, n: int = 150, **over) -> Circuit:
    """Several receptors, delays and rules at once; fires all the time."""
    from neuro.engine.circuit import (
        Drive,
        FixedInDegree,
        FixedOutDegree,
        FixedProbability,
        Normal,
        Poisson,
        Population,
        Projection,
        Uniform,
    )

    cell = LIF(
        tau_mem=10e-3,
        v_threshold=-50e-3,
        v_reset=-58e-3,
        v_rest=-60e-3,
        refractory=1.2e-3,
        i_ext=8e-3,
        v_start=Uniform(-60e-3, -50e-3),
        receptors={"slow": Exponential(5e-3), "jump": Delta(), "round": Alpha(2e-3)},
    )
    settings = {"dt": 2e-4, "seed": seed} | over
    return Circuit(
        {"in": Population(70, Poisson(60.0)), "a": Population(n, cell), "b": Population(2 * n + 7, cell)},
        [
            Projection("in", "a", FixedProbability(0.2), 1.5e-3, Uniform(0.0, 5e-3), "jump"),
            Projection("a", "b", FixedOutDegree(12), Normal(1e-3, 5e-4, 0.0), Normal(2e-3, 1e-3, 2e-4, 6e-3), "slow"),
            Projection("b", "a", FixedInDegree(9), -1.2e-3, 1e-3, "round"),
            Projection("b", "b", FixedProbability(0.02, self_connections=False), Uniform(-1e-3, 1e-3), 4e-4, "jump"),
        ],
        [Drive("b", 30.0, 1e-3, 20, "jump"), Drive("a", 400.0, 4e-4, 1, "slow")],
        **settings,
    )
