"""A Loihi 1 program in unbounded Python integers, neuron by neuron, straight from the published accounts.

Shares nothing with the kernel: synapses are walked as lists of what is on its way, widths are cut with `%`, decays
are divisions of magnitudes, weights are derived with `fractions`. Slow; for certificates and tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program, Projection

Values = dict[tuple[str, str], NDArray[np.int32]]


def cut(x: int, bits: int) -> int:
    """Two's complement: what is left of x in so many bits."""
    x %= 2**bits
    return x - 2**bits if x >= 2 ** (bits - 1) else x


def survives(x: int, lost: int) -> int:
    """x (4096 - lost) / 4096, the magnitude rounded down."""
    size = abs(x) * (4096 - lost) // 4096
    return size if x >= 0 else -size


def _half_even(x: Fraction) -> int:
    return round(x)


def actual(weight: int, exponent: int, bits: int, mixed: bool, nengo: bool) -> int:
    """What one spike adds to u."""
    if nengo:
        shift = 8 - bits + mixed
        most = (1 << (8 - shift)) - 1
        q = max(-most, min(most, _half_even(Fraction(weight, 2**shift))))
        total = shift + exponent
        if total < 0:
            coarse = _half_even(Fraction(q, (1 << -total))) * (1 << -total)
            q = max(-most, min(most, coarse)) // (1 << -total)
        else:
            q <<= total
        return 64 * q
    step = 1 << (8 - (bits - mixed))
    kept = (abs(weight) // step) * step * (1 if weight >= 0 else -1)
    steps = floor(kept * Fraction(2) ** (6 + exponent) / 64)
    most = 2**21 - 64
    return max(-most, min(most, steps * 64))


class Neuron:
    """One compartment."""

    def __init__(self, nengo: bool, **registers: int) -> None:
        self.nengo, self.r = nengo, registers
        self.u = self.v = self.wait = 0

    def step(self, entered: int) -> int:
        """Take what arrives in a step; 1 if it spikes."""
        r = self.r
        if self.nengo:
            self.u = cut(survives(self.u, r["decay_u"] + 1) + cut(entered, 22), 24)
            v = survives(self.v, r["decay_v"]) + cut(self.u + r["bias"], 24)
            v = 0 if self.wait > 0 else sorted((r["v_min"], v, r["v_max"]))[1]
            spike = v > r["threshold"]
            if spike:
                v, self.wait = 0, r["refractory"]
            self.wait = max(self.wait - 1, 0)
            self.v = v
            return int(spike)
        self.u = survives(self.u, r["decay_u"]) + entered
        if self.wait > 0:
            self.wait -= 1
            return 0
        self.v = survives(self.v, r["decay_v"]) + self.u + r["bias"]
        if self.v > r["threshold"]:
            self.v, self.wait = 0, r["refractory"] - 1
            return 1
        return 0


def _neurons(program: Program, nengo: bool) -> dict[str, list[Neuron]]:
    names = ("decay_u", "decay_v", "threshold", "bias", "refractory", "v_min", "v_max")
    found = {}
    for population in program.populations.values():
        if population.model != "input":
            table = {n: np.broadcast_to(population.params[n], (population.size,)).tolist() for n in names}
            found[population.name] = [Neuron(nengo, **{n: table[n][k] for n in names}) for k in range(population.size)]
    return found


def _fan_out(program: Program, projection: Projection, nengo: bool) -> Iterator[tuple[tuple[str, int], Any]]:
    p = projection.params
    late = np.broadcast_to(p.get("delay_steps", np.array(0)), projection.weight_q.shape).tolist()
    exponent, bits, mixed = int(p["weight_exp"]), int(p["num_weight_bits"]), int(p["sign_mode"]) == 1
    for w, row, col, d in zip(projection.weight_q.tolist(), p["row"].tolist(), p["col"].tolist(), late, strict=True):
        yield (projection.source, col), (projection.target, row, d, actual(w, exponent, bits, mixed, nengo))


def simulate(program: Program, spikes_in: NDArray[np.uint8], nengo: bool) -> Values:
    """One sample, uint8[steps, inputs], and the program's depth: (population, "u" | "v" | "s") -> int32[steps, n]."""
    neurons = _neurons(program, nengo)
    reach: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for projection in program.projections:
        for source, synapse in _fan_out(program, projection, nengo):
            reach[source].append(synapse)
    coming: dict[tuple[int, str, int], int] = defaultdict(int)
    steps = len(spikes_in) + program.depth
    out: Values = {(name, k): np.zeros((steps, len(ns)), np.int32) for name, ns in neurons.items() for k in "uvs"}
    for t in range(steps):
        sent = [(program.input, int(i)) for i in np.flatnonzero(spikes_in[t])] if t < len(spikes_in) else []
        for name, bank in neurons.items():
            for i, neuron in enumerate(bank):
                spike = neuron.step(coming.pop((t, name, i), 0))
                out[name, "u"][t, i], out[name, "v"][t, i], out[name, "s"][t, i] = neuron.u, neuron.v, spike
                if spike:
                    sent.append((name, i))
        for source in sent:
            for target, row, d, weight in reach[source]:
                coming[t + 1 + d, target, row] += weight
    return out
