"""EventProp in continuous time: spike times that are real numbers, and gradients that are exact.

Current-based leaky integrate-and-fire neurons with delays, in seconds::

    tau_mem V' = -V + I,  tau_syn I' = -I;  a spike of weight w arrives:  I <- I + w;  V = v_threshold:  spike, V <- 0

`simulate` goes from event to event: states between them are closed forms, spike times roots to the last digits.
`adjoint` goes back over the same events (Wunderlich & Pehle 2021, Sci. Rep. 11:12829; delays: Meszaros et al. 2025,
Nat. Commun. 16:10422), with ' against time and l_V the loss per second::

    tau_mem lamV' = -lamV - dl_V/dV;   tau_syn lamI' = -lamI + lamV
    at spike k of neuron n:  lamV <- lamV + [v_threshold lamV + sum_m w_mn (lamV - lamI)_m(t_k + d_mn) + dL/dt_k
                                             + l_V before - l_V after] / (tau_mem V' before)
    dL/dw_mn = -tau_syn sum_k lamI_m(t_k + d_mn)
    dL/dd_mn = sum_k w_mn (lamV - lamI)_m(t_k + d_mn)

These are the derivatives of what `simulate` returns, wherever a small change of a parameter neither makes nor removes
a spike; there they do not exist. Nothing is discretised, so this is what a gradient on a grid (`neuro.learn.eventprop`)
comes to when its steps become short. For small networks and for tests: an event costs a search over all neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import NetworkError, SimulationError
from neuro.learn import eventprop_exact_kernels as loops

Array = NDArray[np.float64]
Index = NDArray[np.int64]
MOST_EVENTS = 1 << 26  # of a log: 3 GiB


@dataclass(frozen=True, eq=False)
class Circuit:
    """Neurons and synapses. Sources 0..inputs - 1 are inputs, source inputs + k is neuron k.

    tau_mem, tau_syn [n]: seconds. v_threshold [n]: inf for neurons that never fire, as a readout.
    source, target [s]: of each synapse. weight [s]; delay [s]: seconds.

    Raises:
        NetworkError: shapes, constants and indices that mean nothing, all of them.
    """

    inputs: int
    tau_mem: Array
    tau_syn: Array
    v_threshold: Array
    source: Index
    target: Index
    weight: Array
    delay: Array

    def __post_init__(self) -> None:
        for name in ("tau_mem", "tau_syn", "v_threshold", "weight", "delay"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float64))
        for name in ("source", "target"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.int64))
        n, s = self.tau_mem.shape, self.source.shape
        bad = [f"{k} must be {n}" for k in ("tau_syn", "v_threshold") if getattr(self, k).shape != n or len(n) != 1]
        bad += [f"{k} must be {s}" for k in ("target", "weight", "delay") if getattr(self, k).shape != s]
        if not bad:
            constants = ("tau_mem", "tau_syn", "v_threshold")
            bad += [f"{k} must be positive" for k in constants if not (getattr(self, k) > 0).all()]
            bad += [] if np.isfinite(self.weight).all() else ["weights must be finite"]
            bad += [] if np.isfinite(self.delay).all() and (self.delay >= 0).all() else ["delays must not be negative"]
            for name, size in (("source", self.inputs + n[0]), ("target", n[0])):
                ends = getattr(self, name)
                bad += [] if ((ends >= 0) & (ends < size)).all() else [f"{name} must lie in 0..{size - 1}"]
        if bad:
            raise NetworkError("the circuit cannot be simulated", bad)

    @staticmethod
    def of(
        weight: ArrayLike, delay: ArrayLike, *, tau_mem: ArrayLike, tau_syn: ArrayLike, v_threshold: ArrayLike
    ) -> Circuit:
        """From a matrix [n, inputs + n], target by source; 0 is no synapse. The others: of its shape, or of [n]."""
        w = np.asarray(weight, np.float64)
        n = len(w)
        target, source = np.nonzero(w)
        d = np.broadcast_to(np.asarray(delay, np.float64), w.shape)[target, source]
        mem, syn, theta = (np.broadcast_to(np.asarray(c, np.float64), (n,)) for c in (tau_mem, tau_syn, v_threshold))
        return Circuit(w.shape[1] - n, mem, syn, theta, source, target, w[target, source], d)


@dataclass(frozen=True, eq=False)
class Run:
    """What a circuit did.

    times [k], neuron [k]: its spikes, in order of time. area, energy [n]: integrals of V and of V^2 over 0..t_end.
    """

    circuit: Circuit
    in_times: Array
    t_end: float
    times: Array
    neuron: Index
    area: Array
    energy: Array
    log: tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class Gradients:
    """dL/d of weight [s], delay [s] and the times of the input spikes [k], in the order that they were given in."""

    weight: Array
    delay: Array
    in_times: Array


def simulate(circuit: Circuit, in_times: ArrayLike, in_sources: ArrayLike, t_end: float = np.inf) -> Run:
    """Run from rest at time 0.

    Args:
        in_times, in_sources: of the input spikes, seconds, any order. t_end: seconds; inf until nothing happens.

    Raises:
        NetworkError: input spikes that are none. SimulationError: activity that does not end.
    """
    t, source = np.asarray(in_times, np.float64), np.asarray(in_sources, np.int64)
    if t.ndim != 1 or t.shape != source.shape or not (t >= 0).all() or not t_end > 0:
        raise NetworkError(f"input spikes need a time >= 0 and a source each, got {t.shape} and {source.shape}")
    if not ((source >= 0) & (source < circuit.inputs)).all():
        raise NetworkError(f"input spikes come from sources 0..{circuit.inputs - 1}")
    order = np.argsort(t, kind="stable")
    n = len(circuit.tau_mem)
    by_source = np.argsort(circuit.source, kind="stable")
    first = np.searchsorted(circuit.source[by_source], np.arange(circuit.inputs + n + 1))
    size = 1024
    while True:
        v, i, then, area, energy = (np.zeros(n) for _ in range(5))
        soon = np.full(n, np.inf)
        whole = [np.empty(size, np.int64) for _ in range(7)]
        heap = (np.empty(size), whole[0], whole[1], whole[2])
        times, who = np.empty(size), whole[3]
        log = (np.empty(size), whole[4], whole[5], whole[6], np.empty(size), np.empty(size))
        events, spikes = loops.forward(
            circuit.inputs, t[order], source[order], float(t_end), circuit.tau_mem, circuit.tau_syn,
            circuit.v_threshold, first, by_source, circuit.target, circuit.weight, circuit.delay, v, i, then, soon,
            area, energy, *heap, times, who, *log,
        )  # fmt: skip
        if events != loops.FULL:
            break
        size *= 4
        if size > MOST_EVENTS:
            raise SimulationError(f"more than {MOST_EVENTS // 4} events; the circuit excites itself, set t_end")
    kept = tuple(a[:events].copy() for a in log)
    return Run(circuit, t, float(t_end), times[:spikes].copy(), who[:spikes].copy(), area, energy, (order, *kept))


def adjoint(
    run: Run, *, times: ArrayLike | None = None, area: ArrayLike | None = None, energy: ArrayLike | None = None
) -> Gradients:
    """Gradients of a loss L from its derivatives by what `simulate` returned.

    Args:
        times [k], area [n], energy [n]: dL/d of the fields of `Run`; None for 0.
    """
    circuit, n = run.circuit, len(run.circuit.tau_mem)
    order, log_t, log_n, log_s, log_o, log_v, log_i = run.log

    def given(value: ArrayLike | None, shape: tuple[int, ...], name: str) -> Array:
        a = np.zeros(shape) if value is None else np.ascontiguousarray(value, np.float64)
        if a.shape != shape:
            raise NetworkError(f"the derivative by {name} must be {shape}, got {a.shape}")
        return a

    d_times = given(times, run.times.shape, "times")
    d_area, d_energy = given(area, (n,), "area"), given(energy, (n,), "energy")
    lam_v, lam_i, later = np.zeros(n), np.zeros(n), np.full(n, run.t_end)
    emitted = len(run.in_times)
    shift = np.zeros(emitted + len(run.times))
    d_weight, d_delay, d_in = np.zeros_like(circuit.weight), np.zeros_like(circuit.delay), np.empty(emitted)
    loops.backward(
        emitted, run.t_end, circuit.tau_mem, circuit.tau_syn, circuit.v_threshold, circuit.weight, log_t, log_n,
        log_s, log_o, log_v, log_i, d_times, d_area, d_energy, lam_v, lam_i, later, shift, d_weight, d_delay,
    )  # fmt: skip
    d_in[order.astype(np.int64)] = shift[:emitted]
    return Gradients(d_weight, d_delay, d_in)
