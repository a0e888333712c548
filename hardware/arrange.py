"""Placement that minimises traffic: neurons to cores, then cores to places on the fabric.

Traffic is messages times links. It is reduced in two steps, each of which leaves what a neuron computes alone:

1. Neurons that share sources share a core, so that a spike needs fewer messages. Each population is cut by METIS
   (pymetis), as the graph of its sources and neurons with an edge per synapse, into as many parts as it has cores.
   Populations whose synapses are dense gain nothing and keep their slices.
2. Cores that talk sit side by side: the quadratic assignment problem, flow times distance. From the default places,
   from a compact block, and from the solution of scipy's FAQ on that block (Vogelstein et al. 2015), pairs of cores
   swap, and cores move to free places, as long as the sum falls.

The best of what was found is taken, the contiguous default among it, so the sum never rises above the default's for
the activity that was given: measured (`activity_of` a trace) or, by default, one spike of every neuron.

METIS: G. Karypis, V. Kumar, SIAM J. Sci. Comput. 20 (1998). FAQ: J. T. Vogelstein et al., PLoS ONE 10 (2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuro.errors import ChipError, Violation
from neuro.extend import did_you_mean, require
from neuro.hardware.fabric import Fabric, HexTorus
from neuro.hardware.place import Demand, place
from neuro.hardware.program import IntArray, Placement, Population, Program, Projection
from neuro.hardware.trace import Trace
from neuro.hardware.traffic import Array, activity_of, fabric_under, flow, messages, synapses

PLACEMENTS = ("contiguous", "traffic")
DENSE = 0.5  # share of all pairs from which on grouping cannot help much
MAX_EDGES = 20_000_000  # of a graph given to METIS
FAQ_UP_TO = 128  # cores: FAQ takes cubic time
SWEEPS = 50


@dataclass(frozen=True, eq=False)
class Wanted:
    """A network's demands on cores, and what its neurons are joined by, as `place_by` needs them.

    fits: whether these neurons of a population may share a core, for limits beyond neurons and memory; or None.
    """

    demands: Sequence[Demand]
    populations: Mapping[str, Population]
    projections: tuple[Projection, ...]
    neurons_per_core: int
    bits_per_core: int
    fabric: Fabric
    fits: Callable[[str, IntArray], bool] | None = None


def place_by(
    placement: str, wanted: Wanted, activity: Mapping[str, Array] | None = None
) -> tuple[Placement, list[Violation]]:
    """Place by name: "contiguous" (`place`), or "traffic".

    Raises:
        ChipError: another name. MissingExtra: "traffic" without pymetis or scipy; pip install 'axonport[place]'.
    """
    if placement not in PLACEMENTS:
        raise ChipError(f"placement '{placement}' is not known. {did_you_mean(placement, PLACEMENTS)}")
    found, violations = place(wanted.demands, wanted.neurons_per_core, wanted.bits_per_core, wanted.fabric)
    if placement == "contiguous" or violations:
        return found, violations
    return least_traffic(found, wanted, activity), violations


def least_traffic(default: Placement, wanted: Wanted, activity: Mapping[str, Array] | None = None) -> Placement:
    """The default placement or one with less traffic, on as many cores and within the same limits.

    activity: population -> messages per neuron; every neuron one if left out.

    Raises:
        MissingExtra: pymetis or scipy is not installed.
    """
    active = {name: np.ones(c.size) for name, c in default.core_of.items()}
    active |= {name: np.asarray(a, np.float64) for name, a in (activity or {}).items() if name in active}
    by_sources = {d.population: _grouped(d, default, wanted, active) for d in wanted.demands}
    options = [default.core_of]
    if any(not np.array_equal(by_sources[n], default.core_of[n]) for n in by_sources):
        options.append(by_sources)
    best, least = default, _cost(default, wanted.populations, wanted.projections, active, wanted.fabric)
    for core_of in options:
        found = replace(default, core_of=core_of, fabric=wanted.fabric)
        for xy in _arranged(found, wanted.populations, wanted.projections, active, wanted.fabric):
            candidate = replace(found, xy=xy)
            cost = _cost(candidate, wanted.populations, wanted.projections, active, wanted.fabric)
            if cost < least:
                best, least = candidate, cost
    return replace(best, utilisation=_utilisation(best, wanted))


def rearranged(program: Program, trace: Trace) -> Program:
    """The program with its cores moved on the fabric so that the traffic of a measured run is least.

    What a core holds stays, so spikes, membranes and decisions are the same, bit for bit.

    Raises:
        ChipError: no fabric is known, the trace holds no spikes, or the image holds where cores sit and would have to
            be made anew. MissingExtra: scipy is not installed.
    """
    placement = program.placement
    if "xy" in program.image:
        raise ChipError(f"cores of a {program.chip} program sit where its image says; they cannot be moved afterwards")
    fabric = fabric_under(placement, program.chip)
    active = {n: a for n, a in activity_of(trace).items() if n in placement.core_of}
    active |= {n: np.zeros(c.size) for n, c in placement.core_of.items() if n not in active}
    parts = (program.populations, program.projections, active, fabric)
    options = [placement, *(replace(placement, xy=xy, fabric=fabric) for xy in _arranged(placement, *parts))]
    return replace(program, placement=min(options, key=lambda p: _cost(p, *parts)))


def _cost(
    placement: Placement,
    populations: Mapping[str, Population],
    projections: tuple[Projection, ...],
    activity: Mapping[str, Array],
    fabric: Fabric,
) -> tuple[float, float]:
    """(links crossed, messages), weighted with the activity. Rounded: what differs by rounding is no gain."""
    sent = messages(populations, projections, placement.core_of)
    node = fabric.at(placement.xy)
    hops = packets = 0.0
    for name, (neuron, core) in sent.items():
        weight, source = activity[name], node[placement.core_of[name][neuron]]
        if isinstance(fabric, HexTorus):
            hops += float((fabric.tree_hops(neuron, source, node[core], weight.size) * weight).sum())
            packets += float(weight[np.unique(neuron)].sum())
        else:
            hops += float((fabric.hops(source, node[core]) * weight[neuron]).sum())
            packets += float(weight[neuron].sum())
    return round(hops, 6), round(packets, 6)


def _grouped(demand: Demand, default: Placement, wanted: Wanted, activity: Mapping[str, Array]) -> IntArray:
    """Core of each neuron of one population, neurons with common sources together; the default's if that fails."""
    name, own = demand.population, default.core_of[demand.population]
    cores = np.unique(own)
    wires = [p for p in wanted.projections if p.target == name and p.source in default.core_of]
    size = sum(wanted.populations[p.source].size for p in wires) * demand.size
    entries = [0 if p.kind == "conv" else np.count_nonzero(p.weight_q) for p in wires]
    if cores.size < 2 or not wires or sum(entries) > min(DENSE * size, MAX_EDGES):
        return own
    parts = [(p.source, *synapses(p, wanted.populations[p.source], wanted.populations[name])) for p in wires]
    binding = demand.own_bits.sum() / wanted.bits_per_core > demand.size / wanted.neurons_per_core
    part = _metis(parts, demand.own_bits if binding else np.ones(demand.size, np.int64), cores.size, activity)
    members = _repaired([np.flatnonzero(part == k) for k in range(cores.size)], demand, wanted)
    if members is None:
        return own
    found = np.empty(demand.size, np.int64)
    for core, inside in zip(cores.tolist(), sorted(members, key=lambda m: int(m[0])), strict=True):
        found[inside] = core
    return found


def _metis(
    parts: list[tuple[str, IntArray, IntArray]], size: IntArray, cores: int, activity: Mapping[str, Array]
) -> IntArray:
    """int64[n]: part of each neuron. Vertices: the neurons, then the sources; edges: synapses, by activity.

    size: int64[n], what is spread evenly over the parts: memory or neurons, whichever is scarcer.
    """
    metis = require("pymetis", extra="place")
    n, start = size.size, size.size
    a, b, weight = [], [], []
    for name, pre, post in parts:
        a.append(start + pre)
        b.append(post)
        weight.append(activity[name][pre])
        start += activity[name].size
    one, two, value = np.concatenate(a), np.concatenate(b), np.concatenate(weight)
    kept = value > 0
    key, place_of = np.unique(one[kept] * start + two[kept], return_inverse=True)
    strength = np.bincount(place_of, weights=value[kept], minlength=key.size)
    whole = np.maximum(1, np.round(100 * strength / max(strength.max(initial=0.0), 1e-300))).astype(np.int64)
    ends = np.concatenate([key // start, key % start]), np.concatenate([key % start, key // start])
    order = np.lexsort((ends[1], ends[0]))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(ends[0], minlength=start))])
    mean = max(1, int(size.mean()) // 100)  # METIS adds in 32 bits
    vertex = np.concatenate([np.maximum(1, size // mean), np.zeros(start - n, np.int64)])
    _, part = metis.part_graph(
        cores,
        metis.CSRAdjacency(pointer, ends[1][order]),
        vweights=vertex.tolist(),
        eweights=np.concatenate([whole, whole])[order].tolist(),
        options=metis.Options(seed=0, ufactor=1, niter=20),
    )
    return np.asarray(part, np.int64)[:n]


def _repaired(members: list[IntArray], demand: Demand, wanted: Wanted) -> list[IntArray] | None:
    """Parts within the limits: neurons leave parts that are too large for the emptiest; None where that fails."""

    def fits(inside: IntArray) -> bool:
        return (
            0 < inside.size <= wanted.neurons_per_core
            and bits_of(demand, inside) <= wanted.bits_per_core
            and (wanted.fits is None or wanted.fits(demand.population, inside))
        )

    found = [m.copy() for m in members]
    for _ in range(demand.size):
        bad = [k for k, m in enumerate(found) if not fits(m)]
        if not bad:
            return found
        full = max(range(len(found)), key=lambda k: found[k].size) if found[bad[0]].size == 0 else bad[0]
        empty = min((k for k in range(len(found)) if k != full), key=lambda k: bits_of(demand, found[k]))
        if found[empty].size and not fits(np.append(found[empty], found[full][-1])):
            return None
        found[empty] = np.sort(np.append(found[empty], found[full][-1]))
        found[full] = found[full][:-1]
    return None


def bits_of(demand: Demand, inside: IntArray) -> int:
    """Memory of any set of neurons of a population on one core."""
    if inside.size == 0:
        return 0
    return int(demand.own_bits[inside].sum() + demand.kernel_bits[np.unique(demand.kernel[inside])].sum())


def _utilisation(placement: Placement, wanted: Wanted) -> tuple[Mapping[str, float], ...]:
    use: list[Mapping[str, float]] = [dict(u) for u in placement.utilisation]
    for demand in wanted.demands:
        cores = placement.core_of[demand.population]
        for core in np.unique(cores).tolist():
            inside = np.flatnonzero(cores == core)
            use[core] = {
                **use[core],
                "neurons": inside.size / wanted.neurons_per_core,
                "memory": bits_of(demand, inside) / wanted.bits_per_core,
            }
    return tuple(use)


def _arranged(
    placement: Placement,
    populations: Mapping[str, Population],
    projections: tuple[Projection, ...],
    activity: Mapping[str, Array],
    fabric: Fabric,
) -> list[IntArray]:
    """Coordinates of the cores, one array per solution found."""
    cores = placement.cores
    if cores > fabric.cores or cores < 2:
        return [placement.xy]
    sent = messages(populations, projections, placement.core_of)
    messages_between = flow(sent, placement.core_of, cores, activity)
    block = _block(fabric, cores)
    slots = np.unique(np.concatenate([np.arange(cores), block]))
    nodes = fabric.node(slots)
    distance = fabric.hops(nodes[:, None], nodes).astype(np.float64)
    compact = np.searchsorted(slots, block)
    starts = [np.arange(cores), compact]
    if cores <= FAQ_UP_TO:
        starts.append(compact[_faq(messages_between, distance[np.ix_(compact, compact)])])
    return [fabric.xy(slots[swap(messages_between, distance, s)]) for s in starts]


def _block(fabric: Fabric, cores: int) -> IntArray:
    """So many places close together, near the first: those around the middle of a square that would hold them."""
    nodes = -(-cores // fabric.cores_per_node)
    half = int(math.sqrt(nodes)) // 2
    middle = [min(half, (fabric.width - 1) // 2), min(half, (fabric.height - 1) // 2)]
    centre = max(0, int(fabric.at(middle)))
    every = np.arange(fabric.nodes)
    near = np.argsort(fabric.hops(centre, every), kind="stable")[:nodes]
    seats = np.sort(near)[:, None] * fabric.cores_per_node + np.arange(fabric.cores_per_node)
    return np.sort(seats.ravel()[:cores])


def _faq(weight: Array, distance: Array) -> IntArray:
    """int64[cores]: the solution of the relaxed problem, rounded."""
    optimise = require("scipy.optimize", extra="place")
    options = {"maxiter": 30, "rng": np.random.default_rng(0)}  # asked for, though the method draws nothing
    found = optimise.quadratic_assignment(weight + weight.T, distance, method="faq", options=options)
    return np.asarray(found.col_ind, np.int64)


def swap(weight: Array, distance: Array, start: IntArray) -> IntArray:
    """Exchange cores, and move them to free places, while sum weight[i, j] distance[at[i], at[j]] falls.

    weight: [cores, cores]. distance: [slots, slots], symmetric. start: int64[cores], slot of each core. A local
    minimum with respect to every single exchange, unless SWEEPS rounds end before.
    """
    slots, cores = len(distance), len(weight)
    both = np.zeros((slots, slots))  # free places are cores that nobody talks to
    both[:cores, :cores] = weight + weight.T
    np.fill_diagonal(both, 0.0)
    free = np.setdiff1d(np.arange(slots), start)
    at = np.concatenate([start, free])
    cost = both @ distance[at]  # cost[i, s]: of core i at place s, the others where they are
    least = 1e-9 * max(1.0, float((both * distance[np.ix_(at, at)]).sum()))
    for _ in range(SWEEPS):
        moved = False
        for i in range(cores):
            here = cost[np.arange(slots), at]
            gain = cost[i, at] + cost[:, at[i]] - here[i] - here + 2 * both[i] * distance[at[i], at]
            gain[i] = 0.0
            j = int(gain.argmin())
            if gain[j] < -least:
                moved = True
                change = both[:, i] - both[:, j]
                touched = np.flatnonzero(change)
                cost[touched] += np.outer(change[touched], distance[at[j]] - distance[at[i]])
                at[i], at[j] = at[j], at[i]
        if not moved:
            break
    return at[:cores]
