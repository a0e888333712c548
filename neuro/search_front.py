"""Fronts of several objectives, all to be minimised: which points nothing beats, and how much they dominate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def front(values: Floats) -> NDArray[np.bool_]:
    """Whether each row of [n, objectives] is Pareto-optimal: none is at least as small everywhere, and smaller once."""
    best = np.ones(len(values), np.bool_)
    for k, own in enumerate(values):
        best[k] = not bool(((values <= own).all(axis=1) & (values < own).any(axis=1)).any())
    return best


def hypervolume(values: Floats, reference: Sequence[float]) -> float:
    """Volume between the rows of [n, objectives] and a reference point that is worse than all (Zitzler & Thiele 1998).

    Rows that are not below the reference in every objective add nothing. Sliced along the last objective, recursively.
    """
    worst = np.asarray(reference, dtype=np.float64)
    inside = np.unique(values[(values < worst).all(axis=1)], axis=0)
    return _sliced(inside[front(inside)], worst)


def _sliced(points: Floats, worst: Floats) -> float:
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(worst[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    total = 0.0
    for k in range(len(points)):
        upper = points[k + 1, -1] if k + 1 < len(points) else worst[-1]
        if upper > points[k, -1]:
            slab = np.unique(points[: k + 1, :-1], axis=0)
            total += float(upper - points[k, -1]) * _sliced(slab[front(slab)], worst[:-1])
    return total
