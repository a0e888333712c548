"""Spikes in continuous time, forwards by finding roots and backwards by jumps: the compiled loops under
`neuro.learn.eventprop_exact` (neuro.jit). All in float64; between events every state is a closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel, piece

A = NDArray[Any]
NEWTON = 200  # steps at most; quadratic but where the membrane grazes the threshold
FULL = -1  # what `forward` returns where the log is too small


@piece
def response(s: float, tau: float, other: float) -> Any:
    """y(s) of tau y' = -y + exp(-s / other), y(0) = 0; also where the constants are equal."""
    x = s / tau - s / other
    if abs(x) < 1e-12:
        return s / tau * np.exp(-s / tau)
    if x > 0.0:  # the factor in front is the larger of the two exponentials: nothing overflows
        return s / tau * np.exp(-s / other) * (-np.expm1(-x) / x)
    return s / tau * np.exp(-s / tau) * (np.expm1(x) / x)


@piece
def crossing(v: float, i: float, theta: float, tau_m: float, tau_s: float) -> Any:
    """Time until the membrane reaches the threshold, inf where it does not.

    While it rises it is concave (i > 0), so Newton from the left never overshoots. Its only maximum is where v = i.
    """
    if not (i > v and i > 0.0 and theta < np.inf):
        return np.inf
    if tau_m == tau_s:
        top = tau_s * (1.0 - v / i)
    else:
        k = 1.0 / tau_m - 1.0 / tau_s
        inside = k * tau_s * (1.0 - v / i)
        if inside <= -1.0:
            return np.inf
        top = np.log1p(inside) / k
    if np.exp(-top / tau_m) * v + i * response(top, tau_m, tau_s) <= theta:
        return np.inf
    s = 0.0
    for _ in range(NEWTON):
        now = np.exp(-s / tau_m) * v + i * response(s, tau_m, tau_s)
        rise = (i * np.exp(-s / tau_s) - now) / tau_m
        if rise <= 0.0:
            break
        after = min(s + (theta - now) / rise, top)
        if after <= s:
            break
        s = after
    return s


@piece
def before(t1: float, n1: int, t2: float, n2: int) -> Any:
    return t1 < t2 or (t1 == t2 and n1 < n2)


@kernel
def forward(
    inputs: int, in_time: A, in_source: A, t_end: float, tau_m: A, tau_s: A, theta: A, first: A, synapse: A,
    target: A, weight: A, delay: A, v: A, i: A, then: A, soon: A, area: A, energy: A, heap_t: A, heap_s: A, heap_o: A,
    heap_k: A, times: A, who: A, log_t: A, log_n: A, log_s: A, log_o: A, log_v: A, log_i: A,
) -> Any:  # fmt: skip
    """(events in the log, spikes), or (`FULL`, 0).

    Sources: inputs, then neurons. Synapses of source k: synapse[first[k]:first[k + 1]]. Emissions, counted on: the
    input spikes, then those of neurons in order of time. An event of the log is an arrival by synapse log_s of
    emission log_o at neuron log_n, or, with log_s = -1, emission log_o of neuron log_n itself; v, i: right after it.
    """
    heap, events, spikes, fed, pushed = 0, 0, 0, 0, 0
    n = v.size
    while True:
        # what comes next: an input spike, an arrival, or a neuron
        t_in = in_time[fed] if fed < in_time.size else np.inf
        t_heap = heap_t[0] if heap else np.inf
        k, t_fire = np.int64(0), np.inf
        for m in range(n):
            if soon[m] < t_fire:
                k, t_fire = np.int64(m), soon[m]
        now = min(t_in, t_heap, t_fire)
        if not now <= t_end or now == np.inf:
            break
        source, emission = np.int64(-1), np.int64(0)
        if t_in <= t_heap and t_in <= t_fire:
            source, emission = np.int64(in_source[fed]), np.int64(fed)
            fed += 1
        elif t_fire <= t_heap:
            if spikes == times.size or events == log_t.size:
                return FULL, 0
            source, emission = np.int64(inputs + k), np.int64(in_time.size + spikes)
            times[spikes], who[spikes] = now, k
            spikes += 1
        j = k
        arrives = source < 0
        s = np.int64(-1)
        if arrives:
            s, emission, j = np.int64(heap_s[0]), np.int64(heap_o[0]), np.int64(target[heap_s[0]])
            heap -= 1  # the last of the heap sinks from the top
            t0, s0, o0, k0 = heap_t[heap], heap_s[heap], heap_o[heap], heap_k[heap]
            at = 0
            while True:
                child = 2 * at + 1
                if child >= heap:
                    break
                if child + 1 < heap and before(heap_t[child + 1], heap_k[child + 1], heap_t[child], heap_k[child]):
                    child += 1
                if not before(heap_t[child], heap_k[child], t0, k0):
                    break
                heap_t[at], heap_s[at], heap_o[at], heap_k[at] = (
                    heap_t[child], heap_s[child], heap_o[child], heap_k[child],
                )  # fmt: skip
                at = child
            heap_t[at], heap_s[at], heap_o[at], heap_k[at] = t0, s0, o0, k0
        if arrives or source >= inputs:  # the state of a neuron changes
            if events == log_t.size:
                return FULL, 0
            d = now - then[j]
            v0, i0 = v[j], i[j]
            i1 = i0 * np.exp(-d / tau_s[j])
            v1 = theta[j] if not arrives else np.exp(-d / tau_m[j]) * v0 + i0 * response(d, tau_m[j], tau_s[j])
            square = tau_s[j] / 2.0 * (i0 * i0 - i1 * i1)
            cross = (square / tau_m[j] - (v1 * i1 - v0 * i0)) / (1.0 / tau_m[j] + 1.0 / tau_s[j])
            area[j] += tau_s[j] * (i0 - i1) - tau_m[j] * (v1 - v0)
            energy[j] += cross - tau_m[j] / 2.0 * (v1 * v1 - v0 * v0)
            if arrives:
                i1 += weight[s]
            else:
                v1 = 0.0
            v[j], i[j], then[j] = v1, i1, now
            soon[j] = now + crossing(v1, i1, theta[j], tau_m[j], tau_s[j])
            log_t[events], log_n[events], log_s[events], log_o[events] = now, j, s, emission
            log_v[events], log_i[events] = v1, i1
            events += 1
        if not arrives:
            for e in range(first[source], first[source + 1]):
                if heap == heap_t.size:
                    return FULL, 0
                t0, s0 = now + delay[synapse[e]], synapse[e]
                at = heap
                heap += 1
                while at:
                    up = (at - 1) // 2
                    if not before(t0, pushed, heap_t[up], heap_k[up]):
                        break
                    heap_t[at], heap_s[at], heap_o[at], heap_k[at] = heap_t[up], heap_s[up], heap_o[up], heap_k[up]
                    at = up
                heap_t[at], heap_s[at], heap_o[at], heap_k[at] = t0, s0, emission, pushed
                pushed += 1
    for m in range(n):  # to the end
        d = t_end - then[m]
        v0, i0, v1, i1 = v[m], i[m], 0.0, 0.0
        if d < np.inf:
            i1 = i0 * np.exp(-d / tau_s[m])
            v1 = np.exp(-d / tau_m[m]) * v0 + i0 * response(d, tau_m[m], tau_s[m])
        square = tau_s[m] / 2.0 * (i0 * i0 - i1 * i1)
        cross = (square / tau_m[m] - (v1 * i1 - v0 * i0)) / (1.0 / tau_m[m] + 1.0 / tau_s[m])
        area[m] += tau_s[m] * (i0 - i1) - tau_m[m] * (v1 - v0)
        energy[m] += cross - tau_m[m] / 2.0 * (v1 * v1 - v0 * v0)
    return events, spikes


@kernel
def backward(
    emitted: int, t_end: float, tau_m: A, tau_s: A, theta: A, weight: A, log_t: A, log_n: A, log_s: A, log_o: A,
    log_v: A, log_i: A, d_times: A, d_area: A, d_energy: A, lam_v: A, lam_i: A, later: A, shift: A, d_weight: A,
    d_delay: A,
) -> None:  # fmt: skip
    """The adjoint, from the last event of the log to the first.

    lam_v, lam_i, later [n]: adjoint just before the event at ``later``; at first 0, 0, t_end. shift [emissions]: dL/dt
    of each through its synapses. emitted: how many of them are input spikes.
    """
    for e in range(log_t.size - 1, -1, -1):
        j = log_n[e]
        v0, i0, d = log_v[e], log_i[e], later[j] - log_t[e]
        tm, ts, c, q = tau_m[j], tau_s[j], d_area[j], d_energy[j]
        both = tm + ts
        lv = -c - q * (v0 + i0 * ts / both)  # what the loss along the way asks for, in any horizon
        li = -c - q * (tm * v0 + ts * i0) / both
        if d < np.inf:
            i1 = i0 * np.exp(-d / ts)
            v1 = np.exp(-d / tm) * v0 + i0 * response(d, tm, ts)
            hv = lam_v[j] + c + q * (v1 + i1 * ts / both)
            hi = lam_i[j] + c + q * (tm * v1 + ts * i1) / both
            lv += hv * np.exp(-d / tm)
            li += hi * np.exp(-d / ts) + hv * response(d, ts, tm)
        s, o = log_s[e], log_o[e]
        if s >= 0:
            change = weight[s] * (lv - li)
            d_weight[s] -= ts * li
            d_delay[s] += change
            shift[o] += change
        else:
            ends = c * theta[j] + q * theta[j] * theta[j]  # l_V before the reset; behind it V = 0
            lv += (theta[j] * lv + shift[o] + d_times[o - emitted] + ends) / (i0 - theta[j])
        lam_v[j], lam_i[j], later[j] = lv, li, log_t[e]
