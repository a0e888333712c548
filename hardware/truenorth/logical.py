"""`Group`: one population in the chip's integers, before anybody says which core holds which neuron.

A line is a source neuron with a delay: what an axon carries. Compiling goes Network -> groups (layers.py), relays
put in between where delays or fan-out ask for them (relays.py), neurons and lines packed into cores (cores.py),
arrays written (image.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Wires:
    """Synapses into a group, sorted by target neuron; all [synapses]. source: index of the group they come from.

    neuron: of the source. delay: ticks, 1 or more. weight: effective integer. subset: axon types joined, bits.
    """

    row: IntArray
    source: IntArray
    neuron: IntArray
    delay: IntArray
    weight: IntArray
    subset: IntArray

    @property
    def size(self) -> int:
        return int(self.row.size)

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> Wires:
        return Wires(*(a[chosen] for a in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Group:
    """A population on its way to cores. Registers int64[n]: alpha, leak, v0, gamma, kappa, epsilon; values: [n, 4].

    shape: of one step. node: name in the Network.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    wires: Wires
    values: IntArray
    registers: dict[str, IntArray]

    @property
    def size(self) -> int:
        return len(self.values)
