"""Filters to neural processors (NPs), and layers to `sequences`: parts that are loaded in turn.

A layer takes the fewest NPs whose memory holds its weights, with its filters spread evenly over them. Layers that
together need more NPs than the chip has go into further sequences; each frame passes through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.errors import Violation
from neuro.hardware.chip import Chip
from neuro.hardware.fabric import Mesh
from neuro.hardware.program import Placement

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Demand:
    """What a layer asks for. filters: that can be split; neurons: of each filter; bits: of one filter's weights."""

    population: str
    filters: int
    neurons: int
    bits: int


@dataclass(frozen=True, eq=False)
class Mapped:
    """sequence_of_core: int64[cores]. sequence_bytes: int64[sequences] of weights. A core is an NP while one sequence
    is loaded; in each sequence they are numbered from the first NP on."""

    placement: Placement
    sequence_of_core: IntArray
    sequence_bytes: IntArray
    violations: tuple[Violation, ...]

    @property
    def image(self) -> dict[str, IntArray]:
        return {"sequence_of_core": self.sequence_of_core, "sequence_bytes": self.sequence_bytes}


def nodes_of(demand: Demand, np_bits: int) -> int:
    """The fewest NPs whose memory holds whole filters of a layer; 0 where one filter is too large."""
    per_np = np_bits // demand.bits if demand.bits else demand.filters
    return -(-demand.filters // min(per_np, demand.filters)) if per_np else 0


def mapped(chip: Chip, demands: Sequence[Demand]) -> Mapped:
    """NPs and sequences of a model's layers, in order."""
    limit, np_bits = chip.limit("cores"), 8 * chip.limit("core_memory")
    mesh = Mesh(chip.limit("mesh_width"), chip.limit("mesh_height"), chip.limit("cores_per_tile"))
    violations: list[Violation] = []
    core_of: dict[str, IntArray] = {}
    sequence_of: list[int] = []
    place_of: list[int] = []
    use: list[dict[str, float]] = []
    sequence = taken = 0
    for demand in demands:
        wanted = nodes_of(demand, np_bits)
        if wanted == 0 or wanted > limit:
            violations.append(_too_large(demand, wanted, limit, np_bits))
            wanted = 1
        if taken + wanted > limit:
            sequence, taken = sequence + 1, 0
        edges = np.linspace(0, demand.filters, wanted + 1).round().astype(int)
        core_of_filter = np.repeat(np.arange(wanted), np.diff(edges)) + len(use)
        core_of[demand.population] = np.repeat(core_of_filter, demand.neurons).astype(np.int64)
        use += [{"memory": n * demand.bits / np_bits} for n in np.diff(edges).tolist()]
        sequence_of += [sequence] * wanted
        place_of += range(taken, taken + wanted)
        taken += wanted
    of = np.array(sequence_of, np.int64)
    shares = np.array([u["memory"] for u in use])
    loaded = np.bincount(of, shares * np_bits / 8, sequence + 1)
    placement = Placement(core_of, mesh.xy(np.array(place_of)), tuple(use), mesh)
    return Mapped(placement, of, np.ceil(loaded).astype(np.int64), tuple(violations))


def _too_large(demand: Demand, wanted: int, limit: int, np_bits: int) -> Violation:
    if wanted == 0:
        return Violation(
            demand.population,
            "memory of one filter (bytes)",
            -(-demand.bits // 8),
            np_bits // 8,
            "Use fewer input channels, a smaller kernel, or weights of fewer bits (weight_bits)",
        )
    return Violation(
        demand.population,
        "neural processors of one layer",
        wanted,
        limit,
        "Use fewer filters, fewer input channels, or weights of fewer bits (weight_bits)",
    )
