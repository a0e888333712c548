"""BrainChip Akida 1.0: how a `Network` with quantised activations becomes its integers. Data: chips/akida1.toml.

A layer of weights W (reals; W = unit k per channel), bias b and QuantisedReLU(step, levels = 2^bits - 1) sends
floor(x / step + 1/2) of x = unit k y + b. With P = k y the chip sends clip(ceil((P - T) / s), 0, levels), where

    s = step / unit,  T = (step / 2 - b) / unit - (something in 0..1)

T is whole. T and s are chosen together, so that as many of the whole P as can be fall on the right side of T + n s.
s is referred to 4 bits and kept as float32, as the chip stores it: act_step = s 2^(bits - 4).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, UnsupportedNode, Violation
from neuro.hardware.akida import finish
from neuro.hardware.akida.fit import (
    Windows,
    at_least,
    at_most,
    bits_of,
    on_grid,
    placed,
    pool_params,
    projection,
    shape_of,
    squares,
    sum_bound,
    times,
    units,
    window_problems,
    with_kernel,
)
from neuro.hardware.akida.layers import REFUSES, Block, averaged, blocks
from neuro.hardware.akida.messages import messages
from neuro.hardware.akida.plain import ORACLES
from neuro.hardware.chip import CHIP_FOLDER, read_chip
from neuro.hardware.program import Population, Program
from neuro.hardware.quantise import error_of
from neuro.hardware.target import Target
from neuro.hardware.trace import Trace
from neuro.ir import Array, Network

CHIP = read_chip(CHIP_FOLDER / "akida1.toml")
IntArray = NDArray[np.int64]

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "pixels or counted events: 8 bits into an input convolution (1 or 3 channels), else 4 bits",
    ir.Output: "reads the potentials of the last layer; sum, max or last over frames",
    ir.Linear: "fully connected layer, 2- or 4-bit weights",
    ir.Affine: "as Linear; the bias goes into the threshold, so the last layer may have none",
    ir.Conv2d: "convolution with 'same' padding, 2- or 4-bit weights (8 bits behind the input)",
    ir.SumPool2d: "folded into the weights behind it; over the whole image in front of an activation: global pool",
    ir.AvgPool2d: "folded into the weights behind it; over the whole image in front of an activation: global pool",
    ir.MaxPool2d: "2 x 2, behind a convolution or its activation",
    ir.QuantisedReLU: "activation codes of 1, 2 or 4 bits (levels 1, 3, 15)",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the weights",
}
# source of all: brainchip_akida1, in the order of its tables
INPUT = Windows(
    "InputConvolutional",
    (3, 5, 7),
    dict.fromkeys((3, 5, 7), (1, 2, 3)),
    tuple(((h, w), (h, w)) for h in (1, 2) for w in (1, 2)),
    valid=True,
)
CONV = Windows("Convolutional", (1, 3, 5, 7), dict.fromkeys((1, 3, 5, 7), (1, 2)), squares((1, 1), (2, 1), (2, 2)))
DEPTHWISE = Windows("SeparableConvolutional", (3, 5, 7), dict.fromkeys((3, 5, 7), (1, 2)), ())
INPUT_CHANNELS = (1, 3)
INPUT_FILTERS = {1: {3: 512, 5: 192, 7: 96}, 3: {3: 192, 5: 64, 7: 32}}  # channels -> kernel -> most filters
CODES = (1, 2, 4)  # bits of an activation
HIDDEN_INPUT = 15  # 4 bits


def compile_network(
    network: Network, *, strict: bool = False, max_steps: int | None = None, weight_bits: int = 4
) -> Program:
    """A Network as Akida 1.0 integers.

    Args:
        strict: refuse every approximation but rounding. max_steps: of no account, a step is a frame of its own.
        weight_bits: 2 or 4, of all layers but an input convolution, whose weights have 8.

    Raises:
        UnsupportedNode: parts that are no layer, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    if weight_bits not in (2, 4):
        raise ChipError(f"weight_bits must be 2 or 4, got {weight_bits!r}")
    found = blocks(network, separable=True, global_pool=True)
    _refuse_readout_bias(found)
    draft = finish.start(network)
    unit_of: dict[str, float] = {}  # of layers that send potentials
    reach: dict[str, int] = {}
    for part in found:
        block = part
        if part.source in unit_of:  # the second half of a separable convolution
            weight = part.map.weight * unit_of[part.source]
            block = replace(part, map=replace(part.map, weight=weight), high=reach[part.source])
        fitted = _fit(network, block, weight_bits, draft)
        if block.step is None:
            unit_of[block.name], reach[block.name] = fitted
    return finish.program(CHIP, network, draft, strict)


def _refuse_readout_bias(found: tuple[Block, ...]) -> None:
    last = found[-1]
    if last.step is None and last.bias.any():
        raise UnsupportedNode(
            "these parts of the network are no Akida layers",
            [
                f"'{last.node}' has a bias, which lives in a threshold, but the last layer sends raw potentials "
                "without one; train it without bias"
            ],
        )


def _fit(network: Network, block: Block, weight_bits: int, draft: finish.Draft) -> tuple[float, int]:
    """Put one layer into the draft; (reals per integer, largest magnitude) of its potentials.

    A layer that breaks a limit goes there too, so that all that it asks for is said at once."""
    kind = _kind(network, block, draft)
    pads = (0, 0, 0, 0)
    if kind is not None and (found := placed(block, kind)) is not None:  # where it is None, a violation says so
        kernel, pads = found
        block = with_kernel(block, kernel)
    fmt = CHIP.formats["weight_input" if kind is INPUT else "weight" if weight_bits == 4 else "weight_2"]
    unit = units(block.map.weight, fmt, each=block.step is not None)
    weight_q = on_grid(block.map.weight, unit, fmt)
    worth = unit * averaged(network, block)  # of one unit of the potential, behind a global average
    draft.budget.append(error_of(block.node, "weight", block.map.weight, times(weight_q, unit), float(unit.max())))
    low = -block.high if block.signed else 0
    bound = sum_bound(weight_q, np.zeros(len(unit), np.int64), low, block.high, block.area)
    if bound >= 1 << (CHIP.limit("potential_bits") - 1):
        remedy = "Use fewer inputs or smaller weights"
        allowed = (1 << (CHIP.limit("potential_bits") - 1)) - 1
        draft.violations.append(Violation(block.name, "largest potential", bound, allowed, remedy))
    params: dict[str, IntArray] = dict(pool_params(block))
    model = "potential"
    if block.step is not None:
        model = "code"
        params |= _codes(block, worth, draft)
    narrow = [CHIP.formats[n] for n in ("weight_2", "weight", "weight_input")]
    draft.projections.append(projection(block, weight_q, pads, bits_of(weight_q, narrow)))
    draft.populations[block.name] = Population(block.name, block.name, model, shape_of(block, pads), params)
    if block.step is None or (worth == worth[0]).all():
        draft.scale[block.name] = float(worth[0])
    return float(worth[0]), bound


def _kind(network: Network, block: Block, draft: finish.Draft) -> Windows | None:
    """The kind of layer that holds a block, None for a matrix; its violations go to the draft."""
    bad: list[Violation] = []
    if block.step is not None and block.levels not in tuple((1 << b) - 1 for b in CODES):
        bad.append(
            Violation(block.name, "levels of an activation", block.levels, "1, 3 or 15", "Use a code of 1, 2 or 4 bits")
        )
    first = block.source == network.input
    if block.map.kind != "conv":
        remedy = "Pool more, or use a stride, in front of it"
        bad += at_most(CHIP, "dense_inputs", block.node, block.map.weight.shape[1], "inputs", remedy)
        draft.violations += bad + _input_value(network, block, first)
        return None
    windows = DEPTHWISE if block.map.groups > 1 else CONV
    if first and block.map.in_shape[0] in INPUT_CHANNELS and block.map.groups == 1:
        input_problems = _input_layer(block)
        if block.high > HIDDEN_INPUT or not input_problems:  # else a hidden layer may take its few bits
            draft.violations += [*bad, *input_problems]
            return INPUT
    bad += _input_value(network, block, first)
    draft.violations += [*bad, *window_problems(block, windows)]
    if block.area > 1:
        height, width = block.map.out_shape[1:] if len(block.map.out_shape) == 3 else (1, 1)
        remedy = "Pool in front of it"
        draft.violations += at_most(CHIP, "gap_side", block.name, width, "width of a global average", remedy)
        draft.violations += at_most(CHIP, "gap_area", block.name, height * width, "area of a global average", remedy)
    return windows


def _input_value(network: Network, block: Block, first: bool) -> list[Violation]:
    if not first or block.high <= HIDDEN_INPUT:
        return []
    remedy = "Count events up to 15 (Input high=15), or begin with a convolution of 1 or 3 channels"
    return [Violation(network.input, "largest input of this layer", block.high, HIDDEN_INPUT, remedy)]


def _input_layer(block: Block) -> list[Violation]:
    """Limits of an input convolution, which takes 8 bits, beyond its windows."""
    (channels, height, width), filters = block.map.in_shape, len(block.map.weight)
    crop = "Crop, pad or pool the image"
    bad = [
        *at_least(CHIP, "input_width_low", block.node, width, "input width", crop),
        *at_most(CHIP, "input_width_high", block.node, width, "input width", crop),
        *at_least(CHIP, "input_height_low", block.node, height, "input height", crop),
        *window_problems(block, INPUT),
    ]
    side = max(block.map.weight.shape[2:])
    most = next((n for k, n in INPUT_FILTERS[channels].items() if k >= side), filters)  # beyond 7 x 7: said above
    if filters > most:
        bad.append(Violation(block.node, f"filters of {side} x {side} behind the input", filters, most, "Use fewer"))
    if block.area > 1:
        remedy = "Put it behind a second convolution, or count events up to 15 (Input high=15)"
        bad.append(Violation(block.name, "global average behind the input convolution", block.area, 1, remedy))
    return bad


class Thresholds(NamedTuple):
    """threshold: int64[channels]. step: float32[channels], the distance of two thresholds referred to 4 bits.

    off: thresholds, of all channels, that lie one whole potential or more from the wanted ones."""

    threshold: IntArray
    step: NDArray[np.float32]
    off: IntArray


def thresholds(first: Array, distance: Array, bits: int) -> Thresholds:
    """Whole thresholds T and steps s such that P > T + n s says P >= first + n distance, as nearly as can be.

    With T whole, P > T + n s means P >= T + floor(n s) + 1. Tried are the three whole T around ``first``, and as s
    the distance itself and, for each n, the least that puts threshold n where it is wanted.
    """
    n = np.arange((1 << bits) - 1)
    wanted = np.ceil(np.round(first[:, None] + n * distance[:, None], 9))  # least P that should count
    best = np.full(len(first), np.inf)
    chosen, step = np.zeros(len(first), np.int64), np.zeros(len(first), np.float32)
    for k in (-1, 0, 1):
        t = np.floor(first) + k
        least = (wanted - t[:, None] - 1)[:, 1:] / np.maximum(n[1:], 1)
        for s in (distance, *least.T):
            given = np.maximum(s, distance / 2) * 2.0 ** (bits - 4)
            stored = given.astype(np.float32)
            stored = np.where(stored < given, np.nextafter(stored, np.float32(np.inf)), stored)
            real = stored.astype(np.float64) * 2.0 ** (4 - bits)
            wrong = np.abs(np.floor(t[:, None] + n * real[:, None]) + 1 - wanted).sum(1)
            better = wrong < best
            best[better], chosen[better], step[better] = wrong[better], t[better].astype(np.int64), stored[better]
    return Thresholds(chosen, step, best.astype(np.int64))


def _codes(block: Block, worth: Array, draft: finish.Draft) -> dict[str, IntArray]:
    assert block.step is not None
    bits = block.levels.bit_length()
    first, distance = (block.step / 2 - block.bias) / worth, block.step / worth
    limits = CHIP.formats["threshold"]
    if np.abs(first).max() >= limits.high:
        remedy = "The bias is beyond what the weights can reach: remove the channel or its bias"
        wanted = f"{np.abs(first).max():.3g}"
        draft.violations.append(Violation(block.name, "threshold", wanted, limits.high, remedy))
        first = np.clip(first, limits.low + 2, limits.high - 2)
    found = thresholds(first, distance, bits)
    share = float(found.off.sum()) / (len(first) * block.levels)
    got = found.threshold + found.step.astype(np.float64) * 2.0 ** (4 - bits) * 0.5
    note = f"{share:.1%} of the thresholds are one potential off: they are whole numbers"
    draft.budget.append(
        error_of(block.name, "threshold", first + distance * 0.5, got, float(worth.max()), note if share else "")
    )
    mantissa, exponent = np.frexp(found.step.astype(np.float64))
    return {
        "threshold": found.threshold,
        "act_bits": np.array(bits),
        "step_mantissa": (mantissa * 2**24).astype(np.int64),
        "step_exponent": exponent.astype(np.int64) - 24,
    }


def _run(
    program: Program, dense: NDArray[np.uint8], probes: tuple[tuple[str, str], ...] = (), record_spikes: bool = True
) -> Trace:
    from neuro.hardware.akida.kernels import run  # numba loads with the first simulation, not with the compiler

    trace: Trace = run(program, dense, probes, record_spikes)
    return trace


assert math.isclose(CHIP.limit("activation_bits"), max(CODES))
TARGET = Target(
    chip=CHIP,
    compile=compile_network,
    run=_run,
    supports=SUPPORTS,
    oracles=ORACLES,
    membrane="",
    high=CHIP.limit("input_value"),
    refuses=REFUSES,
    messages=messages,
)
