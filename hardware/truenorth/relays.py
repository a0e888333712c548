"""Relay neurons: a group that repeats another one, some ticks later, so that time stays exact.

They fan out where copies would be too many (one tick, taken from the delay of what they pass on), and they carry
delays that are longer than an axon's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.truenorth.logical import Group, Wires
from neuro.hardware.truenorth.weights import TYPES

IntArray = NDArray[np.int64]


def repeat(group: Group, g: int, neurons: IntArray, ticks: int, name: str) -> Group:
    """Neurons that fire ``ticks`` after those of group g: one synapse of weight 1, threshold 1, back to 0."""
    n = neurons.size
    here, zero, one = np.arange(n), np.zeros(n, np.int64), np.ones(n, np.int64)
    wires = Wires(here, np.full(n, g), neurons, np.full(n, ticks), one, one)
    values = np.zeros((n, TYPES), np.int64)
    values[:, 0] = 1
    registers = {"alpha": one, "leak": zero, "v0": zero, "gamma": zero, "epsilon": zero, "kappa": zero}
    return Group(name, group.node, (n,), wires, values, registers)


def pass_on(groups: list[Group | None], g: int, ticks: int, least: int, taken: set[str]) -> int | None:
    """Let a new relay group, ``ticks`` late, serve every wire out of group g with a delay of ``least`` or more.

    Changes ``groups`` in place; the index of the new one, or None if there is no such wire.
    """
    chosen = [w.wires.neuron[_of(w, g, least)] if w is not None else np.zeros(0, np.int64) for w in groups]
    neurons = np.unique(np.concatenate(chosen))
    source = groups[g]
    if neurons.size == 0 or source is None:
        return None
    name = f"{source.name}+{ticks}"
    while name in taken:
        name += "'"
    taken.add(name)
    for k, group in enumerate(groups):
        if group is None:
            continue
        of, wires = _of(group, g, least), group.wires
        if of.any():
            moved = Wires(
                wires.row,
                np.where(of, len(groups), wires.source),
                np.where(of, np.searchsorted(neurons, wires.neuron), wires.neuron),
                np.where(of, wires.delay - ticks, wires.delay),
                wires.weight,
                wires.subset,
            )
            groups[k] = replace(group, wires=moved)
    groups.append(repeat(source, g, neurons, ticks, name))
    return len(groups) - 1


def _of(group: Group, g: int, least: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (group.wires.source == g) & (group.wires.delay >= least)
    return found
