"""Quantised graphs whose scales and thresholds are numbers that chips with frames of integers have.

`quantise` puts weights and steps on grids of their own; what a chip multiplies a sum by is the ratio of the two, and
that is rounded again there. Here it is rounded beforehand, into a graph that can be computed without any further
rounding, so that the chip can be *equal* to it; how far it is from the graph it was made of, a certificate says.

- `in_levels`: values count in levels; a sum of whole weights is multiplied by M 2^-e, M of ``ratio_bits`` bits, and
  biases are whole sums of ``bias_bits`` significant bits (Akida 2.0's arithmetic, quantizeml).
- `whole_steps`: levels begin at T + 1/2, T + 1/2 + s, T + 1/2 + 2 s .. of the whole sums, T and s whole numbers
  (Akida 1.0's thresholds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.grid import short
from neuro.convert.lower import entrance
from neuro.convert.ops import Affine, AvgPool, Conv, Linear, MaxPool, Mean, Op, Quantise, Reshape
from neuro.convert.wires import Way, base_at, plain, prepared, shapes_of, way, ways_into
from neuro.errors import ConversionError

Fit = Callable[[float, float, Tensor, Tensor], tuple[float, float, Tensor]]


def in_levels(graph: Graph, ratio_bits: int = 8, bias_bits: int = 8) -> Graph:
    """See the module. Steps of all populations become 1.

    Raises:
        ConversionError: populations that more than one way leads into, or one with several weights on it.
    """

    def fit(gain: float, step: float, base: Tensor, unit: Tensor) -> tuple[float, float, Tensor]:
        ratio = float(short(torch.tensor(gain / step, dtype=torch.float64), ratio_bits))
        return ratio, 1.0, ratio * unit * _significant(base / gain / unit, bias_bits)

    return _regridded(graph, fit, lambda gain, base: gain * _significant(base / gain, bias_bits))


def whole_steps(graph: Graph) -> Graph:
    """See the module. Values count in whole sums.

    Raises:
        ConversionError: as `in_levels`.
    """

    def fit(gain: float, step: float, base: Tensor, unit: Tensor) -> tuple[float, float, Tensor]:
        whole = max(1.0, float(np.rint(step / gain)))
        first = unit * torch.round((whole / 2 - base / gain - 0.5) / unit)
        return 1.0, whole, whole / 2 - first - 0.5

    return _regridded(graph, fit, lambda _, base: base)


def _significant(values: Tensor, bits: int) -> Tensor:
    """Whole numbers m 2^shift, abs(m) < 2^(bits - 1), shift >= 0."""
    most = 2.0 ** (bits - 1) - 1
    shift = torch.ceil(torch.log2(values.abs().clamp_min(1) / (most + 0.499))).clamp_min(0)
    return torch.round(values / 2**shift) * 2**shift


def _regridded(graph: Graph, fit: Fit, answer: Callable[[float, Tensor], Tensor]) -> Graph:
    """fit: (gain, step, base, unit) of a population -> (gain, step, base) as they shall be; unit [channels]: of its
    whole weights, since a chip finds a grid of its own for each channel. answer: (gain, base) -> that of the answer."""
    graph = prepared(graph, "levels", lambda operation: isinstance(operation, Quantise))
    front, shapes, bad = entrance(graph), shapes_of(graph), []
    first = graph.ops[front]
    assert isinstance(first, Quantise)
    bad += [f"'{n}' must have one step, and levels from 0 on" for n in graph.neurons if not _simple(graph.ops[n])]
    if bad:
        raise ConversionError("cannot put this graph on whole numbers", bad)
    codes = {front: plain(shapes[front], first.step)}
    steps, changed = {front: 1.0}, {front: replace(first, step=torch.ones((), dtype=torch.float64))}
    done: dict[str, Op] = dict(changed)
    for name in [*graph.order, ""]:
        operation = graph.ops.get(name)
        if name in codes or (name and not isinstance(operation, Quantise | MaxPool)):
            continue
        if isinstance(operation, MaxPool):
            below = graph.takes[name][0]
            if below not in codes:
                raise ConversionError(f"'{name}' takes the largest of values that are no events")
            codes[name], steps[name] = plain(shapes[name], codes[below].step), steps[below]
            continue
        target = graph.takes[name][0] if name else graph.output
        found = ways_into(graph, target, codes)
        lines = [way(graph, shapes, each, codes[each[0]], bad) for each in found]
        mixing = [n for n, _ in found[0][1] if isinstance(graph.ops[n], Conv | Linear)] if len(found) == 1 else []
        allowed = (Conv, Linear, AvgPool, Mean, Reshape)
        if bad or len(mixing) != 1 or any(not isinstance(graph.ops[n], allowed) for n, _ in found[0][1]):
            what = f"'{name or graph.output}' is not reached by one way with one operation with weights"
            raise ConversionError("cannot put this graph on whole numbers", [*bad, what])
        line = lines[0]
        assert line is not None
        base = _per_channel(base_at(graph, target, {n: c.base for n, c in codes.items()}), graph, mixing[0])
        if name:
            assert isinstance(operation, Quantise)
            gain, step, base = fit(line.gain, float(operation.step), base, _units(line))
            done[name] = replace(operation, step=torch.tensor(step, dtype=torch.float64))
            codes[name], steps[name] = plain(shapes[name], operation.step), step
        else:
            gain, base = line.gain, answer(line.gain, base)
        done[mixing[0]] = _weighted(graph.ops[mixing[0]], line, gain, steps[found[0][0]], base)
    graph = graph.replace(done)
    scale = Affine(1 / first.step)
    source = graph.takes[front][0]
    name = f"{source}.levels"
    takes = {**graph.takes, name: (source,), front: (name,)}
    return Graph({**graph.ops, name: scale}, takes, graph.output, graph.metadata)


def _simple(operation: Op) -> bool:
    return isinstance(operation, Quantise) and operation.step.numel() == 1 and operation.low == 0


def _weighted(operation: Op, line: Way, gain: float, step: float, base: Tensor) -> Op:
    """The operation with weights gain / step of its whole ones, pools on the way counted in."""
    area = prod(prod(p.op.kernel_size) for p in line.parts if isinstance(p.op, AvgPool))
    whole = next(p.weight for p in line.parts if p.kind in ("conv", "linear"))
    weight = torch.as_tensor(whole) * (gain * area / step)
    if isinstance(operation, Conv):
        return replace(operation, weight=weight, bias=base, groups=1)
    assert isinstance(operation, Linear)
    return replace(operation, weight=weight, bias=base)


def _units(line: Way) -> Tensor:
    """[channels]: the largest number that all whole weights of a channel are multiples of."""
    whole = next(p.weight for p in line.parts if p.kind in ("conv", "linear")).astype(np.int64)
    units = np.gcd.reduce(np.abs(whole.reshape(len(whole), -1)), axis=1)
    return torch.as_tensor(np.maximum(units, 1).astype(np.float64))


def _per_channel(base: Tensor, graph: Graph, mixing: str) -> Tensor:
    """Bias of the operation with weights, from the value at rest behind it."""
    channels = len(graph.ops[mixing].weight)  # type: ignore[attr-defined]
    flat = base.reshape(channels, -1)
    if not torch.allclose(flat, flat[:, :1], rtol=1e-9, atol=1e-12):
        raise ConversionError(f"what '{mixing}' gives at rest differs within a channel")
    return flat[:, 0].clone()


__all__ = ["in_levels", "whole_steps"]
