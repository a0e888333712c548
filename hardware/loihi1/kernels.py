"""Loihi 1 as nengo-loihi and brian2-loihi compute it, event by event. dec(x, k) = x (4096 - k) / 4096 toward zero.

nengo, per step, in this order (W22, W24: two's complement in 22 and 24 bits)::

    u = W24(dec(u, decay_u + 1) + W22(in));  v = clip(dec(v, decay_v) + W24(u + bias), v_min, v_max)
    v = 0 where refractory;  spike if v > threshold;  then v = 0, refractory = r;  refractory = max(refractory - 1, 0)

brian2loihi, without any limit of width::

    u = dec(u, decay_u) + in;  v = dec(v, decay_v) + u, or v if refractory;  spike if v > threshold and not refractory;
    then v = 0, and the neuron is refractory for r - 1 steps

Sources: nengo-loihi 1.1 and brian2-loihi 0.5 as recorded in the golden vectors (tests/golden/loihi).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.integer import shift_to_zero, wrap
from neuro.hardware.loihi1.contract import NENGO, check, effective, preset_of
from neuro.hardware.program import Population, Program, Projection
from neuro.hardware.spikes import (
    AHEAD,
    Blocks,
    Costs,
    blocks_of,
    book,
    collect,
    costs_of,
    enter,
    order_of,
    spread,
    width_of,
)
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.jit import disjoint, kernel, wide

VARIABLES = ("u", "v")
I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # an index that needs no look at its sign

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


class Packed(NamedTuple):
    """A program as flat arrays. Neurons are numbered over all populations, inputs first, in the program's order; those
    of a population as `spikes.order_of` says.

    first: where each population begins. flat: of each neuron, row-major index in its population and first of it.
    registers: int64[7, n] decays (the part that is lost), threshold, bias, refractory, v_min, v_max. blocks: synapses.
    costs: of spikes. slots, width: of the ring of sums.
    wide: whether sums may leave 32 bits where that is seen.
    """

    preset: int
    first: Int64
    flat: Int64
    registers: Int64
    blocks: Blocks
    costs: Costs
    slots: int
    width: int
    wide: bool


@disjoint
def update_nengo(
    first: int, last: int, u: Int64, v: Int64, held: Int64, sums: Int32, at: int, registers: Int64, fired: Bytes
) -> None:
    """One step of the neurons first..last - 1; what has arrived, sums[at + i], is taken and cleared."""
    wide()
    n, zero, full = U(registers.shape[1]), I64(0), I64(4096)
    reg, r1, r2, r3, r4 = registers.reshape(-1), n, U(2) * n, U(3) * n, U(4) * n
    r5, r6 = U(5) * n, U(6) * n
    for k in range(U(first), U(last)):
        i = U(k)
        entered = I64(sums[U(at) + i])
        sums[U(at) + i] = 0
        current = wrap(shift_to_zero(u[i] * (full - reg[i]), 12) + wrap(entered, 22), 24)
        x = shift_to_zero(v[i] * (full - reg[r1 + i]), 12) + wrap(current + reg[r3 + i], 24)
        x = min(max(x, reg[r5 + i]), reg[r6 + i])
        x = zero if held[i] > zero else x
        spike = x > reg[r2 + i]
        left = reg[r4 + i] if spike else held[i]
        u[i] = current
        v[i] = zero if spike else x
        held[i] = max(left - I64(1), zero)
        fired[i] = spike


@disjoint
def update_brian(
    first: int, last: int, u: Int64, v: Int64, held: Int64, sums: Int64, at: int, registers: Int64, fired: Bytes
) -> None:
    """The same of brian2loihi."""
    wide()
    n, zero, full = U(registers.shape[1]), I64(0), I64(4096)
    reg, r1, r2, r3, r4 = registers.reshape(-1), n, U(2) * n, U(3) * n, U(4) * n
    for k in range(U(first), U(last)):
        i = U(k)
        entered = I64(sums[U(at) + i])
        sums[U(at) + i] = 0
        current = shift_to_zero(u[i] * (full - reg[i]), 12) + entered
        ready = held[i] <= zero
        x = shift_to_zero(v[i] * (full - reg[r1 + i]), 12) + current + reg[r3 + i]
        spike = ready & (x > reg[r2 + i])
        left = reg[r4 + i] - I64(1) if spike else held[i]
        u[i] = current
        v[i] = (zero if spike else x) if ready else v[i]
        held[i] = left if ready else held[i] - I64(1)
        fired[i] = spike


@kernel
def simulate_samples(
    net: Packed,
    inputs: int,
    dense: Bytes,
    probed: Int64,
    spikes: Bytes,
    values: Int64,
    booked: Int64,
    injected: Int64,
    state: Int64,
    sums: NDArray[Any],
    words: Words,
    fired: Bytes,
    events: Int32,
    begin: int,
    end: int,
) -> None:
    """Samples begin..end - 1, each from rest. dense: uint8[length, batch, inputs]; later steps are silent. probed:
    int64[2, k] variable and neuron of each column of values [batch, steps, k]. spikes [batch, steps, n], row-major,
    may have no steps. booked: int64[4, batch, steps, cores] synops, spikes, packets, hops. fired: the bytes of words.
    """
    n, none = net.registers.shape[1], I64(0)
    u, v, held = state[0], state[1], state[2]
    synops, sent, packets, hops = (
        *(booked[0].reshape(-1), booked[1].reshape(-1)),
        *(booked[2].reshape(-1), booked[3].reshape(-1)),
    )
    for b in range(begin, end):
        state[:] = 0
        sums[:] = 0
        for t in range(injected.shape[1]):
            at = t % net.slots * net.width
            if net.preset == NENGO:
                update_nengo(inputs, n, u, v, held, sums, at, net.registers, fired)
            else:
                update_brian(inputs, n, u, v, held, sums, at, net.registers, fired)
            enter(dense, t, b, fired)
            count = collect(words, none, I64(words.size // 8), events, none)
            now = (t + 1) % net.slots * net.width
            spread(sums, net.slots * net.width, now, events, none, count, net.blocks)
            places = (b * injected.shape[1] + t) * booked.shape[3]
            injected[b, t] = book(net.costs, events, count, synops, sent, packets, hops, places, inputs)
            if spikes.shape[1] > 0:
                for e in range(U(count)):
                    spikes[b, t, net.flat[events[U(e)]]] = 1
            for k in range(probed.shape[1]):
                values[b, t, k] = state[probed[0, k], probed[1, k]]


_cache: WeakKeyDictionary[Program, Packed] = WeakKeyDictionary()


def pack(program: Program) -> Packed:
    """Flat arrays of a program of the presets "nengo" and "brian2loihi", from memory if it was packed before.

    Raises:
        SimulationError: it breaks the contract.
    """
    if program not in _cache:
        check(program)
        _cache[program] = _pack(program)
    return _cache[program]


def _pack(program: Program) -> Packed:
    preset = preset_of(program)
    names = list(program.populations)
    assert names[0] == program.input
    first = np.concatenate([[0], np.cumsum([p.size for p in program.populations.values()])]).astype(np.int64)
    start = dict(zip(names, first[:-1].tolist(), strict=True))
    n = int(first[-1])
    parts = [np.zeros((4, 0), np.int64), *(_synapses(program, p, start, preset) for p in program.projections)]
    source, target, late, weight = np.concatenate(parts, axis=1)
    flat = np.concatenate([_order(program, p, start, source, late, target) for p in program.populations.values()])
    place = np.argsort(flat)
    source, target = place[source], place[target]
    registers, core = np.zeros((7, n), np.int64), np.full(n, -1, np.int64)
    for name in names[1:]:
        population = program.populations[name]
        part = slice(start[name], start[name] + population.size)
        for row, parameter in enumerate(("decay_u", "decay_v", "threshold", "bias", "refractory", "v_min", "v_max")):
            registers[row, part] = population.params[parameter]
        core[part] = program.placement.core_of[name]
    if preset == NENGO:
        registers[0, first[1] :] += 1  # the chip's offset of 1
    registers, core = np.ascontiguousarray(registers[:, flat]), core[flat]
    most = np.bincount(target, np.abs(weight), n).max(initial=0)
    return Packed(
        preset=preset,
        first=first,
        flat=flat,
        registers=registers,
        blocks=blocks_of(source, late, target, weight, n, first),
        costs=costs_of(source, target, core, program.placement.cores, program.placement.xy),
        slots=int(late.max(initial=0)) + 2,
        width=width_of(n),
        wide=preset != NENGO and bool(most >= 1 << 31),  # nengo's are cut to 22 bits, whatever is above
    )


def _synapses(program: Program, p: Projection, start: dict[str, int], preset: int) -> Int64:
    """int64[4, synapses]: source, target, delay, weight."""
    late = np.broadcast_to(p.params.get("delay_steps", np.array(0)), p.weight_q.shape)
    return np.stack([p.params["col"] + start[p.source], p.params["row"] + start[p.target], late, effective(p, preset)])


def _order(
    program: Program, population: Population, start: dict[str, int], source: Int64, late: Int64, target: Int64
) -> Int64:
    """Where the neurons of a population stand, as rows of the program's order."""
    begin = start[population.name]
    into = (target >= begin) & (target < begin + population.size)
    return begin + order_of(population.shape, source[into], late[into], target[into] - begin)


def run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    """Simulate a batch, samples in parallel threads. Probes: (population, "u" | "v").

    Raises:
        SimulationError: the program breaks the contract, or a probe does not exist.
    """
    net = pack(program)
    names = list(program.populations)
    start = dict(zip(names, net.first[:-1].tolist(), strict=True))
    length, batch, inputs = dense.shape
    steps, n, cores = length + program.depth, int(net.first[-1]), program.placement.cores
    tapped = dict.fromkeys((*probes, (program.output, "v")))
    places = {probe: _place(program, start, probe) for probe in tapped}
    probed = np.concatenate([*places.values()], axis=1)
    probed[1] = np.argsort(net.flat)[probed[1]]
    spikes = np.zeros((batch, steps if record_spikes or program.readout == "count" else 0, n), np.uint8)
    values = np.zeros((batch, steps, probed.shape[1]), np.int64)
    booked = np.zeros((4, batch, steps, cores), np.int64)
    injected = np.zeros((batch, steps), np.int64)
    entered = np.ascontiguousarray(dense, np.uint8)

    def some(pieces: Iterator[tuple[int, int]]) -> None:
        state, words = np.zeros((3, n), np.int64), np.zeros(-(-n // 64) * 8, np.uint64)
        sums = np.zeros(net.slots * net.width, np.int64 if net.wide else np.int32)
        room = state, sums, words, words.view(np.uint8), np.zeros(n + AHEAD, np.int32)
        for begin, end in pieces:
            simulate_samples(net, inputs, entered, probed, spikes, values, booked, injected, *room, begin, end)

    over_pieces(min(_threads(), batch), batch, some)
    if (np.abs(values) >= 1 << 31).any():
        raise SimulationError(
            "u or v has left 32 bits; preset brian2loihi has no limit of width, but the chip's registers hold 24 bits: "
            "the network needs smaller weights or faster decays, or another preset"
        )
    columns = np.concatenate([[0], np.cumsum([p.shape[1] for p in places.values()])])
    found = {probe: values[:, :, columns[k] : columns[k + 1]].transpose(1, 0, 2) for k, probe in enumerate(places)}
    window = slice(program.skew[program.output], program.skew[program.output] + length)
    part = slice(start[program.output], start[program.output] + program.populations[program.output].size)
    scores = _scores(program.readout, spikes[:, window, part], found[program.output, "v"].transpose(1, 0, 2)[:, window])
    updates = np.bincount(net.costs.own[net.costs.own >= 0], minlength=cores)
    synops, sent, packets, hops = booked
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes={name: spikes[:, :, net.first[k] : net.first[k + 1]].transpose(1, 0, 2) for k, name in enumerate(names)}
        if record_spikes
        else {},
        probes={probe: found[probe].astype(np.int32) for probe in dict.fromkeys(probes)},
        counters=Counters(
            synops=synops,
            updates=np.broadcast_to(updates, synops.shape).astype(np.int64),
            spikes=sent,
            packets=packets,
            hops=hops,
            memory=synops * SYNAPSE_BYTES,
            injected=injected,
        ),
        scores=scores,
    )


SYNAPSE_BYTES = 3  # 8 bits of weight, 10 of target, 6 of delay: `limits.synapse_entry` of chips/loihi1.toml


def _scores(readout: str, fired: NDArray[np.uint8], v: Int64) -> Int64:
    """int64[batch, classes] over the steps of a sample. fired, v: [batch, steps, classes]."""
    found = {"count": fired.sum(axis=1), "sum": v.sum(axis=1, dtype=np.int64), "max": v.max(axis=1), "last": v[:, -1]}
    scores: Int64 = found[readout].astype(np.int64)
    return scores


def _place(program: Program, start: dict[str, int], probe: tuple[str, str]) -> Int64:
    """int64[2, n]: variable and neuron of a probe."""
    name, variable = probe
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    if name not in stateful:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, stateful)}")
    if variable not in VARIABLES:
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a Loihi 1 neuron has {', '.join(VARIABLES)}")
    n = program.populations[name].size
    return np.stack([np.full(n, VARIABLES.index(variable)), start[name] + np.arange(n)]).astype(np.int64)
