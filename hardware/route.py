"""Multicast routing tables of SpiNNaker's kind: keys, entries of each router, default routes, compression.

A spike is a packet with a 32-bit key that names its neuron. A router compares it with its entries in order; the
first with ``packet & mask == key`` says where it goes, as a set of links (bits 0-5) and cores (bit 6 + p for core p
of the chip). A packet that no entry matches goes straight on, out of the link opposite to the one it came in by.
A table holds 1,023 entries, so populations get blocks of keys, and entries are merged.

Compression is exact on every key that is used. Entries are grouped by route, small groups first. An entry of group
k is widened, bit by bit, as long as it touches no block of keys of a later group nor one that relies on going
straight on; blocks of earlier groups may lie inside, as they are matched before. So the largest group, which is
last, is free to cover what the others have taken. (The idea of letting a general entry hide behind special ones:
A. Mundy, J. Heathcote, J. Garside, "On-chip order-exploiting routing table minimization for a multicast
supercomputer network", HPSR 2016; their order is by generality, ours is by route.)

Not modelled: routes around broken or congested links, several entries per router for one block of keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError, Violation
from neuro.hardware.fabric import Fabric, HexTorus, IntArray

KEY_BITS = 32
FULL = (1 << KEY_BITS) - 1
LINKS = 6  # bits of a route below those of the cores
BITS = (1 << np.arange(KEY_BITS)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Table:
    """Entries of one router in order of priority: int64[n] key, mask, route.

    straight: bool[n], entries that default routing does as well. They are in the table `routing_tables` gives, for
    the compression to respect, and in no table `compress` gives.
    """

    key: IntArray
    mask: IntArray
    route: IntArray
    straight: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def needed(self) -> int:
        """Entries that default routing does not do."""
        return int((~self.straight).sum())

    def lookup(self, packets: Any) -> IntArray:
        """Route of each packet; -1 where no entry matches."""
        packets = np.asarray(packets, dtype=np.int64)
        found = np.full(packets.shape, -1, np.int64)
        for key, mask, route in zip(self.key[::-1], self.mask[::-1], self.route[::-1], strict=True):
            found[(packets & mask) == key] = route
        return found


def key_blocks(sizes: Sequence[int]) -> tuple[IntArray, IntArray]:
    """(key, mask) of a block of keys for each slice of a population, block k holding at least sizes[k] keys.

    Blocks are powers of two at multiples of their size, the large ones first, else in the order given, so that
    slices side by side, which often go the same way, have keys side by side. Neuron i of slice k sends key[k] + i.

    Raises:
        ChipError: 2^32 keys are not enough.
    """
    wide = np.array([1 << max(0, int(n) - 1).bit_length() for n in sizes], np.int64)
    order = np.argsort(-wide, kind="stable")
    key = np.zeros(wide.size, np.int64)
    key[order] = np.concatenate([[0], np.cumsum(wide[order])[:-1]]) if wide.size else []
    if wide.sum() > FULL + 1:
        raise ChipError(f"{wide.size} blocks of keys take {wide.sum()} keys; a packet's key has {KEY_BITS} bits")
    return key, FULL & ~(wide - 1)


def routing_tables(
    fabric: HexTorus, key: Any, mask: Any, source: Any, message: Any, target: Any, local: Any
) -> dict[int, Table]:
    """The table of every router that a message passes.

    key, mask, source: [messages], block of keys and chip of each sender. message, target, local: [pairs], message
    m = message[k] goes to core local[k] (0-based) of chip target[k]. Each message crosses its `Fabric.tree`.

    Returns chip -> `Table`, in order of key, blocks that go straight on marked.

    Raises:
        ChipError: a core that a route has no bit for, or a chip that cannot be reached.
    """
    key, mask, source, message, target, local = (
        np.asarray(x, dtype=np.int64) for x in (key, mask, source, message, target, local)
    )
    if local.size and local.max() >= KEY_BITS - LINKS:
        raise ChipError(f"core {local.max()} of a chip has no bit in a route; there are {KEY_BITS - LINKS}")
    group, link = fabric.trees(message, source[message], target)
    start, end = fabric.ends(link)
    direction = link % fabric.degree
    entry, place = np.unique(
        np.concatenate([group * fabric.nodes + start, message * fabric.nodes + target]), return_inverse=True
    )
    route = np.zeros(entry.size, np.int64)
    np.bitwise_or.at(route, place, np.concatenate([BITS[direction], BITS[LINKS + local]]))
    entered = np.zeros(entry.size, np.int64)  # the link that a message goes on by if nothing is said
    entered[np.searchsorted(entry, group * fabric.nodes + end)] = BITS[direction]
    which, chip = entry // fabric.nodes, entry % fabric.nodes
    straight = route == entered
    found = {}
    for node in np.unique(chip).tolist():
        here = np.flatnonzero(chip == node)
        here = here[np.argsort(key[which[here]], kind="stable")]
        found[node] = Table(key[which[here]], mask[which[here]], route[here], straight[here])
    return found


def compress(table: Table) -> Table:
    """A table that routes every key of every block as ``table`` does, with fewer entries, default routes left out.

    The blocks of ``table`` must not overlap, as those of `routing_tables` do not.
    """
    routes, counts = np.unique(table.route[~table.straight], return_counts=True)
    merged: list[tuple[int, int, int]] = []
    done = np.zeros(len(table), bool)
    for route in routes[np.argsort(counts, kind="stable")].tolist():
        own = (table.route == route) & ~table.straight
        done |= own
        avoid = table.key[~done], table.mask[~done]
        merged += [(k, m, route) for k, m in _cover(table.key[own], table.mask[own], *avoid)]
    rows = np.array(merged, np.int64).reshape(-1, 3)
    return Table(rows[:, 0], rows[:, 1], rows[:, 2], np.zeros(len(rows), bool))


def _cover(key: IntArray, mask: IntArray, other_key: IntArray, other_mask: IntArray) -> list[tuple[int, int]]:
    """Few patterns (key, mask) that hold all blocks given and touch none of the others."""
    found = []
    left = np.ones(key.size, bool)
    while left.any():
        seed = int(left.argmax())
        k, m = int(key[seed]), int(mask[seed])
        while True:
            apart = (k ^ other_key) & m & other_mask  # bits that keep each other block away
            last = apart[(apart & (apart - 1)) == 0]
            free = m & ~int(np.bitwise_or.reduce(last, initial=0))
            lacking = (((k ^ key) | ~mask) & m)[left]  # bits to give up for each block not held yet
            lacking = lacking[(lacking != 0) & ((lacking & ~free) == 0)]
            if not lacking.size:
                break
            few = (lacking[:, None] & BITS != 0).sum(axis=1)
            nearest = lacking[few == few.min()]
            bit = int(BITS[np.argmax((nearest[:, None] & BITS != 0).sum(axis=0))])
            m &= ~bit
            k &= m
        found.append((k, m))
        left &= (((k ^ key) | ~mask) & m) != 0
    return found


def check_tables(fabric: Fabric, tables: Mapping[int, Table], limit: int) -> tuple[dict[int, int], list[Violation]]:
    """Entries of each chip's compressed table, and a violation for each that has more than ``limit``."""
    entries = {chip: len(compress(t)) if t.needed > limit else t.needed for chip, t in tables.items()}
    remedy = "Use fewer populations or fewer cores per chip, so that fewer blocks of keys pass it"
    return entries, [
        Violation(f"chip {tuple(fabric.position(chip).tolist())}", "routing entries", n, limit, remedy)
        for chip, n in entries.items()
        if n > limit
    ]
