"""Rows of `neuro.convert.onnx_table`: along axes, and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from neuro.convert import axes, layers, ops
from neuro.convert.arithmetic import Given
from neuro.convert.onnx_table import ONNX, Row, number, numbers, row
from neuro.convert.ops_shape import Largest, LogSoftmax
from neuro.convert.trace import Refused, Tracer, Value, permute, reshape


# along axes
@row("Softmax", "LogSoftmax")
def softmax(g: Tracer, x: Value, axis: int | None = None, *, log: bool = False, version: int = 13) -> Value:
    if version < 13 and x.axis(1 if axis is None else axis) != len(x.shape) - 1:
        raise Refused("a softmax before opset 13 over several axes at once")
    stored = x.stored_axis(-1 if axis is None or version < 13 else axis)
    stored = -1 if stored == len(x.rest) else stored
    return g.put(LogSoftmax(stored) if log else ops.Softmax(stored), x)


ONNX["LogSoftmax"] = lambda g, x, axis=None, version=13: softmax(g, x, axis, log=True, version=version)


def _reduced(x: Value, over: Given | None, axes_: Sequence[int] | None, noop: int) -> list[int]:
    listed = numbers(over) if over is not None else numbers(axes_)
    if listed is None and noop:
        return []
    return axes.axes_of(x, listed)


def _reduce(how: Callable[..., Value]) -> Row:
    def reduced(
        g: Tracer,
        x: Value,
        over: Given | None = None,
        axes: Sequence[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        seen = _reduced(x, over, axes, noop_with_empty_axes)
        return how(g, x, seen, bool(keepdims)) if seen else x

    return reduced


def _largest(g: Tracer, x: Value, seen: Sequence[int], keepdim: bool) -> Value:
    lost = 0 if keepdim else sum(a < x.batch for a in seen)
    return g.put(Largest(tuple(x.stored_axis(a) for a in seen), keepdim), x, batch=x.batch - lost)


ONNX["ReduceMean"] = _reduce(axes.mean)
ONNX["ReduceSum"] = _reduce(axes.total)
ONNX["ReduceMax"] = _reduce(_largest)


# shapes
@row("Reshape")
def reshaped(g: Tracer, x: Value, shape: Given, allowzero: int = 0) -> Value:
    wanted = numbers(shape) or []
    return reshape(g, x, [x.shape[k] if n == 0 and not allowzero else n for k, n in enumerate(wanted)])


@row("Flatten")
def flatten(g: Tracer, x: Value, axis: int = 1) -> Value:
    axis = axis + len(x.shape) if axis < 0 else axis
    return reshape(g, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@row("Transpose")
def transpose(g: Tracer, x: Value, perm: Sequence[int] | None = None) -> Value:
    return permute(g, x, perm or range(len(x.shape))[::-1])


@row("Einsum")
def einsum(g: Tracer, *x: Given, equation: str = "") -> Value:
    if len(x) != 2 or "..." in equation or "->" not in equation:
        raise Refused(f"{equation!r}; two operands, every axis named, with ->")
    return axes.einsum(g, equation.replace(" ", ""), x[0], x[1])


@row("Squeeze")
def squeeze(g: Tracer, x: Value, over: Given | None = None, axes: Sequence[int] | None = None) -> Value:
    from neuro.convert.axes import squeeze as squeezed

    listed = numbers(over) if over is not None else numbers(axes)
    if listed is not None and any(x.axis(a) == x.batch for a in listed):
        raise Refused("the batch axis would be lost")
    return squeezed(g, x, range(len(x.shape)) if listed is None else listed)


@row("Unsqueeze")
def unsqueeze(g: Tracer, x: Value, over: Given | None = None, axes: Sequence[int] | None = None) -> Value:
    from neuro.convert.axes import unsqueeze as unsqueezed

    listed = numbers(over) if over is not None else numbers(axes)
    rank = len(x.shape) + len(listed or [])
    for axis in sorted(a % rank for a in listed or []):
        x = unsqueezed(g, x, axis)
    return x


@row("Expand")
def expand(g: Tracer, x: Value, shape: Given) -> Value:
    wanted = numbers(shape) or []
    wanted = [1] * (len(x.shape) - len(wanted)) + wanted
    offset = len(wanted) - len(x.shape)
    return axes.expand(g, x, [-1 if k >= offset and n == 1 else n for k, n in enumerate(wanted)])


@row("Tile")
def tile(g: Tracer, x: Value, repeats: Given) -> Value:
    for axis, count in enumerate(numbers(repeats) or []):
        x = x if count == 1 else axes.take(g, x, axis, axes.repeated(x.shape[axis], count))
    return x


@row("Concat")
def concat(g: Tracer, *x: Given, axis: int = 1) -> Value:
    return axes.concat(g, list(x), axis)  # type: ignore[arg-type]


@row("Slice")
def slice_(
    g: Tracer,
    x: Value,
    begin: Given | None = None,
    end: Given | None = None,
    over: Given | None = None,
    by: Given | None = None,
    starts: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
) -> Value:
    from neuro.convert.axes import slice_of

    first = numbers(begin if begin is not None else starts) or []
    last = numbers(end if end is not None else ends) or []
    where = numbers(over if over is not None else axes) or list(range(len(first)))
    steps = numbers(by) or [1] * len(first)
    for a, b, axis, step in zip(first, last, where, steps, strict=True):
        whole = range(x.shape[axis])[slice(a, b, step)]
        if x.axis(axis) == x.batch and len(whole) == x.shape[axis] and step == 1:
            continue
        x = slice_of(g, x, axis, a, b, step)
    return x


@row("Split")
def split(
    g: Tracer,
    x: Value,
    sizes: Given | None = None,
    axis: int = 0,
    split: Sequence[int] | None = None,
    num_outputs: int | None = None,
    *,
    outputs: int = 1,
) -> list[Value]:
    listed = numbers(sizes) if sizes is not None else numbers(split)
    if listed is None:
        size, step = x.shape[axis], -(-x.shape[axis] // (num_outputs or outputs))
        listed = [min(step, size - k) for k in range(0, size, step)]
    return axes.split(g, x, listed, axis)


@row("Gather")
def gather(g: Tracer, x: Given, index: Given, axis: int = 0) -> Value:
    if not isinstance(x, Value) or not isinstance(index, Tensor):
        raise Refused("entries that depend on the input; give the network the embedded values")
    if index.ndim == 0:
        return axes.select(g, x, axis, int(index))
    if index.ndim == 1:
        return axes.take(g, x, axis, index.tolist())
    raise Refused("entries by a table of more than one axis")


@row("Pad")
def pad(
    g: Tracer,
    x: Value,
    around: Given | None = None,
    value: Given | None = None,
    over: Given | None = None,
    mode: str = "constant",
    pads: Sequence[int] | None = None,
    **old: float,
) -> Value:
    listed = numbers(around if around is not None else pads) or []
    if mode != "constant" or number(value) or old.get("value"):
        raise Refused(f"padding of mode {mode!r} with {number(value)}; only zeros")
    rank = len(x.shape)
    where = numbers(over) or list(range(rank))
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(where):
        before[axis], after[axis] = listed[k], listed[k + len(where)]
    return layers.pad_zeros(g, x, before, after)
