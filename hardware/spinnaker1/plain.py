"""The same machine a second time, in Python integers without bound: the model that the compiled one is checked against.

Written from the description of the sPyNNaker 7.4.1 kernels, in another form: nothing wraps unless `_signed` is asked
to; there is no ring, but for each coming step a list of what arrives; sums are clipped when they are taken.
No part of the compiled simulator is used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Population, Program
from neuro.hardware.target import Visit

Objects = NDArray[np.object_]
Int64 = NDArray[np.int64]
TITLE = "an independent integer model, itself equal to the golden vectors of the sPyNNaker 7.4.1 kernels"
FULL = 0xFFFF


def _signed(x: Any) -> Any:
    """What a 32-bit register holds of x, an integer or an array of integers."""
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


def _times(a: Any, b: Any) -> Any:
    """s16.15 product."""
    return _signed(a * b // (1 << 15))


def quotient(a: int, b: int) -> int:
    """s16.15 quotient as the machine has it: of the two numbers modulo 2^64."""
    return int(_signed((a % (1 << 64)) * (1 << 15) % (1 << 64) // (b % (1 << 64))))


def exponential(n: int) -> int:
    """e^(n / 2^15) in units of 2^-32, by the machine's tables; 0 below them. n up to 363408, where they end."""
    if n < -340695:
        return 0
    exact = Context(prec=60)

    def rounded(x: Decimal) -> int:
        return int((x * (1 << 32)).to_integral_value())

    whole, rest = divmod(n, 1 << 15)
    if rest == 0:
        return rounded(exact.exp(Decimal(whole)))
    below = (1 << 15) - rest
    big, small = divmod(below, 1 << 11)
    total = rounded(exact.exp(Decimal(whole + 1)))
    total -= _part(total, rounded(1 - exact.exp(Decimal(-big) / 16)))
    y = small << 17
    poly = (4293434720 - (2081624032 * y >> 32)) * y // (1 << 32) + 5294
    return total - _part(total, poly)


def _part(x: int, fraction: int) -> int:
    """x fraction / 2^32, to the nearest."""
    return (x * fraction + (1 << 31)) // (1 << 32)


def membrane_decay(step: int, tau: int) -> int:
    """e^(-step / tau) as s16.15."""
    n = int(_signed(-quotient(step, tau)))
    return 2147483647 if n > 363408 else exponential(n) >> 17


def synapse_factors(step: int, tau: int) -> tuple[int, int]:
    """(decay, factor of what arrives), u0.32."""
    n = int(_signed(-quotient(step, tau)))
    decay = 2147483647 if n > 363408 else exponential(n) % (1 << 32)
    return decay, quotient(tau, step) * ((1 << 32) - 1 - decay) // (1 << 15) % (1 << 32)


class Constants(NamedTuple):
    """Of one population, object arrays [n]. Of a delta one, factor_exc is 1 / step."""

    r: Objects
    decay: Objects
    t_refract: Objects
    decay_exc: Objects
    factor_exc: Objects
    decay_inh: Objects
    factor_inh: Objects


def _column(p: Population, name: str) -> list[int]:
    return [int(x) for x in np.broadcast_to(p.params[name], p.size)]


def constants_of(p: Population) -> Constants:
    """What the machine makes of a population's words."""
    column = {name: _column(p, name) for name in p.params}
    n = range(p.size)
    r = [quotient(column["tau_m"][i], column["c_m"][i]) for i in n]
    decay = [membrane_decay(column["time_step"][i], column["tau_m"][i]) for i in n]
    wait = [_signed(-(-quotient(column["t_refract"][i], column["time_step"][i]) // (1 << 15))) for i in n]
    if p.model == "curr_exp":
        exc = [synapse_factors(column["synapse_step"][i], column["tau_exc"][i]) for i in n]
        inh = [synapse_factors(column["synapse_step"][i], column["tau_inh"][i]) for i in n]
    else:
        exc = [(0, quotient(1 << 15, column["input_step"][i])) for i in n]
        inh = exc
    rows = [r, decay, wait, [d for d, _ in exc], [f for _, f in exc], [d for d, _ in inh], [f for _, f in inh]]
    return Constants(*(_objects(row) for row in rows))


def _objects(values: Iterable[int]) -> Objects:
    listed = list(values)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array


class _Neurons:
    """One population in time."""

    def __init__(self, p: Population) -> None:
        self.p, self.c = p, constants_of(p)
        self.v, self.wait, self.exc, self.inh = (
            _objects(_column(p, name)) for name in ("v_init", "refract_init", "init_exc", "init_inh")
        )
        self.fixed = {name: _objects(_column(p, name)) for name in ("v_rest", "i_offset", "v_reset", "threshold")}
        self.shifts = [int(p.params[name]) for name in ("shift_exc", "shift_inh")]

    def step(self, arrived: Objects, injected: Objects | int) -> NDArray[np.bool_]:
        """arrived: [2, n] sums of weights. Returns who spikes."""
        c, f = self.c, self.fixed
        x = [_signed(arrived[k] * (1 << self.shifts[k])) for k in (0, 1)]
        if self.p.model == "curr_exp":
            self.exc = _signed(self.exc + x[0] * c.factor_exc // (1 << 32))
            self.inh = _signed(self.inh + x[1] * c.factor_inh // (1 << 32))
            e, i = self.exc, self.inh
        else:
            e, i = _times(_signed(self.exc + x[0]), c.factor_exc), _times(_signed(self.inh + x[1]), c.factor_inh)
        alpha = _signed(_times(_signed(e - i + f["i_offset"] + injected), c.r) + f["v_rest"])
        moved = _signed(alpha - _times(c.decay, _signed(alpha - self.v)))
        held = self.wait > 0
        self.v = np.where(held, self.v, moved)
        self.wait = np.where(held, self.wait - 1, self.wait)
        fired: NDArray[np.bool_] = (self.v >= f["threshold"]).astype(bool)
        self.v = np.where(fired, f["v_reset"], self.v)
        self.wait = np.where(fired, c.t_refract, self.wait)
        if self.p.model == "curr_exp":
            self.exc = _signed(self.exc * c.decay_exc // (1 << 32))
            self.inh = _signed(self.inh * c.decay_inh // (1 << 32))
        else:
            self.exc, self.inh = self.exc * 0, self.inh * 0
        return fired


class _Synapses(NamedTuple):
    """Synapses from one population to another, by source; begin: [sources + 1]. late: steps before they are
    processed. place: kind * n + neuron."""

    source: str
    target: str
    late: int
    begin: Int64
    weight: Int64
    delay: Int64
    place: Int64


def synapses_of(program: Program) -> list[_Synapses]:
    """All synapses in the order in which a core processes them, read from the words of the image."""
    names = [program.input, *(n for n in program.populations if n != program.input)]
    found = []
    image = {name: array.astype(np.int64) for name, array in program.image.items() if name != "words"}
    for core, source, late, row, word in image["blocks"].tolist():
        target = next(n for n, cores in program.placement.core_of.items() if (cores == core).any())
        p = program.populations[target]
        ahead = int(np.flatnonzero(program.placement.core_of[target] == core)[0])
        bits, slots = int(p.params["index_bits"]), 2 ** int(p.params["delay_bits"])
        begin = image["row_start"][row : row + program.populations[names[source]].size + 1]
        words = program.image["words"][word : word + int(begin[-1])].astype(np.int64)
        neuron, kind, delay = words % 2**bits, words // 2**bits % 2, words // 2 ** (bits + 1) % slots
        place = kind * p.size + ahead + neuron
        delay[delay == 0] = slots
        found.append(_Synapses(names[source], target, late, begin, words // 2**16, delay, place))
    return found


class Step(NamedTuple):
    """What one step did: population -> spiking neurons, and variable -> values."""

    spikes: dict[str, Int64]
    values: dict[tuple[str, str], Objects]


class Plain:
    """A run of a program. saturated: additions beyond 16 bits, of all sums that were taken or that `flush` has seen.
    processed: synapses."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.neurons = {n: _Neurons(p) for n, p in program.populations.items() if p.model != "input"}
        self.into: dict[str, list[_Synapses]] = defaultdict(list)
        for s in synapses_of(program):
            self.into[s.target].append(s)
        self.coming: dict[tuple[str, int], list[tuple[Int64, Int64]]] = defaultdict(list)
        self.past: dict[tuple[str, int], Int64] = {}
        self.t = 0
        self.saturated = self.processed = 0

    def step(self, events: Int64, injected: dict[str, Objects] | None = None) -> Step:
        """One step; events: inputs that fire in it, in the order of processing."""
        t, spikes = self.t, {self.program.input: events}
        values: dict[tuple[str, str], Objects] = {}
        for name, p in self.neurons.items():
            fired = p.step(self._taken(name, t), (injected or {}).get(name, 0))
            spikes[name] = np.flatnonzero(fired)
            values |= {(name, "v"): p.v, (name, "refract"): p.wait, (name, "exc"): p.exc, (name, "inh"): p.inh}
        for name, who in spikes.items():
            self.past[name, t] = who
        for name in self.neurons:
            for s in self.into[name]:
                self._process(s, self.past.get((s.source, t - s.late), np.zeros(0, np.int64)), t)
        self.t += 1
        return Step(spikes, values)

    def _process(self, s: _Synapses, who: Int64, t: int) -> None:
        rows = [np.arange(s.begin[k], s.begin[k + 1]) for k in who.tolist()]
        if not rows:
            return
        of = np.concatenate(rows)
        self.processed += of.size
        for d in np.unique(s.delay[of]).tolist():
            some = of[s.delay[of] == d]
            self.coming[s.target, t + d].append((s.place[some], s.weight[some]))

    def _taken(self, name: str, t: int) -> Objects:
        """[2, n] sums for step t."""
        n = self.program.populations[name].size
        parts = self.coming.pop((name, t), [])
        total = np.zeros(2 * n, np.int64)
        for place, weight in parts:
            np.add.at(total, place, weight)
        for at in np.flatnonzero(total > FULL).tolist():
            self.saturated += _overflows(w for place, weight in parts for w in weight[place == at].tolist())
        return np.minimum(total, FULL).astype(object).reshape(2, n)

    def flush(self) -> None:
        """Count what is still to come."""
        for name, t in list(self.coming):
            self._taken(name, t)


def _overflows(weights: Iterator[int]) -> int:
    total, count = 0, 0
    for w in weights:
        total += w
        if total > FULL:
            total, count = FULL, count + 1
    return count


def run(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    """`neuro.hardware.target.Oracle`: dense uint8[steps, batch, n_inputs], one sample after the other."""
    steps = dense.shape[0] + program.depth
    for k in range(dense.shape[1]):
        machine = Plain(program)
        values: dict[tuple[str, str], NDArray[np.int32]] = {
            (n, variable): np.zeros((steps, p.p.size), np.int32)
            for n, p in machine.neurons.items()
            for variable in ("v", "exc", "inh", "s")
        }
        for t in range(steps):
            events = np.flatnonzero(dense[t, k]) if t < dense.shape[0] else np.zeros(0, np.int64)
            done = machine.step(events)
            for (name, variable), array in values.items():
                if variable == "s":
                    array[t, done.spikes[name]] = 1
                else:
                    array[t] = done.values[name, variable].astype(np.int64)
        visit(k, values)
