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

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.integer import shift_to_zero, wrap
from neuro.hardware.loihi1.contract import NENGO, check, effective, preset_of
from neuro.hardware.program import Program
from neuro.hardware.threads import available as _threads
from neuro.hardware.trace import Counters, Trace
from neuro.jit import kernel

IntArray = NDArray[np.int64]
VARIABLES = ("u", "v")
I64 = np.int64


class Packed(NamedTuple):
    """A program as flat arrays. Neurons are numbered over all populations, inputs first, in the program's order.

    first: where each population begins. registers: int64[7, n] decays (the part that is lost), threshold, bias,
    refractory, v_min, v_max. pointer, target, late, weight: synapses by source neuron. core: of each neuron, -1 for
    inputs. packets, hops: per source neuron.
    """

    preset: int
    first: IntArray
    registers: IntArray
    pointer: IntArray
    target: NDArray[np.int32]
    late: NDArray[np.int32]
    weight: NDArray[np.int32]
    core: IntArray
    packets: IntArray
    hops: IntArray
    room: int


@kernel
def update(
    nengo: bool,
    first: int,
    last: int,
    u: IntArray,
    v: IntArray,
    held: IntArray,
    arrived: IntArray,
    registers: IntArray,
    fired: NDArray[np.uint8],
) -> None:
    """One step of the neurons first..last - 1; ``arrived`` is taken and cleared."""
    for i in range(first, last):
        entered = arrived[i]
        arrived[i] = 0
        lost_u, lost_v, threshold, bias = registers[0, i], registers[1, i], registers[2, i], registers[3, i]
        if nengo:
            u[i] = wrap(shift_to_zero(u[i] * (4096 - lost_u), 12) + wrap(entered, 22), 24)
            x = shift_to_zero(v[i] * (4096 - lost_v), 12) + wrap(u[i] + bias, 24)
            x = min(max(x, registers[5, i]), registers[6, i])
            if held[i] > 0:
                x = I64(0)
            fired[i] = x > threshold
            if fired[i]:
                x = I64(0)
                held[i] = registers[4, i]
            held[i] = max(held[i] - 1, I64(0))
            v[i] = x
        else:
            u[i] = shift_to_zero(u[i] * (4096 - lost_u), 12) + entered
            fired[i] = 0
            if held[i] > 0:
                held[i] -= 1
            else:
                x = shift_to_zero(v[i] * (4096 - lost_v), 12) + u[i] + bias
                fired[i] = x > threshold
                if fired[i]:
                    x = I64(0)
                    held[i] = registers[4, i] - 1
                v[i] = x


@kernel
def deliver(
    source: int,
    step: int,
    pointer: IntArray,
    target: NDArray[np.int32],
    late: NDArray[np.int32],
    weight: NDArray[np.int32],
    core: IntArray,
    ring: IntArray,
    synops: IntArray,
) -> None:
    """Spread one spike: into slot (step + 1 + delay) of the ring, counting at the target's core."""
    slots = ring.shape[0]
    for k in range(pointer[source], pointer[source + 1]):
        i = target[k]
        ring[(step + 1 + late[k]) % slots, i] += weight[k]
        synops[core[i]] += 1


@kernel
def simulate_sample(
    nengo: bool,
    inputs: int,
    registers: IntArray,
    pointer: IntArray,
    target: NDArray[np.int32],
    late: NDArray[np.int32],
    weight: NDArray[np.int32],
    core: IntArray,
    packets: IntArray,
    hops: IntArray,
    entered: NDArray[np.uint8],
    probed: IntArray,
    spikes: NDArray[np.uint8],
    values: IntArray,
    booked: IntArray,
    injected: IntArray,
    state: IntArray,
    ring: IntArray,
    fired: NDArray[np.uint8],
) -> None:
    """One sample from rest. entered: uint8[steps, inputs]. probed: int64[2, k] variable and neuron of each column of
    values [steps, k]. spikes [steps, n] may have no rows. booked: int64[4, steps, cores] synops, spikes, packets, hops.
    """
    state[:] = 0
    ring[:] = 0
    fired[:] = 0
    n = registers.shape[1]
    for t in range(entered.shape[0]):
        slot = t % ring.shape[0]
        update(nengo, inputs, n, state[0], state[1], state[2], ring[slot], registers, fired)
        for i in range(inputs):
            fired[i] = entered[t, i]
            injected[t] += entered[t, i]
        for i in range(n):
            if fired[i]:
                deliver(i, t, pointer, target, late, weight, core, ring, booked[0, t])
                if i >= inputs:
                    booked[1, t, core[i]] += 1
                    booked[2, t, core[i]] += packets[i]
                    booked[3, t, core[i]] += hops[i]
        if spikes.shape[0] > 0:
            for i in range(n):
                spikes[t, i] = fired[i]
        for k in range(probed.shape[1]):
            values[t, k] = state[probed[0, k], probed[1, k]]


def pack(program: Program) -> Packed:
    """Flat arrays of a program of the presets "nengo" and "brian2loihi".

    Raises:
        SimulationError: it breaks the contract.
    """
    check(program)
    preset = preset_of(program)
    names = list(program.populations)
    assert names[0] == program.input
    sizes = [p.size for p in program.populations.values()]
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    start = dict(zip(names, first[:-1].tolist(), strict=True))
    n = int(first[-1])
    registers = np.zeros((7, n), np.int64)
    core = np.full(n, -1, np.int64)
    for name in names[1:]:
        population = program.populations[name]
        part = slice(start[name], start[name] + population.size)
        for row, parameter in enumerate(("decay_u", "decay_v", "threshold", "bias", "refractory", "v_min", "v_max")):
            registers[row, part] = population.params[parameter]
        core[part] = program.placement.core_of[name]
    if preset == NENGO:
        registers[0, first[1] :] += 1  # the chip's offset of 1
    source, target, late, weight = (
        (
            np.concatenate(parts) if parts else np.zeros(0, np.int64)
            for parts in zip(
                *(_synapses(program, k, start, preset) for k in range(len(program.projections))), strict=True
            )
        )
        if program.projections
        else (np.zeros(0, np.int64),) * 4
    )
    order = np.argsort(source, kind="stable")
    pointer = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))]).astype(np.int64)
    packets, hops = _messages(program, source, target, core, n)
    return Packed(
        preset=preset,
        first=first,
        registers=registers,
        pointer=pointer,
        target=target[order].astype(np.int32),
        late=late[order].astype(np.int32),
        weight=weight[order].astype(np.int32),
        core=core,
        packets=packets,
        hops=hops,
        room=int(late.max(initial=0)) + 2,
    )


def _synapses(program: Program, k: int, start: dict[str, int], preset: int) -> tuple[IntArray, ...]:
    p = program.projections[k]
    late = np.broadcast_to(p.params.get("delay_steps", np.array(0)), p.weight_q.shape)
    return p.params["col"] + start[p.source], p.params["row"] + start[p.target], late, effective(p, preset)


def _messages(
    program: Program, source: IntArray, target: IntArray, core: IntArray, n: int
) -> tuple[IntArray, IntArray]:
    """Per source neuron: messages, one per target core, and the links they cross."""
    pairs = np.unique(np.stack([source, core[target]]), axis=1)
    own = core[pairs[0]]
    pairs, own = pairs[:, own >= 0], own[own >= 0]
    xy = program.placement.xy
    distance = np.abs(xy[own] - xy[pairs[1]]).sum(axis=1) if pairs.size else np.zeros(0, np.int64)
    packets = np.bincount(pairs[0], minlength=n).astype(np.int64)
    return packets, np.bincount(pairs[0], distance, n).astype(np.int64)


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
    entered = np.zeros((batch, steps, inputs), np.uint8)
    entered[:, :length] = dense.transpose(1, 0, 2)
    spikes = np.zeros((batch, steps if record_spikes or program.readout == "count" else 0, n), np.uint8)
    values = np.zeros((batch, steps, probed.shape[1]), np.int64)
    booked = np.zeros((batch, 4, steps, cores), np.int64)
    injected = np.zeros((batch, steps), np.int64)

    def one(k: int) -> None:
        state, ring = np.zeros((3, n), np.int64), np.zeros((net.room, n), np.int64)
        simulate_sample(
            net.preset == NENGO,
            inputs,
            net.registers,
            net.pointer,
            net.target,
            net.late,
            net.weight,
            net.core,
            net.packets,
            net.hops,
            entered[k],
            probed,
            spikes[k],
            values[k],
            booked[k],
            injected[k],
            state,
            ring,
            np.zeros(n, np.uint8),
        )

    with ThreadPoolExecutor(_threads()) as pool:
        list(pool.map(one, range(batch)))
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
    updates = np.bincount(net.core[net.core >= 0], minlength=cores)
    synops, sent, packets, hops = (np.ascontiguousarray(booked[:, k]) for k in range(4))
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


def _scores(readout: str, fired: NDArray[np.uint8], v: IntArray) -> IntArray:
    """int64[batch, classes] over the steps of a sample. fired, v: [batch, steps, classes]."""
    found = {"count": fired.sum(axis=1), "sum": v.sum(axis=1, dtype=np.int64), "max": v.max(axis=1), "last": v[:, -1]}
    scores: IntArray = found[readout].astype(np.int64)
    return scores


def _place(program: Program, start: dict[str, int], probe: tuple[str, str]) -> IntArray:
    """int64[2, n]: variable and neuron of a probe."""
    name, variable = probe
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    if name not in stateful:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, stateful)}")
    if variable not in VARIABLES:
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a Loihi 1 neuron has {', '.join(VARIABLES)}")
    n = program.populations[name].size
    return np.stack([np.full(n, VARIABLES.index(variable)), start[name] + np.arange(n)]).astype(np.int64)
