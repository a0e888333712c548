"""Messages on a chip's fabric: who sends to which core, what each link carries, how busy each core is.

A spike travels as one message per target core (a mesh), or as one multicast message that crosses each link of its
tree once (SpiNNaker). `messages` reads them off the synapses, `flow` adds them up from core to core, `traffic`
follows the spikes of a simulated run over every link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError
from neuro.hardware.fabric import Fabric, HexTorus, fabric_of
from neuro.hardware.maps import Map
from neuro.hardware.program import IntArray, Placement, Population, Program, Projection
from neuro.hardware.trace import Counters, Trace

Array = NDArray[np.float64]
Messages = Mapping[str, tuple[IntArray, IntArray]]  # sending population -> (neuron, target core), no pair twice
PIECE = 1 << 22  # (step, link) crossings held at a time
PAIRS = 1 << 18  # (neuron, target core) routed at a time
NOT_MODELLED = (
    "congestion: messages do not wait for each other, however much a link carries",
    "the way of events into the chip and of results out of it",
)


def synapses(projection: Projection, source: Population, target: Population) -> tuple[IntArray, IntArray]:
    """(pre, post) neuron of every synapse that is stored; taps of a kernel count whatever their weight.

    Raises:
        ChipError: a kind of projection that is laid out in another way than "dense", "sparse" and "conv".
    """
    if projection.kind == "dense":
        post, pre = np.nonzero(projection.weight_q)
        return pre.astype(np.int64), post.astype(np.int64)
    if projection.kind == "sparse":
        there = projection.weight_q != 0
        return projection.params["col"][there], projection.params["row"][there]
    if projection.kind == "conv":
        height, width, dilation = (
            (int(a), int(b)) for a, b in (projection.params[n] for n in ("stride", "padding", "dilation"))
        )
        every = Map(
            "conv",
            np.ones(projection.weight_q.shape),
            np.array(0),
            source.shape,
            target.shape,
            height,
            width,
            dilation,
            int(projection.params["groups"]),
        ).coordinates()
        return every.col, every.row
    raise ChipError(f"traffic of '{projection.name}': synapses of kind '{projection.kind}' cannot be listed")


def messages(
    populations: Mapping[str, Population], projections: tuple[Projection, ...], core_of: Mapping[str, IntArray]
) -> Messages:
    """Where a spike of each neuron goes. Inputs are left out: their events come from outside the chip."""
    found: dict[str, list[IntArray]] = {}
    for p in projections:
        if p.source not in core_of or p.target not in core_of:
            continue
        cores = core_of[p.target]
        if p.kind == "dense":  # without a list of synapses, which may be long
            used = np.unique(cores)
            reached = np.stack([(p.weight_q[cores == c] != 0).any(axis=0) for c in used])
            where, neuron = np.nonzero(reached)
            pairs = np.stack([neuron, used[where]])
        else:
            pre, post = synapses(p, populations[p.source], populations[p.target])
            pairs = np.stack([pre, cores[post]])
        found.setdefault(p.source, []).append(pairs)
    stride = 1 + max((int(c.max(initial=0)) for c in core_of.values()), default=0)
    table = {}
    for name, parts in found.items():
        neuron, core = np.concatenate(parts, axis=1)
        key = np.unique(neuron * stride + core)
        table[name] = (key // stride, key % stride)
    return table


def flow(sent: Messages, core_of: Mapping[str, IntArray], cores: int, activity: Mapping[str, Array]) -> Array:
    """float64[cores, cores]: messages from core to core, where neuron i of a population sends activity[name][i]."""
    total = np.zeros(cores * cores)
    for name, (neuron, core) in sent.items():
        total += np.bincount(
            core_of[name][neuron] * cores + core, weights=activity[name][neuron], minlength=cores * cores
        )
    return total.reshape(cores, cores)


def activity_of(trace: Trace) -> dict[str, Array]:
    """Messages of each neuron per sample, mean over the batch.

    Raises:
        ChipError: the trace was recorded without spikes.
    """
    if not trace.spikes:
        raise ChipError("this trace holds no spikes; simulate with record_spikes=True")
    return {name: (s != 0).sum(axis=(0, 1)) / s.shape[1] for name, s in trace.spikes.items()}


def fabric_under(placement: Placement, chip: str) -> Fabric:
    """The fabric that a placement is on: its own, or the chip's.

    Raises:
        ChipError: neither names one.
    """
    from neuro.hardware.target import load_target

    fabric = placement.fabric or fabric_of(load_target(chip).chip)
    if fabric is None:
        raise ChipError(f"'{chip}' names no fabric: give its file mesh_width and mesh_height, or hex_width and so on")
    return fabric


@dataclass(frozen=True, eq=False)
class Traffic:
    """What a simulated run puts on the links and cores of a chip; means per sample.

    node: int64[cores] where each core sits. link: float64[links] messages over each link, numbered as in `Fabric`.
    steps: float64[steps, used] the same by step, of the links ``used``. hops, packets: float64[steps] over all.
    counters: name -> float64[cores], as in `Counters`. load: float64[cores], synapses reached plus neurons updated.
    share: float64[cores], load per core over that of the busiest. utilisation: as in `Placement`.
    multicast: whether a spike crosses a link once however many cores it goes to.
    notes: what is not modelled, and whether the simulator counted otherwise.
    """

    fabric: Fabric
    node: IntArray
    link: Array
    used: IntArray
    steps: Array
    hops: Array
    packets: Array
    counters: Mapping[str, Array]
    utilisation: tuple[Mapping[str, float], ...]
    multicast: bool
    notes: tuple[str, ...]

    @property
    def load(self) -> Array:
        return self.counters["synops"] + self.counters["updates"]

    @property
    def share(self) -> Array:
        return self.load / max(float(self.load.max(initial=0.0)), 1e-300)

    @property
    def busiest_link(self) -> tuple[int, float]:
        """(link, messages per sample) of the link that carries most; (-1, 0) where nothing travels."""
        if not self.link.any():
            return -1, 0.0
        return int(self.link.argmax()), float(self.link.max())


def traffic(program: Program, trace: Trace) -> Traffic:
    """Follow every spike of a run over the fabric.

    Raises:
        ChipError: no fabric is known, or the trace holds no spikes.
    """
    placement = program.placement
    fabric = fabric_under(placement, program.chip)
    activity_of(trace)  # refuses a trace without spikes
    node = fabric.at(placement.xy)
    notes = list(NOT_MODELLED)
    sent = _sent(program, trace, notes)
    multicast = isinstance(fabric, HexTorus) or _one_per_spike(sent, trace)
    batch, steps = trace.counters.synops.shape[:2]
    found = []
    for name, (neuron, core) in sent.items():
        counts = (trace.spikes[name] != 0).sum(axis=1) / batch  # [steps, n]
        some = np.flatnonzero(counts.any(axis=0)[neuron])
        some = some[np.argsort(neuron[some], kind="stable")]
        for part in _whole_messages(some, neuron[some]):
            own = node[placement.core_of[name][neuron[part]]]
            group, link = _crossings(fabric, neuron[part], own, node[core[part]], multicast)
            found.append(_per_link(counts, group, link))
    used = np.unique(np.concatenate([np.zeros(0, np.int64), *(links for links, _ in found)]))
    table = np.zeros((steps, used.size))
    for links, carried_by in found:
        table[:, np.searchsorted(used, links)] += carried_by
    size = max(fabric.nodes * fabric.degree, int(used.max(initial=-1)) + 1)
    carried = np.zeros(size)
    carried[used] = table.sum(axis=0)
    counters = {n: getattr(trace.counters, n).sum(axis=1).mean(axis=0) for n in Counters.NAMES}
    counted = float(counters["hops"].sum())
    if sent and not np.isclose(counted, carried.sum(), rtol=1e-9, atol=1e-9):
        notes.append(
            f"links: routes rebuilt from the synapses cross {carried.sum():,.0f} links per sample, "
            f"the simulator counted {counted:,.0f}"
        )
    return Traffic(
        fabric=fabric,
        node=node,
        link=carried,
        used=used,
        steps=table,
        hops=trace.counters.hops.sum(axis=2).mean(axis=0),
        packets=trace.counters.packets.sum(axis=2).mean(axis=0),
        counters=counters,
        utilisation=placement.utilisation,
        multicast=multicast,
        notes=tuple(notes),
    )


def _whole_messages(rows: IntArray, neuron: IntArray) -> Iterator[IntArray]:
    """The rows in pieces of about PAIRS, those of a neuron (sorted) together: a multicast message is routed as one."""
    begin = 0
    while begin < rows.size:
        end = int(np.searchsorted(neuron, neuron[min(begin + PAIRS, rows.size) - 1], side="right"))
        yield rows[begin:end]
        begin = end


def _per_link(counts: Array, group: IntArray, link: IntArray) -> tuple[IntArray, Array]:
    """(links, float64[steps, links]): messages by step over each link that neurons group[k] use; counts [steps, n]."""
    order = np.argsort(link, kind="stable")
    links, first = np.unique(link[order], return_index=True)
    total = np.zeros((len(counts), links.size))
    piece = max(1, PIECE // max(1, len(counts)))
    for begin in range(0, order.size, piece):
        some = order[begin : begin + piece]
        inside = np.unique(np.searchsorted(first, np.arange(begin, begin + some.size), side="right") - 1)
        starts = np.maximum(first[inside] - begin, 0)
        total[:, inside] += np.add.reduceat(counts[:, group[some]], starts, axis=1)
    return links, total


def _sent(program: Program, trace: Trace, notes: list[str]) -> Messages:
    """What the target says it sends, else what the synapses say; nothing, and a note, where they cannot."""
    from neuro.hardware.target import load_target

    own = load_target(program.chip).messages
    core_of = program.placement.core_of
    try:
        sent = own(program) if own is not None else messages(program.populations, program.projections, core_of)
    except ChipError as cause:
        notes.append(f"links: {cause}")
        return {}
    unseen = sorted(name for name in sent if name not in trace.spikes)
    if unseen:
        notes.append(f"links: the trace holds no spikes of {', '.join(unseen)}")
    return {name: pairs for name, pairs in sent.items() if name in trace.spikes}


def _one_per_spike(sent: Messages, trace: Trace) -> bool:
    """Whether the simulator counted one packet per spike, as on a multicast fabric, and not one per target core."""
    single = unicast = 0
    for name, (neuron, _) in sent.items():
        counts = (trace.spikes[name] != 0).sum(axis=(0, 1))
        single += int(counts[np.unique(neuron)].sum())
        unicast += int(counts[neuron].sum())
    counted = int(trace.counters.packets.sum())
    return abs(counted - single) < abs(counted - unicast)


def _crossings(
    fabric: Fabric, neuron: IntArray, source: IntArray, target: IntArray, multicast: bool
) -> tuple[IntArray, IntArray]:
    """(neuron, link): each link that a spike of each neuron crosses, as often as it does."""
    if multicast:
        return fabric.trees(neuron, source, target)
    pair, link = fabric.paths(source, target)
    return neuron[pair], link
