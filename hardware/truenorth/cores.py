"""Which core holds which neuron, its copies, and which axon carries what.

A neuron has one target axon, so it is copied, exactly, for every axon that it feeds: the copies stand on one core,
joined to the same axons. How often it is copied depends on how the neurons that it feeds are spread over cores,
which depends on their own copies; loops settle by repetition, since the number of copies never falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.truenorth.logical import Group, Wires

IntArray = NDArray[np.int64]
BITS = np.array([bin(s).count("1") for s in range(16)])
ROUNDS = 60  # of settling copies


@dataclass(eq=False)
class Core:
    """neurons: (neuron, copies it has room for). lines: index into the group's lines; subset: types of their axons."""

    neurons: list[tuple[int, int]]
    lines: IntArray
    subset: IntArray


@dataclass(frozen=True, eq=False)
class Lines:
    """The distinct (source group, neuron, delay) of a group's wires, int64[lines] each, and the line of each wire."""

    source: IntArray
    neuron: IntArray
    delay: IntArray
    of_wire: IntArray

    @property
    def size(self) -> int:
        return int(self.source.size)


def lines_of(wires: Wires) -> Lines:
    keys = np.stack([wires.source, wires.neuron, wires.delay])
    (source, neuron, delay), of_wire = np.unique(keys, axis=1, return_inverse=True)
    return Lines(source, neuron, delay, of_wire.reshape(-1))


class Packer:
    """One group and what is needed to pack it again and again. floor: beta of its neurons."""

    def __init__(self, group: Group, axons: int, neurons: int, floor: int) -> None:
        self.group, self.axons, self.neurons, self.floor = group, axons, neurons, floor
        self.lines = lines_of(group.wires)
        self.pointer = np.searchsorted(group.wires.row, np.arange(group.size + 1))

    def fan_in(self) -> IntArray:
        """Axons that each neuron needs, were it alone on a core."""
        return np.bincount(self.group.wires.row, BITS[self.group.wires.subset], self.group.size).astype(np.int64)

    def pack(self, copies: IntArray) -> list[Core]:
        """Neurons in the order that needs the fewest cores."""
        found: list[Core] | None = None
        for order in _orders(self.group.shape):
            cores = self._pack(order, copies)
            if found is None or len(cores) < len(found):
                found = cores
        assert found is not None
        return found

    def _pack(self, order: IntArray, copies: IntArray) -> list[Core]:
        """Fill core after core. A neuron whose copies no core has room for stands on several."""
        cores: list[Core] = []
        held = np.zeros(self.lines.size, np.int64)
        neurons: list[tuple[int, int]] = []
        axons = slots = 0

        def close() -> None:
            used = np.flatnonzero(held)
            cores.append(Core(list(neurons), used, held[used]))
            held[:] = 0
            neurons.clear()

        subset, of_wire = self.group.wires.subset, self.lines.of_wire
        for j in order.tolist():
            own = slice(self.pointer[j], self.pointer[j + 1])
            line, joined = of_wire[own], subset[own]
            for part in _chunks(int(copies[j]), self.neurons):
                more = int((BITS[held[line] | joined] - BITS[held[line]]).sum())
                if neurons and (axons + more > self.axons or slots + part > self.neurons):
                    close()
                    axons, slots, more = 0, 0, int(BITS[joined].sum())
                held[line] |= joined
                neurons.append((j, part))
                axons, slots = axons + more, slots + part
        if neurons:
            close()
        return cores


def _chunks(total: int, most: int) -> Iterator[int]:
    while total > most:
        yield most
        total -= most
    yield total


def _orders(shape: Sequence[int]) -> Iterator[IntArray]:
    """Row-major; for planes (channel, y, x) also square tiles of pixels with all their channels."""
    n = int(np.prod(shape))
    yield np.arange(n)
    if len(shape) != 3 or shape[1] * shape[2] == 1:
        return
    c, y, x = (a.reshape(-1) for a in np.indices(shape))
    for tile in (1, 2, 3, 4, 6, 8):
        if tile <= max(shape[1:]):
            yield np.lexsort((c, x, y, x // tile, y // tile))


def settle(packers: Sequence[Packer | None], least: Sequence[IntArray], limit: int) -> tuple[list[list[Core]], bool]:
    """Cores of every group (None: the input, which has none), such that each neuron has room for all its copies.

    least: per group, copies that each neuron needs whatever it feeds. Stops, with False, where more than ``limit``
    cores are needed or the copies do not settle.
    """
    copies = [np.maximum(k, 1) for k in least]
    cores: list[list[Core]] = [[] for _ in packers]
    stale = [p is not None for p in packers]
    for _ in range(ROUNDS):
        for g in reversed(range(len(packers))):  # what is fed first, so that a chain needs one round
            packer = packers[g]
            if packer is None or not stale[g]:
                continue
            stale[g] = False
            cores[g] = packer.pack(copies[g])
            if sum(map(len, cores)) > limit:
                return cores, False
            for source, wanted in enumerate(fed(packers, cores, least)):
                if packers[source] is not None and (wanted > copies[source]).any():
                    copies[source] = np.maximum(copies[source], wanted)
                    stale[source] = True
        if not any(stale):
            return cores, True
    return cores, False


def fed(packers: Sequence[Packer | None], cores: Sequence[list[Core]], least: Sequence[IntArray]) -> list[IntArray]:
    """Copies that each neuron of each group needs for the cores as they are."""
    wanted = [k.copy() for k in least]
    for packer, mine in zip(packers, cores, strict=True):
        if packer is None:
            continue
        for core in mine:
            source, neuron = packer.lines.source[core.lines], packer.lines.neuron[core.lines]
            for g in np.unique(source):
                of = source == g
                np.add.at(wanted[g], neuron[of], BITS[core.subset[of]])
    return wanted
