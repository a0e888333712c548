"""`as_event_set`: arrays of spikes and labels, as a notebook has them, as an `EventSet`."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuro.errors import BadEventFile
from neuro.events import LARGEST_COUNT, EventSet


def as_event_set(data: Any, dt: float, name: str = "arrays") -> EventSet:
    """Labelled recordings from a pair (x, labels).

    Args:
        data: an `EventSet`, which is returned as it is; or (x, labels), arrays or tensors. x: [time, sample, ...] of
            0 and 1, or of counts up to 255. labels: whole numbers [sample].
        dt: seconds per step of x.

    Raises:
        BadEventFile: x holds other numbers, or the shapes disagree; all of it at once.
    """
    if isinstance(data, EventSet):
        return data
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise BadEventFile(f"data must be an EventSet or a pair (x, labels), got {type(data).__name__}")
    x, labels = (_array(values) for values in data)
    bad = []
    if x.ndim < 3 or 0 in x.shape:
        bad.append(f"x must be [time, sample, ...], got shape {x.shape}")
    elif labels.shape != x.shape[1:2]:
        bad.append(f"labels must be [{x.shape[1]}], one for each sample, got shape {labels.shape}")
    if x.dtype.kind not in "buif" or not np.isfinite(x).all() or (x != np.rint(x)).any():
        bad.append("x must hold whole numbers: 0 and 1, or counts; encode pixels or currents as spikes first")
    elif x.size and (x.min() < 0 or x.max() > LARGEST_COUNT):
        bad.append(f"x must lie in 0..{LARGEST_COUNT}, found {x.min():g}..{x.max():g}")
    if labels.dtype.kind not in "bui" or (labels.size and labels.min() < 0):
        bad.append(f"labels must be whole numbers, 0 or more, got {labels.dtype}")
    if bad:
        raise BadEventFile("these arrays cannot be used as recordings", bad)
    steps, samples, *shape = x.shape
    flat = np.moveaxis(x.reshape(steps, samples, -1).astype(np.int64), 0, 1)  # [sample, time, channel]
    sample, time, channel = np.nonzero(flat)
    counts = flat[sample, time, channel]
    offsets = np.concatenate([[0], np.cumsum(flat.sum(axis=(1, 2)))])
    labels = labels.astype(np.int64)
    return EventSet(
        times=np.repeat((time + 0.5) * dt, counts).astype(np.float32),  # the middle of a step: no rounding leaves it
        channels=np.repeat(channel, counts).astype(np.int32),
        offsets=offsets,
        labels=labels,
        groups=np.arange(samples),
        shape=tuple(shape),
        duration=steps * dt,
        classes=tuple(str(k) for k in range(int(labels.max()) + 1)),
        name=name,
    )


def _array(values: Any) -> Any:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
