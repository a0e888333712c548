"""Groups packed into cores, written as the arrays of a `Bank`, and where to find every neuron in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Integers
from neuro.hardware.truenorth.bank import NOWHERE, OUTSIDE, TYPES, empty, pack_bits
from neuro.hardware.truenorth.cores import Core, Packer

IntArray = NDArray[np.int64]


class Layout(NamedTuple):
    """image: the bank, "inject" and "slot:<group>" (core N + neuron of each neuron's first copy).
    use: per core, shares of its neurons and axons. copies: neurons on the chip beyond those of the network."""

    image: dict[str, Integers]
    use: tuple[dict[str, float], ...]
    copies: int


class _Axons(NamedTuple):
    """Axons of one core, in order: line of the group, type."""

    line: IntArray
    kind: IntArray


def _axons(core: Core) -> _Axons:
    place, kind = np.nonzero((core.subset[:, None] >> np.arange(TYPES)) & 1)
    return _Axons(core.lines[place], kind)


def write(
    packers: Sequence[Packer | None],
    cores: Sequence[list[Core]],
    names: Sequence[str],
    output: int,
    xy: NDArray[np.int32],
    overflow: str,
    size: tuple[int, int],
    starter: int,
) -> Layout:
    """size: axons and neurons of a core. starter: number of input channels. names: of the groups. output: the group
    whose neurons leave the chip."""
    axons, width = size
    first = np.cumsum([0, *map(len, cores)])
    image = empty(int(first[-1]), axons, width, overflow=overflow)
    image["neurons"][:] = 0
    image["xy"] = xy
    targets, inject = _targets(packers, cores, first, axons, output, starter)
    use: list[dict[str, float]] = []
    slots: dict[str, Integers] = {}
    copied = 0
    for g, packer in enumerate(packers):
        if packer is None:
            continue
        slot = np.full(packer.group.size, -1, np.int64)
        left = targets[g]
        for k, core in enumerate(cores[g]):
            c = int(first[g]) + k
            members, where = _members(core, left, slot)
            _fill(image, c, packer, core, members, where)
            fresh = np.flatnonzero(slot[members] < 0)[::-1]  # of several copies the first stays
            slot[members[fresh]] = c * width + fresh
            copied += len(members)
            use.append({"neurons": len(members) / width, "axons": len(_axons(core).line) / axons})
        slots[f"slot:{names[g]}"] = slot
        copied -= packer.group.size
    order = np.lexsort((inject[:, 2], inject[:, 1], inject[:, 0]))
    return Layout({**image, **slots, "inject": inject[order]}, tuple(use), copied)


Targets = list[list[tuple[int, int, int]]]  # per neuron: core (or OUTSIDE, NOWHERE), axon or line, delay


def _targets(
    packers: Sequence[Packer | None],
    cores: Sequence[list[Core]],
    first: IntArray,
    axons: int,
    output: int,
    starter: int,
) -> tuple[dict[int, Targets], IntArray]:
    """What each neuron feeds, and what input events are injected into: (channel, core A + axon, ticks).

    Channel ``starter`` is the host's own, see `inject.packets_of`."""
    targets: dict[int, Targets] = {
        g: [[(OUTSIDE, j, 1)] if g == output else [] for j in range(p.group.size)]
        for g, p in enumerate(packers)
        if p is not None
    }
    inject: list[IntArray] = [np.zeros((0, 3), np.int64)]
    for g, packer in enumerate(packers):
        for k, core in enumerate(cores[g]):
            assert packer is not None, "the input has no cores"
            c, line = int(first[g]) + k, _axons(core).line
            source, neuron, delay = (a[line] for a in (packer.lines.source, packer.lines.neuron, packer.lines.delay))
            outside = np.array([packers[s] is None for s in source.tolist()], bool)
            a = np.arange(line.size)
            host = outside & (neuron == starter)
            inject.append(np.stack([neuron, c * axons + a, delay], axis=1)[outside & ~host])
            for at in np.flatnonzero(host).tolist():  # in every tick before
                rows = [(starter, c * axons + at, tick) for tick in range(int(delay[at]))]
                inject.append(np.array(rows, np.int64).reshape(-1, 3))
            for at in np.flatnonzero(~outside).tolist():
                targets[int(source[at])][int(neuron[at])].append((c, at, int(delay[at])))
    for found in targets.values():
        for each in found:
            if not each:
                each.append((NOWHERE, 0, 1))
    return targets, np.concatenate(inject)


def _members(core: Core, left: Targets, slot: IntArray) -> tuple[IntArray, list[tuple[int, int, int]]]:
    """Neuron and target of each slot of a core; what is given out is taken off ``left``."""
    members: list[int] = []
    where: list[tuple[int, int, int]] = []
    for j, room in core.neurons:
        given, left[j] = left[j][:room], left[j][room:]
        members += [j] * len(given)
        where += given
    return np.array(members, np.int64), where


def _fill(
    image: dict[str, NDArray[np.integer]],
    c: int,
    packer: Packer,
    core: Core,
    members: IntArray,
    where: list[tuple[int, int, int]],
) -> None:
    count, group, axons = members.size, packer.group, _axons(core)
    image["neurons"][c] = count
    image["axon_type"][c, : axons.kind.size] = axons.kind
    image["weight"][c, :count] = group.values[members]
    for name, values in group.registers.items():
        image[name][c, :count] = values[members]
    image["negative"][c, :count] = -packer.floor
    image["target"][c, :count], image["axon"][c, :count], image["delay"][c, :count] = np.array(where).T
    axon_of = np.full((packer.lines.size, TYPES), -1, np.int64)
    axon_of[axons.line, axons.kind] = np.arange(axons.kind.size)
    joined = np.zeros((image["axon_type"].shape[1], image["leak"].shape[1]), bool)
    for n, j in enumerate(members.tolist()):
        own = slice(packer.pointer[j], packer.pointer[j + 1])
        line, subset = packer.lines.of_wire[own], group.wires.subset[own]
        for kind in range(TYPES):
            joined[axon_of[line[(subset >> kind) & 1 == 1], kind], n] = True
    image["crossbar"][c] = pack_bits(joined)


def arrange(cores: int, width: int, height: int) -> NDArray[np.int32]:
    """int32[cores, 2]: neighbours in number are neighbours on the mesh, in a snake through a near-square."""
    across = min(width, max(int(np.ceil(np.sqrt(cores))), -(-cores // height), 1))
    y, x = np.divmod(np.arange(cores), across)
    return np.stack([np.where(y % 2, across - 1 - x, x), y], axis=1).astype(np.int32)
