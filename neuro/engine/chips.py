"""A compiled chip program as a `Circuit` in the chip's integers, so that it can grow: more copies, more synapses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuro.engine.circuit import Circuit, Given, Loihi2LIF, Pairs, Population, Projection
from neuro.errors import SimulationError
from neuro.hardware.loihi2.packed import names_of, registers
from neuro.hardware.loihi2.synapses import ROWS, RUNS, arcs, order_of
from neuro.hardware.program import Program


def circuit_of(program: Program, dense: ArrayLike) -> Circuit:
    """A Loihi 2 program of LIF neurons and matrices, and one sample of its input, as a `Circuit`: the same spikes as
    `neuro.hardware.simulate`, bit for bit.

    Args:
        dense: 0 and 1, [steps, inputs].

    Raises:
        SimulationError: it is of another chip, or holds what a `Circuit` does not (with every reason).
    """
    spikes = np.asarray(dense)
    inputs = program.populations[program.input].size
    bad = [] if program.chip == "loihi2" else [f"the program is of {program.chip}, not loihi2"]
    if spikes.ndim != 2 or spikes.shape[1] != inputs or not np.isin(spikes, (0, 1)).all():
        bad.append(f"dense must be 0 and 1, [steps, {inputs}], got {spikes.dtype}{list(spikes.shape)}")
    if bad:
        raise SimulationError("no circuit", bad)
    populations = {}
    for name in names_of(program):
        p = program.populations[name]
        if name == program.input:
            populations[name] = Population(p.size, Given(*np.nonzero(spikes)))
            continue
        if p.model not in ("lif", "li"):
            bad.append(f"'{name}' is a {p.model}: only LIF neurons are here")
            continue
        keep_u, keep_v, bias, threshold, _ = registers(p, np.arange(p.size))
        model = Loihi2LIF(4095 - keep_u, 4096 - keep_v, threshold >> 6, bias)
        populations[name] = Population(p.size, model)
    projections: list[Projection] = []
    for made in program.projections:
        if made.kind not in ("dense", "sparse"):
            bad.append(f"'{made.name}' is a {made.kind}: only matrices are here")
            continue
        source, target = program.populations[made.source], program.populations[made.target]
        orders = order_of(source, program.into(source.name)), order_of(target, program.into(target.name))
        for arc in arcs(made, source, target, orders):
            if arc.down or arc.graded or arc.wrap or arc.layout == RUNS:
                bad.append(f"'{made.name}' shifts sums to the right or carries numbers")
                break
            if arc.layout == ROWS:
                matrix = arc.weight.reshape(source.size, target.size)
                rows, columns = np.nonzero(matrix)
                weight = matrix[rows, columns]
            else:
                rows = np.repeat(np.arange(source.size), np.diff(arc.pointer))
                columns, weight = arc.target, arc.weight
            delay = (arc.lag - 1) * program.dt
            projections.append(Projection(made.source, made.target, Pairs(rows, columns), weight, delay))
    if bad:
        raise SimulationError("no circuit", bad)
    return Circuit(populations, tuple(projections), dt=program.dt, arithmetic="loihi2")
