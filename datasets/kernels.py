"""Kernels of binning and augmentation: one pass over the events of a batch, nothing dense but the result.

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

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S16, _S32, _S48 = (np.uint64(n) for n in (30, 27, 31, 11, 16, 32, 48))
_LOW16 = np.uint64(0xFFFF)
_ONE, _S6, _LOW6 = np.uint64(1), np.uint64(6), np.uint64(63)
_ULP = 1.0 + 2.0**-23  # as neuro.events.step_of: a float32 on the border of two steps belongs to the later
_FIELD_COUNTER = np.uint64(1 << 40)  # draws of the elastic field
_EVENT_COUNTER = np.uint64(1 << 41)  # draws of single events


@routine
def mix(z: np.uint64) -> np.uint64:
    """Finaliser of splitmix64."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@routine
def key_of(seed: np.uint64, epoch: np.uint64, recording: np.uint64) -> np.uint64:
    """State of one recording's stream of draws."""
    return mix(mix(mix(seed + _GOLDEN) + epoch + _GOLDEN) + recording + _GOLDEN)


@routine
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """float64 in [0, 1) with 53 bits."""
    return np.float64(mix(key + counter * _GOLDEN) >> _S11) * 2.0**-53


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
    w = np.empty(4, np.float64)
    half = np.zeros((2, height, columns), np.float64)
    for i in range(height):
        at = (i + 0.5) / spacing
        cell = np.int64(at)
        _bspline(at - cell, w)
        for axis in range(2):
            for b in range(columns):
                for k in range(4):
                    half[axis, i, b] += w[k] * control[axis, cell + k, b]
    for j in range(width):
        at = (j + 0.5) / spacing
        cell = np.int64(at)
        _bspline(at - cell, w)
        for axis in range(2):
            for i in range(height):
                total = 0.0
                for k in range(4):
                    total += w[k] * half[axis, i, cell + k]
                field[axis, i, j] = total


@routine
def places(planar: bool, height: int, width: int, xs: A, ys: A, plane: A) -> None:
    """Where each channel lies: its centre about the sensor's, in pixels, and the first channel of its plane.

    On a line xs is the middle of the channel, counted from the start, and the others are not used."""
    for channel in range(xs.size):
        if planar:
            column, rest = channel % width, channel // width
            row = rest % height
            xs[channel] = column + 0.5 - 0.5 * width
            ys[channel] = row + 0.5 - 0.5 * height
            plane[channel] = channel - row * width - column
        else:
            xs[channel] = channel + 0.5


@routine
def _moved(
    times: A, channels: A, key: np.uint64, p: A, xs: A, ys: A, plane: A, field: A, planar: bool, t_out: A, x_out: A
) -> None:
    """New time and channel of each event of a recording; channel -1 when it is dropped or leaves the grid.

    Each takes 64 bits from the hash of its number, 16 each for drop, time, x and y. field: float64[2, height, width].
    """
    _, height, width = field.shape
    across, down = field[0].ravel(), field[1].ravel()
    xx, xy, yx, yy, dx, dy = p[XX], p[XY], p[YX], p[YY], p[DX], p[DY]
    pixel_jitter, channel_shift, channel_jitter = p[PIXEL_JITTER], p[CHANNEL_SHIFT], p[CHANNEL_JITTER]
    time_scale, time_shift, time_jitter = p[TIME_SCALE], p[TIME_SHIFT], p[TIME_JITTER]
    drop, blank_from, blank_to = p[DROP] * 65536.0, p[BLANK_FROM], p[BLANK_TO]
    elastic = p[ELASTIC] > 0.0
    for i in range(np.uint64(times.size)):
        random = mix(key + (_EVENT_COUNTER + i) * _GOLDEN)
        time, channel = np.float64(times[i]), np.uint64(channels[i])
        jitter = (np.float64((random >> _S16) & _LOW16) + 0.5) * 2.0**-15 - 1.0  # in (-1, 1)
        t = np.float32(time * time_scale + time_shift + time_jitter * jitter)
        kept = (np.float64(random & _LOW16) >= drop) & ((time < blank_from) | (time >= blank_to)) & (t >= 0.0)
        jitter = (np.float64((random >> _S32) & _LOW16) + 0.5) * 2.0**-15 - 1.0
        if planar:
            x, y, first = xs[channel], ys[channel], plane[channel]
            if elastic:
                pixel = channel - np.uint64(first)
                x += across[pixel]
                y += down[pixel]
            jitter_y = (np.float64(random >> _S48) + 0.5) * 2.0**-15 - 1.0
            column = math.floor(xx * x + xy * y + dx + pixel_jitter * jitter)
            row = math.floor(yx * x + yy * y + dy + pixel_jitter * jitter_y)
            kept &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            new = first + np.int64(row) * width + np.int64(column)
        else:
            column = math.floor(xs[channel] + channel_shift + channel_jitter * jitter)
            kept &= (column >= 0) & (column < width)
            new = np.int64(column)
        t_out[i] = t
        x_out[i] = np.int32(new) if kept else np.int32(-1)


@routine
def _each(
    times: A,
    channels: A,
    recording: int,
    offsets: A,
    amounts: A,
    duration: float,
    seed: np.uint64,
    epoch: np.uint64,
    xs: A,
    ys: A,
    plane: A,
    field: A,
    planar: bool,
    p: A,
    t_out: A,
    x_out: A,
) -> None:
    """`_moved` for one recording, with its own draw."""
    start, stop = offsets[recording], offsets[recording + 1]
    key = key_of(seed, epoch, np.uint64(recording))
    draw(key, amounts, duration, field.shape[1], field.shape[2], p)
    if p[ELASTIC] > 0.0:
        elastic_field(key, p[ELASTIC], amounts[13], field.shape[1], field.shape[2], field)
    _moved(times[start:stop], channels[start:stop], key, p, xs, ys, plane, field, planar, t_out, x_out)


@routine
def _count(times: A, channels: A, dt: float, column: int, high: int, dense: A) -> None:
    """Adds events to dense uint8[steps, batch, n], up to ``high``; channel -1 is nobody."""
    steps = dense.shape[0]
    for i in range(times.size):
        step = math.floor(np.float64(times[i]) * _ULP / dt)
        if step < steps and channels[i] >= 0:
            s, k = np.int64(step), np.int64(channels[i])
            if dense[s, column, k] < high:
                dense[s, column, k] += 1


@routine
def _mark(times: A, channels: A, dt: float, steps: int, batch: int, column: int, words: A) -> None:
    """Sets the bits of events in words uint64[steps * batch, ceil(n / 64)]; channel -1 is nobody."""
    for i in range(times.size):
        step = math.floor(np.float64(times[i]) * _ULP / dt)
        if step < steps and channels[i] >= 0:
            k = np.uint64(channels[i])
            words[np.uint64(np.int64(step) * batch + column), k >> _S6] |= _ONE << (k & _LOW6)


@routine
def fill(
    times: A,
    channels: A,
    offsets: A,
    indices: A,
    first: int,
    last: int,
    dt: float,
    high: int,
    steps: int,
    dense: A,
    words: A,
) -> None:
    """Bin recordings indices[first:last] as they are.

    Into dense uint8[steps, batch, n], zero before, counted up to ``high`` in 1..255; or, where high is 0, as bits
    into words uint64[steps * batch, ceil(n / 64)], zero before. The other of the two is empty.
    """
    for column in range(first, last):
        start, stop = offsets[indices[column]], offsets[indices[column] + 1]
        if high:
            _count(times[start:stop], channels[start:stop], dt, column, high, dense)
        else:
            _mark(times[start:stop], channels[start:stop], dt, steps, indices.size, column, words)


@routine
def fill_moved(
    times: A,
    channels: A,
    offsets: A,
    indices: A,
    first: int,
    last: int,
    dt: float,
    high: int,
    steps: int,
    dense: A,
    words: A,
    amounts: A,
    planar: bool,
    shape: A,
    duration: float,
    seed: np.uint64,
    epoch: np.uint64,
    xs: A,
    ys: A,
    plane: A,
) -> None:
    """`fill`, augmented. shape: height, width. By itself, as what does not augment need not compile all of this."""
    p = np.zeros(N_PARAMETERS, np.float64)
    field = np.zeros((2, shape[0], shape[1]), np.float64)
    room = np.int64(0)
    for column in range(first, last):
        room = max(room, offsets[indices[column] + 1] - offsets[indices[column]])
    t_room, x_room = np.empty(room, np.float32), np.empty(room, np.int32)
    for column in range(first, last):
        recording = indices[column]
        many = offsets[recording + 1] - offsets[recording]
        t, x = t_room[:many], x_room[:many]
        _each(
            times, channels, recording, offsets, amounts, duration, seed, epoch, xs, ys, plane, field, planar, p, t, x
        )
        if high:
            _count(t, x, dt, column, high, dense)
        else:
            _mark(t, x, dt, steps, indices.size, column, words)


@routine
def move_all(
    times: A,
    channels: A,
    offsets: A,
    indices: A,
    amounts: A,
    planar: bool,
    shape: A,
    duration: float,
    seed: np.uint64,
    epoch: np.uint64,
    xs: A,
    ys: A,
    plane: A,
    times_out: A,
    channels_out: A,
) -> None:
    """The augmented events of recordings ``indices`` one after another; channel -1 where one is gone."""
    p = np.zeros(N_PARAMETERS, np.float64)
    field = np.zeros((2, shape[0], shape[1]), np.float64)
    at = np.int64(0)
    for index in indices:
        end = at + offsets[index + 1] - offsets[index]
        _each(
            times,
            channels,
            index,
            offsets,
            amounts,
            duration,
            seed,
            epoch,
            xs,
            ys,
            plane,
            field,
            planar,
            p,
            times_out[at:end],
            channels_out[at:end],
        )
        at = end
