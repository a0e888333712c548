"""One step of the neurons of a population, compiled with neuro.jit: plain loops over blocks that stay in the cache.

float32, membranes relative to v_rest, k = exp(-dt/tau) or (Euler) 1 - dt/tau, arrivals x of each receptor::

    delta          v += x where not refractory
    exponential    i += x;  I += gain i;  i = k i
    alpha          a += e x;  I += gain i + gain_a a;  i = k i + slope a;  a = k a
    conductance    g += x;  I += gain g (reversal - v);  g = k g
    then           v = k_mem v + drive + I where not refractory;  fires where v > v_threshold: v = v_reset

Exact gains (Rotter & Diesmann 1999) are made in `neuro.engine.cells`. int32 of Loihi 2 as in
`neuro.hardware.loihi2.neurons`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import decay, saturate, wrap_once
from neuro.jit import disjoint, kernel, ones, places, set_bytes, wide

U = np.uintp
F32 = np.float32
I32 = np.int32
I64: Any = np.int64  # mypy takes indices to be int
U32 = np.uint32
U64 = np.uint64
LIMIT = np.int32((1 << 23) - 1)
ROOM = 1024  # neurons of a block
DELTA, EXPONENTIAL, ALPHA, CONDUCTANCE = 0, 1, 2, 3

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Lif(NamedTuple):
    """Per population: keep, threshold, reset (relative to rest), hold (steps). drive: float32 per neuron. Receptors of
    population p are receptor_first[p] to [p + 1], jumps first: kind, inbox and place (first arrival, first value), size
    (of the population), keep, gain, second (gain_a; of a conductance the reversal), slope."""

    keep: Floats
    threshold: Floats
    reset: Floats
    hold: Ints
    drive: Floats
    receptor_first: Ints
    receptor_kind: Ints
    receptor_inbox: Ints
    receptor_place: Ints
    receptor_size: Ints
    receptor_keep: Floats
    receptor_gain: Floats
    receptor_second: Floats
    receptor_slope: Floats


class Cuba(NamedTuple):
    """Loihi 2's registers, int32 per neuron; inbox: first arrival of a population. u follows all v in the values."""

    keep_u: NDArray[np.int32]
    keep_v: NDArray[np.int32]
    threshold: NDArray[np.int32]
    bias: NDArray[np.int32]
    inbox: Ints


@kernel
def gather_spikes(words: NDArray[np.uint64], n: int, first: int, row: NDArray[np.uint32], at: int) -> Any:
    """row[at:] = first + those of n flags that are set, ascending; the next free place. words: bytes, eight each."""
    to = U(at)
    for group in range(U(n + 63) >> U(6)):
        begin = U(group) << U(6)
        fired = set_bytes(words, U(group) << U(3))
        if U(n) - begin < U(64):
            fired &= (U64(1) << U64(U(n) - begin)) - U64(1)  # what an earlier block left behind
        places(fired, I64(U(first) + begin), row, to)
        to += U(ones(fired))
    return I64(to)


@disjoint
def _begin(drive: Floats, g: Any, n: Any, current: Floats, jump: Floats) -> None:
    wide()
    for i in range(n):
        current[U(i)] = drive[g + U(i)]
        jump[U(i)] = F32(0.0)


@disjoint
def _delta(inbox: Floats, x: Any, n: Any, jump: Floats) -> None:
    wide()
    for i in range(n):
        jump[U(i)] += inbox[x + U(i)]
        inbox[x + U(i)] = F32(0.0)


@disjoint
def _exponential(values: Floats, s: Any, inbox: Floats, x: Any, n: Any, k: Any, gain: Any, current: Floats) -> None:
    wide()
    for i in range(n):
        now = values[s + U(i)] + inbox[x + U(i)]
        inbox[x + U(i)] = F32(0.0)
        current[U(i)] += gain * now
        values[s + U(i)] = k * now


@disjoint
def _alpha(
    values: Floats, s: Any, a: Any, inbox: Floats, x: Any, n: Any, k: Any, gain: Any, second: Any, slope: Any,
    current: Floats,
) -> None:  # fmt: skip
    """a: where the second value of each neuron stands."""
    wide()
    for i in range(n):
        rise = values[a + U(i)] + F32(2.7182818) * inbox[x + U(i)]
        now = values[s + U(i)]
        inbox[x + U(i)] = F32(0.0)
        current[U(i)] += gain * now + second * rise
        values[s + U(i)] = k * now + slope * rise
        values[a + U(i)] = k * rise


@disjoint
def _conductance(
    values: Floats, s: Any, g: Any, inbox: Floats, x: Any, n: Any, k: Any, gain: Any, reversal: Any, jump: Floats,
    current: Floats,
) -> None:  # fmt: skip
    wide()
    for i in range(n):
        now = values[s + U(i)] + inbox[x + U(i)]
        inbox[x + U(i)] = F32(0.0)
        current[U(i)] += gain * now * (reversal - (values[g + U(i)] + jump[U(i)]))
        values[s + U(i)] = k * now


@disjoint
def _fire(
    values: Floats, held: NDArray[np.int32], g: Any, n: Any, jump: Floats, current: Floats, flags: NDArray[np.uint8],
    keep: Any, threshold: Any, reset: Any, hold: Any,
) -> None:  # fmt: skip
    wide()
    zero = F32(0.0)
    for i in range(n):
        j = g + U(i)
        left = held[j]
        v = values[j] + (zero if left > I32(0) else jump[U(i)])
        left = I32(left - I32(left > I32(0)))
        v = v if left > I32(0) else keep * v + current[U(i)]
        spike = v > threshold
        values[j] = reset if spike else v
        held[j] = hold if spike else left
        flags[U(i)] = spike


@kernel
def update_lif(
    lif: Lif, p: int, low: int, high: int, neuron: int, values: Floats, held: NDArray[np.int32], inbox: Floats,
    current: Floats, jump: Floats, flags: NDArray[np.uint8], words: NDArray[np.uint64], row: NDArray[np.uint32],
) -> Any:  # fmt: skip
    """Neurons low..high-1 of population p, which begins at ``neuron``; who fires, into row[neuron + low:]; how many."""
    wide()
    keep, threshold, reset, hold = lif.keep[p], lif.threshold[p], lif.reset[p], I32(lif.hold[p])
    to = neuron + low
    for begin in range(low, high, ROOM):
        n = U(min(ROOM, high - begin))
        g = U(neuron + begin)
        _begin(lif.drive, g, n, current, jump)
        for r in range(lif.receptor_first[p], lif.receptor_first[p + 1]):
            x, s = U(lif.receptor_inbox[r] + begin), U(lif.receptor_place[r] + begin)
            k, gain, second = lif.receptor_keep[r], lif.receptor_gain[r], lif.receptor_second[r]
            kind = lif.receptor_kind[r]
            if kind == DELTA:
                _delta(inbox, x, n, jump)
            elif kind == EXPONENTIAL:
                _exponential(values, s, inbox, x, n, k, gain, current)
            elif kind == ALPHA:
                a = s + U(lif.receptor_size[r])
                _alpha(values, s, a, inbox, x, n, k, gain, second, lif.receptor_slope[r], current)
            else:
                _conductance(values, s, g, inbox, x, n, k, gain, second, jump, current)
        _fire(values, held, g, n, jump, current, flags, keep, threshold, reset, hold)
        to = gather_spikes(words, I64(n), begin, row, to)
    return I64(to - neuron - low)


@kernel
def update_loihi2(
    cuba: Cuba, p: int, low: int, high: int, neuron: int, values: NDArray[np.int32], inbox: NDArray[np.int32],
    flags: NDArray[np.uint8], words: NDArray[np.uint64], row: NDArray[np.uint32],
) -> Any:  # fmt: skip
    """As `update_lif`, in Loihi 2's integers."""
    to, half = neuron + low, U(values.size // 2)
    for begin in range(low, high, ROOM):
        n = U(min(ROOM, high - begin))
        g, x = U(neuron + begin), U(cuba.inbox[p] + begin)
        for i in range(n):
            j, a = g + U(i), x + U(i)
            u = wrap_once(I32(decay(values[half + j], cuba.keep_u[j]) + I32(inbox[a] << 6)))
            inbox[a] = I32(0)
            drift = I32(decay(values[j], cuba.keep_v[j]) + u)
            v = saturate(I32(drift + cuba.bias[j]), -LIMIT, LIMIT)
            spike = v > cuba.threshold[j]
            values[half + j] = u
            values[j] = I32(0) if spike else v
            flags[U(i)] = spike
        to = gather_spikes(words, I64(n), begin, row, to)
    return I64(to - neuron - low)
