"""BrainChip Akida 2.0: how a `Network` with quantised activations becomes its integers. Data: chips/akida2.toml.

A layer of weights W = unit k per channel, bias b and QuantisedReLU(step, levels) sends clip(floor(acc M 2^-e + 1/2))
of acc = k y + B, so M 2^-e stands for unit / step, B = b / unit is int8 with a shift, and where levels < 127 a
largest acc (uint8 with a shift) clips to exactly ``levels``. Weights that lie on a grid keep it, and M, 8 bits, is
rounded; otherwise the grid is chosen so that M is exact. The last layer sends acc itself.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import ChipError, Violation
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
    window_problems,
    with_kernel,
)
from neuro.hardware.akida.layers import REFUSES, Block, blocks
from neuro.hardware.akida.messages import messages
from neuro.hardware.akida.plain import ORACLES
from neuro.hardware.chip import CHIP_FOLDER, NumberFormat, read_chip
from neuro.hardware.program import Population, Program
from neuro.hardware.quantise import error_of, grid_of, smallest_unit
from neuro.hardware.target import Target
from neuro.hardware.trace import Trace
from neuro.ir import Array, Network

CHIP = read_chip(CHIP_FOLDER / "akida2.toml")
IntArray = NDArray[np.int64]

SUPPORTS: dict[type[ir.Node], str] = {
    ir.Input: "pixels or counted events: 8 bits into an input convolution (1 or 3 channels), else up to 127",
    ir.Output: "reads the sums of the last layer, a Linear; sum, max or last over frames",
    ir.Linear: "dense layer, 4- or 8-bit weights",
    ir.Affine: "dense layer; bias of 8 bits and a shift per channel",
    ir.Conv2d: "convolution with 'same' padding, or depthwise (groups = channels), 4- or 8-bit weights",
    ir.SumPool2d: "folded into the weights behind it",
    ir.AvgPool2d: "folded into the weights behind it",
    ir.MaxPool2d: "2 x 2, behind a convolution or its activation (3 x 3 every 2 too behind the input)",
    ir.QuantisedReLU: "rectifier with a largest value, and a scale of 8 bits and a shift per channel; up to 127 levels",
    ir.Flatten: "no cost, row-major",
    ir.Scale: "folded into the weights",
}
# source of all: brainchip_akida2, in the order of its tables
INPUT = Windows(
    "InputConv2D",
    (3, 4, 5, 7),
    {3: (1, 2, 3), 4: (1, 2, 3, 4), 5: (1, 2, 3, 4, 5), 7: (1, 2, 3, 4, 5, 6)},
    squares((2, 2), (3, 2)),
    valid=True,
)
CONV = Windows("Conv2D", (1, 3, 5, 7), dict.fromkeys((1, 3, 5, 7), (1, 2)), squares((2, 1), (2, 2)))
DEPTHWISE = Windows("DepthwiseConv2D", (3, 5, 7), dict.fromkeys((3, 5, 7), (1, 2)), squares((2, 1), (2, 2)))
INPUT_CHANNELS = (1, 3)
HIDDEN_INPUT = 127
SHIFTS = (-16, 48)  # of a scale, see neuro.hardware.akida.contract


def compile_network(
    network: Network, *, strict: bool = False, max_steps: int | None = None, weight_bits: int = 8
) -> Program:
    """A Network as Akida 2.0 integers.

    Args:
        strict: refuse every approximation but rounding. max_steps: of no account, a step is a frame of its own.
        weight_bits: 4 or 8.

    Raises:
        UnsupportedNode: parts that are no layer, all of them. DoesNotFit: limits exceeded, all of them.
        PrecisionLoss: ``strict`` and a substitution would be needed. ChipError: an option out of range.
    """
    if weight_bits not in (4, 8):
        raise ChipError(f"weight_bits must be 4 or 8, got {weight_bits!r}")
    draft = finish.start(network)
    for block in blocks(network, separable=False, global_pool=False):
        _fit(network, block, weight_bits, draft)
    return finish.program(CHIP, network, draft, strict)


def _fit(network: Network, block: Block, weight_bits: int, draft: finish.Draft) -> None:
    """Put one layer into the draft. One that breaks a limit goes there too, so that all that it asks for is said."""
    kind = _kind(network, block, draft)
    pads = (0, 0, 0, 0)
    if kind is not None and (found := placed(block, kind)) is not None:  # where it is None, a violation says so
        kernel, pads = found
        block = with_kernel(block, kernel)
    fmt = CHIP.formats["weight" if weight_bits == 8 or kind is INPUT else "weight_4"]
    unit, m, e = _scales(block, fmt)
    weight_q = on_grid(block.map.weight, unit, fmt)
    bias, shift = with_shift(np.rint(block.bias / unit), CHIP.formats["bias"])
    bound = sum_bound(weight_q, bias << shift, 0, block.high, 1)
    if bound >= 1 << (CHIP.limit("sum_bits") - 1):
        remedy = "Use fewer inputs, smaller weights or a smaller bias"
        allowed = (1 << (CHIP.limit("sum_bits") - 1)) - 1
        draft.violations.append(Violation(block.name, "largest sum", bound, allowed, remedy))
    draft.budget.append(error_of(block.node, "weight", block.map.weight, times(weight_q, unit), float(unit.max())))
    params: dict[str, IntArray] = dict(pool_params(block))
    if block.bias.any():
        params |= {"bias": bias, "bias_shift": shift}
        kept = (bias << shift) * unit
        draft.budget.append(error_of(block.node, "bias", block.bias, kept, float(unit.max())))
    model = "potential"
    if block.step is not None:
        model = "scaled"
        params |= {"relu": np.array(1), "m": m, "e": e, **_clip(block, m, e, draft)}
        exact = unit / block.step
        draft.budget.append(error_of(block.name, "scale", exact, m * 2.0**-e, float(block.step.max())))
    narrow = [CHIP.formats[n] for n in ("weight_4", "weight")]
    draft.projections.append(projection(block, weight_q, pads, bits_of(weight_q, narrow)))
    draft.populations[block.name] = Population(block.name, block.name, model, shape_of(block, pads), params)
    if (unit == unit[0]).all():
        draft.scale[block.name] = float(unit[0])


def _scales(block: Block, fmt: NumberFormat) -> tuple[Array, IntArray, IntArray]:
    """(unit of the weights, M, e) per channel; one unit for a layer that sends its sums."""
    weight = block.map.weight
    if block.step is None:
        unit = grid_of(weight, fmt) or smallest_unit(weight, fmt) or 1.0
        nothing = np.zeros(len(weight), np.int64)
        return np.full(len(weight), unit), nothing, nothing
    found = np.ones(len(weight))
    m, e = np.zeros(len(weight), np.int64), np.zeros(len(weight), np.int64)
    for channel, row in enumerate(weight):
        step = float(block.step[channel])
        grid = grid_of(row, fmt)
        needed = grid or smallest_unit(row, fmt) or _of_bias(block, channel)
        m[channel], e[channel] = mantissa(needed / step, up=grid is None)
        found[channel] = grid or float(m[channel]) * 2.0 ** -float(e[channel]) * step
    return found, m, e


def _of_bias(block: Block, channel: int) -> float:
    """A unit for a channel whose weights are all 0: one that holds its bias in 7 bits."""
    assert block.step is not None
    return max(abs(float(block.bias[channel])), float(block.step[channel])) / 64


def mantissa(ratio: float, up: bool = False) -> tuple[int, int]:
    """(M, e), M in 128..255 where the shift allows, with M 2^-e nearest to ratio, or with ``up`` the next above."""
    low, high = SHIFTS
    e = min(max(7 - int(np.floor(np.log2(ratio))), low), high)
    m = int(np.ceil(ratio * 2.0**e - 1e-9)) if up else int(np.rint(ratio * 2.0**e))
    if m > 255 and e > low:
        m, e = (m + up) // 2, e - 1
    return min(max(m, 1), 255), e


def with_shift(values: Array, fmt: NumberFormat) -> tuple[IntArray, IntArray]:
    """(mantissa of the format, shift) per channel, the smallest shift that holds the value; nearest, half to even."""
    found = np.zeros((2, len(values)), np.int64)
    for channel, value in enumerate(values):
        shift = 0
        while not fmt.low <= np.rint(value / 2**shift) <= fmt.high:
            shift += 1
        found[:, channel] = int(np.rint(value / 2**shift)), shift
    return found[0], found[1]


def _clip(block: Block, m: IntArray, e: IntArray, draft: finish.Draft) -> dict[str, IntArray]:
    """A largest sum (8 bits and a shift) per channel that the scale makes exactly ``levels``; none for 127."""
    if block.levels == CHIP.limit("activation"):
        return {}
    value, shift = (np.zeros(block.channels, np.int64) for _ in range(2))
    off = []
    for channel in range(block.channels):
        scale = Fraction(int(m[channel])) / Fraction(2) ** int(e[channel])
        least = -(-(block.levels - Fraction(1, 2)) // scale)  # from here on it is rounded to levels or more
        most = -(-(block.levels + Fraction(1, 2)) // scale) - 1  # up to here to levels or less
        value[channel], shift[channel] = _largest_below(int(most), CHIP.formats["max_value"])
        if int(value[channel]) << int(shift[channel]) < least:
            off.append(channel)
    if off:
        draft.substitutions.append(
            f"'{block.name}': {len(off)} of {block.channels} channels never reach level {block.levels}, as a unit of "
            "their sums is worth more than a level, or 8 bits cannot name the largest sum"
        )
    return {"max_value": value, "max_shift": shift}


def _largest_below(most: int, fmt: NumberFormat) -> tuple[int, int]:
    """(mantissa, shift) of the largest number up to ``most`` that the format holds."""
    shift = max(0, max(most, 0).bit_length() - fmt.bits)
    return max(most, 0) >> shift, shift


def _kind(network: Network, block: Block, draft: finish.Draft) -> Windows | None:
    """The kind of layer that holds a block, None for a matrix; its violations go to the draft."""
    bad: list[Violation] = []
    first = block.source == network.input
    fewer = "Use fewer"
    if block.step is not None:
        remedy = "Use 15 levels (4 bits) or 127 (8 bits)"
        bad += at_most(CHIP, "activation", block.name, block.levels, "levels of an activation", remedy)
    bad += at_most(CHIP, "channels", block.node, block.channels, "filters", fewer)
    if block.map.kind != "conv":
        remedy = "Pool more, or use a stride, in front of it"
        bad += at_most(CHIP, "dense_inputs", block.node, block.map.weight.shape[1], "inputs", remedy)
        draft.violations += bad + _input_value(network, block, first)
        return None
    channels, height, width = block.map.in_shape
    if block.step is None:
        remedy = "Let the network end in Flatten and Linear"
        bad.append(Violation(block.node, "last layer", "a convolution", "a Linear", remedy))
    windows = DEPTHWISE if block.map.groups > 1 else CONV
    if first and channels in INPUT_CHANNELS and block.map.groups == 1:
        input_problems = _input_layer(block)
        if block.high > HIDDEN_INPUT or not input_problems:
            draft.violations += [*bad, *input_problems]
            return INPUT
    bad += _input_value(network, block, first)
    bad += at_most(CHIP, "channels", block.node, channels, "input channels", fewer)
    for side, what in ((height, "input height"), (width, "input width")):
        bad += at_most(CHIP, "side", block.node, side, what, "Crop or pool the image")
    draft.violations += [*bad, *window_problems(block, windows)]
    return windows


def _input_value(network: Network, block: Block, first: bool) -> list[Violation]:
    if not first or block.high <= HIDDEN_INPUT:
        return []
    remedy = "Count events up to 127 (Input high=127), or begin with a convolution of 1 or 3 channels"
    return [Violation(network.input, "largest input of this layer", block.high, HIDDEN_INPUT, remedy)]


def _input_layer(block: Block) -> list[Violation]:
    """Limits of an input convolution, which takes unsigned 8 bits."""
    _, height, width = block.map.in_shape
    crop = "Crop, pad or pool the image"
    return [
        *at_least(CHIP, "input_width_low", block.node, width, "input width", crop),
        *at_least(CHIP, "input_height_low", block.node, height, "input height", crop),
        *at_most(CHIP, "input_height_high", block.node, height, "input height", crop),
        *window_problems(block, INPUT),
    ]


def _run(
    program: Program, dense: NDArray[np.uint8], probes: tuple[tuple[str, str], ...] = (), record_spikes: bool = True
) -> Trace:
    from neuro.hardware.akida.kernels import run  # numba loads with the first simulation, not with the compiler

    trace: Trace = run(program, dense, probes, record_spikes)
    return trace


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
