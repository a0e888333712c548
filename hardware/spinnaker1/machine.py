"""`Machine`: one long run of a program with its state kept. Batches of samples are in batch.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program
from neuro.hardware.spinnaker1 import kernels
from neuro.hardware.spinnaker1.kernels import VARIABLES, Out, Work
from neuro.hardware.spinnaker1.neurons import State
from neuro.hardware.spinnaker1.packed import Initial, Packed, pack
from neuro.hardware.spinnaker1.traffic import names_of
from neuro.hardware.threads import available as threads

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def work_of(net: Packed, initial: Initial, inputs_per_step: int) -> Work:
    """The state that a run starts from, with room for so many input events a step."""
    room = net.size.copy()
    room[0] = max(int(room[0]), inputs_per_step)
    at = np.concatenate([[0], np.cumsum(room * net.depth)]).astype(np.int64)
    return Work(
        state=State(*(a.copy() for a in initial.state)),
        ring=np.zeros(initial.ring, np.uint16),
        fired=np.zeros(int(net.first[-1]), np.int32),
        fired_count=np.zeros(net.core_lo.size, np.int64),
        history=np.zeros(int(at[-1]), np.int32),
        at=at[:-1].copy(),
        room=room,
        counted=np.zeros((net.size.size, int(net.depth.max())), np.int64),
        rows=np.zeros(int(room.max()), np.int32),
    )


def restart(work: Work, initial: Initial) -> None:
    for array, begin in zip(work.state, initial.state, strict=True):
        array[...] = begin
    work.ring[...] = 0
    work.counted[...] = 0


def probe_place(program: Program, name: str, variable: str) -> tuple[int, int]:
    """(row, column) of a probe in ``columns``."""
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    if name not in stateful:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, stateful)}")
    if variable not in VARIABLES:
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a neuron here has {', '.join(VARIABLES)}")
    return VARIABLES.index(variable), names_of(program).index(name)


class Stretch(NamedTuple):
    """What some steps of a long run did.

    spikes: int64[n, 3] step, population (as numbered in the image), neuron; in order. counters: name ->
    int64[steps, cores] (Counters.NAMES and "saturated"). injected: int64[steps]. probes: (population, variable) ->
    int32[steps, n].
    """

    spikes: Int64
    counters: dict[str, Int64]
    injected: Int64
    probes: dict[tuple[str, str], Int32]


class Machine:
    """One long run of a program, cores shared by threads, state kept between calls; no depth, no readout.

    The result does not depend on the number of threads: cores touch only their own memory, and the spikes of a step
    are processed in the order of populations and neurons."""

    def __init__(self, program: Program, *, inputs_per_step: int = 0, threads_used: int | None = None) -> None:
        """inputs_per_step: most input events in a step, if an input may fire more than once in it."""
        self.program = program
        self.net, initial = pack(program)
        self.work = work_of(self.net, initial, inputs_per_step)
        self.t = 0
        self.threads = min(threads_used or threads(), max(1, self.net.core_lo.size))
        load = np.cumsum(np.diff(self.net.block) + 1)  # share cores out by their rows
        shares = np.linspace(0, load[-1] if load.size else 0, self.threads + 1)[1:-1]
        self.cuts = [0, *np.searchsorted(load, shares).tolist(), self.net.core_lo.size]

    def advance(
        self,
        steps: int,
        events: ArrayLike = (),
        ends: ArrayLike | None = None,
        *,
        injected: NDArray[np.int32] | None = None,
        probes: tuple[tuple[str, str], ...] = (),
    ) -> Stretch:
        """Run some steps.

        events, ends: input neurons that spike, those of the k-th step being events[ends[k]:ends[k + 1]], in the order
        of processing, repeats allowed; none by default. injected: s16.15 int32[steps, neurons], currents from outside.

        Raises:
            SimulationError: events or currents of a wrong shape or range, unknown probe.
        """
        net, program = self.net, self.program
        events = np.ascontiguousarray(events, np.int32)
        ends = np.zeros(steps + 1, np.int64) if ends is None else np.ascontiguousarray(ends, np.int64)
        injected = np.zeros((steps, 0), np.int32) if injected is None else np.ascontiguousarray(injected, np.int32)
        self._check(steps, events, ends, injected)
        columns = np.full((len(VARIABLES), net.size.size), -1, np.int64)
        width = 0
        for name, variable in probes:
            columns[probe_place(program, name, variable)] = width
            width += program.populations[name].size
        none = np.zeros(0, np.int64)
        neurons = int(net.first[-1])
        out = Out(
            booked=np.zeros((6, steps, net.core_lo.size), np.int64),
            spikes=np.zeros((0, 0), np.uint8),
            probes=np.zeros((steps, width), np.int32),
            columns=columns,
            scores=none,
            injected=np.zeros(steps, np.int64),
            events=np.zeros(steps * neurons, np.int64),
            ends=np.zeros(steps, np.int64),
        )
        if self.threads == 1:
            kernels.run_events(net, self.work, out, events, ends, injected, self.t)
        else:
            self._together(out, events, ends, injected)
        self.t += steps
        return self._stretch(out, columns, probes)

    def _check(self, steps: int, events: Int32, ends: Int64, injected: Int32) -> None:
        bad = []
        if ends.shape != (steps + 1,) or (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > events.size:
            bad.append(f"ends must be {steps + 1} places in events, not falling")
        elif np.diff(ends).max(initial=0) > self.work.room[0]:
            bad.append(f"{np.diff(ends).max()} events in a step, room for {self.work.room[0]}: give inputs_per_step")
        if events.size and (events.min() < 0 or events.max() >= self.net.size[0]):
            bad.append(f"events must name inputs 0..{self.net.size[0] - 1}")
        if injected.shape[0] != steps or injected.shape[1] not in (0, int(self.net.first[-1])):
            bad.append(f"injected must be [{steps}, {self.net.first[-1]}], got {injected.shape}")
        if bad:
            raise SimulationError("the machine cannot take that", bad)

    def _together(self, out: Out, events: Int32, ends: Int64, injected: Int32) -> None:
        """As `kernels.run_events`, each thread with its own cores."""
        net, work = self.net, self.work
        mine, *others = list(itertools.pairwise(self.cuts))

        def each(phase: Callable[..., None], *arguments: Any) -> None:
            waiting: list[Future[None]] = [pool.submit(phase, lo, hi, *arguments) for lo, hi in others]
            phase(*mine, *arguments)
            for other in waiting:
                other.result()

        def update(lo: int, hi: int, t: int, current: Int32) -> None:
            kernels.update_cores(net, work, lo, hi, t, current)

        def deliver(lo: int, hi: int, t: int, row: int) -> None:
            kernels.deliver_rows(net, work, out, lo, hi, t, row)

        with ThreadPoolExecutor(len(others)) as pool:
            for row in range(out.injected.size):
                t = self.t + row
                kernels.enter_events(net, work, out, events, int(ends[row]), int(ends[row + 1]), t, row)
                each(update, t, injected[row])
                kernels.collect_spikes(net, work, out, t, row)
                kernels.note(net, work, out, t, row, -1)
                each(deliver, t, row)

    def _stretch(self, out: Out, columns: Int64, probes: tuple[tuple[str, str], ...]) -> Stretch:
        steps = out.ends.size
        count = int(out.ends[-1]) if steps else 0
        code = out.events[:count]
        step = np.repeat(np.arange(self.t - steps, self.t), np.diff(out.ends, prepend=0))
        names = names_of(self.program)
        booked = out.booked
        updates = np.broadcast_to(self.net.core_hi - self.net.core_lo, booked[0].shape)
        values = {}
        for name, variable in probes:
            column = columns[VARIABLES.index(variable), names.index(name)]
            values[name, variable] = out.probes[:, column : column + self.program.populations[name].size].copy()
        return Stretch(
            spikes=np.stack([step, code >> 32, code & 0xFFFFFFFF], axis=1).astype(np.int64),
            counters={
                "synops": booked[kernels.SYNOPS],
                "updates": updates,
                "spikes": booked[kernels.SPIKES],
                "packets": booked[kernels.PACKETS],
                "hops": booked[kernels.HOPS],
                "memory": booked[kernels.MEMORY],
                "saturated": booked[kernels.SATURATED],
            },
            injected=out.injected,
            probes=values,
        )
