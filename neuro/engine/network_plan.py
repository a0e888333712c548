"""A `Network` as the table that `neuro.engine.network_kernels.run` reads: packed once, used for every sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import coefficients
from neuro.engine import network_kernels as k
from neuro.errors import SimulationError
from neuro.ir import Network, Node
from neuro.reference import at_rest
from neuro.shapes import input_shape

A = NDArray[Any]
LISTS = (k.LINEAR, k.LATE, k.CONV, k.SUM)  # kinds that go through their input by events
ROOM_FOR_CALLS = 8  # lengths of samples whose tables are kept


@dataclass
class Draft:
    """A row being written; the offsets of state, which depend on the length of a sample, come in `Packed.bind`."""

    name: str
    kind: int
    n_in: int
    n_out: int
    columns: dict[int, int] = field(default_factory=dict)
    longest: int = -1  # steps of delay, of those that remember their input


@dataclass(frozen=True)
class Bound:
    """The table for samples of one length. where: (kind of record, node) -> (from, length) in the state."""

    code: A
    sources: A
    f0: A
    q0: A
    where: dict[tuple[str, str], tuple[int, int]]


def _narrowest(weights: A, dtype: np.dtype[Any]) -> A:
    """float32 where it holds every weight exactly, as after training: half of the memory to read, the same sums."""
    with np.errstate(over="ignore"):
        narrow = weights.astype(np.float32)
    return narrow if dtype == np.float32 or np.array_equal(narrow, weights) else weights


@dataclass(frozen=True)
class Kept:
    """What a call writes: stretches [*, 2] of the state one after the other, and where each is found again:
    (kind of record, node, (first column, end), shape)."""

    taken: A
    columns: list[tuple[str, str, slice, ir.Shape]]
    width: int


def kept(network: Network, wanted: list[tuple[str, str, tuple[int, int]]]) -> Kept:
    """wanted: (kind of record, node, its stretch)."""
    columns: list[tuple[str, str, slice, ir.Shape]] = []
    at = 0
    for kind, name, (_, size) in wanted:
        columns.append((kind, name, slice(at, at + size), network.shapes[name]))
        at += size
    taken = np.array([stretch for _, _, stretch in wanted], np.int64).reshape(len(wanted), 2)
    return Kept(taken, columns, at)


class Packed:
    """What of the table does not depend on the sample: rows, weights, coefficients.

    Raises:
        SimulationError: nodes that this engine does not run, all of them.
    """

    def __init__(self, network: Network, dtype: np.dtype[Any]) -> None:
        strange = [
            f"'{n}' is a {type(node).__name__}, which the event engine does not run; neuro.reference.run does"
            for n, node in network.nodes.items()
            if type(node) not in _ROWS
        ]
        if strange:
            raise SimulationError("this network cannot be run by events", strange)
        self.network, self.dtype = network, dtype
        self._p: list[A] = []
        self._w: list[A] = []
        self._ints: list[A] = []
        self._links: list[A] = []
        self._sizes = [0, 0, 0, 0]
        self.rows = [self._draft(name) for name in network.order]
        self.p = np.concatenate([*self._p, np.zeros(1)]).astype(dtype)
        self.weights = _narrowest(np.concatenate([*self._w, np.zeros(1)]), dtype)
        self.ints = np.concatenate([*self._ints, np.zeros(1, np.int64)])
        self.links = np.concatenate([*self._links, np.zeros(1, np.int64)]).astype(np.uint32)
        self.inputs = network.of(ir.Input)
        self.largest = max(math.prod(shape) for shape in network.shapes.values())
        self._bound: dict[int, Bound] = {}
        self._kept: dict[tuple[int, tuple[str, ...]], tuple[Kept, Kept]] = {}

    def numbers(self, values: A) -> int:
        """Where in ``p`` these are put."""
        return self._put(0, self._p, values)

    def synapses(self, values: A) -> int:
        """Where in ``weights`` these are put."""
        return self._put(3, self._w, values)

    def integers(self, values: A) -> int:
        """Where in ``ints`` these are put."""
        return self._put(1, self._ints, values.astype(np.int64))

    def targets(self, values: A) -> int:
        """Where in ``links`` these are put."""
        return self._put(2, self._links, values)

    def _put(self, which: int, parts: list[A], values: A) -> int:
        at = self._sizes[which]
        parts.append(values.reshape(-1))
        self._sizes[which] += values.size
        return at

    def _draft(self, name: str) -> Draft:
        net = self.network
        shapes = math.prod(input_shape(net, name)), math.prod(net.shapes[name])
        draft = Draft(name, -1, *shapes)
        _ROWS[type(net.nodes[name])](self, draft, net.nodes[name])
        return draft

    def bind(self, steps: int) -> Bound:
        """The table for samples of so many steps."""
        if steps not in self._bound:
            if len(self._bound) >= ROOM_FOR_CALLS:
                self._bound.pop(next(iter(self._bound)))
            self._bound[steps] = _Layout(self, steps).bound()
        return self._bound[steps]

    def keep(self, steps: int, record: tuple[str, ...]) -> tuple[Kept, Kept]:
        """(numbers, spikes) that a call records."""
        if (steps, record) not in self._kept:
            if len(self._kept) >= ROOM_FOR_CALLS:
                self._kept.pop(next(iter(self._kept)))
            net, where = self.network, self.bind(steps).where
            numbers = [(kind, n, at) for (kind, n), at in where.items() if kind in (*record, "answers")]
            spiking = [n for n in net.of(ir.Neuron) if getattr(net.nodes[n], "spiking", False)]
            spikes = [("spikes", n, where["sent", n]) for n in spiking] if "spikes" in record else []
            self._kept[steps, record] = kept(net, numbers), kept(net, spikes)
        return self._kept[steps, record]


class _Layout:
    """Hands out stretches of the state."""

    def __init__(self, packed: Packed, steps: int) -> None:
        self.packed, self.steps = packed, steps
        self.f = self.q = 0
        self.sent: dict[str, int] = {}
        self.lists: dict[str, int] = {}
        self.v: dict[str, int] = {}
        self.i: dict[str, int] = {}

    def _floats(self, n: int) -> int:
        self.f += n
        return self.f - n

    def _places(self, n: int) -> int:
        self.q += n
        return self.q - n

    def _same_as(self, name: str) -> str:
        """The node whose stretch this one shares: a Flatten or an Output sends what it gets."""
        net = self.packed.network
        while isinstance(net.nodes[name], (ir.Flatten, ir.Output)) and len(net.sources(name)) == 1:
            (source,) = net.sources(name)
            if (source, name) in net.feedback:
                break
            name = source
        return name

    def bound(self) -> Bound:
        net, rows = self.packed.network, self.packed.rows
        listed = set(self.packed.inputs)
        for row in rows:
            if row.kind in LISTS and len(net.sources(row.name)) == 1:
                listed.add(self._same_as(net.sources(row.name)[0]))
        for row in rows:
            if self._same_as(row.name) == row.name:
                self.sent[row.name] = self._floats(row.n_out)
                if row.name in listed:
                    self.lists[row.name] = self._places(row.n_out + 1)
            if row.kind == k.NEURON:
                self.v[row.name] = self._floats(row.n_out)
        for row in rows:
            same = self._same_as(row.name)
            self.sent[row.name] = self.sent[same]
            if same in self.lists:
                self.lists[row.name] = self.lists[same]
        sources: list[int] = []
        code = [self._row(row, sources) for row in rows if self._same_as(row.name) == row.name]
        where = {("sent", row.name): (self.sent[row.name], row.n_out) for row in rows}
        for name in net.of(ir.Output):
            where["answers", name] = self._answer(name, code, sources)
        for kind, places in (("v", self.v), ("i", self.i)):
            where |= {(kind, n): (at, math.prod(net.shapes[n])) for n, at in places.items()}
        table = np.array(code, np.int64).reshape(len(code), k.COLUMNS)
        f0, q0 = self._rest()
        return Bound(table, np.array([*sources, 0], np.int64), f0, q0, where)

    def _rest(self) -> tuple[A, A]:
        """The state before step 0, and the lists of it."""
        f0, q0 = np.zeros(self.f + 1, self.packed.dtype), np.zeros(self.q + 1, np.uint32)
        for name, values in at_rest(self.packed.network).items():
            f0[self.sent[name] : self.sent[name] + values.size] = values.reshape(-1)
            if name in self.lists:
                places = np.flatnonzero(values)
                at = self.lists[name]
                q0[at], q0[at + 1 : at + 1 + len(places)] = len(places), places
        return f0, q0

    def _answer(self, name: str, code: list[list[int]], sources: list[int]) -> tuple[int, int]:
        """The stretch of what an Output reads: spikes where it counts, else membranes where there are any. A row of
        its own adds up several."""
        net = self.packed.network
        node = net.nodes[name]
        assert isinstance(node, ir.Output)
        size = math.prod(net.shapes[name])
        reads = [self.v[s] if node.readout != "count" and s in self.v else self.sent[s] for s in net.sources(name)]
        if len(reads) == 1:
            return reads[0], size
        line = [0] * k.COLUMNS
        line[k.KIND], line[k.N_IN], line[k.N_OUT] = k.OUTPUT, size, size
        line[k.FROM], line[k.TO] = len(sources), len(sources) + len(reads)
        line[k.X] = line[k.Y] = self._floats(size)
        line[k.LIST_X] = line[k.LIST_Y] = -1
        sources += reads
        code.append(line)
        return line[k.Y], size

    def _row(self, row: Draft, sources: list[int]) -> list[int]:
        names = self.packed.network.sources(row.name)
        begin = len(sources)
        sources += [self.sent[s] for s in names]
        line = [0] * k.COLUMNS
        line[k.KIND], line[k.N_IN], line[k.N_OUT] = row.kind, row.n_in, row.n_out
        line[k.FROM], line[k.TO] = begin, len(sources)
        line[k.Y], line[k.LIST_Y] = self.sent[row.name], self.lists.get(row.name, -1)
        line[k.LIST_X] = -1
        if len(names) == 1:
            line[k.X] = sources[begin]
            line[k.LIST_X] = self.lists.get(names[0], -1) if row.kind in LISTS else -1
        elif names:
            line[k.X] = self._floats(row.n_in)
            line[k.LIST_X] = self._places(row.n_in + 1) if row.kind in LISTS else -1
        for column, value in row.columns.items():
            line[column] = value
        if row.kind == k.NEURON:
            late = any((s, row.name) in self.packed.network.feedback for s in names)
            if line[k.PB] & k.SYNAPSE or late:
                self.i[row.name] = self._floats(row.n_out)
                line[k.PB] |= k.COPY
            else:
                self.i[row.name] = line[k.X]  # which stays as it is until the end of the step
            line[k.PC], line[k.PD] = self.i[row.name], self.v[row.name]
        if row.longest >= 0:
            ring = min(row.longest, self.steps) + 1  # what is longer than the sample never arrives
            line[k.PC], line[k.PF] = ring, self._floats(ring * row.n_in)
            line[k.PG] = self._places(ring * (row.n_in + 1)) if row.kind == k.LATE else 0
        return line


# ---------------------------------------------------------------- one row per node type


def _input(packed: Packed, row: Draft, node: Node) -> None:
    row.kind, row.columns = k.INPUT, {k.PA: packed.network.of(ir.Input).index(row.name)}


def _copy(packed: Packed, row: Draft, node: Node) -> None:
    row.kind = k.OUTPUT


def _linear(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.Linear)
    bias = packed.numbers(node.bias) if isinstance(node, ir.Affine) else -1
    if node.delay_steps is None:
        row.kind, row.columns = k.LINEAR, {k.PA: packed.synapses(node.weight.T), k.PB: bias}
        return
    delays, which = np.unique(node.delay_steps, return_inverse=True)
    source, target = (a.T.reshape(-1) for a in np.indices(node.weight.shape)[::-1])
    which = which.reshape(node.weight.shape).T.reshape(-1)
    order = np.lexsort((target, source, which))
    ends = np.zeros((len(delays), row.n_in + 1), np.int64)
    np.add.at(ends, (which, source + 1), 1)
    ends = np.cumsum(ends, axis=1) + np.concatenate([[0], np.bincount(which).cumsum()[:-1]])[:, None]
    at = packed.integers(np.concatenate([delays, ends.reshape(-1)]))
    weights = packed.synapses(node.weight.T.reshape(-1)[order])
    columns = {k.PA: weights, k.PB: bias, k.PD: at, k.PE: len(delays), k.PH: packed.targets(target[order])}
    row.kind, row.columns, row.longest = k.LATE, columns, int(delays[-1])


def _conv(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.Conv2d)
    outs, ins, *_ = node.weight.shape
    each = outs // node.groups
    # [tap, in channel of all groups, out channel of its group]
    grouped = node.weight.reshape(node.groups, each, ins, -1).transpose(3, 0, 2, 1)
    shape = (node.weight.shape[2:], node.stride, node.padding, node.dilation)
    row.kind = k.CONV
    row.columns = {k.PA: packed.synapses(grouped), k.PB: packed.numbers(node.bias), k.PC: outs}
    row.columns[k.PD] = _geometry(packed, row.name, *shape, (ins, each))


def _pool(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, (ir.SumPool2d, ir.AvgPool2d, ir.MaxPool2d))
    row.kind = k.MAX if isinstance(node, ir.MaxPool2d) else k.SUM
    area = math.prod(node.kernel_size) if isinstance(node, ir.AvgPool2d) else 1
    row.columns = {k.PA: packed.numbers(np.array([float(area)]))}
    row.columns[k.PD] = _geometry(packed, row.name, node.kernel_size, node.stride, node.padding, (1, 1), (1, 1))


def _geometry(packed: Packed, name: str, *pairs: tuple[int, ...]) -> int:
    inside, outside = input_shape(packed.network, name), packed.network.shapes[name]
    return packed.integers(np.array([*inside[1:], *outside[1:], *(n for pair in pairs for n in pair)]))


def _scale(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.Scale)
    row.kind, row.columns = k.SCALE, {k.PA: packed.numbers(node.scale)}


def _delay(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.Delay)
    row.kind, row.columns, row.longest = k.DELAY, {k.PD: packed.integers(node.steps)}, int(node.steps.max())


def _levels(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.QuantisedReLU)
    row.kind = k.LEVELS
    row.columns = {k.PA: packed.numbers(node.step), k.PB: packed.numbers(np.array([float(node.levels)]))}


def _neuron(packed: Packed, row: Draft, node: Node) -> None:
    assert isinstance(node, ir.Neuron)
    c = coefficients(node, packed.network.dt, packed.network.discretisation)
    flags = k.SYNAPSE if isinstance(node, (ir.CubaLI, ir.CubaLIF)) else 0
    theta = v_reset = np.zeros(node.shape)
    if isinstance(node, (ir.IF, ir.LIF, ir.CubaLIF)):
        theta, v_reset = node.v_threshold, node.v_reset
        flags |= k.SPIKES | (k.SUBTRACT if node.reset == "subtract" else 0)
    parts = [np.broadcast_to(a, node.shape).reshape(-1) for a in (*c, theta, v_reset)]
    flags |= k.ALIKE if all((a == a[0]).all() for a in parts) else 0
    row.kind, row.columns = k.NEURON, {k.PA: packed.numbers(np.concatenate(parts)), k.PB: flags}


_ROWS: dict[type[Node], Callable[[Packed, Draft, Node], None]] = {
    ir.Input: _input,
    ir.Output: _copy,
    ir.Flatten: _copy,
    ir.Linear: _linear,
    ir.Affine: _linear,
    ir.Conv2d: _conv,
    ir.SumPool2d: _pool,
    ir.AvgPool2d: _pool,
    ir.MaxPool2d: _pool,
    ir.Scale: _scale,
    ir.Delay: _delay,
    ir.QuantisedReLU: _levels,
    ir.IF: _neuron,
    ir.LI: _neuron,
    ir.LIF: _neuron,
    ir.CubaLI: _neuron,
    ir.CubaLIF: _neuron,
}
