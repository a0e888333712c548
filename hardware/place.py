"""Which core holds which neuron. Knows no chip: limits come as numbers.

`place` is a pure function from demands to a `Placement`; a better one (less traffic) can take its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neuro.errors import Violation
from neuro.hardware.fabric import Fabric, Mesh
from neuro.hardware.program import Placement

IntArray = NDArray[np.int64]

__all__ = ["Demand", "Mesh", "place"]


@dataclass(frozen=True, eq=False)
class Demand:
    """What one population asks of the cores.

    own_bits: int64[n] memory of each neuron alone (state, its row of synapses). kernel: int64[n] index of the
    shared kernel that a neuron reads, not falling. kernel_bits: int64[kernels], stored once on every core that
    reads it.
    """

    population: str
    own_bits: IntArray
    kernel: IntArray
    kernel_bits: IntArray

    @property
    def size(self) -> int:
        return len(self.own_bits)

    @cached_property
    def _sums(self) -> tuple[IntArray, IntArray]:
        return np.concatenate([[0], np.cumsum(self.own_bits)]), np.concatenate([[0], np.cumsum(self.kernel_bits)])

    def bits(self, start: int, stop: int) -> int:
        """Memory of the neurons start..stop-1 on one core."""
        own, shared = self._sums
        return int(own[stop] - own[start] + shared[self.kernel[stop - 1] + 1] - shared[self.kernel[start]])


def place(
    demands: Sequence[Demand], neurons_per_core: int, bits_per_core: int, mesh: Fabric
) -> tuple[Placement, list[Violation]]:
    """Contiguous slices of each population, evenly over the fewest cores; cores are not shared by populations.

    Returns the placement, and a violation for each neuron population with a neuron that fits no core.
    """
    core_of: dict[str, IntArray] = {}
    use: list[Mapping[str, float]] = []
    violations: list[Violation] = []
    for demand in demands:
        slices = _slices(demand, neurons_per_core, bits_per_core)
        if slices is None:
            bits = max(demand.bits(k, k + 1) for k in range(demand.size))
            violations.append(
                Violation(
                    demand.population,
                    "memory of one neuron with its fan-in (bytes)",
                    -(-bits // 8),
                    bits_per_core // 8,
                    "Reduce the fan-in: prune, pool, or split the neuron's inputs over a hidden layer",
                )
            )
            slices = [(k, k + 1) for k in range(demand.size)]
        cores = np.empty(demand.size, np.int64)
        for start, stop in slices:
            cores[start:stop] = len(use)
            use.append(
                {"neurons": (stop - start) / neurons_per_core, "memory": demand.bits(start, stop) / bits_per_core}
            )
        core_of[demand.population] = cores
    return Placement(core_of, mesh.xy(len(use)), tuple(use), mesh), violations


def _slices(demand: Demand, neurons: int, bits: int) -> list[tuple[int, int]] | None:
    """Even slices over the fewest cores; greedy ones where memory is uneven; None if one neuron is too large."""
    least = max(-(-demand.size // neurons), -(-demand.bits(0, demand.size) // bits))
    for cores in (least, least + 1):
        edges = np.linspace(0, demand.size, cores + 1).round().astype(int)
        even = [(int(a), int(b)) for a, b in pairwise(edges)]
        if all(0 < b - a <= neurons and demand.bits(a, b) <= bits for a, b in even):
            return even
    slices, start = [], 0
    while start < demand.size:
        low, high = start, min(start + neurons, demand.size)  # longest slice that fits, by bisection
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if demand.bits(start, middle) <= bits else (low, middle - 1)
        if low == start:
            return None
        slices.append((start, low))
        start = low
    return slices
