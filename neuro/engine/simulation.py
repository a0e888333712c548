"""`Simulation`: a circuit in memory, advanced as long as anybody likes; `simulate`: one run of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.engine import checkpoint
from neuro.engine.build import build
from neuro.engine.cells import start_of
from neuro.engine.circuit import LIF, Circuit, unknown
from neuro.engine.kernels import State, Work, advance, advance_loihi2
from neuro.engine.neurons import ROOM
from neuro.errors import SimulationError

WORTH_A_THREAD = 4096  # neurons; with fewer, waiting for each other every step takes longer than it saves (measured)
MOST_STEPS = 1 << 10  # of one call of the kernel
ROOM_FOR_SPIKES = 1 << 23  # entries: what a call may write before its spikes are collected; few, they stay cached
Progress = Callable[[int, int], None]
Probes = Mapping[tuple[str, str], ArrayLike]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Recording:
    """What some steps did.

    start, steps, dt. spikes: population -> (int64[n] step, uint32[n] neuron), by step, then neuron. probes:
    (population, variable) -> float64[steps, k] after each step, "v" in volts (integers of a chip as they are).
    events: synapses that spikes went through. seconds: of the loop, without building and collecting.
    """

    start: int
    steps: int
    dt: float
    spikes: dict[str, tuple[IntArray, NDArray[np.uint32]]]
    probes: dict[tuple[str, str], NDArray[np.float64]]
    counts: dict[str, int]
    sizes: dict[str, int]
    events: int
    seconds: float

    def rate_hz(self, population: str) -> float:
        """Mean rate of a population, hertz."""
        return self.counts[population] / (self.sizes[population] * self.steps * self.dt)

    def trains(self, population: str) -> list[IntArray]:
        """Steps in which each neuron fired."""
        steps, neurons = self.spikes[population]
        order = np.argsort(neurons, kind="stable")
        ends = np.cumsum(np.bincount(neurons, minlength=self.sizes[population]))
        return np.split(steps[order], ends[:-1])


class Simulation:
    """A circuit with its synapses drawn and its state.

    Args:
        threads: default NUMBA_NUM_THREADS or the processors at hand, fewer for small circuits. Spikes do not depend
            on it.
        progress: called with a sentence while synapses are drawn.

    Attributes: ``circuit``, ``threads``, ``step`` (next to be run), ``synapses`` (per projection),
    ``bytes_per_synapse`` (pointers included), ``built`` (the arrays).
    """

    def __init__(
        self, circuit: Circuit, *, threads: int | None = None, progress: Callable[[str], None] | None = None
    ) -> None:
        self.circuit = circuit
        self.threads = _threads(threads, circuit.neurons)
        self.built = build(circuit, self.threads, progress or (lambda said: None))
        self.step = 0
        net = self.built.net
        chunk = min(MOST_STEPS, max(ROOM_FOR_SPIKES // circuit.neurons, 1))
        self._chunk = max(chunk, net.window)
        slots = self.built.longest + self._chunk + 1
        values = start_of(circuit, self.built.values, self.built.places)
        self._net = net._replace(slots=slots)
        self._state = State(
            values=values,
            held=np.zeros(circuit.neurons, np.int32),
            inbox=np.zeros((net.rings, max(self.built.inbox, 1)), values.dtype),
            fired=np.zeros((slots, circuit.neurons), np.uint32),
            counted=np.zeros((net.parts, slots, net.kind.size), np.int64),
        )
        self._work = [_work(values.dtype) for _ in range(self.threads)]
        self._meeting = np.zeros(8, np.int64)

    @property
    def synapses(self) -> tuple[int, ...]:
        return self.built.synapses

    @property
    def bytes_per_synapse(self) -> float:
        """Memory of pointers, targets, weights and delays over the number of synapses."""
        return self.built.bytes / max(1, sum(self.synapses))

    def connections(self, number: int) -> tuple[IntArray, IntArray, NDArray[Any], IntArray]:
        """Sources, targets, weights and delays (steps) of a projection, by part and row."""
        net, pools, found = self._net, self.built.pools, []
        bins, size = int(net.bins[number]), int(net.size[net.source[number]])
        for part in range(net.parts):
            at = int(net.pointer_at[number, part])
            counts: Any = np.diff(pools.pointer[at : at + size * bins + 1].astype(np.int64))
            n: int = int(counts.sum())
            row = np.repeat(np.arange(size * bins), counts)

            def of(pool: NDArray[Any], begin: Any, n: int = n) -> NDArray[Any]:
                return pool[int(begin) : int(begin) + n]

            target = of(pools.target, net.synapse_at[number, part]) + part * net.width[net.target[number]]
            weighs, late = net.weighs[number], not net.pulled[number]
            weight = of(pools.weight, net.weight_at[number, part]) if weighs else np.repeat(net.weight[number], n)
            delay = of(pools.delay, net.delay_at[number, part]) if late else row % bins + net.low[number] - 1
            found.append((row // bins, target.astype(np.int64), weight, delay.astype(np.int64)))
        sources, targets, weights, delays = (np.concatenate(column) for column in zip(*found, strict=True))
        return sources, targets, weights, delays

    def run(
        self,
        steps: int | None = None,
        *,
        seconds: float | None = None,
        record: bool | tuple[str, ...] = True,
        probes: Probes | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """So many more steps.

        Args:
            steps, or seconds: one of them; seconds are rounded to steps.
            record: keep spikes: of all, of none (only counts), or of these populations.
            probes: (population, variable) -> neurons; "v", "u" on Loihi 2, or a receptor with a current.
            progress: called with (steps done, steps in all).

        Raises:
            SimulationError: no or two lengths, or something asked for that is not there.
        """
        count = steps_of(self.circuit, steps, seconds)
        kept = self._recorded(record)
        asked, columns = self._probes(probes or {})
        spikes: dict[str, list[Any]] = {name: [] for name in kept}
        counts = dict.fromkeys(self.circuit.populations, 0)
        out = np.zeros((count, int(asked.probe_first[-1])), self._state.values.dtype)
        begin, events, busy = self.step, self._events(), 0.0
        while self.step < begin + count:
            n = min(self._chunk, begin + count - self.step)
            rows = out[self.step - begin : self.step - begin + n]
            began = time.perf_counter()
            self._advance(asked, n, rows)
            busy += time.perf_counter() - began
            self._collect(n, spikes, counts)
            self.step += n
            if progress is not None:
                progress(self.step - begin, count)
        joined = {
            name: (
                np.concatenate([np.zeros(0, np.int64), *(s for s, _ in found)]),
                np.concatenate([np.zeros(0, np.uint32), *(i for _, i in found)]),
            )
            for name, found in spikes.items()
        }
        sizes = {name: p.size for name, p in self.circuit.populations.items()}
        probed = {key: self._real(key, out[:, column]) for key, column in columns.items()}
        done = self._events() - events  # of all threads
        return Recording(begin, count, self.circuit.dt, joined, probed, counts, sizes, done, busy)

    def save(self, path: str | Path) -> None:
        """Write the state: with the same circuit, whatever the threads, `load` goes on with the same spikes."""
        checkpoint.save(Path(path), self.circuit, self.step, self._state, self._net, self.built.longest)

    def load(self, path: str | Path) -> None:
        """Go back (or on) to a state that `save` wrote.

        Raises:
            FormatError: it is not such a file. RunError: it is of another circuit.
        """
        self.step = checkpoint.load(Path(path), self.circuit, self._state, self._net)

    def _events(self) -> int:
        return int(sum(work.events[0] for work in self._work))

    def _advance(self, net: Any, steps: int, probes: NDArray[Any]) -> None:
        kernel: Any = advance_loihi2 if self.circuit.arithmetic == "loihi2" else advance
        self._meeting[:] = 0
        fixed = (self._meeting, self.threads, self.step, steps, self.built.longest, self.built.pushes, probes)

        def share(thread: int) -> None:
            meeting, threads, *rest = fixed
            work = self._work[thread]
            kernel(net, self.built.pools, self._state, work, self.built.cells, meeting, thread, threads, *rest)

        if self.threads == 1:
            share(0)
            return
        with ThreadPoolExecutor(self.threads - 1) as pool:  # each waits for all: there must be one for each
            others = [pool.submit(share, k) for k in range(1, self.threads)]
            share(0)
            for other in others:
                other.result()

    def _collect(self, steps: int, spikes: dict[str, list[Any]], counts: dict[str, int]) -> None:
        """Spikes of the last so many steps, out of the slots they stand in."""
        net, parts = self._net, self._net.parts
        when = np.arange(self.step, self.step + steps)
        counted = self._state.counted[:, when % net.slots].transpose(1, 2, 0)
        for k, name in enumerate(self.circuit.populations):
            counts[name] += int(counted[:, k].sum())
            if name not in spikes:
                continue
            per_step = counted[:, k]
            at = net.first[k] + net.width[k] * np.arange(parts)
            row, part = np.nonzero(per_step)
            found = [
                self._state.fired[(self.step + r) % net.slots, at[q] : at[q] + per_step[r, q]]
                for r, q in zip(row.tolist(), part.tolist(), strict=True)
            ]
            total = per_step.sum(axis=1)
            spikes[name].append((np.repeat(when, total), np.concatenate([np.zeros(0, np.uint32), *found])))

    def _recorded(self, record: bool | tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(record, bool):
            return tuple(self.circuit.populations) if record else ()
        missing = [unknown(name, self.circuit.populations) for name in record if name not in self.circuit.populations]
        if missing:
            raise SimulationError("cannot record", missing)
        return tuple(record)

    def _probes(self, probes: Probes) -> tuple[Any, dict[tuple[str, str], IntArray]]:
        """The net with probes in it, and which columns belong to which."""
        bad, places, owners, keys = [], [], [], []
        for key, given in probes.items():
            if key not in self.built.places:
                known = ", ".join(f"{a}.{b}" for a, b in self.built.places)
                bad.append(f"cannot probe {key!r}; there are {known or 'none'}")
                continue
            which, size = np.atleast_1d(np.asarray(given)), self.circuit.populations[key[0]].size
            if which.dtype.kind not in "iu" or which.ndim != 1 or not ((which >= 0) & (which < size)).all():
                bad.append(f"probes of '{key[0]}' are neurons 0..{size - 1}")
                continue
            width = self._net.width[list(self.circuit.populations).index(key[0])]
            places.append(self.built.places[key] + which.astype(np.int64))
            owners.append(which // width)
            keys += [key] * which.size
        if bad:
            raise SimulationError("cannot probe", bad)
        place, owner = (np.concatenate([np.zeros(0, np.int64), *a]).astype(np.int64) for a in (places, owners))
        order = np.argsort(owner, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=self._net.parts))]).astype(np.int64)
        column = np.argsort(order, kind="stable")
        columns = {key: column[[k == key for k in keys]] for key in probes}
        return self._net._replace(probe_place=np.ascontiguousarray(place[order]), probe_first=first), columns

    def _real(self, key: tuple[str, str], values: NDArray[Any]) -> NDArray[np.float64]:
        model = self.circuit.populations[key[0]].model
        return values.astype(np.float64) + (model.v_rest if isinstance(model, LIF) and key[1] == "v" else 0.0)


def simulate(
    circuit: Circuit,
    steps: int | None = None,
    *,
    seconds: float | None = None,
    threads: int | None = None,
    record: bool | tuple[str, ...] = True,
    probes: Probes | None = None,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    save: str | Path | None = None,
) -> Recording:
    """Build a circuit and run it; see `Simulation`. resume: go on from a saved state. save: write the last one."""
    steps_of(circuit, steps, seconds)
    simulation = Simulation(circuit, threads=threads)
    if resume is not None:
        simulation.load(resume)
    done = simulation.run(steps, seconds=seconds, record=record, probes=probes, progress=progress)
    if save is not None:
        simulation.save(save)
    return done


def steps_of(circuit: Circuit, steps: int | None, seconds: float | None) -> int:
    """The length of a run.

    Raises:
        SimulationError: none, two, or a negative one.
    """
    if (steps is None) == (seconds is None):
        raise SimulationError("say how long: steps or seconds, one of them")
    count = steps if steps is not None else round(float(seconds or 0.0) / circuit.dt)
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
        raise SimulationError(f"steps must be a whole number, 0 or more, got {count!r}")
    return int(count)


def _threads(threads: int | None, neurons: int) -> int:
    import numba

    config: Any = numba.config  # its attributes are made at run time
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return 1  # threads of interpreted kernels would wait for each other for ever
    if threads is None:
        return max(1, min(int(config.NUMBA_NUM_THREADS), neurons // WORTH_A_THREAD))
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= 256:
        raise SimulationError(f"threads must be 1 to 256, got {threads!r}")
    return int(threads)


def _work(kind: Any) -> Work:
    words = np.zeros(ROOM // 8, np.uint64)
    return Work(
        current=np.zeros(ROOM, kind),
        jump=np.zeros(ROOM, kind),
        flags=words.view(np.uint8),
        flag_words=words,
        numbers=np.zeros(64, np.uint32),
        counts=np.zeros(64, kind),
        unit=np.arange(2).astype(kind),
        events=np.zeros(8, np.int64),
    )
