"""Layers as the time law of the chip counts them: input events, filters and processors of each.

A depthwise convolution and the 1 x 1 convolution behind it are one layer of the law ("sepconv3x3"): its events enter
the first, its filters are the second's. A depthwise convolution by itself has no law, and is named so ("dwconv3x3").
The convolution of an image is counted as any other, though a unit of its own does it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program, Projection
from neuro.hardware.trace import Stage


def stages(program: Program, values: Mapping[str, NDArray[np.int32]], steps: int) -> dict[str, Stage]:
    """Layer -> `Stage`, of ``values``: population -> int32[steps * batch, n], the input population included."""
    found: dict[str, Stage] = {}
    fused = {p.target: first for p in program.projections if (first := _depthwise_before(program, p)) is not None}
    for name in program.populations:
        incoming = program.into(name)
        if not incoming or name in {first.target for first in fused.values()}:
            continue
        first = fused.get(name, incoming[0])
        sources = {first.source} if name in fused else {p.source for p in incoming}
        events = sum(np.count_nonzero(values[s], axis=1).reshape(steps, -1).sum(axis=0) for s in sources)
        cores = program.placement.core_of[name]
        found[name] = Stage(
            _kind(first, name in fused),
            np.asarray(events, dtype=np.int64),
            int(program.populations[name].shape[0]),
            len(np.unique(cores)),
            steps,
        )
    return found


def _depthwise_before(program: Program, pointwise: Projection) -> Projection | None:
    """The depthwise convolution whose only target is this 1 x 1 convolution, if there is one."""
    if pointwise.kind != "conv" or pointwise.weight_q.shape[2:] != (1, 1) or int(pointwise.params["groups"]) > 1:
        return None
    before = program.into(pointwise.source)
    behind = [p for p in program.projections if p.source == pointwise.source]
    if len(before) != 1 or len(behind) != 1 or not _is_depthwise(before[0]):
        return None
    return before[0]


def _is_depthwise(p: Projection) -> bool:
    return p.kind == "conv" and int(p.params["groups"]) > 1 and p.weight_q.shape[1] == 1


def _kind(p: Projection, separable: bool) -> str:
    if p.kind != "conv":
        return p.kind
    h, w = p.weight_q.shape[2:]
    return ("sepconv" if separable else "dwconv" if _is_depthwise(p) else "conv") + f"{h}x{w}"
