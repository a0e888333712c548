"""What a SpiNNaker 2 Program means, and its check.

Programs hold integers only: a parameter that the chip holds as float32 stands there as its bit pattern, read as int32
(`bits`, `reals`). Populations, one value or one per neuron; models with "curr_exp" have a synaptic current, those
without "no_delay" and "conv2d" have delays:

    alpha_decay, i_offset, threshold, v_reset, v_init   float32 bits; in units of the weights
    exc_decay, inh_decay                                float32 bits, only with curr_exp
    reset                                               0 reset_to_v_reset, 1 reset_by_subtraction
    v_unit                                              float32 bits: reals of the Network per unit of v

One step, every operation rounded to float32; e, h the sums of excitatory and inhibitory weights that arrive::

    curr_exp     i_exc = exc_decay i_exc + e;  i_inh = inh_decay i_inh + h;  x = i_exc - i_inh
    else         x = e - h
    v = (alpha_decay v + i_offset) + x
    spike where v > threshold;  v = v - threshold, or v = v_reset

A spike of step t arrives in step t + 1 + delay. Projections: "dense" weight_q [out, in]; "sparse" weight_q [synapses]
with ``row`` (target) and ``col`` (source); both may have ``delay_steps`` of weight_q's shape, 0..7; "conv" weight_q
[out, in, kernel_h, kernel_w] with ``stride``, ``padding``, ``dilation``, ``groups``.

Variables to probe: "v", a whole number of `Program.scale` (rounded, kept within int32); "v_bits", "exc_bits",
"inh_bits", the float32 bits themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import SimulationError
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.program import Population, Program, Projection

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
CHIP: Chip = read_chip(CHIP_FOLDER / "spinnaker2.toml")
NO_DELAY = ("lif_no_delay", "lif_curr_exp_no_delay", "lif_conv2d")
MODELS = ("lif", "lif_curr_exp", *NO_DELAY)
FLOATS = ("alpha_decay", "i_offset", "threshold", "v_reset", "v_init", "v_unit")
DECAYS = ("exc_decay", "inh_decay")
TO_V_RESET, BY_SUBTRACTION = 0, 1
VARIABLES = ("v", "v_bits", "exc_bits", "inh_bits")
KINDS = ("dense", "sparse", "conv")


def bits(values: ArrayLike) -> Int32:
    """Real numbers as the bit patterns of the nearest float32."""
    return np.asarray(values, np.float32).view(np.int32)


def reals(patterns: ArrayLike, n: int) -> Float32:
    """float32[n] from one bit pattern or n of them."""
    return np.broadcast_to(np.asarray(patterns).astype(np.int32), (n,)).copy().view(np.float32)


def floats_of(model: str) -> tuple[str, ...]:
    """Names of the float32 parameters of a model."""
    return (*FLOATS, *(DECAYS if "curr_exp" in model else ()))


def check(program: Program) -> None:
    """Refuse a program that breaks the contract, since kernels trust what they are given.

    Raises:
        SimulationError: every violation.
    """
    bad: list[str] = []
    for p in program.populations.values():
        if p.model != "input":
            bad += _population_problems(program, p)
    for projection in program.projections:
        bad += _projection_problems(program, projection)
    if bad:
        raise SimulationError("this is no program for SpiNNaker 2", bad)


def _population_problems(program: Program, p: Population) -> list[str]:
    if p.model not in MODELS:
        return [f"'{p.name}' has model '{p.model}', not one of {', '.join(MODELS)}"]
    bad = []
    for name in (*floats_of(p.model), "reset"):
        values = p.params.get(name)
        if values is None:
            bad.append(f"'{p.name}' lacks the parameter '{name}'")
        elif values.size not in (1, p.size):
            bad.append(f"'{p.name}' {name} must be one value or {p.size}, got {values.size}")
        elif name == "reset":
            if not np.isin(values, (TO_V_RESET, BY_SUBTRACTION)).all():
                bad.append(f"'{p.name}' reset must be {TO_V_RESET} or {BY_SUBTRACTION}")
        elif values.min() < -(1 << 31) or values.max() >= 1 << 31:
            bad.append(f"'{p.name}' {name} must hold 32-bit patterns")
        elif not np.isfinite(reals(values, p.size)).all():
            bad.append(f"'{p.name}' {name} must be finite")
    cores = program.placement.core_of.get(p.name, np.zeros(0, np.int64))
    if cores.shape != (p.size,) or (cores.size and not 0 <= cores.min() <= cores.max() < program.placement.cores):
        bad.append(f"'{p.name}' needs an existing core for each of its {p.size} neurons")
    if p.name not in program.scale or not 0 < program.scale[p.name] < np.inf:
        bad.append(f"'{p.name}' needs a positive scale")
    return bad


def _projection_problems(program: Program, p: Projection) -> list[str]:
    if p.kind not in KINDS or p.source not in program.populations or p.target not in program.populations:
        return [f"'{p.name}' must be one of {KINDS} between two populations"]
    source, target = program.populations[p.source], program.populations[p.target]
    if target.model == "input":
        return [f"'{p.name}' ends in the input"]
    fmt = CHIP.formats["weight" if target.model in NO_DELAY else "weight_delayed"]
    bad = []
    if p.weight_q.size and not fmt.low <= p.weight_q.min() <= p.weight_q.max() <= fmt.high:
        bad.append(f"'{p.name}' has weights beyond {fmt.low}..{fmt.high}, which '{target.model}' holds")
    delay = p.params.get("delay_steps", np.zeros(1, np.int64))
    longest = 0 if target.model in NO_DELAY else CHIP.limit("delay_steps")
    if delay.size and not 0 <= delay.min() <= delay.max() <= longest:
        bad.append(f"'{p.name}' has delays beyond 0..{longest}, which '{target.model}' holds")
    if "delay_steps" in p.params and p.params["delay_steps"].shape != p.weight_q.shape:
        bad.append(f"'{p.name}' delay_steps must have the shape of its weights")
    if (p.kind == "conv") != (target.model == "lif_conv2d"):
        bad.append(f"'{p.name}' is {p.kind}; kernels go to lif_conv2d, and nothing else does")
    if p.kind == "dense" and p.weight_q.shape != (target.size, source.size):
        bad.append(f"'{p.name}' must be [{target.size}, {source.size}], got {p.weight_q.shape}")
    if p.kind == "sparse":
        for name, size in (("row", target.size), ("col", source.size)):
            index = p.params.get(name)
            if index is None or index.shape != p.weight_q.shape or (
                index.size and not 0 <= index.min() <= index.max() < size
            ):  # fmt: skip
                bad.append(f"'{p.name}' {name} must name a neuron of 0..{size - 1} for each synapse")
    if p.kind == "conv":
        bad += _conv_problems(p, source, target)
    return bad


def _conv_problems(p: Projection, source: Population, target: Population) -> list[str]:
    missing = [n for n in ("stride", "padding", "dilation", "groups") if n not in p.params]
    if missing or p.weight_q.ndim != 4 or len(source.shape) != 3 or len(target.shape) != 3:
        return [f"'{p.name}' needs a kernel of 4 axes between planes, stride, padding, dilation and groups"]
    (stride, padding, dilation), groups = (p.params[n] for n in ("stride", "padding", "dilation")), p.params["groups"]
    out = [
        (source.shape[1 + i] + 2 * int(padding[i]) - int(dilation[i]) * (p.weight_q.shape[2 + i] - 1) - 1)
        // int(stride[i]) + 1
        for i in (0, 1)
    ]  # fmt: skip
    if int(groups) != 1 or p.weight_q.shape[1] != source.shape[0] or (p.weight_q.shape[0], *out) != target.shape:
        return [f"'{p.name}': a kernel {p.weight_q.shape} takes {source.shape} to {(p.weight_q.shape[0], *out)}, "
                f"not {target.shape}; groups must be 1"]  # fmt: skip
    return []
