"""One neuron in TrueNorth's integers: its step, its weights as whole multiples of it, and its registers.

A neuron fires where v > v_threshold, the chip where V >= alpha, and the chip subtracts the alpha that it compares
with. With K = v_threshold / u, V counts from one step below zero (V = v / u - 1, alpha = K): then both hold exactly.
A reset to v_reset is a reset to R = 0 of a V that counts from v_reset.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from neuro.hardware.chip import CHIP_FOLDER, NumberFormat, read_chip
from neuro.hardware.quantise import GRID_TOLERANCE, grid_of
from neuro.hardware.truenorth.weights import HIGH, LOW, TYPES, basis, rounded, sums
from neuro.ir import Array

CHIP = read_chip(CHIP_FOLDER / "truenorth.toml")
SUMS = NumberFormat(bits=11, signed=True, low=TYPES * LOW, high=TYPES * HIGH)  # what four weights add up to
DISTINCT = (1 << TYPES) - 1  # non-zero weights that four values can make
FINER = 256  # a step may be divided by up to this, for a threshold or bias between two multiples of the weights' step
LEAST_LEAK = 4  # steps of a linear leak, so that rounding it costs little
ALPHA = CHIP.limit("threshold")
BETA = CHIP.limit("threshold")
LEAK = CHIP.formats["leak"]
V_HIGH = (1 << (CHIP.limit("state_bits") - 1)) - 1


class Wanted(NamedTuple):
    """One neuron in reals. weights: distinct, not 0. linear: ``bias`` is a leak towards zero, which may be rounded."""

    weights: tuple[float, ...]
    threshold: float
    bias: float
    reset: float
    subtract: bool
    linear: bool


class Fitted(NamedTuple):
    """unit: reals per integer. whole: weight -> integer. alpha, leak, start (V of v = 0). exact: threshold, bias and
    reset are whole multiples, or need not be; kept: what stands for (threshold, bias, reset), in reals."""

    unit: float
    whole: dict[float, int]
    alpha: int
    leak: int
    start: int
    kept: tuple[float, float, float]


def near(x: float) -> int | None:
    """The whole number that x is meant to be, if it is one."""
    return round(x) if abs(x - round(x)) < GRID_TOLERANCE else None


def _suits(w: Wanted, unit: float) -> bool:
    """Whether threshold, bias and reset are whole multiples of a step, as far as they must be."""
    if w.linear and abs(w.bias / unit) < LEAST_LEAK:
        return False
    whole = [w.bias] * (not w.linear) + [w.threshold] * w.subtract + [w.reset] * (not w.subtract)
    return all(near(x / unit) is not None for x in whole)


def _holds(w: Wanted, unit: float) -> bool:
    return w.threshold / unit <= ALPHA and LEAK.low - 0.5 <= w.bias / unit <= LEAK.high + 0.5


@lru_cache(maxsize=1 << 16)
def _grid(weights: tuple[float, ...]) -> float | None:
    return grid_of(np.array(weights), SUMS) if len(weights) <= DISTINCT else None


@lru_cache(maxsize=1 << 16)
def exact(w: Wanted, unit: float | None) -> Fitted | None:
    """Weights as they are; None if no four values hold them. unit: of the population, or None for the neuron's own.

    Without weights the threshold is the step, where there is one.
    """
    if not w.weights:
        return _settled(w, abs(w.threshold) or 1.0, {})
    unit = unit or _grid(w.weights)
    if unit is None:
        return None
    multiples = [round(x / unit) for x in w.weights]
    if 0 in multiples:
        return None
    last = None
    for finer in range(1, FINER + 1):
        if finer > 1 and not _holds(w, unit / finer):
            break
        if basis(frozenset(m * finer for m in multiples)) is None:
            break
        last = finer
        if _suits(w, unit / finer):
            break
    if last is None:
        return None
    whole = {x: m * last for x, m in zip(w.weights, multiples, strict=True)}
    return _settled(w, unit / last, whole)


def nearest(w: Wanted, weights: Array, axons: int) -> Fitted:
    """The nearest that so many axons per input can hold. weights: those of all synapses, with repetitions."""
    values, step = rounded(weights, axons)
    distinct, reach = np.array(w.weights), np.array(sorted(sums(values)))
    levels = reach[np.abs(distinct[:, None] / step - reach).argmin(axis=1)]
    finer = max(1, (HIGH + 1) // int(np.abs(values).max()) - 1)
    while finer > 1 and not _holds(w, step / finer):
        finer -= 1
    whole = {x: int(m) * finer for x, m in zip(w.weights, levels, strict=True)}
    return _settled(w, step / finer, whole)


def _settled(w: Wanted, unit: float, whole: dict[float, int]) -> Fitted:
    threshold = near(w.threshold / unit)
    below = int(np.floor(w.threshold / unit)) if threshold is None else threshold  # fires at V > below
    leak = round(w.bias / unit)
    if w.linear:
        alpha, start, kept = below + 1, 0, (below + 1) * unit if w.subtract else w.threshold
    elif w.subtract:
        alpha = round(w.threshold / unit)
        start, kept = alpha - below - 1, alpha * unit
    else:
        reset = round(w.reset / unit)
        alpha, start, kept = below + 1 - reset, -reset, w.threshold
    return Fitted(unit, whole, alpha, leak, start, (kept, leak * unit, w.reset if w.subtract else -start * unit))
