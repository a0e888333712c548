"""`Map`: a linear map of one step of spikes to another, with delays, and how two of them become one. Knows no chip.

A pool in front of a convolution becomes one larger strided kernel, a pool in front of a matrix expands it, linear
maps multiply, delays add. What has no such form is evaluated as an exact list of synapses. Folding is exact: only
the order of float64 sums changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import UnsupportedNode
from neuro.ir import Array, Shape

IntArray = NDArray[np.int64]
Pair = tuple[int, int]
MAX_SYNAPSES = 1 << 26  # a folded path larger than this (0.5 GB of weights) is refused by name
DENSE_FROM = 0.5  # an irregular map is stored as a matrix from this density on


class Sparse(NamedTuple):
    """Coordinate list. row: target, col: source, value, delay in steps; all [n]."""

    row: IntArray
    col: IntArray
    value: Array
    delay: IntArray


@dataclass(frozen=True, eq=False)
class Map:
    """A linear map of one step to another, with delays.

    kind "diagonal": weight [n]. "conv": weight [out, in / groups, kh, kw], as `ir.Conv2d`. "dense": weight
    [out, in]. "sparse": weight [synapses] with ``row`` (target) and ``col`` (source).
    delay: int64, of weight's shape, or a scalar () for all ("conv": always a scalar).
    """

    kind: str
    weight: Array
    delay: IntArray
    in_shape: Shape
    out_shape: Shape
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    row: IntArray | None = None
    col: IntArray | None = None

    @property
    def n_in(self) -> int:
        return math.prod(self.in_shape)

    @property
    def n_out(self) -> int:
        return math.prod(self.out_shape)

    def coordinates(self) -> Sparse:
        """Every synapse of the map. Zero weights of a matrix or kernel are left out."""
        if self.kind == "sparse":
            assert self.row is not None
            assert self.col is not None
            return Sparse(self.row, self.col, self.weight, np.broadcast_to(self.delay, self.weight.shape))
        if self.kind == "diagonal":
            index = np.arange(self.n_in)
            return Sparse(index, index, self.weight, np.broadcast_to(self.delay, self.weight.shape))
        if self.kind == "dense":
            row, col = np.nonzero(self.weight)
            delay = np.broadcast_to(self.delay, self.weight.shape)[row, col]
            return Sparse(row, col, self.weight[row, col], delay)
        return _conv_coordinates(self)

    def as_sparse(self) -> Map:
        """The same map as a coordinate list, sorted by target, then source."""
        s = self.coordinates()
        order = np.lexsort((s.delay, s.col, s.row))
        return Map(
            "sparse",
            s.value[order],
            np.ascontiguousarray(s.delay[order]),
            self.in_shape,
            self.out_shape,
            row=s.row[order],
            col=s.col[order],
        )

    def matrix(self) -> Array:
        """float64[out, in]; only for a map whose delays are all the same."""
        assert self.delay.size == 0 or self.delay.min() == self.delay.max(), "a matrix has no room for delays"
        if self.kind == "dense":
            return self.weight
        s, full = self.coordinates(), np.zeros((self.n_out, self.n_in))
        np.add.at(full, (s.row, s.col), s.value)
        return full


def _conv_coordinates(m: Map) -> Sparse:
    out_c, per_group = m.weight.shape[:2]
    (_, height, width), (_, out_h, out_w) = m.in_shape, m.out_shape
    o, c, a, b = np.nonzero(m.weight)
    channel = c + (o // (out_c // m.groups)) * per_group
    y, x = np.arange(out_h), np.arange(out_w)
    # [kernel entry, out_h, out_w]: where each kernel entry reads for each output position
    in_y = (y * m.stride[0] - m.padding[0])[None, :, None] + (a * m.dilation[0])[:, None, None]
    in_x = (x * m.stride[1] - m.padding[1])[None, None, :] + (b * m.dilation[1])[:, None, None]
    inside = (in_y >= 0) & (in_y < height) & (in_x >= 0) & (in_x < width)
    row = (o[:, None, None] * out_h + y[None, :, None]) * out_w + x[None, None, :]
    col = (channel[:, None, None] * height + in_y) * width + in_x
    value = np.broadcast_to(m.weight[o, c, a, b][:, None, None], inside.shape)
    count = int(inside.sum())
    return Sparse(row[inside], col[inside], value[inside], np.full(count, int(m.delay)))


def _from_sparse(s: Sparse, in_shape: Shape, out_shape: Shape) -> Map:
    """Merge synapses that share target, source and delay; a matrix where it is dense and has one delay."""
    n_in, n_out = math.prod(in_shape), math.prod(out_shape)
    order = np.lexsort((s.delay, s.col, s.row))
    row, col, value, delay = s.row[order], s.col[order], s.value[order], s.delay[order]
    if row.size:
        new = np.ones(row.size, bool)
        new[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1]) | (delay[1:] != delay[:-1])
        value = np.add.reduceat(value, np.flatnonzero(new))
        row, col, delay = row[new], col[new], delay[new]
    if row.size and delay.min() == delay.max() and row.size >= DENSE_FROM * n_in * n_out:
        full = np.zeros((n_out, n_in))
        full[row, col] = value
        return Map("dense", full, delay[:1].reshape(()), in_shape, out_shape)
    return Map("sparse", value, delay, in_shape, out_shape, row=row, col=col)


def compose(first: Map, second: Map) -> Map:
    """second(first(x)), exactly; the most regular kind that holds it."""
    rule = _COMPOSE.get((first.kind, second.kind))
    merged = rule(first, second) if rule else None
    return merged if merged is not None else _compose_sparse(first, second)


def _compose_sparse(first: Map, second: Map) -> Map:
    a, b = first.coordinates(), second.coordinates()
    order = np.argsort(a.row, kind="stable")
    start = np.searchsorted(a.row[order], np.arange(first.n_out + 1))
    count = (start[1:] - start[:-1])[b.col]
    total = int(count.sum())
    if total > MAX_SYNAPSES:
        raise UnsupportedNode(
            f"a path of {total:,} synapses is too large to fold (limit {MAX_SYNAPSES:,}); "
            "put a neuron between the two layers, or drop the Delay or padding that keeps them from merging"
        )
    of_b = np.repeat(np.arange(b.row.size), count)
    within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    of_a = order[np.repeat(start[b.col], count) + within]
    joined = Sparse(b.row[of_b], a.col[of_a], a.value[of_a] * b.value[of_b], a.delay[of_a] + b.delay[of_b])
    return _from_sparse(joined, first.in_shape, second.out_shape)


def _one(delay: IntArray) -> IntArray | None:
    """The delay as a scalar if it is the same everywhere."""
    if delay.size and delay.min() == delay.max():
        return delay.reshape(-1)[:1].reshape(())
    return None


def _per_channel(values: Array, shape: Shape) -> Array | None:
    """One value per channel of (C, H, W) if it is constant within each, else None."""
    if len(shape) != 3:
        return None
    flat = values.reshape(shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def _diagonal_diagonal(first: Map, second: Map) -> Map:
    return replace(
        second, weight=first.weight * second.weight, delay=first.delay + second.delay, in_shape=first.in_shape
    )


def _diagonal_conv(first: Map, second: Map) -> Map | None:
    scale, delay = _per_channel(first.weight, second.in_shape), _one(np.asarray(first.delay))
    if scale is None or delay is None or first.in_shape != second.in_shape:
        return None
    out_c, per_group = second.weight.shape[:2]
    channel = np.arange(per_group)[None] + (np.arange(out_c) // (out_c // second.groups))[:, None] * per_group
    return replace(second, weight=second.weight * scale[channel][:, :, None, None], delay=delay + second.delay)


def _conv_diagonal(first: Map, second: Map) -> Map | None:
    scale, delay = _per_channel(second.weight, first.out_shape), _one(np.asarray(second.delay))
    if scale is None or delay is None:
        return None
    out = second.out_shape if len(second.out_shape) == 3 else first.out_shape
    return replace(first, weight=first.weight * scale[:, None, None, None], delay=first.delay + delay, out_shape=out)


def _diagonal_dense(first: Map, second: Map) -> Map:
    delay = first.delay if first.delay.ndim == 0 else np.broadcast_to(first.delay, second.weight.shape)
    return replace(
        second, weight=second.weight * first.weight[None], delay=second.delay + delay, in_shape=first.in_shape
    )


def _dense_diagonal(first: Map, second: Map) -> Map:
    delay = second.delay if second.delay.ndim == 0 else second.delay[:, None]
    total = np.asarray(first.delay + delay)
    if total.ndim:
        total = np.broadcast_to(total, first.weight.shape)
    return replace(first, weight=first.weight * second.weight[:, None], delay=total, out_shape=second.out_shape)


def _any_dense(first: Map, second: Map) -> Map | None:
    early, late = _one(np.asarray(first.delay)), _one(np.asarray(second.delay))
    if early is None or late is None or first.n_out * first.n_in > MAX_SYNAPSES:
        return None
    return replace(second, weight=second.weight @ first.matrix(), delay=early + late, in_shape=first.in_shape)


def _conv_conv(first: Map, second: Map) -> Map | None:
    """One kernel for two: stride, padding and reach multiply; None where zero padding in between matters."""
    if not all(
        _padding_reads_nothing(
            first.in_shape[i], first.out_shape[i], second.out_shape[i], _along(first, i), _along(second, i)
        )
        for i in (1, 2)
    ):
        return None
    w1, w2 = first.weight, second.weight
    per_channel = first.groups == first.in_shape[0] == first.out_shape[0]  # a pool or depthwise layer keeps groups
    if per_channel:
        groups = second.groups
        # w[o, i] = w2[o, i] (x) w1[channel of i]
        channel = (
            np.arange(w2.shape[1])[None] + (np.arange(w2.shape[0]) // (w2.shape[0] // groups))[:, None] * w2.shape[1]
        )
        pairs = np.einsum("oiab,oicd->oiabcd", w2, w1[channel, 0])
    else:
        groups = 1
        pairs = np.einsum("omab,micd->oiabcd", ungrouped(w2, second.groups), ungrouped(w1, first.groups))
    (d1, d2), s1 = (first.dilation, second.dilation), first.stride
    steps2 = [np.arange(w2.shape[2 + i]) * d2[i] * s1[i] for i in (0, 1)]
    steps1 = [np.arange(w1.shape[2 + i]) * d1[i] for i in (0, 1)]
    y = steps2[0][:, None] + steps1[0][None]
    x = steps2[1][:, None] + steps1[1][None]
    kernel = np.zeros((*pairs.shape[:2], int(y.max()) + 1, int(x.max()) + 1))
    for a in range(y.shape[0]):
        for b in range(x.shape[0]):
            for c in range(y.shape[1]):
                for d in range(x.shape[1]):
                    kernel[:, :, y[a, c], x[b, d]] += pairs[:, :, a, b, c, d]
    return Map(
        "conv",
        kernel,
        first.delay + second.delay,
        first.in_shape,
        second.out_shape,
        stride=(s1[0] * second.stride[0], s1[1] * second.stride[1]),
        padding=(first.padding[0] + s1[0] * second.padding[0], first.padding[1] + s1[1] * second.padding[1]),
        groups=groups,
    )


class _Along(NamedTuple):
    kernel: int
    stride: int
    padding: int
    dilation: int


def _along(m: Map, axis: int) -> _Along:
    i = axis - 1
    return _Along(m.weight.shape[1 + axis], m.stride[i], m.padding[i], m.dilation[i])


def _padding_reads_nothing(size: int, middle: int, out: int, one: _Along, two: _Along) -> bool:
    """Whether the zeros that the second layer pads with are what the first would compute there.

    Also whether one kernel of the joint stride and padding has exactly ``out`` positions.
    """
    positions = np.arange(out)[:, None] * two.stride - two.padding + np.arange(two.kernel) * two.dilation
    outside = np.unique(positions[(positions < 0) | (positions >= middle)])
    reads = outside[:, None] * one.stride - one.padding + np.arange(one.kernel) * one.dilation
    if ((reads >= 0) & (reads < size)).any():
        return False
    reach = (two.kernel - 1) * two.dilation * one.stride + (one.kernel - 1) * one.dilation + 1
    padding = one.padding + one.stride * two.padding
    return (size + 2 * padding - reach) // (one.stride * two.stride) + 1 == out


def ungrouped(weight: Array, groups: int) -> Array:
    """A grouped kernel as a full one, zeros between the groups."""
    if groups == 1:
        return weight
    out_c, per_group = weight.shape[:2]
    full = np.zeros((out_c, per_group * groups, *weight.shape[2:]))
    for g in range(groups):
        rows = slice(g * out_c // groups, (g + 1) * out_c // groups)
        full[rows, g * per_group : (g + 1) * per_group] = weight[rows]
    return full


_COMPOSE: dict[tuple[str, str], Callable[[Map, Map], Map | None]] = {
    ("diagonal", "diagonal"): _diagonal_diagonal,
    ("diagonal", "conv"): _diagonal_conv,
    ("diagonal", "dense"): _diagonal_dense,
    ("conv", "diagonal"): _conv_diagonal,
    ("conv", "conv"): _conv_conv,
    ("conv", "dense"): _any_dense,
    ("dense", "diagonal"): _dense_diagonal,
    ("dense", "dense"): _any_dense,
    ("sparse", "dense"): _any_dense,
}


def single_delay_per_pair(m: Map) -> list[Map]:
    """Several maps where one pair of neurons has synapses of different delay, else the map itself."""
    if m.kind != "sparse":
        return [m]
    assert m.row is not None
    assert m.col is not None
    if m.row.size == 0:
        return [m]
    first = np.ones(m.row.size, bool)  # sorted: equal pairs stand together
    first[1:] = (m.row[1:] != m.row[:-1]) | (m.col[1:] != m.col[:-1])
    same = np.arange(m.row.size) - np.flatnonzero(first)[np.cumsum(first) - 1]
    return [
        replace(
            m,
            weight=m.weight[same == k],
            delay=np.broadcast_to(m.delay, m.weight.shape)[same == k],
            row=m.row[same == k],
            col=m.col[same == k],
        )
        for k in range(int(same.max()) + 1)
    ]


_NOW: IntArray = np.zeros((), np.int64)


def identity(shape: Shape) -> Map:
    """x -> x."""
    return Map("diagonal", np.ones(math.prod(shape)), _NOW, shape, shape)


def _flatten(node: ir.Flatten, given: Shape, sent: Shape) -> Map:
    return Map("diagonal", np.ones(math.prod(given)), _NOW, given, sent)


def _scale(node: ir.Scale, given: Shape, sent: Shape) -> Map:
    return Map("diagonal", np.broadcast_to(node.scale, given).reshape(-1), _NOW, given, sent)


def _delay(node: ir.Delay, given: Shape, sent: Shape) -> Map:
    steps = np.broadcast_to(node.steps, given).reshape(-1)
    one = _one(steps)
    return Map("diagonal", np.ones(steps.size), steps if one is None else one, given, sent)


def _pool(node: ir.SumPool2d | ir.AvgPool2d, given: Shape, sent: Shape) -> Map:
    area = math.prod(node.kernel_size)
    value = 1.0 / area if isinstance(node, ir.AvgPool2d) else 1.0
    kernel = np.full((given[0], 1, *node.kernel_size), value)
    return Map("conv", kernel, _NOW, given, sent, node.stride, node.padding, (1, 1), given[0])


def _conv(node: ir.Conv2d, given: Shape, sent: Shape) -> Map:
    return Map("conv", node.weight, _NOW, given, sent, node.stride, node.padding, node.dilation, node.groups)


def _linear(node: ir.Linear, given: Shape, sent: Shape) -> Map:
    return Map("dense", node.weight, _NOW if node.delay_steps is None else node.delay_steps, given, sent)


MAPS: dict[type[ir.Node], Callable[..., Map]] = {
    ir.Flatten: _flatten,
    ir.Scale: _scale,
    ir.Delay: _delay,
    ir.SumPool2d: _pool,
    ir.AvgPool2d: _pool,
    ir.Conv2d: _conv,
    ir.Linear: _linear,
    ir.Affine: _linear,
}
