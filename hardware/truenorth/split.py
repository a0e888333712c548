"""More inputs than a core has axons: neurons that add up parts of them, and pass on what they have as spikes.

A part is a block of inputs of one neuron, those that excite and those that inhibit apart, so that what it holds
only grows. It fires each time it has gathered T, keeps the rest, and the neuron takes +T or -T for it, a tick later.
An approximation, never exact: what is passed on comes in lumps of T, at most one a tick and part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.truenorth.cores import BITS
from neuro.hardware.truenorth.logical import Group, Wires
from neuro.hardware.truenorth.weights import HIGH, TYPES, shape

IntArray = NDArray[np.int64]
LUMP = 0.05  # T: this share of a part's inputs at once, so that it keeps up where fewer of them fire per tick


class Split(NamedTuple):
    """parts: the group of parts. whole: the group with its wires from them. lump: T of each neuron."""

    parts: Group
    whole: Group
    lump: IntArray


def split(group: Group, index: int, line: IntArray, name: str, axons: int) -> Split:
    """A group (wires with effective weights, subsets still to be found) and its parts, which will be group ``index``.

    line: of each wire, what it carries; equal for wires that can share axons. axons: of a core.
    """
    wires, n = group.wires, group.size
    inhibits = (wires.weight < 0).astype(np.int64)
    shaped, hard = shape(2 * wires.row + inhibits, line, np.abs(wires.weight), 2 * n)
    assert hard.size == 0, "weights of one sign have a basis where both together have one"
    most = int(BITS[shaped.subset].max(initial=1))
    block = line // max(1, axons // most)
    key = np.stack([wires.row, inhibits, block])
    (row, sign, _), of_wire = np.unique(key, axis=1, return_inverse=True)
    of_wire = of_wire.reshape(-1)
    total = np.bincount(of_wire, np.abs(wires.weight), row.size)
    lump = np.ones(n, np.int64)
    np.maximum.at(lump, row, np.clip(np.ceil(LUMP * total), 1, HIGH).astype(np.int64))
    order = np.argsort(of_wire, kind="stable")
    into = Wires(of_wire, wires.source, wires.neuron, wires.delay, np.abs(wires.weight), shaped.subset).take(order)
    zero = np.zeros(row.size, np.int64)
    registers = dict.fromkeys(("leak", "v0", "epsilon", "kappa"), zero)
    registers |= {"alpha": lump[row], "gamma": np.ones(row.size, np.int64)}
    parts = Group(name, group.node, (row.size,), into, shaped.values[2 * row + sign], registers)
    values = np.zeros((n, TYPES), np.int64)
    values[:, 0], values[:, 1] = lump, -lump
    weight = np.where(sign == 0, lump[row], -lump[row])
    out = Wires(row, np.full(row.size, index), np.arange(row.size), np.ones(row.size, np.int64), weight, 1 << sign)
    return Split(parts, replace(group, wires=out, values=values), lump)
