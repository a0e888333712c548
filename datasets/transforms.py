"""Event augmentation and fast binning: `Augment`, `batch`, `packed`, `augmented`, `stabilise`.

Deterministic given (seed, epoch, index of the recording), vectorised over events, one pass from
recorded events to the dense batch of a training step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.datasets import event_kernels, kernels
from neuro.errors import BadConfig
from neuro.events import LARGEST, LARGEST_COUNT, MAX_DENSE_BYTES, EventSet

PLANAR = ("shift", "jitter", "rotation", "scale", "stretch", "shear", "elastic", "flip")
LINEAR = ("channel_shift", "channel_jitter")
PROBABILITIES = ("drop", "blank", "flip")
_MOST = {"time_scale": 5.0, "scale": 5.0, "stretch": 5.0, "elastic": 1e3}


@dataclass(frozen=True)
class Augment:
    """How recordings vary from epoch to epoch; 0 everywhere leaves them as they are.

    With U uniform in [-1, 1), drawn once per recording unless it says per event:

    time_shift: seconds; t + time_shift U. time_jitter: seconds; t + time_jitter U per event.
    time_scale: t exp(time_scale U). drop: each recording loses events with a probability uniform in
    [0, drop). blank: probability that one window of blank_time seconds of it falls silent (windows
    tile the duration of the set, the last is open).

    For shapes (planes, height, width), about the centre, in pixels, x to the right and y down:
    elastic: displacement field of standard deviation elastic V, V uniform in [0, 1), smooth over
    elastic_spacing pixels; flip: probability of a mirror image (left-right); scale: both axes exp(scale
    U); stretch: x exp(stretch U / 2), y exp(-stretch U / 2); shear: x + shear U y; rotation: rotation U
    degrees; shift: x and y + shift U; jitter: x and y + jitter U per event. Applied in this order.

    For shapes (n,): channel_shift: whole channels, each of -channel_shift..channel_shift alike;
    channel_jitter: channel + channel_jitter U per event, rounded.

    Events moved before time 0 or off the grid are dropped.

    Raises:
        BadConfig: negative or not finite, probabilities above 1, fields without the one they need.
    """

    time_shift: float = 0.0
    time_jitter: float = 0.0
    time_scale: float = 0.0
    drop: float = 0.0
    blank: float = 0.0
    blank_time: float = 0.0
    shift: float = 0.0
    jitter: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    elastic_spacing: float = 7.0
    flip: float = 0.0
    channel_shift: int = 0
    channel_jitter: float = 0.0

    def __post_init__(self) -> None:
        bad = []
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            most = 1.0 if name in PROBABILITIES else _MOST.get(name, 1e6)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                bad.append(f"{name} must be a number, got {value!r}")
            elif not 0 <= value <= most:  # also refuses NaN
                bad.append(f"{name} is {value}, allowed 0..{most:g}")
        if not bad and self.channel_shift != int(self.channel_shift):
            bad.append(f"channel_shift is {self.channel_shift}, allowed whole channels")
        if not bad and self.blank > 0 and self.blank_time <= 0:
            bad.append("blank needs blank_time, the seconds that fall silent")
        if not bad and self.elastic_spacing < 1:
            bad.append(f"elastic_spacing is {self.elastic_spacing}, allowed 1 pixel or more")
        if bad:
            raise BadConfig("augmentation", bad)

    def active(self) -> bool:
        """Whether anything changes."""
        return any(getattr(self, f.name) > 0 for f in fields(self) if f.name not in ("blank_time", "elastic_spacing"))


assert tuple(f.name for f in fields(Augment)) == kernels.FIELDS

NOTHING = Augment()
EVENTS_PER_THREAD = 1 << 18  # some 3 ms of work; less is not worth a thread


def _prepared(event_set: EventSet, augment: Augment) -> tuple[NDArray[np.float64], bool, int, int]:
    """(amounts, planar, height, width) for the kernels.

    Raises:
        BadConfig: fields that mean nothing for the shape of the set.
    """
    shape = event_set.shape
    planar, linear = len(shape) == 3, len(shape) == 1
    bad = [n for n in PLANAR if not planar and getattr(augment, n) > 0]
    bad += [n for n in LINEAR if not linear and getattr(augment, n) > 0]
    if bad:
        raise BadConfig(
            f"augmentation of '{event_set.name}', shape {shape}",
            [f"'{n}' needs a shape {'(planes, height, width)' if n in PLANAR else '(n,)'}" for n in bad],
        )
    height, width = (shape[1], shape[2]) if planar else (1, math.prod(shape))
    return np.array(astuple(augment), np.float64), planar, height, width


def _chosen(event_set: EventSet, indices: ArrayLike) -> NDArray[np.int64]:
    chosen = np.ascontiguousarray(indices, np.int64)
    if chosen.ndim != 1 or (chosen.size and not 0 <= chosen.min() <= chosen.max() < len(event_set)):
        raise BadConfig(f"'{event_set.name}' has recordings 0..{len(event_set) - 1}, asked for {chosen.ravel()[:5]}")
    return chosen


def _columns(
    event_set: EventSet, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Read-only plain arrays: a memory map, or a writable array, would be compiled as a type of its own."""
    views = (event_set.times.view(np.ndarray), event_set.channels.view(np.ndarray), event_set.offsets[:], chosen[:])
    for view in views:
        view.setflags(write=False)
    return views


def _seed(name: str, value: int) -> np.uint64:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 1 << 63:
        raise BadConfig(f"{name} must be a whole number, not negative, got {value!r}")
    return np.uint64(value)


def batch(
    event_set: EventSet,
    indices: Sequence[int] | NDArray[np.int64],
    dt: float,
    steps: int,
    augment: Augment | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    threads: int = 1,
    high: int = 1,
) -> NDArray[np.uint8]:
    """Dense uint8[steps, batch, *shape], as `EventSet.batch`, augmented on the way: events counted up to ``high``.

    The recording's index in event_set goes into the hash, so any batch, order and number of threads
    gives it the same augmentation.

    Raises:
        BadConfig: dt, steps, seed, high or an index that cannot be; an augmentation the shape has no place
            for; a result beyond `MAX_DENSE_BYTES`.
    """
    if not isinstance(high, (int, np.integer)) or not 1 <= high <= LARGEST_COUNT:
        raise BadConfig(f"high must lie in 1..{LARGEST_COUNT}, got {high!r}")
    chosen = _grid(event_set, indices, dt, steps, math.prod(event_set.shape))
    dense = np.zeros((steps, len(chosen), math.prod(event_set.shape)), np.uint8)
    _fill(
        event_set, chosen, dt, int(steps), augment, seed, epoch, threads, int(high), dense, np.zeros((0, 0), np.uint64)
    )
    return dense.reshape(steps, len(chosen), *event_set.shape)


def packed(
    event_set: EventSet,
    indices: Sequence[int] | NDArray[np.int64],
    dt: float,
    steps: int,
    augment: Augment | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    threads: int = 1,
) -> NDArray[np.uint64]:
    """`batch` with high = 1 as bits: uint64[steps * batch, ceil(n / 64)], an eighth of the bytes.

    Row step * batch + b; channel k (row-major in shape) is bit k % 64 of word k // 64, bits beyond the last are 0.

    Raises:
        BadConfig: as `batch`.
    """
    width = -(-math.prod(event_set.shape) // 64)
    chosen = _grid(event_set, indices, dt, steps, 8 * width)
    words = np.zeros((steps * len(chosen), width), np.uint64)
    _fill(event_set, chosen, dt, int(steps), augment, seed, epoch, threads, 0, np.zeros((0, 0, 0), np.uint8), words)
    return words


def _grid(event_set: EventSet, indices: ArrayLike, dt: float, steps: int, row_bytes: int) -> NDArray[np.int64]:
    chosen = _chosen(event_set, indices)
    if not isinstance(steps, (int, np.integer)) or not 0 < steps <= LARGEST or not (math.isfinite(dt) and dt > 0):
        raise BadConfig(f"steps and dt must be positive, got {steps!r} and {dt!r}")
    if steps * len(chosen) * row_bytes > MAX_DENSE_BYTES:
        raise BadConfig(
            f"{steps} steps x {len(chosen)} recordings x {row_bytes} bytes is more than {MAX_DENSE_BYTES} bytes. "
            "Take smaller batches or a longer dt."
        )
    return chosen


def _fill(
    event_set: EventSet,
    chosen: NDArray[np.int64],
    dt: float,
    steps: int,
    augment: Augment | None,
    seed: int,
    epoch: int,
    threads: int,
    high: int,
    dense: NDArray[np.uint8],
    words: NDArray[np.uint64],
) -> None:
    """`event_kernels.fill`, or `fill_moved`, over as many threads as the events are worth."""
    change = augment or NOTHING
    amounts, planar, *shape = _prepared(event_set, change)
    seed_, epoch_ = _seed("seed", seed), _seed("epoch", epoch)
    times, channels, offsets, chosen = _columns(event_set, chosen)
    active, duration = change.active(), float(event_set.duration)
    where = _places(event_set, planar, shape) if active else ()
    events = int((offsets[chosen + 1] - offsets[chosen]).sum())
    parts = max(1, min(threads, len(chosen), events // EVENTS_PER_THREAD))
    cuts = np.linspace(0, len(chosen), parts + 1).astype(int).tolist()

    def work(first: int, last: int) -> None:
        given = (times, channels, offsets, chosen, first, last, float(dt), high, steps, dense, words)
        if not active:
            event_kernels.fill(*given)
            return
        with np.errstate(over="ignore"):  # the hash wraps on purpose; numpy says so when jit is off
            event_kernels.fill_moved(*given, amounts, planar, np.array(shape), duration, seed_, epoch_, *where)

    if parts == 1:
        work(0, len(chosen))
    else:
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(work, cuts[:-1], cuts[1:]))


def _places(
    event_set: EventSet, planar: bool, shape: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """What `event_kernels.places` says of each channel."""
    n = math.prod(event_set.shape)
    xs, ys, plane = np.zeros(n), np.zeros(n if planar else 0), np.zeros(n if planar else 0, np.int64)
    event_kernels.places(planar, shape[0], shape[1], xs, ys, plane)
    return xs, ys, plane


def augmented(
    event_set: EventSet,
    augment: Augment,
    seed: int = 0,
    epoch: int = 0,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
) -> EventSet:
    """The recordings (all, or those of indices) with their events moved; what left the grid is gone.

    Binning the result equals `batch` with the same augment, seed and epoch, bit for bit.

    Raises:
        BadConfig: as `batch`.
    """
    chosen = _chosen(event_set, np.arange(len(event_set)) if indices is None else indices)
    amounts, planar, *shape = _prepared(event_set, augment)
    lengths = np.diff(event_set.offsets)[chosen]
    times, channels = np.empty(lengths.sum(), np.float32), np.empty(lengths.sum(), np.int32)
    seed_, epoch_ = _seed("seed", seed), _seed("epoch", epoch)
    if augment.active():
        with np.errstate(over="ignore"):
            event_kernels.move_all(
                *_columns(event_set, chosen), amounts, planar, np.array(shape), float(event_set.duration), seed_,
                epoch_, *_places(event_set, planar, shape), times, channels,
            )  # fmt: skip
    else:
        same = event_set.subset(chosen)
        times, channels = same.times, same.channels
    recording = np.repeat(np.arange(len(chosen)), lengths)
    kept = channels >= 0
    times, channels, recording = times[kept], channels[kept], recording[kept]
    order = np.lexsort((times, recording))
    counts = np.bincount(recording, minlength=len(chosen))
    return replace(
        event_set,
        times=times[order],
        channels=channels[order],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=event_set.labels[chosen],
        groups=event_set.groups[chosen],
    )


def stabilise(event_set: EventSet, path: ArrayLike | None, period: float, size: int) -> EventSet:
    """Take the camera's own movement out, and cut the centre of size x size pixels.

    path: float[k, 2], (column, row) that the scene's centre is at, at times (i + 1/2) period; linear
    between, held at the ends; None: the middle of the sensor. An event at pixel (c, r) goes to
    floor((c, r) - path(t) + size / 2); events outside are dropped.

    Raises:
        BadConfig: a shape other than (planes, height, width), a path that is not [k, 2] and finite.
    """
    if len(event_set.shape) != 3 or size < 1:
        raise BadConfig(f"stabilise needs a shape (planes, height, width) and size >= 1, got {event_set.shape}, {size}")
    planes, height, width = event_set.shape
    middle = np.array([[(width - 1) / 2, (height - 1) / 2]])
    table = middle if path is None else np.asarray(path, np.float64)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table) or not np.isfinite(table).all() or not period > 0:
        raise BadConfig(f"a path is finite, [k, 2], with a positive period; got shape {table.shape}, period {period}")
    at = (np.arange(len(table)) + 0.5) * period
    times = event_set.times.astype(np.float64)
    plane, pixel = np.divmod(event_set.channels, height * width)
    # Pixel (c, r) has its centre at c + 1/2, and so has the path: the halves cancel.
    column = np.floor(pixel % width - np.interp(times, at, table[:, 0]) + size / 2).astype(np.int32)
    row = np.floor(pixel // width - np.interp(times, at, table[:, 1]) + size / 2).astype(np.int32)
    kept = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    before = np.concatenate([[0], np.cumsum(kept)])
    return replace(
        event_set,
        times=event_set.times[kept],
        channels=((plane * size + row) * size + column)[kept].astype(np.int32),
        offsets=before[event_set.offsets].astype(np.int64),
        shape=(planes, size, size),
    )
