"""What a Loihi 1 `Program` may hold. Presets say whose account of the chip is meant.

"lava": populations and projections as `neuro.hardware.loihi2.contract` says; no conv, no graded spikes.

"nengo" and "brian2loihi": every population but the input is "lif" or "li" (a readout, whose threshold nothing
reaches) with params, scalar or one per neuron:

    preset      1 nengo, 2 brian2loihi (scalar)
    decay_u     nengo: u keeps 4096 - (decay_u + 1) of 4096; brian2loihi: 4096 - decay_u
    decay_v     v keeps 4096 - decay_v of 4096
    threshold   in units of v; a neuron spikes if v > threshold
    bias        in units of v; brian2loihi has none: 0
    refractory  nengo: v is 0 for refractory - 1 steps after a spike; brian2loihi: the same, and v is not updated
    v_min, v_max   where v is clipped (nengo)

and every projection is "sparse": weight_q [nnz] as the user of that tool writes it; row [nnz] target, col [nnz]
source, weight_exp, num_weight_bits, sign_mode (scalars); delay_steps [nnz] or absent. A spike of step t, of a neuron
or of the input, arrives in step t + 1 + delay. (brian2-loihi's input spikes arrive a step earlier; give them one
step later.)
"""

from __future__ import annotations

import numpy as np

from neuro.errors import SimulationError
from neuro.hardware.loihi1 import weights
from neuro.hardware.program import IntArray, Population, Program, Projection

LAVA, NENGO, BRIAN2LOIHI = 0, 1, 2  # compiled into kernels (neuro.jit)
PRESETS = {"lava": LAVA, "nengo": NENGO, "brian2loihi": BRIAN2LOIHI}
RANGES = {
    "decay_u": (0, 4096),
    "decay_v": (0, 4096),
    "threshold": (-(1 << 31), (1 << 31) - 1),
    "bias": (-(1 << 31), (1 << 31) - 1),
    "refractory": (0, 64),
    "v_min": (-(1 << 31), (1 << 31) - 1),
    "v_max": (-(1 << 31), (1 << 31) - 1),
}
SYNAPSE_RANGES = {"weight_exp": (-8, 7), "num_weight_bits": (0, 8), "sign_mode": (1, 3), "delay_steps": (0, 62)}


def preset_of(program: Program) -> int:
    """Whose arithmetic a program is written for."""
    found = {int(p.params["preset"]) for p in program.populations.values() if "preset" in p.params}
    if len(found) > 1:
        raise SimulationError(f"a program is of one preset, these populations are of {sorted(found)}")
    return found.pop() if found else LAVA


def effective(projection: Projection, preset: int) -> IntArray:
    """int64[nnz]: what one spike over each synapse adds to u."""
    p = projection.params
    rule = weights.nengo if preset == NENGO else weights.brian2loihi
    return rule(projection.weight_q, int(p["weight_exp"]), int(p["num_weight_bits"]), int(p["sign_mode"]))


def check(program: Program) -> None:
    """Whether a program of a preset other than "lava" keeps the contract above.

    Raises:
        SimulationError: it does not; every violation at once.
    """
    bad: list[str] = []
    for population in program.populations.values():
        if population.model != "input":
            bad += [f"population '{population.name}': {line}" for line in _population(population)]
    for projection in program.projections:
        bad += [f"projection '{projection.name}': {line}" for line in _projection(program, projection)]
    if program.high != 1:
        bad.append(f"input '{program.input}' carries values up to {program.high}; spikes only")
    if bad:
        raise SimulationError("this is no Loihi 1 program", bad)


def _population(population: Population) -> list[str]:
    if population.model not in ("lif", "li"):
        return [f"model '{population.model}' is not one of lif, li"]
    bad = []
    for name, (low, high) in RANGES.items():
        values = population.params.get(name)
        if values is None or values.shape not in ((), (population.size,)):
            bad.append(f"'{name}' must be given, scalar or one per neuron")
        elif values.min() < low or values.max() > high:
            bad.append(f"'{name}' is {values.min()}..{values.max()}, allowed {low}..{high}")
    return bad


def _projection(program: Program, projection: Projection) -> list[str]:
    if projection.kind != "sparse":
        return [f"kind '{projection.kind}', only lists of synapses ('sparse') here"]
    bad = []
    n = projection.weight_q.size
    for name, other in (("row", projection.target), ("col", projection.source)):
        index = projection.params.get(name)
        size = program.populations[other].size
        if index is None or index.shape != (n,) or (n and not 0 <= index.min() <= index.max() < size):
            bad.append(f"'{name}' must hold {n} indices below {size}")
    for name, (low, high) in SYNAPSE_RANGES.items():
        values = projection.params.get(name, np.array(0) if name == "delay_steps" else None)
        if values is None or values.shape not in ((), (n,)):
            bad.append(f"'{name}' is missing or has a wrong shape")
        elif values.size and (values.min() < low or values.max() > high):
            bad.append(f"'{name}' is {values.min()}..{values.max()}, allowed {low}..{high}")
    return bad
