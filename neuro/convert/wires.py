"""What lies between populations, as whole numbers: each way through linear operations, cut into parts that a chip's
network has nodes for, with its common factor taken out.

    input of a population = base + gain * (whole weights on what the sources send), summed over the ways into it

Values are [channel, height, width] or [n]; a source may send several **units** for one channel (`Code`), the population
may want several rows for one channel, and both are done here by repeating rows and columns of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import (
    Add,
    Affine,
    AvgPool,
    Concat,
    Constant,
    Conv,
    Function,
    Input,
    Linear,
    MaxPool,
    Mean,
    Op,
    Quantise,
    Reshape,
)
from neuro.convert.quantise import fold
from neuro.errors import ConversionError

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Shape = tuple[int, ...]
MOST_BITS = 24  # of a whole weight: beyond, no grid was found but the noise of float64
MOST_MULTIPLE = 256  # of the unit, that the smallest weight is
NOISE = 1e-13  # relative, of float64
COMMON = 1 << 12  # largest denominator of the ratio of two ways' gains


@dataclass(frozen=True, eq=False)
class Code:
    """How what a population sends stands for values [*shape]: value = base + step * sum of sign * unit over the units
    of a channel.

    channel, sign: int64[units]; base: [*shape]; step: broadcasts against it. most: of a unit, 1 where it spikes.
    """

    shape: Shape
    channel: IntArray
    sign: IntArray
    base: Tensor
    step: Tensor
    most: int = 1

    def value(self, sent: NDArray[np.number]) -> Tensor:
        """[batch, *shape] of what was sent in one step, [batch, units * pixels]."""
        units = torch.as_tensor(np.ascontiguousarray(sent, dtype=np.float64))
        units = units.reshape(len(units), len(self.channel), *self.shape[1:])
        signs = torch.as_tensor(self.sign.astype(np.float64)).reshape(-1, *(1,) * (len(self.shape) - 1))
        total = torch.zeros(len(units), *self.shape, dtype=torch.float64)
        total.index_add_(1, torch.as_tensor(self.channel), units * signs)
        return self.base + self.step * total

    def reach(self) -> tuple[IntArray, IntArray]:
        """(least, most) of the sum of units, per channel."""
        low, high = np.zeros(self.shape[0], np.int64), np.zeros(self.shape[0], np.int64)
        np.add.at(low, self.channel, np.where(self.sign < 0, -self.most, 0))
        np.add.at(high, self.channel, np.where(self.sign > 0, self.most, 0))
        return low, high


def plain(shape: Shape, step: Tensor, low: int = 0, most: int = 1) -> Code:
    """One unit per channel, which sends level - low."""
    n = shape[0]
    base = (step * low).expand(shape).clone()
    return Code(shape, np.arange(n), np.ones(n, np.int64), base, step, most)


def prepared(graph: Graph, form: str, neurons: Callable[[Op], bool]) -> Graph:
    """In float64, factors folded into weights, every max-pool and reshape behind the neurons that it stood before:
    they rise with their input, so they can change places. Behind it, values of these neurons have the shape in front
    of the pool; everything else is as it was.

    Raises:
        ConversionError: operations that this form cannot hold, all of them.
    """
    graph = fold(graph.to(torch.float64))
    while True:
        for name in graph.order:
            source = graph.takes[name][0] if graph.takes[name] else name
            users = [n for n in graph.order if source in graph.takes[n]]
            moves = isinstance(graph.ops[source], MaxPool | Reshape) and source != graph.output
            if neurons(graph.ops[name]) and moves and users == [name]:
                graph = _swapped(graph, name, source)
                break
        else:
            return graph


def _swapped(graph: Graph, name: str, source: str) -> Graph:
    step = getattr(graph.ops[name], "step", torch.ones(()))
    if isinstance(graph.ops[source], Reshape) and step.numel() > 1:
        raise ConversionError(f"'{name}' has a step per element behind the reshape '{source}': use one step for all")
    takes = {n: tuple(source if s == name else s for s in graph.takes[n]) for n in graph.ops}
    takes[name], takes[source] = graph.takes[source], (name,)
    return Graph(graph.ops, takes, source if graph.output == name else graph.output, graph.metadata)


def shapes_of(graph: Graph) -> dict[str, Shape]:
    """name -> shape of one value."""
    with torch.no_grad():
        inputs = [torch.zeros(1, *graph.ops[n].shape, dtype=torch.float64) for n in graph.inputs]  # type: ignore[attr-defined]
        return {name: tuple(value.shape[1:]) for name, value in graph.values(*inputs).items()}


def base_at(graph: Graph, name: str, bases: Mapping[str, Tensor]) -> Tensor:
    """Value [*shape] of ``name`` where all populations are at their base."""
    found: dict[str, Tensor] = {n: value[None] for n, value in bases.items()}

    def visit(n: str) -> Tensor:
        if n not in found:
            found[n] = graph.ops[n].value(*(visit(s) for s in graph.takes[n]))
        return found[n]

    return visit(name)[0]


@dataclass(frozen=True, eq=False)
class Part:
    """One node of a way: kind "sum_pool", "flatten", "conv" or "linear". op: geometry. shape: of values behind it."""

    kind: str
    op: Op | None
    weight: Array
    shape: Shape


@dataclass(frozen=True, eq=False)
class Way:
    """From a source to a population, in order. gain: what a whole number is worth. low, high: [channels] of the
    population, what the whole sum can be. exact: the weights are whole; else they were rounded."""

    source: str
    parts: tuple[Part, ...]
    gain: float
    low: Array
    high: Array
    exact: bool = True

    @property
    def largest(self) -> int:
        """The largest whole weight."""
        return max(int(np.abs(p.weight).max(initial=0)) for p in self.parts if p.kind in ("conv", "linear"))


Found = tuple[str, tuple[tuple[str, int], ...]]


def ways_into(graph: Graph, name: str, populations: Mapping[str, Code]) -> list[Found]:
    """(population, operations on the way with the place at which each is entered), for the value of ``name``."""
    found: list[Found] = []
    todo: list[tuple[str, tuple[tuple[str, int], ...]]] = [(name, ())]
    while todo:
        here, after = todo.pop()
        if here in populations:
            found.append((here, after))
        elif not isinstance(graph.ops[here], Constant):
            todo += [(s, ((here, k), *after)) for k, s in reversed(list(enumerate(graph.takes[here])))]
    return found


def way(graph: Graph, shapes: Mapping[str, Shape], found: Found, code: Code, bad: list[str]) -> Way | None:
    """One way in whole numbers; None and a complaint where a part has no node."""
    parts: list[Part] = []
    gain, shape = 1.0, code.shape
    if code.step.numel() == 1:
        gain = float(code.step)
        columns = np.ones(shape[0])
    elif code.step.numel() == shape[0]:
        columns = code.step.reshape(-1).numpy().astype(np.float64)
    else:
        bad.append(f"'{found[0]}' has a step per pixel: use one, or one per channel")
        return None
    here = range(shape[0])  # channels of the concatenated value that are ours
    total, mixed = shape[0], False
    for name, place in found[1]:
        operation, behind = graph.ops[name], shapes[name]
        if isinstance(operation, Add):
            gain *= (operation.signs or (1,) * (place + 1))[place]
            if behind != shapes[graph.takes[name][place]]:
                bad.append(f"'{name}' broadcasts '{graph.takes[name][place]}': give both the same shape")
                return None
        elif isinstance(operation, Affine):
            scale = operation.scale.reshape(-1).numpy().astype(np.float64)
            if scale.size not in (1, total) or (scale.size > 1 and operation.scale.shape[0] != total):
                bad.append(f"'{name}' scales every element by a number of its own: use one per channel")
                return None
            if scale.size == 1:
                gain *= float(scale[0])
            elif mixed:
                parts = _rows_scaled(parts, scale[list(here)] if len(scale) == total else scale)
            else:
                columns = columns * scale[list(here)]
        elif isinstance(operation, Concat):
            if operation.axis not in (1, -len(behind)):
                bad.append(f"'{name}' joins along axis {operation.axis}: only channels, axis 1, have a node")
                return None
            before = sum(shapes[s][0] for s in graph.takes[name][:place])
            here = range(here.start + before, here.stop + before)
            total = behind[0]
        elif isinstance(operation, AvgPool | Mean):
            pool = _pool(operation, shape)
            if pool is None:
                bad.append(f"'{name}' averages over {operation}: only windows or all of [channel, height, width]")
                return None
            gain /= prod(pool.kernel_size)
            shape = (len(here), *(shapes[name][1:] if len(behind) == 3 else (1, 1)))
            parts.append(Part("sum_pool", pool, np.zeros(0), shape))
            if len(behind) == 1:
                shape = (len(here),)
                parts.append(Part("flatten", None, np.zeros(0), shape))
        elif isinstance(operation, Reshape):
            if behind == (total, *shape[1:]):
                continue
            if len(behind) != 1:
                bad.append(f"'{name}' reshapes to {behind}: only flattening has a node")
                return None
            pixels = prod(shape[1:])
            here, total = range(here.start * pixels, here.stop * pixels), total * pixels
            if not mixed:
                columns = np.repeat(columns, pixels)
            shape = (len(here),)
            parts.append(Part("flatten", None, np.zeros(0), shape))
        else:
            assert isinstance(operation, Conv | Linear)
            weight = operation.weight.numpy().astype(np.float64)
            if isinstance(operation, Conv):
                if weight.ndim != 4 or len(shape) != 3:
                    bad.append(f"'{name}' is a convolution in one dimension: only two have a node")
                    return None
                weight = _ungrouped(weight, operation.groups)
                operation = replace(operation, weight=torch.zeros(0, 0, 1, 1), bias=None, groups=1)
            elif len(shape) != 1:
                bad.append(f"'{name}' is a Linear on values of shape {shapes[graph.takes[name][0]]}: flatten them")
                return None
            weight = weight[:, list(here)]
            if not mixed:
                weight = weight * columns.reshape(1, -1, *(1,) * (weight.ndim - 2))
            shape = behind
            parts.append(Part("conv" if weight.ndim == 4 else "linear", operation, weight, shape))
            here, total, mixed = range(shape[0]), shape[0], True
    if not mixed or len(here) != total:
        parts.append(_identity(shape, here, total, columns if not mixed else np.ones(len(here))))
    return _whole(found[0], parts, gain, code)


def _whole(source: str, parts: Sequence[Part], gain: float, code: Code) -> Way:
    low, high = (a.astype(np.float64) for a in code.reach())
    made = []
    pixels, exact = prod(code.shape[1:]), True
    for part in parts:
        if part.kind == "sum_pool":
            assert isinstance(part.op, AvgPool)
            low, high = (a * prod(part.op.kernel_size) for a in (low, high))
        elif part.kind == "flatten":
            low, high = (np.repeat(a, pixels) for a in (low, high))
        else:
            unit, weight, whole = common(part.weight)
            gain, exact = gain * unit, exact and whole
            summed = (np.maximum(weight, 0), np.minimum(weight, 0))
            up, down = (w.reshape(*w.shape[:2], -1).sum(2) for w in summed)
            low, high = up @ low + down @ high, up @ high + down @ low
            made.append(replace(part, weight=weight))
            pixels = prod(part.shape[1:])
            continue
        pixels = prod(part.shape[1:])
        made.append(part)
    if gain < 0:
        last = max(k for k, p in enumerate(made) if p.kind in ("conv", "linear"))
        made[last] = replace(made[last], weight=-made[last].weight)
        gain, low, high = -gain, -high, -low
    return Way(source, tuple(made), gain, low, high, exact)


def common(weight: Array) -> tuple[float, Array, bool]:
    """(unit, whole numbers, True) with weight = unit * whole, the largest such unit: a binary fraction, or a real
    number as far as float64 can tell. Weights on no grid of at most `MOST_BITS` bits are rounded to so many: False."""
    most = float(np.abs(weight).max(initial=0.0))
    if most == 0:
        return 1.0, weight, True
    mantissa, exponent = np.frexp(weight[weight != 0])
    digits = (np.abs(mantissa) * 2.0**53).astype(np.int64)
    zeros = np.log2((digits & -digits).astype(np.float64)).astype(np.int64)
    unit, top = int((exponent - 53 + zeros).min()), int(np.frexp(most)[1])
    if top - unit <= 62:
        numbers = np.round(weight / 2.0**unit).astype(np.int64)
        divisor = int(np.gcd.reduce(np.abs(numbers), axis=None))
        if np.abs(numbers).max() // divisor < 1 << MOST_BITS:
            return float(divisor) * 2.0**unit, (numbers // divisor).astype(np.float64), True
    real = _multiples(weight)
    if real is not None:
        return (*real, True)
    unit = top - MOST_BITS
    return 2.0**unit, np.rint(weight / 2.0**unit), False


def _multiples(weight: Array) -> tuple[float, Array] | None:
    """(unit, whole numbers) of weights that are multiples of a real unit, as far as float64 can tell."""
    sizes = np.unique(np.abs(weight[weight != 0]))
    for m in range(1, MOST_MULTIPLE + 1):
        if sizes[-1] / sizes[0] * m > 1 << 16:
            return None
        whole = np.rint(sizes * (m / sizes[0]))
        unit = float(sizes @ whole / (whole @ whole))  # least squares
        if (np.abs(sizes - unit * whole) <= NOISE * sizes).all():
            return unit, np.rint(weight / unit)
    return None


def one_gain(ways: Sequence[Way], name: str, bad: list[str]) -> tuple[list[Way], float]:
    """The ways with one gain for all, whole numbers still; a complaint where there is no such gain."""
    if not ways:
        return [], 1.0
    first = ways[0].gain
    ratios = [Fraction(w.gain / first).limit_denominator(COMMON) for w in ways]
    if any(abs(float(r) * first - w.gain) > 1e-12 * abs(w.gain) for r, w in zip(ratios, ways, strict=True)):
        whole = False
    else:
        parts = lcm(*(r.denominator for r in ratios))
        factors = [int(r * parts) for r in ratios]
        whole = max(abs(f) for f in factors) < COMMON
    if not whole:
        steps = ", ".join(f"'{w.source}' {w.gain:.6g}" for w in ways)
        bad.append(
            f"'{name}' adds sums whose units ({steps}) have no common measure: give the neurons that are added steps "
            "that are whole multiples of each other (one step, or powers of two)"
        )
        return list(ways), 1.0
    made = []
    for w, factor in zip(ways, factors, strict=True):
        last = max(k for k, p in enumerate(w.parts) if p.kind in ("conv", "linear"))
        parts_of = list(w.parts)
        parts_of[last] = replace(parts_of[last], weight=parts_of[last].weight * factor)
        ends = (w.low * factor, w.high * factor)
        made.append(
            replace(w, parts=tuple(parts_of), gain=first / parts, low=np.minimum(*ends), high=np.maximum(*ends))
        )
    return made, first / parts


def _rows_scaled(parts: list[Part], scale: Array) -> list[Part]:
    last = max(k for k, p in enumerate(parts) if p.kind in ("conv", "linear"))
    weight = parts[last].weight
    rows = np.broadcast_to(scale, len(weight)) if len(scale) == len(weight) else None
    if rows is None:  # flattened in between: one number per element
        raise ConversionError("a factor per element behind a flattened convolution: put it in front of the flattening")
    scaled = replace(parts[last], weight=weight * rows.reshape(-1, *(1,) * (weight.ndim - 1)))
    return [*parts[:last], scaled, *parts[last + 1 :]]


def _pool(operation: AvgPool | Mean, shape: Shape) -> AvgPool | None:
    if isinstance(operation, AvgPool):
        return operation if len(operation.kernel_size) == 2 and len(shape) == 3 else None
    axes = sorted(a % (len(shape) + 1) for a in operation.axes)
    return AvgPool(shape[1:], shape[1:]) if len(shape) == 3 and axes == [2, 3] else None


def _ungrouped(weight: Array, groups: int) -> Array:
    if groups == 1:
        return weight
    out, per = weight.shape[:2]
    full = np.zeros((out, per * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        full[rows, group * per : (group + 1) * per] = weight[rows]
    return full


def _identity(shape: Shape, here: range, total: int, columns: Array) -> Part:
    weight = np.zeros((total, len(here)))
    weight[list(here), np.arange(len(here))] = columns
    if len(shape) == 1:
        return Part("linear", Linear(torch.zeros(0, 0)), weight, (total,))
    return Part("conv", Conv(torch.zeros(0, 0, 1, 1)), weight[:, :, None, None], (total, *shape[1:]))


HELD = (Add, Affine, AvgPool, Concat, Conv, Linear, Mean, Reshape)


def refusals(
    graph: Graph, form: str, allowed: tuple[type[Op], ...], others: str, but: Callable[[Op], bool]
) -> list[str]:
    """Operations with no counterpart, one line each."""
    bad = []
    for name in graph.order:
        operation = graph.ops[name]
        if isinstance(operation, (*HELD, *allowed, Constant, Input)) or but(operation):
            continue
        kind = type(operation).__name__ + (f" {operation.name}" if isinstance(operation, Function) else "")
        bad.append(f"'{name}' ({kind}) has no counterpart in form '{form}'; {others}")
    return bad


__all__ = ["Code", "Quantise", "Way", "base_at", "plain", "prepared", "refusals", "shapes_of", "way", "ways_into"]
