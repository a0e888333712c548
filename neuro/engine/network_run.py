"""Run a `Network` on samples, event by event: what is silent costs nothing but the decay of its membrane."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neuro import ir
from neuro.engine import network_kernels as kernels
from neuro.engine.network_plan import Packed
from neuro.errors import NetworkError, SimulationError
from neuro.events import Events
from neuro.ir import Network
from neuro.reference import RECORDS, Record

A = NDArray[Any]
DT_TOLERANCE = 1e-6  # relative; a step read from a file may have been rounded
Inputs = ArrayLike | Events | Sequence[Events]


class Plan:
    """A network packed for one dtype, to run sample after sample; `simulate` keeps one for each network it has seen.

    dtype: float64 computes what `neuro.reference.run` does, to the last bit: all sums run in its order. float32 takes
    half of the memory; a membrane close to its threshold may then fall on the other side.

    Raises:
        SimulationError: another dtype; nodes that this engine does not run (graded neurons), all of them.
    """

    def __init__(self, network: Network, dtype: DTypeLike = np.float64) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise SimulationError(f"dtype must be float32 or float64, got {self.dtype}")
        self.network, self.packed = network, Packed(network, self.dtype)

    def run(
        self, x: Inputs | Mapping[str, Inputs], *, record: Iterable[str] = ("spikes",), threads: int | None = None
    ) -> Record:
        """Every sample from rest; the result does not depend on the batch a sample is in, nor on ``threads``.

        Args:
            x: numbers [time, batch, *input shape], or [time, *input shape] of one sample; `Events`, or a sequence of
                them; a mapping by name where there are several inputs.
            record: which of "spikes", "v", "i", "sent" to keep besides the answers, as `neuro.reference.run`.
            threads: samples at a time; NUMBA_NUM_THREADS, by default the processors, where None.

        Raises:
            SimulationError: input that this network cannot take; an unknown name in ``record``.
            NetworkError: the state has left the numbers at the end of a sample (an unstable network).
        """
        wanted = (record,) if isinstance(record, str) else tuple(record)
        unknown = [name for name in wanted if name not in RECORDS]
        if unknown:
            raise SimulationError(f"record may hold {', '.join(RECORDS)}, got {unknown}")
        net, packed = self.network, self.packed
        dense = _dense(net, x)
        steps, batch = dense[0].shape[:2]
        bound = packed.bind(steps)
        numbers, fired = packed.keep(steps, wanted)
        out = np.empty((steps, batch, numbers.width), self.dtype)
        spikes = np.empty((steps, batch, fired.width), np.uint8)
        sane = np.ones(batch, np.bool_)

        def some(first: int, last: int) -> None:
            f, q = np.empty_like(bound.f0), np.empty_like(bound.q0)
            bits, room = np.zeros(-(-packed.largest // 8) * 8, np.uint8), np.empty(packed.largest, self.dtype)
            for b, events in zip(range(first, last), _events(dense, first, last, self.dtype), strict=True):
                f[:], q[:] = bound.f0, bound.q0
                kernels.run(
                    b, steps, bound.code, bound.sources, packed.ints, packed.links, packed.p, packed.weights, *events,
                    numbers.taken, fired.taken, f, q, bits, room, out, spikes,
                )  # fmt: skip
                sane[b] = np.isfinite(f).all()

        _share(some, min(batch, threads or _threads()), batch)
        if not sane.all():
            raise NetworkError(f"the state leaves the range of {self.dtype} in sample {sane.argmin()}; it is unstable")
        found: dict[str, dict[str, A]] = {kind: {} for kind in ("spikes", "v", "i", "sent", "answers")}
        for values, kept in ((out, numbers), (spikes, fired)):
            for kind, name, columns, shape in kept.columns:
                found[kind][name] = values[:, :, columns].reshape(steps, batch, *shape)
        return Record(**{kind: types.MappingProxyType(table) for kind, table in found.items()})


def simulate(
    network: Network | Plan,
    x: Inputs | Mapping[str, Inputs],
    *,
    dtype: DTypeLike = np.float64,
    record: Iterable[str] = ("spikes",),
    threads: int | None = None,
) -> Record:
    """`Plan.run`; the plan of a network is kept as long as the network is."""
    plan = network if isinstance(network, Plan) else plan_of(network, dtype)
    return plan.run(x, record=record, threads=threads)


def plan_of(network: Network, dtype: DTypeLike) -> Plan:
    """The plan that `simulate` keeps for a network."""
    plans: dict[str, Plan] = network.__dict__.setdefault("_plans", {})  # lives and dies with it
    name = np.dtype(dtype).str
    if name not in plans:
        plans[name] = Plan(network, dtype)
    return plans[name]


# ---------------------------------------------------------------- threads


def _threads() -> int:
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="neuro.engine")


def _share(work: Callable[[int, int], None], parts: int, batch: int) -> None:
    """work(first, last) over the samples, each part in a thread."""
    if parts <= 1:
        work(0, batch)
        return
    ends = [batch * part // parts for part in range(parts + 1)]
    for job in [_pool(parts).submit(work, a, z) for a, z in itertools.pairwise(ends)]:
        job.result()


# ---------------------------------------------------------------- what comes in


def _dense(network: Network, x: Inputs | Mapping[str, Inputs]) -> list[A]:
    """[time, batch, n] per Input, checked."""
    names = network.of(ir.Input)
    given = x if isinstance(x, Mapping) else {network.input: x}
    if set(given) != set(names):
        raise SimulationError(f"input is given for {sorted(map(str, given))}, the network has {sorted(names)}")
    bad: list[str] = []
    found: dict[str, A] = {}
    for name in names:
        array = _array(network, name, given[name], bad)
        if array is not None:
            found[name] = array
    if not bad and len({array.shape[:2] for array in found.values()}) > 1:
        bad.append("inputs differ in time or batch: " + ", ".join(f"'{n}' {a.shape[:2]}" for n, a in found.items()))
    if bad:
        raise SimulationError("input cannot be given to this network", bad)
    return list(found.values())


def _array(network: Network, name: str, given: Inputs, bad: list[str]) -> A | None:
    shape = network.shapes[name]
    events = [given] if isinstance(given, Events) else given
    if isinstance(events, Sequence) and len(events) and isinstance(events[0], Events):
        given = _binned(network, name, events, bad)
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as cause:
        bad.append(f"'{name}' cannot be read as an array ({cause})")
        return None
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        bad.append(f"'{name}' must hold real numbers of at most 64 bits, got {array.dtype}")
    elif (array.shape[1:] != shape and array.shape[2:] != shape) or 0 in array.shape:
        wanted = ", ".join(map(str, shape))
        bad.append(f"'{name}' must be [time, batch, {wanted}] or [time, {wanted}], got shape {array.shape}")
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        bad.append(f"'{name}' holds values that are NaN or infinite")
    else:
        batch = 1 if array.shape[1:] == shape else array.shape[1]
        return array.reshape(len(array), batch, math.prod(shape))
    return None


def _binned(network: Network, name: str, events: Sequence[Any], bad: list[str]) -> A:
    node = network.nodes[name]
    assert isinstance(node, ir.Input)
    first = events[0]
    for e in events:
        if not isinstance(e, Events) or (e.steps, e.shape) != (first.steps, network.shapes[name]):
            bad.append(f"'{name}' takes Events of shape {network.shapes[name]} and equal steps")
            return np.zeros((1, 1, *network.shapes[name]), np.uint8)
        if not math.isclose(e.dt, network.dt, rel_tol=DT_TOLERANCE):
            bad.append(f"'{name}': dt of the events is {e.dt:g} s, the network's step is {network.dt:g} s")
            break
    return np.stack([e.to_dense(node.high) for e in events], axis=1)


def _events(dense: list[A], first: int, last: int, dtype: np.dtype[Any]) -> Iterator[tuple[A, A, A]]:
    """start int64[inputs, time + 1], index uint32, value: what is not zero, of one sample after the other."""
    steps = len(dense[0])
    sizes = [x.shape[2] for x in dense]
    start = np.empty((len(dense), steps + 1), np.int64)
    room = [_Room(steps * n, dtype) if x.dtype.itemsize == 1 else None for x, n in zip(dense, sizes, strict=True)]
    for b in range(first, last):
        parts = []
        for k, (x, n, rooms) in enumerate(zip(dense, sizes, room, strict=True)):
            if rooms is not None:
                rooms.bytes_of[: steps * n].reshape(steps, n)[...] = x[:, b].view(np.uint8)
                kernels.list_bytes(rooms.words, n, start[k], rooms.index, rooms.value, rooms.busy)
                parts.append((rooms.index, rooms.value))
            else:
                t, places = np.nonzero(x[:, b])
                start[k, 0] = 0
                np.cumsum(np.bincount(t, minlength=steps), out=start[k, 1:])
                parts.append((places.astype(np.uint32), x[t, b, places].astype(dtype)))
        if len(parts) == 1:
            yield start, *parts[0]
            continue
        ends = start[:, -1].copy()
        start[1:] += np.cumsum(ends)[:-1, None]
        index, value = (np.concatenate([p[k][:e] for p, e in zip(parts, ends, strict=True)]) for k in (0, 1))
        yield start, index, value


class _Room:
    """Work space for the bytes of a sample, in whole words."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.words = np.zeros(-(-size // 8), np.uint64)
        self.bytes_of = self.words.view(np.uint8)
        self.busy = np.empty(len(self.words), np.uint32)
        self.index, self.value = np.empty(size, np.uint32), np.empty(size, dtype)
