"""Running banks of cores: whole programs from rest, and one bank for as long as anybody likes.

`run` simulates a batch, samples in threads. `start` and `step_many` keep the state of one bank between calls,
cores in threads; the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.hardware.truenorth.bank import OUTSIDE, SLOTS, Bank, bank_of
from neuro.hardware.truenorth.inject import packets_of
from neuro.hardware.truenorth.kernels import Net, Out, State, advance_cores, inject, run_samples, run_ticks

IntArray = NDArray[np.int64]
BOOKED = len(Counters.NAMES)
CHUNK = 32  # ticks of `step_many` whose counters are held per core before they are added up
CORES_PER_THREAD = 64  # fewer are not worth a thread
PER_NEURON = ("negative", "reset", "gamma", "kappa", "epsilon", "stochastic", "mask", "axon", "delay")
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)
RANGES = {  # overflow -> keep, half, low, high of kernels.fit
    "saturate": (-1, 0, -(1 << 19), (1 << 19) - 1),
    "wrap": ((1 << 20) - 1, 1 << 19, -(1 << 19), (1 << 19) - 1),
    "wrap32": ((1 << 32) - 1, 1 << 31, -(1 << 31), (1 << 31) - 1),
}


def net_of(bank: Bank, by_neuron: bool = False) -> Net:
    """A checked bank as the kernels read it. by_neuron: update every core neuron by neuron (slow, the same result)."""
    cores, width = bank.leak.shape
    padded = -(-width // 64) * 64

    def per_neuron(name: str, fill: int = 0) -> NDArray[Any]:
        given = getattr(bank, name)
        full = np.full((cores, padded), fill, given.dtype)
        full[:, :width] = given
        return full

    weight = np.zeros((cores, 4, padded), np.int32)
    used = np.arange(width) < bank.neurons[:, None]
    weight[:, :, :width] = (bank.weight * used[:, :, None]).transpose(0, 2, 1)  # unused neurons stay as they are
    crossbar = np.ascontiguousarray(bank.crossbar)
    lanes = crossbar.astype("<u8").view("<i4").astype(np.int32)
    chance = ((bank.stochastic != 0) | (bank.mask != 0) | (bank.epsilon != 0)) & used
    keep, half, low, high = RANGES[bank.overflow]
    return Net(
        crossbar=crossbar,
        lanes=lanes,
        synapses=_count_bits(crossbar),
        axon_type=np.ascontiguousarray(bank.axon_type),
        weight=weight,
        **{name: per_neuron(name) for name in PER_NEURON},
        leak=per_neuron("leak") * _padded(used, padded),
        alpha=per_neuron("alpha", 1),
        target=per_neuron("target", -1),
        hops=_hops(bank, padded),
        neurons=np.ascontiguousarray(bank.neurons),
        chance=np.full(cores, 1, np.uint8) if by_neuron else chance.any(axis=1).astype(np.uint8),
        still=(~((bank.leak != 0) & used).any(axis=1)).astype(np.uint8),
        draws=np.ascontiguousarray(bank.draws),
        keep=keep,
        half=half,
        low=low,
        high=high,
        keep32=_low_half(keep),
        half32=_low_half(half),
        inclusive=int(bank.choices[1]),
        zero_cross=int(bank.choices[2]),
        generator=int(bank.choices[3]),
    )


def _padded(used: NDArray[np.bool_], padded: int) -> NDArray[np.bool_]:
    return np.pad(used, ((0, 0), (0, padded - used.shape[1])))


def _low_half(x: int) -> np.int32:
    """x modulo 2^32, as an int32."""
    return np.int32((x + (1 << 31)) % (1 << 32) - (1 << 31))


def _count_bits(crossbar: NDArray[np.uint64]) -> NDArray[np.int32]:
    """int32[C, A], ones in each row; numpy counts bits itself from version 2 on, older ones are supported."""
    octets = crossbar.view(np.uint8).reshape(*crossbar.shape[:2], -1)
    ones: NDArray[np.int32] = BITS[octets].sum(axis=2, dtype=np.int32)
    return ones


def _hops(bank: Bank, padded: int) -> NDArray[np.int32]:
    """Links from core to core, first along x, then along y; none to an output line."""
    there = bank.xy[np.maximum(bank.target, 0)]
    distance = np.abs(there - bank.xy[:, None]).sum(axis=2)
    hops = np.zeros((len(distance), padded), np.int32)
    hops[:, : bank.width] = np.where(bank.target >= 0, distance, 0)
    return hops


def start(bank: Bank, threads: int = 1) -> State:
    """A bank before tick 0, with room for so many threads."""
    cores, width = bank.leak.shape
    padded, axon_words = -(-width // 64) * 64, -(-bank.axons // 64)
    v = np.zeros((cores, padded), np.int32)
    v[:, :width] = bank.v0
    words = np.zeros((threads, padded // 8), np.uint64)
    return State(
        v=v,
        ring=np.zeros((threads, SLOTS, cores, axon_words), np.uint64),
        register=bank.seed.copy(),
        place=np.zeros(cores, np.int64),
        calm=np.zeros(cores, np.uint8),
        tick=np.zeros(1, np.int64),
        sums=np.zeros((threads, padded), np.int32),
        active=np.zeros((threads, bank.axons), np.int32),
        flags=words.view(np.uint8),
        flag_words=words,
    )


class Totals(NamedTuple):
    """What `step_many` counted. per_core: int64[6, cores], per_step: int64[6, steps], rows as `Counters.NAMES`.
    injected: packets given from outside."""

    per_core: IntArray
    per_step: IntArray
    injected: int


def step_many(
    bank: Bank | Net, state: State, steps: int, packets: IntArray | None = None, record: NDArray[np.uint8] | None = None
) -> Totals:
    """``steps`` more ticks of one bank, in place, cores in as many threads as the state has room for.

    packets: int64[k, 2] (ticks from now, core A + axon), consumed in that very tick; None for none.
    record: uint8[steps, cores P] that takes the spikes of all neurons (P: neurons of a core, up to whole words of
    64), or None. Pass `net_of(bank)` once where the call is repeated: it copies the bank.

    Raises:
        SimulationError: packets beyond the steps or the cores.
    """
    net = net_of(bank) if isinstance(bank, Bank) else bank
    cores, axons = net.synapses.shape
    given = np.zeros((0, 2), np.int64) if packets is None else np.asarray(packets, np.int64).reshape(-1, 2)
    if given.size and not ((given >= 0).all() and (given < (steps, cores * axons)).all()):
        raise SimulationError(f"packets must lie in 0..{steps - 1} ticks and 0..{cores * axons - 1} axons")
    given = given[np.argsort(given[:, 0], kind="stable")]
    first = np.searchsorted(given[:, 0], np.arange(steps + 1))
    where = np.ascontiguousarray(given[:, 1])
    per_core, per_step = np.zeros((BOOKED, cores), np.int64), np.zeros((BOOKED, steps), np.int64)
    threads = min(state.ring.shape[0], max(1, cores // CORES_PER_THREAD))
    cuts = np.linspace(0, cores, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        for begin in range(0, steps, CHUNK):
            count = min(CHUNK, steps - begin)
            out = _out(net, count, 1, None if record is None else record[begin : begin + count])
            if threads == 1:
                run_ticks(net, state, out, first[begin : begin + count + 1], where, count)
            for t in range(count if threads > 1 else 0):
                inject(state, int(state.tick[0]), where, first[begin + t], first[begin + t + 1], axons)
                others = [
                    pool.submit(advance_cores, net, state, out, k, cuts[k], cuts[k + 1], t) for k in range(1, threads)
                ]
                advance_cores(net, state, out, 0, cuts[0], cuts[1], t)
                for other in others:
                    other.result()
                state.tick[0] += 1
            per_core += out.booked[:, 0].sum(axis=1)
            per_step[:, begin : begin + count] = out.booked[:, 0].sum(axis=2)
    return Totals(per_core, per_step, len(given))


def _out(net: Net, steps: int, batch: int, record: NDArray[np.uint8] | None) -> Out:
    """Where counters go, and spikes of all neurons where they are asked for."""
    shape = net.alpha.shape
    column = np.arange(net.alpha.size, dtype=np.int32).reshape(shape)
    return Out(
        column=column if record is not None else np.full((1, 1), -1, np.int32),
        scored=np.full((1, 1), -1, np.int32),
        probed=np.zeros(0, np.int64),
        spikes=np.zeros((0, 0, 0), np.uint8) if record is None else record.reshape(steps, 1, -1),
        probes=np.zeros((0, 0, 0), np.int32),
        lines=np.zeros((0, 0, 0), np.uint8),
        scores=np.zeros((1, 0), np.int64),
        booked=np.zeros((BOOKED, batch, steps, shape[0]), np.int64),
    )


@dataclass(frozen=True, eq=False)
class Recording:
    """All of a bank over a batch. spikes: uint8[steps, batch, C, N]. v: int32 alike, after the reset.
    lines: uint8[steps, batch, output lines]. booked: int64[6, batch, steps, C]."""

    spikes: NDArray[np.uint8]
    v: NDArray[np.int32]
    lines: NDArray[np.uint8]
    booked: IntArray


def record_bank(bank: Bank, steps: int, packets: IntArray, *, by_neuron: bool = False) -> Recording:
    """Run a bank from rest and write everything down. packets: int64[k, 2] as in `step_many`."""
    bank.check()
    net = net_of(bank, by_neuron)
    cores, padded = net.alpha.shape
    given = packets[np.argsort(packets[:, 0], kind="stable")]
    first = np.searchsorted(given[:, 0], np.arange(steps + 1))[None]
    outside = (bank.target == OUTSIDE) & (np.arange(bank.width) < bank.neurons[:, None])
    out = _out(net, steps, 1, np.zeros((steps, cores * padded), np.uint8))._replace(
        probed=np.arange(cores * padded),
        probes=np.zeros((steps, 1, cores * padded), np.int32),
        lines=np.zeros((steps, 1, int(bank.axon[outside].max(initial=-1)) + 1), np.uint8),
        scored=np.full((cores, padded), -1, np.int32),
    )
    state = start(bank)
    run_samples(net, state, out, state.v.copy(), bank.seed, first, np.ascontiguousarray(given[:, 1]), 0, 0, 1)
    shape = (steps, 1, cores, padded)
    spikes, v = out.spikes.reshape(shape)[..., : bank.width], out.probes.reshape(shape)[..., : bank.width]
    return Recording(spikes, v, out.lines, out.booked)


_cache: WeakKeyDictionary[Program, tuple[Bank, Net]] = WeakKeyDictionary()


def pack(program: Program) -> tuple[Bank, Net]:
    """The bank of a program, checked, and as the kernels read it; from memory if it was made before.

    Raises:
        SimulationError: the image is not a bank.
    """
    if program not in _cache:
        bank = bank_of(program)
        _cache[program] = bank, net_of(bank)
    return _cache[program]


def run(
    program: Program,
    dense: NDArray[np.uint8],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    """Simulate a batch, samples in parallel threads (NUMBA_NUM_THREADS, default: the processors at hand).

    dense: uint8[steps, batch, inputs] of 0 and 1; runs for steps + program.depth ticks, silent at the end.
    probes: (population, "v"), the chip's V after the reset. Spikes and V of a neuron are those of its first copy.

    Raises:
        SimulationError: the image is not a bank, dense is not that, or a probe does not exist.
    """
    bank, net = pack(program)
    inputs = program.populations[program.input].size
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")
    if dense.dtype.kind not in "bui" or int(dense.min()) < 0 or int(dense.max()) > 1:
        raise SimulationError(f"dense must hold integers 0 and 1, got {dense.dtype} {dense.min()}..{dense.max()}")
    batch, steps = dense.shape[1], dense.shape[0] + program.depth
    slots = {name: program.image[f"slot:{name}"] for name in program.populations if name != program.input}
    padded_slot = {name: s // bank.width * net.alpha.shape[1] + s % bank.width for name, s in slots.items()}
    column, scored = (np.full(net.alpha.shape, -1, np.int32) for _ in range(2))
    begin, columns = 0, {}
    for name, slot in padded_slot.items():
        columns[name] = slice(begin, begin + slot.size)
        column.reshape(-1)[slot] = np.arange(begin, begin + slot.size)
        begin += slot.size
    scored.reshape(-1)[padded_slot[program.output]] = np.arange(slots[program.output].size)
    asked = tuple(dict.fromkeys(probes))
    for name, variable in asked:
        _check_probe(slots, name, variable)
    first, packets = packets_of(program, dense, steps)
    out = Out(
        column=column,
        scored=scored,
        probed=np.concatenate([np.zeros(0, np.int64), *(padded_slot[name] for name, _ in asked)]).astype(np.int64),
        spikes=np.zeros((steps, batch, begin) if record_spikes else (0, 0, 0), np.uint8),
        probes=np.zeros((steps, batch, sum(slots[name].size for name, _ in asked)), np.int32),
        lines=np.zeros((0, 0, 0), np.uint8),
        scores=np.zeros((batch, slots[program.output].size), np.int64),
        booked=np.zeros((BOOKED, batch, steps, bank.cores), np.int64),
    )
    v0 = start(bank).v

    def some(pieces: Iterator[tuple[int, int]]) -> None:
        state = start(bank)
        for b0, b1 in pieces:
            run_samples(net, state, out, v0, bank.seed, first, packets, program.depth, b0, b1)

    over_pieces(min(_threads(), batch), batch, some)
    spikes: dict[str, NDArray[np.uint8]] = {}
    if record_spikes:
        spikes[program.input] = np.zeros((steps, batch, inputs), np.uint8)
        spikes[program.input][: dense.shape[0]] = dense
        spikes |= {name: out.spikes[:, :, columns[name]] for name in slots}
    values, begin = {}, 0
    for name, variable in asked:
        values[name, variable] = out.probes[:, :, begin : begin + slots[name].size]
        begin += slots[name].size
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes=spikes,
        probes=values,
        counters=Counters(**dict(zip(Counters.NAMES, out.booked, strict=True)), injected=np.diff(first, axis=1)),
        scores=out.scores,
    )


def _check_probe(slots: dict[str, Any], name: str, variable: str) -> None:
    if name not in slots:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, slots)}")
    if variable != "v":
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a TrueNorth neuron has v")


__all__ = ["Recording", "Totals", "net_of", "record_bank", "run", "start", "step_many"]
