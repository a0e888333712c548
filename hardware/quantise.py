"""From reals to a chip's integers: rounding, saturation, grids, mantissa and exponent, and what it cost.

Integers that stand for reals carry the size of one unit (``unit``): real = unit * integer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.hardware.chip import NumberFormat
from neuro.hardware.program import QuantisationError
from neuro.ir import Array

IntArray = NDArray[np.int64]
GRID_TOLERANCE = 1e-3  # of one step: float32 training leaves about 3e-5 of 255 steps


def to_format(values: ArrayLike, unit: float, fmt: NumberFormat) -> IntArray:
    """Nearest integer of the format (half to even), saturated: int64, multiples of ``fmt.step``."""
    steps = np.rint(np.asarray(values, dtype=np.float64) / (unit * fmt.step))
    low, high = -(-fmt.low // fmt.step), fmt.high // fmt.step
    return np.clip(steps, low, high).astype(np.int64) * fmt.step


def smallest_unit(values: Array, fmt: NumberFormat) -> float:
    """The unit at which the format just holds all values without saturating; 0 if all are 0.

    A format without negative integers does not hold negative values at any unit: infinity.
    """
    low, high = -(-fmt.low // fmt.step) * fmt.step, fmt.high // fmt.step * fmt.step
    most, least = float(values.max(initial=0.0)), float(values.min(initial=0.0))
    if (most > 0 and high <= 0) or (least < 0 and low >= 0):
        return float("inf")
    return max(most / high if most > 0 else 0.0, least / low if least < 0 else 0.0)


def grid_of(values: ArrayLike, fmt: NumberFormat) -> float | None:
    """The largest step on which all values lie as whole multiples, if the format can hold them there.

    This finds the grid of weights that were trained for the chip, so that compiling them changes nothing.
    The smallest magnitude must be m steps for some m, so m = 1, 2, ... is tried until the format is too small.
    Agreement is asked to `GRID_TOLERANCE` of a step.
    """
    magnitudes = np.unique(np.abs(np.asarray(values, dtype=np.float64)))
    magnitudes = magnitudes[magnitudes > 0]
    if magnitudes.size == 0:
        return None
    least = smallest_unit(np.asarray(values, dtype=np.float64), fmt) * fmt.step
    for m in range(1, max(-fmt.low, fmt.high) // fmt.step + 1):
        step = magnitudes[0] / m
        if step < least * (1 - 1e-6):
            return None
        multiples = magnitudes / step
        whole = np.rint(multiples)
        if (np.abs(multiples - whole) < GRID_TOLERANCE).all():
            return float((magnitudes * whole).sum() / (whole * whole).sum())  # least squares over all values
    return None


def decay_register(decay: ArrayLike, fmt: NumberFormat, offset: int) -> tuple[IntArray, Array]:
    """Register r with decay = 1 - (r + offset) / 2**bits, and the decay it really gives.

    ``offset`` is a constant that the chip adds to the register.
    """
    full = 1 << fmt.bits
    register = np.clip(np.rint(full * (1.0 - np.asarray(decay))) - offset, fmt.low, fmt.high).astype(np.int64)
    return register, 1.0 - (register + offset) / full


def mantissa_exponent(values: ArrayLike, unit: float, fmt: NumberFormat, highest: int) -> tuple[IntArray, int] | None:
    """Mantissas m and the smallest exponent e >= 0 with values ~ unit m 2**e; None if ``highest`` is too small."""
    exact = np.asarray(values, dtype=np.float64) / unit
    for exponent in range(highest + 1):
        mantissa = np.rint(exact / (1 << exponent))
        if mantissa.min(initial=0) >= fmt.low and mantissa.max(initial=0) <= fmt.high:
            return mantissa.astype(np.int64), exponent
    return None


def geometric(decay: ArrayLike, steps: int | None = None) -> Array:
    """1 + d + d**2 + ... over ``steps`` terms, or for ever: what a unit input per step adds up to at most."""
    decay = np.asarray(decay, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if steps is None:
            return np.where(decay < 1, 1 / (1 - decay), np.inf)
        return np.where(decay < 1, (1 - decay**steps) / (1 - decay), float(steps))


def error_of(
    node: str, quantity: str, real: ArrayLike, kept: ArrayLike, unit: float, note: str = ""
) -> QuantisationError:
    """Error of ``kept`` against ``real``, relative to the largest magnitude of ``real``."""
    real, kept = np.asarray(real, dtype=np.float64), np.asarray(kept, dtype=np.float64)
    size = float(np.abs(real).max(initial=0.0)) or 1.0
    off = (kept - real) / size
    return QuantisationError(
        node,
        quantity,
        float(unit),
        float(np.abs(off).max(initial=0.0)),
        float(np.sqrt((off**2).mean())) if off.size else 0.0,
        note,
    )
