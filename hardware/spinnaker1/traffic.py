"""What a spike of each core sends over the machine: one multicast packet, along a tree of links, and what its
delay extension sends on. Knows where things are (Placement), not how they compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.hardware.spinnaker1.contract import slices_of

Int64 = NDArray[np.int64]


def names_of(program: Program) -> list[str]:
    """Population names in the order of the image: the input first."""
    return [program.input, *(name for name in program.populations if name != program.input)]


def routes(program: Program) -> tuple[Int64, Int64]:
    """(source core, target core) of every multicast packet there can be, each pair once.

    A packet goes from a core to every core with rows for its population, and to its delay extension; from there to
    the cores with late rows. Inputs come from outside and have none.
    """
    blocks, relays = program.image["blocks"], program.image["relays"]
    names = names_of(program)
    pairs: list[tuple[int, int]] = []
    for k, name in enumerate(names[1:], 1):
        own = [(core, lo, hi) for core, lo, hi in slices_of(program, name)]
        direct = np.unique(blocks[(blocks[:, 1] == k) & (blocks[:, 2] == 0), 0]).tolist()
        for core, lo, hi in own:
            pairs += [(core, t) for t in direct]
            pairs += [(core, int(r)) for r, p, a, b in relays.tolist() if p == k and a < hi and lo < b]
    for relay, k, _, _ in relays.tolist():
        pairs += [(relay, t) for t in np.unique(blocks[(blocks[:, 1] == k) & (blocks[:, 2] > 0), 0]).tolist()]
    found = np.unique(np.array(pairs, np.int64).reshape(-1, 2), axis=0)
    return found[:, 0], found[:, 1]


def traffic(program: Program) -> dict[str, Int64]:
    """packets, hops: int64[cores], of a spike sent by each core. relay: int64[units] delay extension of each input
    and neuron, -1 for none; relay_packets: how many packets it sends for a spike."""
    source, target = routes(program)
    cores = program.placement.cores
    packets = np.zeros(cores, np.int64)
    packets[source] = 1
    hops = np.zeros(cores, np.int64)
    fabric = program.placement.fabric
    if fabric is not None and source.size:
        xy = program.placement.xy
        hops = fabric.tree_hops(source, fabric.at(xy[source]), fabric.at(xy[target]), cores)
    sizes = [program.populations[n].size for n in names_of(program)]
    unit = np.concatenate([[0], np.cumsum(sizes)])
    relay, sends = np.full(unit[-1], -1, np.int64), np.zeros(unit[-1], np.int64)
    for core, p, lo, hi in program.image["relays"].tolist():
        relay[unit[p] + lo : unit[p] + hi] = core
    late = program.image["blocks"]
    for p, lag in np.unique(late[late[:, 2] > 0][:, 1:3], axis=0).tolist():
        any_row = np.zeros(sizes[p], bool)
        for _, _, _, row, _ in late[(late[:, 1] == p) & (late[:, 2] == lag)].tolist():
            any_row |= np.diff(program.image["row_start"][row : row + sizes[p] + 1].astype(np.int64)) > 0
        sends[unit[p] : unit[p + 1]] += any_row
    return {"packets": packets, "hops": hops, "relay": relay, "relay_packets": sends, "unit": unit.astype(np.int64)}


def messages(program: Program) -> dict[str, tuple[Int64, Int64]]:
    """Where a spike of each neuron goes: population -> (neuron, target core); what delay extensions send on is not
    among it (`neuro.hardware.target.Target.messages`)."""
    source, target = routes(program)
    found = {}
    for name, cores in program.placement.core_of.items():
        own, reached = np.nonzero(source[:, None] == np.unique(cores))
        order = np.argsort(cores, kind="stable")
        begin = np.searchsorted(cores[order], np.unique(cores)[reached])
        many = np.bincount(cores)[np.unique(cores)[reached]]
        place = np.repeat(begin - np.concatenate([[0], np.cumsum(many)[:-1]]), many) + np.arange(many.sum())
        found[name] = (order[place].astype(np.int64), np.repeat(target[own], many))
    return found
