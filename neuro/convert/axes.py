"""Parts, joins and means of traced values along the axes that the original sees; shared by the front ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from neuro.convert import arithmetic, ops
from neuro.convert.ops_shape import Take
from neuro.convert.trace import Refused, Tracer, Value, affine, against, permute, reshape

ENTRIES = 1 << 20  # of one axis, where they are listed


def concat(g: Tracer, values: Sequence[Value | Tensor], axis: int) -> Value:
    traced = [v for v in values if isinstance(v, Value)]
    first = traced[0]
    if len({(v.batch, v.outer, v.inner, len(v.shape)) for v in traced}) > 1:
        raise Refused(f"the batch is in different places of {' and '.join(str(v.shape) for v in traced)}")
    at = first.stored_axis(axis)
    names, rests = [], []
    for v in values:
        if isinstance(v, Value):
            names.append(v.name)
            rests.append(v.rest)
        elif v.numel():
            wanted = list(first.shape)
            wanted[first.axis(axis)] = v.shape[axis]
            data = against(arithmetic.tensor_of(v).expand(wanted), first)
            names.append(g.constant(data))
            rests.append(tuple(data.shape))
    return first if len(names) == 1 else g.put_names(ops.Concat(at), names, rests, first)


def slice_of(g: Tracer, v: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Entries start:stop:step of a seen axis, as Python counts them."""
    size = v.shape[axis]
    entries = range(size)[start:stop:step]
    if len(entries) == size and step == 1:
        return v
    if step < 1:
        return g.put(Take(v.stored_axis(axis), tuple(entries)), v)
    return g.put(ops.Slice(v.stored_axis(axis), entries.start, entries.stop, step), v)


def select(g: Tracer, v: Value, axis: int, entry: int) -> Value:
    """One entry of a seen axis, without the axis."""
    at, axis = v.stored_axis(axis), v.axis(axis)
    entry = range(v.shape[axis])[entry]
    return g.put(ops.Slice(at, entry, entry + 1, 1, True), v, batch=v.batch - (axis < v.batch))


def take(g: Tracer, v: Value, axis: int, index: Sequence[int]) -> Value:
    size = v.shape[axis]
    return g.put(Take(v.stored_axis(axis), tuple(range(size)[int(k)] for k in index)), v)


def repeated(size: int, count: int) -> list[int]:
    """0..size-1, count times over."""
    if not 0 < size * count <= ENTRIES:
        raise Refused(f"{size} entries {count} times over; {ENTRIES} are allowed")
    return list(range(size)) * count


def split(g: Tracer, v: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [slice_of(g, v, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def expand(g: Tracer, v: Value, wanted: Sequence[int]) -> Value:
    """Axes of one entry repeated; -1 keeps an axis."""
    more = len(wanted) - len(v.shape)
    if more:
        v = g.put(ops.Reshape((1,) * more + v.rest), v, batch=v.batch + more)
    for axis, count in enumerate(wanted):
        if count not in (-1, v.shape[axis]):
            if v.shape[axis] != 1 or axis == v.batch:
                raise Refused(f"{v.shape} cannot be repeated to {tuple(wanted)}")
            v = take(g, v, axis, repeated(1, count))
    return v


def axes_of(v: Value, axes: Sequence[int] | int | None) -> list[int]:
    """Seen axes, counted from the front; none given: all, which the batch forbids."""
    listed = range(len(v.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    return sorted(v.axis(a) for a in (listed or range(len(v.shape))))


def mean(g: Tracer, v: Value, axes: Sequence[int] | int | None, keepdim: bool = False) -> Value:
    seen = axes_of(v, axes)
    stored = tuple(v.stored_axis(a) for a in seen)
    lost = 0 if keepdim else sum(a < v.batch for a in seen)
    return g.put(ops.Mean(stored, bool(keepdim)), v, batch=v.batch - lost)


def total(g: Tracer, v: Value, axes: Sequence[int] | int | None, keepdim: bool = False) -> Value:
    count = math.prod(v.shape[a] for a in axes_of(v, axes))
    return affine(g, mean(g, v, axes, keepdim), arithmetic.tensor_of(float(count)))


def einsum(g: Tracer, equation: str, a: arithmetic.Given, b: arithmetic.Given) -> Value:
    """sum over the letters that the result has not, of a product of two; every axis has its letter."""
    terms, result = equation.split("->")
    one, two = terms.split(",")
    if any(len(set(letters)) != len(letters) for letters in (one, two, result)) or not set(result) <= set(one + two):
        raise Refused(f"{equation!r}: letters that repeat, or that only the result has")
    alone = (set(one) ^ set(two)) - set(result)
    if alone or not isinstance(a, Value) or not isinstance(b, Value):
        raise Refused(f"{equation!r}: two operands that depend on the input, sums over letters of both alone")
    both = [n for n in one if n in two and n in result]
    summed = [n for n in one if n in two and n not in result]
    left, right = [n for n in one if n not in two], [n for n in two if n not in one]
    size = dict(zip(one + two, a.shape + b.shape, strict=True))

    def grouped(v: Value, letters: str, first: list[str], last: list[str]) -> Value:
        moved = permute(g, v, [letters.index(n) for n in (*both, *first, *last)])
        sizes = [math.prod(size[n] for n in group) for group in (first, last)]
        return reshape(g, moved, (*(size[n] for n in both), *sizes))

    found = arithmetic.matmul(g, grouped(a, one, left, summed), grouped(b, two, summed, right))
    listed = [*both, *left, *right]
    return permute(g, reshape(g, found, [size[n] for n in listed]), [listed.index(n) for n in result])


def squeeze(g: Tracer, v: Value, axes: Sequence[int]) -> Value:
    gone = {v.axis(a) for a in axes if v.shape[a] == 1 and v.axis(a) != v.batch}
    shape = [n for k, n in enumerate(v.shape) if k not in gone]
    if not gone:
        return v
    lost = sum(a < v.batch for a in gone)
    stored = [n for k, n in enumerate(v.rest, 1) if k not in {v.stored_axis(a) for a in gone}]
    found = g.put(ops.Reshape(tuple(stored)), v, batch=v.batch - lost)
    assert found.shape == tuple(shape)
    return found


def unsqueeze(g: Tracer, v: Value, axis: int) -> Value:
    """A new seen axis of one entry."""
    axis %= len(v.shape) + 1
    behind = axis > v.batch
    at = axis + v.extra - 1 if behind else axis
    rest = (*v.rest[:at], 1, *v.rest[at:])
    return g.put(ops.Reshape(rest), v, batch=v.batch + (not behind))
