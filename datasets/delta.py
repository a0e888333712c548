"""Delta modulation: a sampled signal becomes ON and OFF events.

For each threshold h a follower r tracks the signal y; at each sub-step, strictly one of
    y - r >= h:  ON event,  r <- r + h
    r - y >= h:  OFF event, r <- r - h
so that |y - r| < h wherever the signal moves by less than h per sub-step; faster signals are caught up
with one event per sub-step. Between samples y is interpolated linearly, after the last it is held.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import BadConfig
from neuro.jit import kernel


@kernel
def _modulate(
    signal: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    start: NDArray[np.float64],
    follower: NDArray[np.float64],
    substeps: np.int64,
    offsets: NDArray[np.int64],
    steps: NDArray[np.int32],
    channels: NDArray[np.int32],
) -> None:
    """Fill offsets with the number of events; with room in ``steps`` also write them at offsets[k].
    follower: room [levels, channels]."""
    n, time, taxels = signal.shape
    levels = thresholds.shape[0]
    write = steps.size > 0
    for k in range(n):
        for j in range(levels):
            for c in range(taxels):
                follower[j, c] = start[k, c]
        at = offsets[k]
        count = np.int64(0)
        for s in range(time * substeps):
            a = s // substeps
            b = min(a + 1, time - 1)
            part = (s - a * substeps) / substeps
            for j in range(levels):
                for c in range(taxels):
                    y = signal[k, a, c] + part * (signal[k, b, c] - signal[k, a, c])
                    away = y - follower[j, c]
                    polarity = np.int64(-1)
                    if away >= thresholds[j, c]:
                        polarity = np.int64(1)
                        follower[j, c] += thresholds[j, c]
                    elif -away >= thresholds[j, c]:
                        polarity = np.int64(0)
                        follower[j, c] -= thresholds[j, c]
                    if polarity >= 0:
                        if write:
                            steps[at + count] = s
                            channels[at + count] = (j * taxels + c) * 2 + polarity
                        count += 1
        if not write:
            offsets[k + 1] = count


def delta_modulate(
    signal: ArrayLike,
    thresholds: float | Sequence[float] | NDArray[np.float64],
    substeps: int = 1,
    start: ArrayLike | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """ON/OFF events of n signals (see the module for the equation).

    signal: [n, time, channels]. thresholds: one, [levels], or [levels, channels], each > 0. substeps:
    sub-steps per sample. start: follower's first value, [channels] or [n, channels]; None takes the
    first sample.

    Returns (steps int32, channels int32, offsets int64[n + 1]): sub-step and channel of every event,
    recording k in offsets[k]:offsets[k + 1]; channel = (level * channels + c) * 2 + polarity, ON is 1.

    Raises:
        BadConfig: thresholds that are not positive, substeps < 1, shapes that do not fit, NaN.
    """
    y: NDArray[np.float64] = np.ascontiguousarray(signal, np.float64)
    bad: list[str] = []
    if y.ndim != 3 or 0 in y.shape[1:]:
        raise BadConfig(f"a signal is [n, time, channels] with neither empty, got shape {y.shape}")
    n, _, taxels = y.shape
    levels = np.atleast_1d(np.asarray(thresholds, np.float64))
    table: NDArray[np.float64] = levels[:, None] * np.ones(taxels) if levels.ndim == 1 else levels
    first = y[:, 0] if start is None else np.asarray(start, np.float64)
    if table.ndim != 2 or table.shape[1] != taxels or not len(table) or not (np.isfinite(table) & (table > 0)).all():
        bad.append(f"thresholds must be positive, [levels] or [levels, {taxels}], got {np.asarray(thresholds)!r}")
    if not isinstance(substeps, (int, np.integer)) or not 1 <= substeps <= 1000:
        bad.append(f"substeps must be an integer in 1..1000, got {substeps!r}")
    if first.shape not in ((taxels,), (n, taxels)) or not np.isfinite(first).all():
        bad.append(f"start must be finite, [{taxels}] or [{n}, {taxels}], got shape {first.shape}")
    if not np.isfinite(y).all():
        bad.append("the signal is not finite")
    if bad:
        raise BadConfig("delta modulation", bad)
    start_at = np.ascontiguousarray(np.broadcast_to(first, (n, taxels)), np.float64)
    table = np.ascontiguousarray(table)
    follower = np.empty_like(table)
    offsets = np.zeros(n + 1, np.int64)
    none = np.zeros(0, np.int32)
    _modulate(y, table, start_at, follower, np.int64(substeps), offsets, none, none)
    offsets = np.cumsum(offsets)
    steps, channels = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
    if steps.size:
        _modulate(y, table, start_at, follower, np.int64(substeps), offsets, steps, channels)
    return steps, channels, offsets
