"""Kernels that move the events of a batch and bin them: one pass over the events, nothing dense but the result.

What moves a recording is drawn in `neuro.datasets.kernels`; what an event draws, from the hash of its own number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.kernels import (
    BLANK_FROM,
    BLANK_TO,
    CHANNEL_JITTER,
    CHANNEL_SHIFT,
    DROP,
    DX,
    DY,
    ELASTIC,
    GOLDEN,
    N_PARAMETERS,
    PIXEL_JITTER,
    TIME_JITTER,
    TIME_SCALE,
    TIME_SHIFT,
    XX,
    XY,
    YX,
    YY,
    draw,
    elastic_field,
    key_of,
    mix,
)
from neuro.jit import disjoint, piece, routine, wide

A = NDArray[Any]
_EVENT_COUNTER = np.uint64(1 << 41)  # draws of single events
_S16, _S32, _S48, _LOW16 = np.uint64(16), np.uint64(32), np.uint64(48), np.uint64(0xFFFF)
_ONE, _S6, _LOW6 = np.uint64(1), np.uint64(6), np.uint64(63)
_ULP = 1.0 + 2.0**-23  # as neuro.events.step_of: a float32 on the border of two steps belongs to the later

# fmt: off


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


@disjoint
def _placed(p: A, xs: A, ys: A, field: A, tx: A, ty: A) -> None:
    """Where each channel's events go, but for their jitter: column and row, before they are rounded down.

    There are fewer channels than events, mostly: what an event looks up here it need not compute."""
    _, height, width = field.shape
    xx, xy, yx, yy, dx, dy = p[XX], p[XY], p[YX], p[YY], p[DX], p[DY]
    elastic = p[ELASTIC] > 0.0
    for first in range(0, tx.size, width):
        row = first // width % height
        for k in range(width):
            x, y = xs[first + k], ys[first + k]
            if elastic:
                x += field[0, row, k]
                y += field[1, row, k]
            tx[first + k] = xx * x + xy * y + dx
            ty[first + k] = yx * x + yy * y + dy


@piece
def _jitter(bits: np.uint64) -> float:
    """16 bits as a number in (-1, 1)."""
    return (np.float64(np.int32(bits & _LOW16)) + 0.5) * 2.0**-15 - 1.0


@disjoint
def _moved(
    times: A, channels: A, key: np.uint64, p: A, xs: A, tx: A, ty: A, plane: A, height: int, width: int, planar: bool,
    t_out: A, x_out: A,
) -> None:
    """New time and channel of each event of a recording; channel -1 when it is dropped or leaves the grid.

    Each takes 64 bits from the hash of its number, 16 each for drop, time, x and y. tx, ty: of `_placed`. Eight events
    at once, where the processor can: so there is no branch, and numbers are rounded as floats.
    """
    wide()
    pixel_jitter, channel_shift, channel_jitter = p[PIXEL_JITTER], p[CHANNEL_SHIFT], p[CHANNEL_JITTER]
    time_scale, time_shift, time_jitter = p[TIME_SCALE], p[TIME_SHIFT], p[TIME_JITTER]
    drop, blank_from, blank_to = p[DROP] * 65536.0, p[BLANK_FROM], p[BLANK_TO]
    rows, columns = np.float64(height), np.float64(width)
    for i in range(times.size):
        random = mix(key + (_EVENT_COUNTER + np.uint64(i)) * GOLDEN)
        time, channel = np.float64(times[i]), np.int64(channels[i])
        t = np.float32(time * time_scale + time_shift + time_jitter * _jitter(random >> _S16))
        kept = np.float64(np.int32(random & _LOW16)) >= drop
        kept &= ((time < blank_from) | (time >= blank_to)) & (t >= 0.0)
        jitter = _jitter(random >> _S32)
        if planar:
            column = np.floor(tx[channel] + pixel_jitter * jitter)
            row = np.floor(ty[channel] + pixel_jitter * _jitter(random >> _S48))
            kept &= (column >= 0.0) & (column < columns) & (row >= 0.0) & (row < rows)
            new = np.int64(plane[channel]) + np.int64(row * columns + column)
        else:
            column = np.floor(xs[channel] + channel_shift + channel_jitter * jitter)
            kept &= (column >= 0.0) & (column < columns)
            new = np.int64(column)
        t_out[i] = t
        x_out[i] = np.int32(new) if kept else np.int32(-1)


@routine
def _each(
    times: A, channels: A, recording: int, offsets: A, amounts: A, duration: float, seed: np.uint64, epoch: np.uint64,
    xs: A, ys: A, plane: A, field: A, tx: A, ty: A, planar: bool, p: A, t_out: A, x_out: A,
) -> None:
    """`_moved` for one recording, with its own draw."""
    start, stop = offsets[recording], offsets[recording + 1]
    key = key_of(seed, epoch, np.uint64(recording))
    draw(key, amounts, duration, field.shape[1], field.shape[2], p)
    if p[ELASTIC] > 0.0:
        elastic_field(key, p[ELASTIC], amounts[13], field.shape[1], field.shape[2], field)
    if planar:
        _placed(p, xs, ys, field, tx, ty)
    _, height, width = field.shape
    _moved(times[start:stop], channels[start:stop], key, p, xs, tx, ty, plane, height, width, planar, t_out, x_out)


@routine
def _count(times: A, channels: A, dt: float, column: int, high: int, dense: A) -> None:
    """Adds events to dense uint8[steps, batch, n], up to ``high``; channel -1 is nobody."""
    steps = dense.shape[0]
    for i in range(times.size):
        step = np.floor(np.float64(times[i]) * _ULP / dt)
        if step < steps and channels[i] >= 0:
            s, k = np.int64(step), np.int64(channels[i])
            if dense[s, column, k] < high:
                dense[s, column, k] += 1


@routine
def _mark(times: A, channels: A, dt: float, steps: int, batch: int, column: int, words: A) -> None:
    """Sets the bits of events in words uint64[steps * batch, ceil(n / 64)]; channel -1 is nobody."""
    for i in range(times.size):
        step = np.floor(np.float64(times[i]) * _ULP / dt)
        if step < steps and channels[i] >= 0:
            k = np.uint64(channels[i])
            words[np.uint64(np.int64(step) * batch + column), k >> _S6] |= _ONE << (k & _LOW6)


@routine
def fill(
    times: A, channels: A, offsets: A, indices: A, first: int, last: int, dt: float, high: int, steps: int, dense: A,
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
    times: A, channels: A, offsets: A, indices: A, first: int, last: int, dt: float, high: int, steps: int, dense: A,
    words: A, amounts: A, planar: bool, shape: A, duration: float, seed: np.uint64, epoch: np.uint64, xs: A, ys: A,
    plane: A,
) -> None:
    """`fill`, augmented. shape: height, width. By itself, as what does not augment need not compile all of this."""
    p = np.zeros(N_PARAMETERS, np.float64)
    field = np.zeros((2, shape[0], shape[1]), np.float64)
    tx, ty = np.empty(ys.size, np.float64), np.empty(ys.size, np.float64)
    room = np.int64(0)
    for column in range(first, last):
        room = max(room, offsets[indices[column] + 1] - offsets[indices[column]])
    t_room, x_room = np.empty(room, np.float32), np.empty(room, np.int32)
    for column in range(first, last):
        recording = indices[column]
        many = offsets[recording + 1] - offsets[recording]
        t, x = t_room[:many], x_room[:many]
        _each(
            times, channels, recording, offsets, amounts, duration, seed, epoch, xs, ys, plane, field, tx, ty, planar,
            p, t, x,
        )
        if high:
            _count(t, x, dt, column, high, dense)
        else:
            _mark(t, x, dt, steps, indices.size, column, words)


@routine
def move_all(
    times: A, channels: A, offsets: A, indices: A, amounts: A, planar: bool, shape: A, duration: float, seed: np.uint64,
    epoch: np.uint64, xs: A, ys: A, plane: A, times_out: A, channels_out: A,
) -> None:
    """The augmented events of recordings ``indices`` one after another; channel -1 where one is gone."""
    p = np.zeros(N_PARAMETERS, np.float64)
    field = np.zeros((2, shape[0], shape[1]), np.float64)
    tx, ty = np.empty(ys.size, np.float64), np.empty(ys.size, np.float64)
    at = np.int64(0)
    for index in indices:
        end = at + offsets[index + 1] - offsets[index]
        _each(
            times, channels, index, offsets, amounts, duration, seed, epoch, xs, ys, plane, field, tx, ty, planar, p,
            times_out[at:end], channels_out[at:end],
        )
        at = end
