"""What a Loihi 2 `Program` may hold, and the check of it. The arithmetic is in kernels.py.

Populations. Model "input": low, high, the range of what a channel carries in a step, where it is not 0 and 1.
The other models, whose arithmetic is in neurons.py, take integers, scalar or one per neuron (* scalar only):

    "lif", "li"         du 0..4095, dv 0..4096   decays per 4096, as Lava's (u keeps 4095 - du, v keeps 4096 - dv)
                        vth                      threshold mantissa, compared as vth << 6
                        bias_mant, bias_exp      bias = bias_mant << bias_exp, or >> -bias_exp
    "lif_reset"         the same; reset_interval* >= 1, reset_offset*: u = v = 0 before step t, counted from 1,
                        where t and reset_offset leave the same remainder
    "ternary_lif"       the same with vth_hi, vth_lo in place of vth; sends -1, 0, 1
    "sigma"             nothing; sends the sum of all it has received
    "delta"             vth as the process holds it (Lava multiplies by 2^(spike_exp + state_exp)), spike_exp,
                        state_exp, cum_error (0 or 1)
    "sigma_delta"       the same and bias (as held), relu (1 ReLU, 0 identity)
    "rf", "rf_iz"       sin_decay, cos_decay (times 2^decay_bits), decay_bits, state_exp, vth as held

"li" is a readout, LIF with a threshold nothing reaches. Those of `GRADED` send integers, the others 0 and 1.

Projections, all one step late. num_message_bits: 0 or absent, anything but 0 that is sent counts as 1; else what is
sent multiplies the weight. port: 1 for the imaginary input of "rf" and "rf_iz", 0 or absent for any other. t_epoch
and the rest of `learning.RANGES`: a "dense" one that learns.

    "dense"   weight_q [out, in]; weight_exp, num_weight_bits 1..8, sign_mode (1 mixed, 2 excitatory,
              3 inhibitory, 0 guessed from the matrix as Lava does); delay_steps [out, in] or absent
    "sparse"  weight_q [nnz]; row [nnz] target, col [nnz] source, no pair twice; the rest as "dense",
              delay_steps [nnz] or absent
    "conv"    weight_q [out, in / groups, kernel_h, kernel_w] cross-correlation over (C, H, W); stride,
              padding, dilation (h, w); groups

Lava's own names and meanings: lava.proc.{lif,dense,sparse,conv} of lava-nc 0.10.0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.loihi2 import learning
from neuro.hardware.loihi2.learning import learns
from neuro.hardware.loihi2.models import INT32, MODELS, ONE_FOR_ALL, RESONATORS, graded
from neuro.hardware.loihi2.synapses import conv_shape
from neuro.hardware.program import Population, Program, Projection
from neuro.ir import READOUTS

MATRIX_RANGES = {"weight_exp": (-31, 31), "num_weight_bits": (1, 8), "sign_mode": (0, 3)}
CONV_PAIRS = {"stride": 1, "padding": 0, "dilation": 1}
MESSAGE_BITS = (0, 32)


def check(program: Program) -> None:
    """Whether a program keeps the contract above.

    Raises:
        SimulationError: it does not; every violation at once.
    """
    bad = [*_graph(program)]
    for population in program.populations.values():
        bad += [f"population '{population.name}': {line}" for line in _population(program, population)]
    for projection in program.projections:
        bad += [f"projection '{projection.name}': {line}" for line in _projection(program, projection)]
    if bad:
        raise SimulationError("this is not a program that Loihi 2 can run; compile it afresh", bad)


def _graph(program: Program) -> Iterator[str]:
    known = program.populations
    for role, name in (("input", program.input), ("output", program.output)):
        if name not in known:
            yield f"{role} '{name}' is no population. {did_you_mean(name, known)}"
    if program.readout not in READOUTS:
        yield f"readout '{program.readout}' is not one of {READOUTS}"
    elif program.output in known and known[program.output].model == "input" and program.readout != "count":
        yield f"readout '{program.readout}' reads a membrane, which the input '{program.output}' lacks; use 'count'"
    if program.output in known and program.skew.get(program.output, -1) < 0:
        yield f"skew of '{program.output}' must be 0 or more steps, got {program.skew.get(program.output)!r}"


def _outside(name: str, values: np.ndarray, low: int, high: int) -> Iterator[str]:
    if values.size and (values.min() < low or values.max() > high):
        yield f"{name} must lie in {low}..{high}, found {values.min()}..{values.max()}"


def _population(program: Program, population: Population) -> Iterator[str]:
    if population.model == "input":
        if population.name != program.input:
            yield f"a second input; the program's is '{program.input}'"
        for name in ("low", "high"):
            if population.params.get(name, np.array(0)).shape != ():
                yield f"{name} must be a scalar, got shape {population.params[name].shape}"
            else:
                yield from _outside(name, population.params.get(name, np.array(0)), *INT32)
        return
    if population.model not in MODELS:
        why = "; Lava has no fixed-point model with a refractory period" if "refract" in population.model else ""
        yield f"model '{population.model}' is not one of 'input', {', '.join(map(repr, MODELS))}{why}"
        return
    for name in sorted(set(population.params) - set(MODELS[population.model])):
        why = " (Lava has no fixed-point model with a refractory period)" if "refract" in name else ""
        yield f"parameter '{name}' means nothing to model '{population.model}'{why}"
    for name, (low, high) in MODELS[population.model].items():
        if name not in population.params:
            yield f"parameter '{name}' is missing"
            continue
        values = population.params[name]
        if name in ONE_FOR_ALL and values.shape != ():
            yield f"{name} must be a scalar, got shape {values.shape}"
        elif values.shape not in ((), (population.size,)):
            yield f"{name} must be a scalar or [{population.size}], got shape {values.shape}"
        yield from _outside(name, values, low, high)
    core_of = program.placement.core_of.get(population.name)
    if core_of is None or np.shape(core_of) != (population.size,):
        got = "nothing" if core_of is None else f"shape {np.shape(core_of)}"
        yield f"its placement must be a core per neuron, [{population.size}], got {got}"
    else:
        yield from _outside("core", np.asarray(core_of), 0, program.placement.cores - 1)


def _projection(program: Program, projection: Projection) -> Iterator[str]:
    ends = []
    for end in (projection.source, projection.target):
        if end not in program.populations:
            yield f"'{end}' is no population. {did_you_mean(end, program.populations)}"
        else:
            ends.append(program.populations[end])
    if projection.kind not in KINDS:
        yield f"kind '{projection.kind}' is not one of {', '.join(KINDS)}"
    elif len(ends) == 2:
        if ends[1].model == "input":
            yield "ends in an input, which takes no synapses"
        for name in sorted(set(projection.params) - KNOWN[projection.kind]):
            yield f"parameter '{name}' means nothing to kind '{projection.kind}'"
        yield from _common(projection, ends[1])
        if learns(projection):
            yield from learning.problems(projection)
            yield from (f"'{e.name}' sends graded messages, which cannot teach" for e in ends if graded(e))
        yield from KINDS[projection.kind](projection, *ends)


def _common(projection: Projection, target: Population) -> Iterator[str]:
    for name, (low, high) in {"num_message_bits": MESSAGE_BITS, "port": (0, 1)}.items():
        values = projection.params.get(name, np.array(0))
        if values.shape != ():
            yield f"{name} must be a scalar, got shape {values.shape}"
        else:
            yield from _outside(name, values, low, high)
    if projection.params.get("port", np.array(0)).any() and target.model not in RESONATORS:
        yield f"port 1 is the imaginary input of a resonator; '{target.name}' is {target.model!r}"


def _scalars(projection: Projection) -> Iterator[str]:
    for name, (low, high) in MATRIX_RANGES.items():
        if name not in projection.params:
            yield f"parameter '{name}' is missing"
        elif projection.params[name].shape != ():
            yield f"{name} must be a scalar, got shape {projection.params[name].shape}"
        else:
            yield from _outside(name, projection.params[name], low, high)
    if "delay_steps" in projection.params:
        delay, shape = projection.params["delay_steps"], projection.weight_q.shape
        if delay.shape != shape:
            yield f"delay_steps must have the shape of the weights, {shape}, got {delay.shape}"
        yield from _outside("delay_steps", delay, 0, INT32[1] - 1)


def _dense(projection: Projection, source: Population, target: Population) -> Iterator[str]:
    yield from _scalars(projection)
    if projection.weight_q.shape != (target.size, source.size):
        yield f"weights must be [{target.size}, {source.size}], got shape {projection.weight_q.shape}"


def _sparse(projection: Projection, source: Population, target: Population) -> Iterator[str]:
    yield from _scalars(projection)
    if projection.weight_q.ndim != 1:
        yield f"weights must be a vector, got shape {projection.weight_q.shape}"
    ends = []
    for name, size in (("row", target.size), ("col", source.size)):
        index = projection.params.get(name)
        if index is None or index.shape != projection.weight_q.shape:
            got = "nothing" if index is None else f"shape {index.shape}"
            yield f"{name} must have the shape of the weights, {projection.weight_q.shape}, got {got}"
        else:
            yield from _outside(name, index, 0, size - 1)
            ends.append(index)
    if len(ends) == 2 and ends[0].ndim == 1:
        twice = ends[0].size - len(np.unique(ends[0] * source.size + ends[1]))
        if twice:
            yield f"{twice} (row, col) pair(s) are given twice; add their weights first"


def _conv(projection: Projection, source: Population, target: Population) -> Iterator[str]:
    weight, params = projection.weight_q, projection.params
    bad = []
    for name, least in CONV_PAIRS.items():
        if name not in params or params[name].shape != (2,) or params[name].min() < least:
            bad.append(f"{name} must be two integers >= {least}, got {params.get(name)}")
    groups = params.get("groups")
    if weight.ndim != 4 or len(source.shape) != 3 or len(target.shape) != 3:
        bad.append(
            f"needs weights [out, in / groups, kernel_h, kernel_w] between populations (channel, height, width), "
            f"got {weight.shape} from {source.shape} to {target.shape}"
        )
    elif groups is None or groups.shape != () or groups < 1 or weight.shape[0] % int(groups):
        bad.append(f"groups must be one positive divisor of {weight.shape[0]} output channels, got {groups}")
    elif source.shape[0] != weight.shape[1] * int(groups):
        bad.append(f"weights take {weight.shape[1] * int(groups)} channels, the source has {source.shape[0]}")
    elif not bad and conv_shape(source.shape, projection) != target.shape:
        bad.append(f"makes shape {conv_shape(source.shape, projection)}, the target has {target.shape}")
    yield from bad
    yield from _outside("weights", weight, *INT32)


KINDS = {"dense": _dense, "sparse": _sparse, "conv": _conv}
_ANY = {"num_message_bits", "port"}
KNOWN = {
    "dense": _ANY | {*MATRIX_RANGES, "delay_steps", *learning.RANGES},
    "sparse": _ANY | {*MATRIX_RANGES, "delay_steps", "row", "col"},
    "conv": _ANY | {*CONV_PAIRS, "groups"},
}
