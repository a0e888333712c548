"""One Akida layer in the compiled kernels, and in plain integers."""

from __future__ import annotations

import numpy as np

from neuro.hardware.akida import plain
from neuro.hardware.akida.kernels import run_stage
from neuro.hardware.akida.packed import alone
from neuro.hardware.program import Population, Projection


def both(
    population: Population,
    projections: tuple[Projection, ...],
    sources: tuple[Population, ...],
    inputs: tuple[np.ndarray, ...],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(potentials, values) int64[n] of the kernels, then of the plain model."""
    stage = alone(population, projections, sources)
    p, s, _ = run_stage(stage, tuple(x.reshape(1, -1).astype(np.int32) for x in inputs))
    images = tuple(plain.big(x, x.shape).reshape(x.shape if x.ndim == 3 else (-1, 1, 1)) for x in inputs)
    theirs = plain.layer(population, projections, images)
    return [(p[0].astype(np.int64), s[0].astype(np.int64)), *[tuple(v.reshape(-1).astype(np.int64) for v in theirs)]]
