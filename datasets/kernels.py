"""What an augmentation draws for a recording: its parameters and its elastic field (`neuro.datasets.event_kernels`).

Randomness is counter based: every draw is a hash (splitmix64, Steele et al. 2014) of (seed, epoch,
recording, counter), so a recording's augmentation depends on nothing else: not on the batch it is in,
its place there, or the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import routine

A = NDArray[Any]

# Parameters of one recording, in this order in a row of float64[N_PARAMETERS]
TIME_SCALE, TIME_SHIFT, TIME_JITTER, DROP, BLANK_FROM, BLANK_TO = 0, 1, 2, 3, 4, 5
XX, XY, YX, YY, DX, DY, PIXEL_JITTER, ELASTIC = 6, 7, 8, 9, 10, 11, 12, 13
CHANNEL_SHIFT, CHANNEL_JITTER = 14, 15
N_PARAMETERS = 16

# Fields of an Augment, in this order in the float64 vector that `draw` takes
FIELDS = (
    "time_shift",
    "time_jitter",
    "time_scale",
    "drop",
    "blank",
    "blank_time",
    "shift",
    "jitter",
    "rotation",
    "scale",
    "stretch",
    "shear",
    "elastic",
    "elastic_spacing",
    "flip",
    "channel_shift",
    "channel_jitter",
)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = (np.uint64(n) for n in (30, 27, 31, 11))
_FIELD_COUNTER = np.uint64(1 << 40)  # draws of the elastic field


@routine
def mix(z: np.uint64) -> np.uint64:
    """Finaliser of splitmix64."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@routine
def key_of(seed: np.uint64, epoch: np.uint64, recording: np.uint64) -> np.uint64:
    """State of one recording's stream of draws."""
    return mix(mix(mix(seed + GOLDEN) + epoch + GOLDEN) + recording + GOLDEN)


@routine
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """float64 in [0, 1) with 53 bits."""
    return np.float64(mix(key + counter * GOLDEN) >> _S11) * 2.0**-53


@routine
def draw(
    key: np.uint64, amounts: NDArray[np.float64], duration: float, height: int, width: int, p: NDArray[np.float64]
) -> None:
    """The parameters of one recording, from the amounts of an Augment. U is uniform in [-1, 1)."""
    u = np.empty(16, np.float64)
    for i in range(16):
        u[i] = uniform(key, np.uint64(i))
    p[TIME_SCALE] = math.exp(amounts[2] * (2.0 * u[0] - 1.0))
    p[TIME_SHIFT] = amounts[0] * (2.0 * u[1] - 1.0)
    p[TIME_JITTER] = amounts[1]
    p[DROP] = amounts[3] * u[2]
    p[BLANK_FROM] = p[BLANK_TO] = 0.0
    if u[3] < amounts[4]:
        windows = max(1.0, np.rint(duration / amounts[5]))
        window = math.floor(u[4] * windows)
        p[BLANK_FROM] = window * amounts[5]
        p[BLANK_TO] = np.inf if window == windows - 1.0 else (window + 1.0) * amounts[5]
    angle = math.radians(amounts[8]) * (2.0 * u[5] - 1.0)
    size = math.exp(amounts[9] * (2.0 * u[6] - 1.0))
    aspect = math.exp(0.5 * amounts[10] * (2.0 * u[7] - 1.0))
    sx, sy = size * aspect, size / aspect
    shear = amounts[11] * (2.0 * u[8] - 1.0)
    mirror = -1.0 if u[9] < amounts[14] else 1.0
    c, s = math.cos(angle), math.sin(angle)
    # rotation . shear . scale . mirror, column vectors (x to the right, y down)
    p[XX], p[XY] = c * sx * mirror, (c * shear - s) * sy
    p[YX], p[YY] = s * sx * mirror, (s * shear + c) * sy
    p[DX] = 0.5 * width + amounts[6] * (2.0 * u[10] - 1.0)
    p[DY] = 0.5 * height + amounts[6] * (2.0 * u[11] - 1.0)
    p[PIXEL_JITTER] = amounts[7]
    p[ELASTIC] = amounts[12] * u[12]
    p[CHANNEL_SHIFT] = math.floor((2.0 * amounts[15] + 1.0) * u[13]) - amounts[15]
    p[CHANNEL_JITTER] = amounts[16]


@routine
def _bspline(f: float, w: NDArray[np.float64]) -> None:
    """Weights of four control points for the cubic B-spline at the fraction f of a cell."""
    g = 1.0 - f
    w[0] = g * g * g / 6.0
    w[1] = (3.0 * f * f * f - 6.0 * f * f + 4.0) / 6.0
    w[2] = (3.0 * g * g * g - 6.0 * g * g + 4.0) / 6.0
    w[3] = f * f * f / 6.0


@routine
def elastic_field(
    key: np.uint64, amount: float, spacing: float, height: int, width: int, field: NDArray[np.float64]
) -> None:
    """Displacement (x, y) in pixels of every pixel: field float64[2, height, width].

    Cubic B-spline through normal control points ``spacing`` pixels apart; a displacement has standard
    deviation ``amount`` (0.4794 = 151/315 is the mean square sum of the weights along one axis).
    """
    rows, columns = np.int64(height / spacing) + 4, np.int64(width / spacing) + 4
    control = np.empty((2, rows, columns), np.float64)
    counter = _FIELD_COUNTER
    for a in range(rows):
        for b in range(columns):
            # Box and Muller: two uniforms give the two normal displacements
            radius = math.sqrt(-2.0 * math.log(1.0 - uniform(key, counter)))
            angle = 2.0 * math.pi * uniform(key, counter + np.uint64(1))
            control[0, a, b] = radius * math.cos(angle) * amount * (315.0 / 151.0)
            control[1, a, b] = radius * math.sin(angle) * amount * (315.0 / 151.0)
            counter += np.uint64(2)
    half, weights = np.zeros((2, height, columns), np.float64), np.empty((max(height, width), 4), np.float64)
    for i in range(height):
        at = (i + 0.5) / spacing
        cell = np.int64(at)
        _bspline(at - cell, weights[i])
        for axis in range(2):
            for k in range(4):
                for b in range(columns):
                    half[axis, i, b] += weights[i, k] * control[axis, cell + k, b]
    cells = np.empty(width, np.int64)
    for j in range(width):
        at = (j + 0.5) / spacing
        cells[j] = np.int64(at)
        _bspline(at - cells[j], weights[j])
    for axis in range(2):
        for i in range(height):
            for j in range(width):
                total = 0.0
                for k in range(4):
                    total += weights[j, k] * half[axis, i, cells[j] + k]
                field[axis, i, j] = total
