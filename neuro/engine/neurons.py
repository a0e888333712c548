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
from neuro.jit import kernel

U = np.uintp
F32 = np.float32
I32 = np.int32
I64: Any = np.int64  # mypy takes indices to be int
U32 = np.uint32
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
def gather_spikes(
    words: NDArray[np.uint64], flags: NDArray[np.uint8], n: int, first: int, row: NDArray[np.uint32], at: int
) -> Any:
    """row[at:] = first + those of flags[:n] that are set, ascending; the next free place. words: the same memory."""
    to, zero = U(at), np.uint64(0)
    for word in range(U(n + 7) >> U(3)):
        if words[U(word)] == zero:
            continue
        begin = U(word) << U(3)
        for k in range(U(min(8, n - I64(begin)))):  # no branch: what did not fire is written over
            row[to] = U32(U(first) + begin + U(k))
            to += U(flags[begin + U(k)])
    return I64(to)


@kernel
def update_lif(
    lif: Lif, p: int, low: int, high: int, neuron: int, values: Floats, held: NDArray[np.int32], inbox: Floats,
    current: Floats, jump: Floats, flags: NDArray[np.uint8], words: NDArray[np.uint64], row: NDArray[np.uint32],
) -> Any:  # fmt: skip
    """Neurons low..high-1 of population p, which begins at ``neuron``; who fires, into row[neuron + low:]; how many."""
    keep, threshold, reset, hold = lif.keep[p], lif.threshold[p], lif.reset[p], I32(lif.hold[p])
    zero = F32(0.0)
    to = neuron + low
    for begin in range(low, high, ROOM):
        n = U(min(ROOM, high - begin))
        g = U(neuron + begin)
        for i in range(n):
            current[U(i)] = lif.drive[g + U(i)]
            jump[U(i)] = zero
        for r in range(lif.receptor_first[p], lif.receptor_first[p + 1]):
            x, s = U(lif.receptor_inbox[r] + begin), U(lif.receptor_place[r] + begin)
            k, gain, second, slope = (
                lif.receptor_keep[r], lif.receptor_gain[r], lif.receptor_second[r], lif.receptor_slope[r],
            )  # fmt: skip
            kind = lif.receptor_kind[r]
            if kind == DELTA:
                for i in range(n):
                    jump[U(i)] += inbox[x + U(i)]
                    inbox[x + U(i)] = zero
            elif kind == EXPONENTIAL:
                for i in range(n):
                    now = values[s + U(i)] + inbox[x + U(i)]
                    inbox[x + U(i)] = zero
                    current[U(i)] += gain * now
                    values[s + U(i)] = k * now
            elif kind == ALPHA:
                a = s + U(lif.receptor_size[r])  # the second value of each neuron
                for i in range(n):
                    rise = values[a + U(i)] + F32(2.7182818) * inbox[x + U(i)]
                    now = values[s + U(i)]
                    inbox[x + U(i)] = zero
                    current[U(i)] += gain * now + second * rise
                    values[s + U(i)] = k * now + slope * rise
                    values[a + U(i)] = k * rise
            else:
                for i in range(n):
                    now = values[s + U(i)] + inbox[x + U(i)]
                    inbox[x + U(i)] = zero
                    current[U(i)] += gain * now * (second - (values[g + U(i)] + jump[U(i)]))
                    values[s + U(i)] = k * now
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
        to = gather_spikes(words, flags, I64(n), begin, row, to)
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
        to = gather_spikes(words, flags, I64(n), begin, row, to)
    return I64(to - neuron - low)
