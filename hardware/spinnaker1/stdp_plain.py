"""Populations with pair STDP once more, in unbounded Python integers: what the compiled loops are checked against.

Written from the description of the machine, not from stdp_kernels.py, and in another form: rows are lists of
synapses, ring buffers a table from (step of arrival, type, neuron) to a sum, histories lists of (time, trace), and
every number is brought to its register's width where the machine does it. Slow and obvious.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spinnaker1.neurons import Constants, State
from neuro.hardware.spinnaker1.stdp_kernels import Cores, Fan, Learning, Rules

KEPT = 15  # post spikes that a neuron remembers


def s(bits: int, x: int) -> int:
    """x in two's complement."""
    x %= 1 << bits
    return x - (1 << bits) if x >> (bits - 1) else x


def times(a: int, b: int) -> int:
    """s16.15 product."""
    return s(32, a * b // 32768)


def shrunk(x: int, fraction: int) -> int:
    """s16.15 times u0.32."""
    return s(32, x * fraction // (1 << 32))


@dataclass
class Row:
    """A row of synapses onto one core: [weight, type, neuron, delay field]. last, trace: only where it learns."""

    core: int
    at: int
    plastic: bool
    synapses: list[list[int]]
    last: int = 0
    trace: int = 0


@dataclass
class Neuron:
    v: int
    timer: int
    exc: int
    inh: int
    posts: list[tuple[int, int]] = field(default_factory=list)  # (time, trace), the last KEPT
    gone: int = 0  # time of the last one before those


class Machine:
    """Cores, neurons and rows at the start; ``step`` moves them on."""

    def __init__(
        self, cells: Constants, start: State, learning: Learning, cores: Cores, rules: Rules, fan: Fan
    ) -> None:
        self.cells = {name: [int(x) for x in getattr(cells, name)] for name in cells._fields}
        self.rules, self.cores = rules, cores
        self.slots = 1 << int(cores.delay_bits)
        self.neurons = [
            Neuron(int(v), int(timer), int(exc), int(inh))
            for v, timer, exc, inh in zip(start.v, start.refract, start.exc, start.inh, strict=True)
        ]
        self.first = [int(x) for x in cores.first]
        self.ring: list[dict[tuple[int, int, int], int]] = [{} for _ in self.first[1:]]
        self.memory = [int(w) for w in learning.memory]
        self.rows = [
            [self._row(int(fan.at[r]), int(fan.core[r]), bool(fan.plastic[r])) for r in range(int(a), int(b))]
            for a, b in zip(fan.pointer[:-1], fan.pointer[1:], strict=True)
        ]
        self.inputs = len(self.rows) - len(self.neurons)
        self.saturated = self.skipped = self.lost = 0

    def _row(self, at: int, core: int, plastic: bool) -> Row:
        m, bits = self.memory, int(self.cores.index_bits[core])

        def parts(word: int) -> list[int]:
            return [word >> bits & 1, word % (1 << bits), word >> (bits + 1) & (self.slots - 1)]

        if not plastic:
            return Row(core, at, False, [[w >> 16, *parts(w)] for w in m[at + 1 : at + 1 + m[at]]])
        fixed = at + 1 + m[at]
        count, weights, controls = m[fixed + 1], m[at + 3 : fixed], m[fixed + 2 + m[fixed] :]
        found = [
            [weights[k // 2] >> 16 * (k % 2) & 0xFFFF, *parts(controls[k // 2] >> 16 * (k % 2) & 0xFFFF)]
            for k in range(count)
        ]
        return Row(core, at, True, found, m[at + 1], s(16, m[at + 2]))

    def _table(self, sign: int, rule: int, dt: int) -> int:
        place = dt % (1 << 32) >> int(self.rules.shift[sign, rule])
        return int(self.rules.lut[sign, rule, place]) if place < int(self.rules.size[sign, rule]) else 0

    def step(self, t: int, inputs: Sequence[int]) -> tuple[list[int], int]:
        """Step t with the inputs that send in it, in order: the neurons that fire, and how many synapses they reach."""
        fired = []
        for core, ring in enumerate(self.ring):
            for i in range(self.first[core], self.first[core + 1]):
                got = [ring.pop((t, kind, i - self.first[core]), 0) for kind in (0, 1)]
                if self._update(i, *(s(32, g << int(self.cores.shift[core, k])) for k, g in enumerate(got))):
                    fired.append(i)
                    if self.cores.rule[core] >= 0:
                        self._remember(i, t, int(self.cores.rule[core]))
        reached = 0
        for source in [*inputs, *(self.inputs + i for i in fired)]:
            for row in self.rows[source]:
                reached += len(row.synapses)
                self._arrive(row, t)
        return fired, reached

    def _update(self, i: int, exc: int, inh: int) -> bool:
        n, c = self.neurons[i], {name: values[i] for name, values in self.cells.items()}
        e, h = s(32, n.exc + shrunk(exc, c["init_exc"])), s(32, n.inh + shrunk(inh, c["init_inh"]))
        if n.timer > 0:
            n.timer -= 1
        else:
            goal = s(32, times(s(32, e - h + c["i_offset"]), c["r"]) + c["v_rest"])
            n.v = s(32, goal - times(c["exp_tc"], s(32, goal - n.v)))
        spike = n.v >= c["threshold"]
        if spike:
            n.v, n.timer = c["v_reset"], c["t_refract"]
        n.exc, n.inh = shrunk(e, c["decay_exc"]), shrunk(h, c["decay_inh"])
        return spike

    def _remember(self, i: int, t: int, rule: int) -> None:
        posts = self.neurons[i].posts
        time, trace = posts[-1] if posts else (0, 0)
        posts.append((t, s(16, (trace * self._table(1, rule, t - time) >> 11) + 2048)))
        if len(posts) > KEPT:
            self.neurons[i].gone = posts.pop(0)[0]

    def _arrive(self, row: Row, t: int) -> None:
        for synapse in row.synapses:
            weight, kind, neuron, delay = synapse
            if row.plastic:
                synapse[0] = weight = self._learned(row, weight, kind, neuron, delay, t)
                if delay == 0:
                    self.skipped += 1
                    continue
            place = t + (delay or self.slots), kind, neuron
            total = self.ring[row.core].get(place, 0) + weight
            self.saturated += total > 0xFFFF
            self.ring[row.core][place] = min(total, 0xFFFF)
        if row.plastic:
            rule = int(self.cores.rule[row.core])
            row.trace = s(16, (row.trace * self._table(0, rule, t - row.last) >> 11) + 2048)
            row.last = t

    def _learned(self, row: Row, weight: int, kind: int, neuron: int, delay: int, t: int) -> int:
        rule, shift = int(self.cores.rule[row.core]), int(self.cores.shift[row.core, kind])
        low, high, a_plus, a_minus = (int(x) for x in self.rules.limits[rule, kind])
        additive = int(self.rules.kind[rule]) == 0
        wait = delay if self.rules.backprop[rule] else 0
        opened, closed = max(row.last - wait, 0), max(t - wait, 0)
        of = self.neurons[self.first[row.core] + neuron]
        self.lost += of.gone > opened
        seen = [p for p in of.posts if p[0] <= closed]
        w = s(32, weight << shift)
        for time, _ in seen:
            if time > opened:
                g = s(32, (row.trace * self._table(0, rule, time + wait - row.last) >> 11) * 16)
                w = s(32, w + times(a_plus if additive else times(s(32, high - w), a_plus), g))
                w = min(w, high) if additive else w
        if seen:
            time, trace = seen[-1]
            g = s(32, (trace * self._table(1, rule, t - (time + wait)) >> 11) * 16)
            w = s(32, w - times(a_minus if additive else times(s(32, w - low), a_minus), g))
            w = max(w, low) if additive else w
        return (w >> shift) % (1 << 16)

    def words(self) -> NDArray[np.uint32]:
        """All rows as they are now, in the machine's words."""
        memory = list(self.memory)
        for rows in self.rows:
            for row in rows:
                if row.plastic:
                    memory[row.at + 1] = row.last
                    memory[row.at + 2] = memory[row.at + 2] >> 16 << 16 | row.trace % (1 << 16)
                    weights = [w for w, *_ in row.synapses] + [0] * (len(row.synapses) % 2)
                    for k in range(0, len(weights), 2):
                        memory[row.at + 3 + k // 2] = weights[k] | weights[k + 1] << 16
        return np.array(memory, np.uint32)

    def states(self) -> list[tuple[int, int, int, int]]:
        """v, timer, exc, inh of every neuron."""
        return [(n.v, n.timer, n.exc, n.inh) for n in self.neurons]


def replay(core: Any) -> dict[str, Any]:
    """States after each step, memory after each step and counts of an object with the fields that kernels take
    (constants, start, learning, cores, rules, fan, events, event, steps)."""
    machine = Machine(core.constants, core.start, core.learning, core.cores, core.rules, core.fan)
    states, rows, synapses = [], [], []
    for t in range(core.steps):
        fired, reached = machine.step(t, [int(e) for e in core.event[core.events[t] : core.events[t + 1]]])
        states.append([(*of, int(i in set(fired))) for i, of in enumerate(machine.states())])
        rows.append(machine.words())
        synapses.append(reached)
    return {
        "state": np.array(states, np.int64),
        "row_mem": np.array(rows, np.uint32),
        "sat": machine.saturated,
        "skipped": machine.skipped,
        "lost": machine.lost,
        "synapses": np.array(synapses),
    }


__all__ = ["Machine", "replay"]
