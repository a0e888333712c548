"""Where a value of each neuron goes: one message to every core that holds filters it reaches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.akida.geometry import geometry_of
from neuro.hardware.program import Program, Projection

IntArray = NDArray[np.int64]


def filters_of(program: Program, target: str) -> IntArray:
    """int64[channels]: the core of each filter of a population."""
    shape, core = program.populations[target].shape, program.placement.core_of[target]
    return np.asarray(core.reshape(shape[0], -1)[:, 0], np.int64)


def _reached(program: Program, projection: Projection) -> NDArray[np.bool_]:
    """bool[channels of the source, cores]; zero weights count, a filter is one block."""
    core, g = filters_of(program, projection.target), geometry_of(program, projection)
    mask = np.zeros((g.channels, program.placement.cores), bool)
    inputs, filters = g.channels // g.groups, g.out // g.groups
    for k in range(g.groups):
        mask[k * inputs : (k + 1) * inputs, core[k * filters : (k + 1) * filters]] = True
    return mask


def messages(program: Program) -> Mapping[str, tuple[IntArray, IntArray]]:
    """Population -> (neuron, target core), no pair twice; the input, whose events come from outside, is left out."""
    found = {}
    for name, population in program.populations.items():
        outgoing = [p for p in program.projections if p.source == name]
        if population.model == "input" or not outgoing:
            continue
        mask = np.zeros((population.size, program.placement.cores), bool)
        for projection in outgoing:
            reached = _reached(program, projection)
            mask |= np.repeat(reached, population.size // len(reached), axis=0)
        neuron, core = np.nonzero(mask)
        found[name] = (neuron.astype(np.int64), core.astype(np.int64))
    return found
