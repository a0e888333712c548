"""What an Akida `Program` may hold, and the check of it. The arithmetic is in kernels.py, and apart in plain.py.

Nothing has a state: every step is a frame of its own. A population is a layer, its values ("s") are what the layer
sends; ``floor`` rounds towards minus infinity, all numbers are integers::

    acc = sum over projections of W x + (bias << bias_shift)       cross-correlation, or a matrix
    acc = max over the windows of pool_kernel, pool_stride, pool_pads  (padding never wins, incomplete windows dropped)
    acc = max(acc, 0) where relu; min(acc, max_value << max_shift) where there is a max_value
    acc = lut[i mod 2048], i = clip(floor(acc m_act 2^-e_act + 1/2), -1024, 1023), where there is a lut
    p   = sum of acc over the image where gap, else acc            the probe "p"
    s   = p                                                        model "potential"
          clip(floor(p m 2^-e + 1/2), -128, 127)                   model "scaled", Akida 2.0
          clip(ceil((p - threshold) / step), 0, 2^act_bits - 1)    model "code", Akida 1.0

with step = step_mantissa 2^(step_exponent + 4 - act_bits), the float32 act_step as the rational that it is.

Populations. Model "input": high, the largest value. Of the others, scalar or one per channel (first axis of the
shape): bias, bias_shift, max_value, max_shift, m_act, e_act, m, e, threshold, step_mantissa, step_exponent; scalar:
relu, gap, act_bits; pairs (h, w): pool_kernel, pool_stride; pool_pads (top, left, bottom, right); lut [2048].

Projections. "conv": weight_q [out, in / groups, kernel_h, kernel_w]; stride (h, w), pads (top, left, bottom, right),
groups, pad_value [in] or absent (0). "dense": weight_q [out, in], in flat and row-major. Both: bits, of a weight in
memory. Several projections into one population add up (the Add layer: 1 x 1 kernels, groups = channels).

image: "sequence_of_core" [cores] which sequence a core belongs to, "sequence_bytes" [sequences] weights of each: a
model too large for the chip is loaded part by part, each frame passing through all parts.

Sources: quantizeml 1.2 (Apache-2.0) and the public user guide, doc.brainchipinc.com.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.akida.geometry import Geometry, geometry_of
from neuro.hardware.program import IntArray, Population, Program, Projection
from neuro.ir import READOUTS

MODELS = ("input", "potential", "scaled", "code")
INT32 = (-(1 << 31), (1 << 31) - 1)
LUT_SIZE = 2048
SCALED = (-128, 127)
PER_CHANNEL = {
    "bias": INT32,
    "bias_shift": (0, 31),
    "max_value": (0, INT32[1]),
    "max_shift": (0, 31),
    "m_act": (0, 255),
    "e_act": (-16, 48),
    "m": (0, 255),
    "e": (-16, 48),
    "threshold": INT32,
    "step_mantissa": (1, (1 << 24) - 1),
    "step_exponent": (-160, 128),
}
SCALARS = {"relu": (0, 1), "gap": (0, 1), "act_bits": (1, 4)}
VECTORS = {"pool_kernel": (2, 1), "pool_stride": (2, 1), "pool_pads": (4, 0)}  # length, least
NEEDS = {"scaled": ("m", "e"), "code": ("threshold", "step_mantissa", "step_exponent", "act_bits")}
CONV = {"stride": (2, 1), "pads": (4, 0)}


def check(program: Program) -> None:
    """Whether a program keeps the contract above.

    Raises:
        SimulationError: it does not; every violation at once.
    """
    bad = [*_graph(program)]
    for population in program.populations.values():
        bad += [f"population '{population.name}': {line}" for line in _population(population)]
    for projection in program.projections:
        bad += [f"projection '{projection.name}': {line}" for line in _projection(program, projection)]
    if not bad:
        bad += [*_sizes(program)]
    if not bad:
        bad += [*_range_problems(program)]
    if bad:
        raise SimulationError(f"this is not a program that {program.chip} can run; compile it afresh", bad)


def _graph(program: Program) -> Iterator[str]:
    known = program.populations
    for role, name in (("input", program.input), ("output", program.output)):
        if name not in known:
            yield f"{role} '{name}' is no population. {did_you_mean(name, known)}"
    if program.readout not in READOUTS or program.readout == "count":
        yield f"readout must be 'sum', 'max' or 'last', got '{program.readout}'"
    if any(program.skew.values()):
        yield "nothing lags on Akida: all skews must be 0"
    seen: set[str] = set()
    for name, population in known.items():
        sources = [p.source for p in program.into(name)]
        if population.model == "input" and (sources or name != program.input):
            yield f"'{name}' is an input beside '{program.input}', or something feeds it"
        if population.model != "input" and not sources:
            yield f"nothing feeds '{name}'"
        if not set(sources) <= seen:
            yield f"'{name}' comes before what feeds it ({', '.join(sources)})"
        seen.add(name)


def _within(name: str, values: IntArray, low: int, high: int) -> Iterator[str]:
    if values.size and (values.min() < low or values.max() > high):
        yield f"{name} must lie in {low}..{high}, found {values.min()}..{values.max()}"


def _population(population: Population) -> Iterator[str]:
    params = population.params
    if population.model not in MODELS:
        yield f"model '{population.model}' is unknown. {did_you_mean(population.model, MODELS)}"
        return
    if population.model == "input":
        yield from _within("high", np.atleast_1d(params.get("high", np.array(1))), 1, 255)
        yield from _within("low", np.atleast_1d(params.get("low", np.array(0))), 0, 0)
        return
    known = {*PER_CHANNEL, *SCALARS, *VECTORS, "lut"}
    yield from (f"'{name}' is unknown. {did_you_mean(name, known)}" for name in params if name not in known)
    yield from (f"'{name}' is missing" for name in NEEDS.get(population.model, ()) if name not in params)
    for name, (low, high) in PER_CHANNEL.items():
        if name in params:
            if params[name].shape not in ((), (population.shape[0],)):
                yield f"{name} must be one value or one per channel, got shape {params[name].shape}"
            yield from _within(name, params[name], low, high)
    for name, (low, high) in SCALARS.items():
        if name in params:
            if params[name].shape != ():
                yield f"{name} must be one value, got shape {params[name].shape}"
            yield from _within(name, params[name], low, high)
    yield from _vectors(params, VECTORS)
    if "lut" in params and (params["lut"].shape != (LUT_SIZE,) or "m_act" not in params or "e_act" not in params):
        yield f"lut must hold {LUT_SIZE} values, with m_act and e_act beside it"
    if ("pool_kernel" in params) != ("pool_stride" in params) or ("pool_pads" in params) > ("pool_kernel" in params):
        yield "pool_kernel and pool_stride belong together, and pool_pads to them"
    elif (
        "pool_pads" in params
        and (params["pool_pads"].shape, params["pool_kernel"].shape) == ((4,), (2,))
        and (params["pool_pads"] >= np.tile(params["pool_kernel"], 2)).any()
    ):
        yield "pool_pads must be smaller than pool_kernel, or a window would see nothing"


def _vectors(params: Mapping[str, IntArray], table: dict[str, tuple[int, int]]) -> Iterator[str]:
    for name, (length, least) in table.items():
        if name in params:
            values = params[name]
            if values.shape != (length,) or values.min() < least or values.max() > 1 << 12:
                yield f"{name} must be {length} integers in {least}..4096, got {values.tolist()!r:.60}"


def _projection(program: Program, projection: Projection) -> Iterator[str]:
    for end in (projection.source, projection.target):
        if end not in program.populations:
            yield f"'{end}' is no population. {did_you_mean(end, program.populations)}"
            return
    weight, params = projection.weight_q, projection.params
    source = program.populations[projection.source]
    yield from _within("weight_q", weight, *INT32)
    if projection.kind == "dense":
        if weight.ndim != 2 or weight.shape[1] != source.size:
            yield f"weight_q must be [out, {source.size}], got {weight.shape}"
        return
    if projection.kind != "conv":
        yield f"kind '{projection.kind}' is unknown. {did_you_mean(projection.kind, ('conv', 'dense'))}"
        return
    missing = [n for n in (*CONV, "groups") if n not in params]
    if missing or weight.ndim != 4 or len(source.shape) != 3:
        yield f"a convolution of [channel, height, width] needs a kernel of 4 axes; missing: {missing}"
        return
    yield from _vectors(params, CONV)
    groups = int(params["groups"]) if params["groups"].shape == () else 0
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != source.shape[0]:
        yield f"weight_q {weight.shape} with groups {groups} does not suit {source.shape[0]} channels"
    if "pad_value" in params and params["pad_value"].shape != (source.shape[0],):
        yield f"pad_value must be [{source.shape[0]}], got shape {params['pad_value'].shape}"
    elif "pad_value" in params:
        yield from _within("pad_value", params["pad_value"], -255, 255)


def _sizes(program: Program) -> Iterator[str]:
    for population in program.populations.values():
        found = {geometry_of(program, p).after(population).shape for p in program.into(population.name)}
        wanted = population.shape if len(population.shape) == 3 else (population.shape[0], 1, 1)
        yield from (
            f"population '{population.name}' is {population.shape}, its weights and pools give {shape}"
            for shape in found
            if shape != wanted
        )


def _range_problems(program: Program) -> Iterator[str]:
    for name, (low, high) in accumulator_ranges(program).items():
        if low < INT32[0] or high > INT32[1]:
            yield f"population '{name}': a potential may reach {low}..{high}, beyond 32 bits"


def accumulator_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """population -> smallest and largest potential that any input can cause, or any step on the way to it."""
    sent: dict[str, tuple[int, int]] = {}
    found: dict[str, tuple[int, int]] = {}
    for population in program.populations.values():
        if population.model == "input":
            sent[population.name] = (0, int(population.params.get("high", np.array(1))))
            continue
        low = high = 0
        area = 1
        for projection in program.into(population.name):
            geometry = geometry_of(program, projection)
            least, most = _reach(projection, sent[projection.source])
            low, high, area = low + least, high + most, _area(geometry, population)
        shift = population.params.get("bias_shift", np.array(0))
        bias = population.params.get("bias", np.array(0)).astype(object) << shift.astype(object)
        low, high = low + int(np.min(bias)), high + int(np.max(bias))
        widest = (min(low, 0), max(high, 0))
        if population.params.get("relu", np.array(0)):
            low, high = 0, max(high, 0)
        if "lut" in population.params:
            low, high = int(population.params["lut"].min()), int(population.params["lut"].max())
        low, high = min(low, low * area), max(high, high * area)
        found[population.name] = (min(low, widest[0]), max(high, widest[1]))
        sent[population.name] = {
            "potential": (low, high),
            "scaled": (max(SCALED[0], low), SCALED[1]),
            "code": (0, (1 << int(population.params.get("act_bits", np.array(4)))) - 1),
        }[population.model]
    return found


def _reach(projection: Projection, sent: tuple[int, int]) -> tuple[int, int]:
    """The smallest and largest sum of one output."""
    pad = projection.params.get("pad_value", np.zeros(1, np.int64))
    low, high = min(sent[0], int(pad.min()), 0), max(sent[1], int(pad.max()), 0)
    weight = projection.weight_q.reshape(len(projection.weight_q), -1)
    up, down = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    least = min(int(u) * low + int(d) * high for u, d in zip(up, down, strict=True))
    most = max(int(u) * high + int(d) * low for u, d in zip(up, down, strict=True))
    return least, most


def _area(geometry: Geometry, population: Population) -> int:
    """Positions that GAP sums, 1 without it."""
    if not population.params.get("gap", np.array(0)):
        return 1
    return geometry.before_gap(population)
