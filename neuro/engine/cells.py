"""Neurons of a `Circuit` as factors of one step, made in float64: time constants, gains, registers, first values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine.circuit import LIF, Alpha, Circuit, Conductance, Delta, Exponential, Loihi2LIF, Normal, Uniform
from neuro.engine.neurons import ALPHA, CONDUCTANCE, DELTA, EXPONENTIAL, Cuba, Lif
from neuro.engine.philox import START
from neuro.engine.synapses import distribution, signed
from neuro.engine.wiring import draw_values

RECEPTORS = {Delta: DELTA, Exponential: EXPONENTIAL, Alpha: ALPHA, Conductance: CONDUCTANCE}
Ints = NDArray[np.int64]
Places = dict[tuple[str, str], int]


def lif_of(
    circuit: Circuit,
    first: Ints,
    inboxes: Places,
    places: Places,
) -> Lif:
    """Factors of one step, from float64."""
    dt, exact = circuit.dt, circuit.method == "exact"
    drive = np.zeros(int(first[-1]))
    cells: list[tuple[float, float, float, int]] = []
    begins, rows = [0], []
    for k, (name, population) in enumerate(circuit.populations.items()):
        m = population.model
        if isinstance(m, LIF):
            keep = math.exp(-dt / m.tau_mem) if exact else 1 - dt / m.tau_mem
            drive[first[k] : first[k + 1]] = m.r_mem * np.asarray(m.i_ext, float) * (1 - keep)
            hold = max(1, math.floor(m.refractory / dt + 0.5))
            cells.append((keep, m.v_threshold - m.v_rest, m.v_reset - m.v_rest, hold))
            jumps_first = sorted(m.receptors.items(), key=lambda item: not isinstance(item[1], Delta))
            for receptor, kind in jumps_first:
                place = places.get((name, receptor), 0)
                at = (RECEPTORS[type(kind)], inboxes[name, receptor], place, population.size)
                rows.append((*at, *_factors(m, kind, dt, exact)))
        else:
            cells.append((0.0, math.inf, 0.0, 1))
        begins.append(len(rows))
    keep_, threshold, reset, hold_ = zip(*cells, strict=True)
    columns = list(zip(*rows, strict=True)) or [()] * 8
    whole: list[Any] = [np.array(c, np.int64) for c in columns[:4]]
    real: list[Any] = [np.array(c, np.float32) for c in columns[4:]]
    return Lif(
        np.array(keep_, np.float32),
        np.array(threshold, np.float32),
        np.array(reset, np.float32),
        np.array(hold_, np.int64),
        drive.astype(np.float32),
        np.array(begins, np.int64),
        *whole,
        *real,
    )


def _factors(m: LIF, kind: Any, dt: float, exact: bool) -> tuple[float, float, float, float]:
    """keep, gain, second, slope of a receptor; see `neuro.engine.neurons`."""
    if isinstance(kind, Delta):
        return 1.0, 0.0, 0.0, 0.0
    tau, tau_mem = kind.tau, m.tau_mem
    if not exact:
        keep, gain = 1 - dt / tau, m.r_mem * dt / tau_mem
        return keep, gain, kind.reversal - m.v_rest if isinstance(kind, Conductance) else 0.0, dt / tau
    # v(dt) of a current exp(-t/tau), and of one (t/tau) exp(-t/tau): integrals of exp(-b s) and s exp(-b s)
    b = 1 / tau - 1 / tau_mem
    x = b * dt
    if abs(x) < 1e-4:
        once, twice = dt * (1 - x / 2 + x * x / 6), dt * dt * (0.5 - x / 3 + x * x / 8)
    else:
        once, twice = -math.expm1(-x) / b, (-math.expm1(-x) - x * math.exp(-x)) / (b * b)
    reach = m.r_mem * math.exp(-dt / tau_mem) / tau_mem
    keep = math.exp(-dt / tau)
    return keep, reach * once, reach * twice / tau, keep * dt / tau


def cuba_of(circuit: Circuit, first: Ints, inboxes: Places) -> Cuba:
    n = int(first[-1])
    keep_u, keep_v, threshold, bias = (np.zeros(n, np.int32) for _ in range(4))
    inbox = np.zeros(len(circuit.populations), np.int64)
    for k, (name, population) in enumerate(circuit.populations.items()):
        m = population.model
        if isinstance(m, Loihi2LIF):
            own = slice(int(first[k]), int(first[k + 1]))
            keep_u[own], keep_v[own] = 4095 - np.asarray(m.du), 4096 - np.asarray(m.dv)
            threshold[own], bias[own] = np.asarray(m.vth) << 6, np.asarray(m.bias)
            inbox[k] = inboxes[name, next(iter(m.receptors))]
    return Cuba(keep_u, keep_v, threshold, bias, inbox)


def start_of(circuit: Circuit, size: int, places: Places) -> NDArray[Any]:
    """Values before step 0: membranes of v_start (default v_rest), relative to rest; no currents."""
    if circuit.arithmetic == "loihi2":
        return np.zeros(size, np.int32)
    values = np.zeros(size, np.float32)
    for k, (name, population) in enumerate(circuit.populations.items()):
        m = population.model
        if not isinstance(m, LIF) or m.v_start is None:
            continue
        at = places[name, "v"]
        if isinstance(m.v_start, (Uniform, Normal)):
            drawn = np.zeros(population.size)
            draw_values(drawn, *distribution(m.v_start), k, START, signed(circuit.seed))
        else:
            drawn = np.broadcast_to(np.asarray(m.v_start, float), population.size)
        values[at : at + population.size] = drawn - m.v_rest
    return values
