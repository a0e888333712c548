"""Pair STDP as a user gives it, and as the machine holds it: tables, and rows of plastic synapses.

A plastic row in memory, 32-bit words, 16-bit halves the low one first::

    n | last time | pre trace | weights, two per word | 0 (fixed synapses) | count | controls, two per word

n counts the words from the last time to the last weight. A control is index | type | delay, the low half of a
synaptic word (`ring.words_of`). The rule is written down as

    backprop | LUT+ | LUT- | per synapse type w_min, w_max, A+, A- (s16.15)

where a LUT is its size and shift in one word, then its entries. All after sPyNNaker 7.4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import NetworkError
from neuro.hardware.spinnaker1 import fixed
from neuro.hardware.spinnaker1.ring import Layout
from neuro.hardware.spinnaker1.stdp_kernels import ADDITIVE, HISTORY, MULTIPLICATIVE, Learning, Rules

Int64 = NDArray[np.int64]
Words = NDArray[np.uint32]
TRACE_ONE = 2048  # of a trace, 11 fraction bits
KINDS = {"additive": ADDITIVE, "multiplicative": MULTIPLICATIVE}


@dataclass(frozen=True)
class PairSTDP:
    """Spike-pair plasticity with the names and units of PyNN: time constants in ms, weights in nA.

    dw = a_plus exp(-dt/tau_plus) for a pre spike dt ms before a post spike, -a_minus exp(-dt/tau_minus) the other
    way round, traces of all spikes added up; kept within w_min..w_max ("additive"), or scaled by the distance to
    the bound ("multiplicative"). a_plus and a_minus are in nA under "additive", as sPyNNaker 7.4.1 has it, and
    plain numbers under "multiplicative". backprop_delay: a post spike reaches the synapse after its delay, too.

    Raises:
        NetworkError: every value that is out of range.
    """

    tau_plus: float = 20.0
    tau_minus: float = 20.0
    a_plus: float = 0.01
    a_minus: float = 0.01
    w_min: float = 0.0
    w_max: float = 1.0
    weight_dependence: str = "additive"
    backprop_delay: bool = True

    def __post_init__(self) -> None:
        bad = [
            f"{name} must be positive milliseconds, got {value!r}"
            for name, value in (("tau_plus", self.tau_plus), ("tau_minus", self.tau_minus))
            if not 0 < value < math.inf
        ]
        if self.weight_dependence not in KINDS:
            bad.append(f"weight_dependence must be one of {tuple(KINDS)}, got {self.weight_dependence!r}")
        if not 0 <= self.w_min <= self.w_max:
            bad.append(f"0 <= w_min <= w_max must hold, got {self.w_min!r} and {self.w_max!r}")
        for name in ("w_max", "a_plus", "a_minus"):
            value = getattr(self, name)
            if not abs(value) < 1 << 16:
                bad.append(f"{name} must fit s16.15, below 65536 in magnitude, got {value!r}")
        if bad:
            raise NetworkError("a PairSTDP cannot be built", bad)


def decay_table(tau_ms: float, step_ms: float) -> Int64:
    """LUT[i] = floor(exp(-i step/tau) 2048), until it is 0; an even number of entries."""
    decay = step_ms / tau_ms
    pairs, odd = divmod(math.log(TRACE_ONE) / decay, 2)
    size = 2 * (int(pairs) + (odd > 0))
    lut: Int64 = np.floor(np.exp(np.arange(size) * -decay) * TRACE_ONE).astype(np.int64)
    return lut


def rule_words(rule: PairSTDP, step_ms: float) -> Words:
    """The rule as it is loaded, both synapse types alike."""
    found: list[int] = [int(rule.backprop_delay)]
    for tau in (rule.tau_plus, rule.tau_minus):
        lut = decay_table(tau, step_ms)
        found += [len(lut), *(int(low) | int(high) << 16 for low, high in lut.reshape(-1, 2))]
    scaled = fixed.raw([rule.w_min, rule.w_max, rule.a_plus, rule.a_minus])
    return np.array([*found, *(int(x) & 0xFFFFFFFF for x in (*scaled, *scaled))], np.uint32)


def halves(words: NDArray[np.uint32], count: int) -> Int64:
    """Unsigned 16-bit halves, the low one first."""
    both: Int64 = np.stack([words & 0xFFFF, words >> 16], axis=1).astype(np.int64)
    return both.reshape(-1)[:count]


def packed(values: ArrayLike) -> Words:
    """Pairs of 16-bit values as words, the low one first, padded with 0."""
    v = np.asarray(values, np.int64) & 0xFFFF
    v = np.concatenate([v, np.zeros(v.size % 2, np.int64)]).reshape(-1, 2)
    return (v[:, 0] | v[:, 1] << 16).astype(np.uint32)


def rules_of(regions: list[tuple[Words, str]]) -> Rules:
    """Rules as kernels read them, from (words, weight dependence) of each; a placeholder where there is none."""
    count = max(len(regions), 1)
    tables: list[list[Int64]] = [[np.zeros(1, np.int64)] * count, [np.zeros(1, np.int64)] * count]
    size, shift = np.zeros((2, count), np.int64), np.zeros((2, count), np.int64)
    kind, backprop, limits = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros((count, 2, 4), np.int64)
    for r, (words, dependence) in enumerate(regions):
        kind[r], backprop[r] = KINDS[dependence], int(words[0] != 0)
        at = 1
        for sign in (0, 1):
            size[sign, r], shift[sign, r] = int(words[at]) & 0xFFFF, int(words[at]) >> 16
            n = int(size[sign, r])
            tables[sign][r] = halves(words[at + 1 : at + 1 + (n + 1) // 2], n).astype(np.int16).astype(np.int64)
            at += 1 + (n + 1) // 2
        limits[r] = words[at : at + 8].astype(np.int32).reshape(2, 4)
    longest = max(t.size for table in tables for t in table)
    lut = np.zeros((2, count, longest), np.int64)
    for sign in (0, 1):
        for r in range(count):
            lut[sign, r, : tables[sign][r].size] = tables[sign][r]
    return Rules(kind, backprop, lut, size, shift, limits)


def plastic_words(layout: Layout, weight: Int64, delay: Int64, kind: Int64, index: Int64) -> Words:
    """A plastic row before its first spike. weight: 0..65535 in the ring buffer's unit; delay: 1..slots - 1."""
    field = (delay & (layout.slots - 1)) << layout.shift
    weights, controls = packed(weight), packed(field | (kind << layout.index_bits) | index)
    head = np.array([2 + weights.size, 0, 0], np.uint32)
    return np.concatenate([head, weights, np.array([0, weight.size], np.uint32), controls])


def row_weights(memory: Words, at: int) -> Int64:
    """Weights of the plastic row at memory[at], in the ring buffer's unit."""
    words = int(memory[at])
    count = int(memory[at + 2 + words])
    return halves(memory[at + 3 : at + 1 + words], count)


def fresh(neurons: int, entries: int, memory: Words) -> Learning:
    """Before step 0: empty ring buffers, histories that hold their placeholder only."""
    return Learning(
        ring=np.zeros(entries, np.uint16),
        time=np.zeros((neurons, HISTORY), np.int64),
        trace=np.zeros((neurons, HISTORY), np.int64),
        entries=np.ones(neurons, np.int64),
        dropped=np.zeros(neurons, np.int64),
        memory=memory.copy(),
        counts=np.zeros(3, np.int64),
        fired=np.zeros(neurons, np.int32),
    )
