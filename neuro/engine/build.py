"""A `Circuit` as the arrays that the kernels read: rules drawn into rows, time constants into factors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine.cells import Places, cuba_of, lif_of
from neuro.engine.chances import binomial_chances
from neuro.engine.circuit import LIF, Alpha, Circuit, Delta, Given, Loihi2LIF, Poisson
from neuro.engine.kernels import GIVEN, POISSON, SPIKING, Net
from neuro.engine.neurons import Cuba, Lif
from neuro.engine.philox import BLOCK
from neuro.engine.synapses import SMALL_PART, apart, constant, lags_of, number, pulls, signed, wire
from neuro.engine.wiring import Pools

LARGE_PART = 1 << 18  # in 32 bits, where 16 would make rows too short: 1 MB of inbox stays in the second-level cache
MOST_SMALL_PARTS = 4
KINDS = {LIF: SPIKING, Loihi2LIF: SPIKING, Poisson: POISSON, Given: GIVEN}

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Built:
    """What kernels read. values: size of the state. inbox: receptors x neurons. places: (population, variable) ->
    first value. longest: lag of what is pulled. pushes: something is pushed. synapses: per projection."""

    net: Net
    pools: Pools
    cells: Lif | Cuba
    values: int
    inbox: int
    places: Places
    longest: int
    pushes: bool
    synapses: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Memory of all synapses, pointers included."""
        return sum(a.nbytes for a in self.pools)


def parts_of(circuit: Circuit, threads: int) -> int:
    """How many parts of the targets: at least one a thread, none larger than the cache likes."""
    largest = max(p.size for p in circuit.populations.values())
    small = -(-largest // SMALL_PART)
    need = small if small <= MOST_SMALL_PARTS else -(-largest // LARGE_PART)
    return threads * -(-need // threads)


def build(circuit: Circuit, threads: int, progress: Callable[[str], None] = lambda said: None) -> Built:
    """All of it. Where neurons are cut into parts depends on ``threads``; what comes out of a run does not."""
    parts = parts_of(circuit, threads)
    names = list(circuit.populations)
    sizes = np.array([p.size for p in circuit.populations.values()], np.int64)
    width = ((sizes + parts - 1) // parts + BLOCK - 1) // BLOCK * BLOCK
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    inboxes, places, inbox, values = _layout(circuit, first)
    pools, table, synapses = wire(circuit, names, parts, width, threads, progress)
    lags = [lags_of(circuit, p) for p in circuit.projections]
    pulled = np.array([pulls(circuit, p) for p in circuit.projections], np.int64)
    longest = max((high for (_, high), pull in zip(lags, pulled, strict=True) if pull), default=0)
    pushed = [high for (_, high), pull in zip(lags, pulled, strict=True) if not pull]
    chip = circuit.arithmetic == "loihi2"
    kind = np.int32 if chip else np.float32
    drives = [binomial_chances(d.sources, d.rate * circuit.dt) for d in circuit.drives]
    given = [_given(circuit, name) for name in names]
    window = min((low for low, _ in lags), default=16)
    net = Net(
        parts=parts,
        window=window,
        slots=0,  # set by whoever allots the memory for them
        rings=max(pushed, default=1),
        seed=signed(circuit.seed),
        kind=np.array([KINDS[type(p.model)] for p in circuit.populations.values()], np.int64),
        size=sizes,
        width=width,
        first=first[:-1].copy(),
        source=_ints(names.index(p.source) for p in circuit.projections),
        target=_ints(names.index(p.target) for p in circuit.projections),
        inbox=_ints(inboxes[p.target, p.receptor] for p in circuit.projections),
        weighs=_ints(not constant(p.weight) for p in circuit.projections),
        weight=np.array([number(p.weight) for p in circuit.projections]).astype(pools.weight.dtype),
        apart=apart(circuit, table, pools),
        pulled=pulled,
        low=_ints(low for low, _ in lags),
        high=_ints(high for _, high in lags),
        bins=_ints(rows.bins for rows in table),
        pointer_at=_stack([rows.pointer_at for rows in table], parts),
        synapse_at=_stack([rows.synapse_at for rows in table], parts),
        weight_at=_stack([rows.weight_at for rows in table], parts),
        delay_at=_stack([rows.delay_at for rows in table], parts),
        drive_target=_ints(names.index(d.target) for d in circuit.drives),
        drive_inbox=_ints(inboxes[d.target, d.receptor] for d in circuit.drives),
        drive_weight=np.array([d.weight for d in circuit.drives]).astype(kind),
        drive_least=_ints(least for least, _ in drives),
        drive_first=_ints(itertools.accumulate((len(c) for _, c in drives), initial=0)),
        chance=np.concatenate([np.zeros(0, np.uint32), *(c for _, c in drives)]).astype(np.uint32),
        rate=_ints(
            round(p.model.rate * circuit.dt * 2**32) if isinstance(p.model, Poisson) else 0
            for p in circuit.populations.values()
        ),
        given_first=_ints(itertools.accumulate((len(s) for s, _ in given), initial=0)),
        given_step=np.concatenate([np.zeros(0, np.int64), *(s for s, _ in given)]),
        given_neuron=np.concatenate([np.zeros(0, np.int64), *(n for _, n in given)]),
        probe_place=np.zeros(0, np.int64),
        probe_first=np.zeros(parts + 1, np.int64),
    )
    cells = cuba_of(circuit, first, inboxes) if chip else lif_of(circuit, first, inboxes, places)
    return Built(net, pools, cells, values, inbox, places, longest, bool(pushed), synapses)


def _ints(values: Any) -> Ints:
    return np.array(list(values), np.int64)


def _stack(rows: list[Ints], parts: int) -> Ints:
    return np.stack(rows) if rows else np.zeros((0, parts), np.int64)


def _layout(circuit: Circuit, first: Ints) -> tuple[Places, Places, int, int]:
    """Where arrivals and values stand: (population, receptor) -> inbox, (population, variable) -> place, sizes."""
    inboxes: Places = {}
    places: Places = {}
    inbox, values = 0, int(first[-1])
    for k, (name, population) in enumerate(circuit.populations.items()):
        if not isinstance(population.model, (LIF, Loihi2LIF)):
            continue
        places[name, "v"] = int(first[k])
        if isinstance(population.model, Loihi2LIF):
            places[name, "u"] = int(first[-1] + first[k])
        for receptor, kind in population.model.receptors.items():
            inboxes[name, receptor] = inbox
            inbox += population.size
            if not isinstance(kind, Delta):
                places[name, receptor] = values
                values += population.size * (2 if isinstance(kind, Alpha) else 1)
    return inboxes, places, inbox, 2 * int(first[-1]) if circuit.arithmetic == "loihi2" else values


def _given(circuit: Circuit, name: str) -> tuple[Ints, Ints]:
    model = circuit.populations[name].model
    if not isinstance(model, Given):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    steps, neurons = np.asarray(model.steps, np.int64), np.asarray(model.neurons, np.int64)
    order = np.lexsort((neurons, steps))
    return steps[order], neurons[order]
