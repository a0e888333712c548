"""Rows of `neuro.convert.aten_table`: shapes and parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuro.convert import arithmetic, axes, layers
from neuro.convert.arithmetic import Given
from neuro.convert.aten_table import ATEN, row
from neuro.convert.trace import Refused, Tracer, Value, permute, reshape


@row("view", "_unsafe_view", "view_copy")
def view(g: Tracer, x: Value, size: Sequence[int]) -> Value:
    return reshape(g, x, size)


@row("reshape")
def reshaped(g: Tracer, x: Value, shape: Sequence[int]) -> Value:
    return reshape(g, x, shape)


@row("sym_size")
def size_of(g: Tracer, x: Value, dim: int) -> int:
    return x.shape[dim]


@row("flatten")
def flatten(g: Tracer, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    begin, end = x.axis(start_dim), x.axis(end_dim)
    return reshape(g, x, (*x.shape[:begin], math.prod(x.shape[begin : end + 1]), *x.shape[end + 1 :]))


@row("unflatten")
def unflatten(g: Tracer, x: Value, dim: int, sizes: Sequence[int]) -> Value:
    at = x.axis(dim)
    return reshape(g, x, (*x.shape[:at], *sizes, *x.shape[at + 1 :]))


@row("permute")
def permuted(g: Tracer, x: Value, dims: Sequence[int]) -> Value:
    return permute(g, x, dims)


@row("transpose", "t")
def transpose(g: Tracer, x: Value, dim0: int = 0, dim1: int = 1) -> Value:
    axes = list(range(len(x.shape)))
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return permute(g, x, axes)


@row("mT")
def last_two(g: Tracer, x: Value) -> Value:
    return transpose(g, x, -2, -1)


@row("numpy_T")
def reversed_axes(g: Tracer, x: Value) -> Value:
    return permute(g, x, range(len(x.shape))[::-1])


@row("swapaxes")
def swapaxes(g: Tracer, x: Value, axis0: int, axis1: int) -> Value:
    return transpose(g, x, axis0, axis1)


@row("movedim")
def movedim(g: Tracer, x: Value, source: Any, destination: Any) -> Value:
    if not isinstance(source, int):
        raise Refused("movedim of several axes; use permute")
    order = [a for a in range(len(x.shape)) if a != x.axis(source)]
    order.insert(x.axis(destination), x.axis(source))
    return permute(g, x, order)


@row("squeeze")
def squeeze(g: Tracer, x: Value, dim: Any = None) -> Value:
    listed = range(len(x.shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    return axes.squeeze(g, x, list(listed))


@row("unsqueeze")
def unsqueeze(g: Tracer, x: Value, dim: int) -> Value:
    return axes.unsqueeze(g, x, dim)


@row("expand", "broadcast_to")
def expand(g: Tracer, x: Value, size: Sequence[int], implicit: bool = False) -> Value:
    return axes.expand(g, x, size)


@row("expand_as")
def expand_as(g: Tracer, x: Value, other: Value) -> Value:
    return axes.expand(g, x, other.shape)


@row("repeat")
def repeat(g: Tracer, x: Value, repeats: Sequence[int]) -> Value:
    x = axes.expand(g, x, (*(1,) * (len(repeats) - len(x.shape)), *(-1,) * len(x.shape)))
    for axis, count in enumerate(repeats):
        x = x if count == 1 else axes.take(g, x, axis, axes.repeated(x.shape[axis], count))
    return x


@row("cat", "concat", "concatenate")
def cat(g: Tracer, tensors: Sequence[Value | Tensor], dim: int = 0) -> Value:
    return axes.concat(g, tensors, dim)


@row("stack")
def stack(g: Tracer, tensors: Sequence[Value | Tensor], dim: int = 0) -> Value:
    rank = next(len(v.shape) for v in tensors if isinstance(v, Value)) + 1
    dim %= rank
    found = [axes.unsqueeze(g, v, dim) if isinstance(v, Value) else v.unsqueeze(dim) for v in tensors]
    return axes.concat(g, found, dim)


@row("slice")
def slice_(g: Tracer, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    stop = x.shape[dim] if end is None else min(end, x.shape[dim])
    if x.axis(dim) == x.batch and not start and stop == x.shape[dim] and step == 1:
        return x
    return axes.slice_of(g, x, dim, start or 0, stop, step)


@row("select")
def select(g: Tracer, x: Value, dim: int, index: int) -> Value:
    return axes.select(g, x, dim, index)


@row("index_select")
def index_select(g: Tracer, x: Value, dim: int, index: Given) -> Value:
    if not isinstance(index, Tensor):
        raise Refused("entries that depend on the input")
    return axes.take(g, x, dim, index.tolist())


@row("index")
def index_(g: Tracer, x: Value, indices: Sequence[Given | None]) -> Value:
    named = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(named) != 1 or not isinstance(named[0][1], Tensor) or named[0][1].ndim != 1:
        raise Refused("entries by more than one list, or by lists that depend on the input")
    index = named[0][1]
    found = index.nonzero().flatten() if index.dtype == torch.bool else index
    return axes.take(g, x, named[0][0], found.tolist())


@row("flip")
def flip(g: Tracer, x: Value, dims: Sequence[int]) -> Value:
    for axis in dims:
        x = axes.take(g, x, axis, range(x.shape[axis])[::-1])
    return x


@row("roll")
def roll(g: Tracer, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if len(dims) != len(shifts):
        raise Refused("roll without axes")
    for shift, axis in zip(shifts, dims, strict=True):
        size = x.shape[axis]
        x = axes.take(g, x, axis, [(k - shift) % size for k in range(size)])
    return x


@row("chunk")
def chunk(g: Tracer, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return split(g, x, -(-x.shape[dim] // chunks), dim)


@row("split", "split_with_sizes", "unsafe_split")
def split(g: Tracer, x: Value, split_size: Any = None, dim: int = 0, split_sizes: Any = None) -> list[Value]:
    size = x.shape[dim]
    step = split_size if split_sizes is None else split_sizes
    sizes = [min(step, size - k) for k in range(0, size, step)] if isinstance(step, int) else list(step)
    return axes.split(g, x, sizes, dim)


@row("unbind")
def unbind(g: Tracer, x: Value, dim: int = 0) -> list[Value]:
    return [axes.select(g, x, dim, k) for k in range(x.shape[dim])]


@row("constant_pad_nd", "pad")
def pad(g: Tracer, x: Value, pad: Sequence[int], value: float | None = 0, mode: str = "constant") -> Value:
    if mode != "constant" or value:
        raise Refused(f"padding of mode {mode!r} with {value}; only zeros")
    before = [int(n) for n in pad[0::2]][::-1]
    after = [int(n) for n in pad[1::2]][::-1]
    return layers.pad_zeros(g, x, before, after)


@row("select_scatter")
def select_scatter(g: Tracer, x: Value, src: Given, dim: int, index: int) -> Value:
    at = range(x.shape[dim])[index]
    return slice_scatter(g, x, _unsqueezed(g, src, dim), dim, at, at + 1)


@row("slice_scatter")
def slice_scatter(
    g: Tracer, x: Value, src: Given, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    size = x.shape[dim]
    if step != 1:
        raise Refused("entries written with a step")
    begin, stop, _ = slice(start, end).indices(size)
    if x.axis(dim) == x.batch and (begin, stop) == (0, size):
        return src if isinstance(src, Value) else arithmetic.plus(g, arithmetic.times(g, x, 0.0), src)
    if not isinstance(src, Value):
        wanted = list(x.shape)
        wanted[dim] = stop - begin
        src = arithmetic.tensor_of(src).expand(wanted)
    parts: list[Value | Tensor] = [axes.slice_of(g, x, dim, 0, begin)] if begin else []
    parts += [src] + ([axes.slice_of(g, x, dim, stop, size)] if stop < size else [])
    return (
        axes.concat(g, parts, dim)
        if any(isinstance(p, Value) for p in parts)
        else arithmetic.plus(g, arithmetic.times(g, x, 0.0), parts[0])
    )


def _unsqueezed(g: Tracer, x: Given, dim: int) -> Given:
    if isinstance(x, Value):
        return axes.unsqueeze(g, x, dim)
    return arithmetic.tensor_of(x).unsqueeze(dim) if isinstance(x, Tensor) and x.ndim else x


@row("fill")
def fill(g: Tracer, x: Value, value: Given) -> Given:
    if isinstance(value, Value):
        raise Refused("a fill that depends on the input")
    shape = list(x.shape)
    return arithmetic.tensor_of(value).expand(shape)


@row("zeros_like", "ones_like", "full_like")
def filled(g: Tracer, x: Value, fill_value: float = 0.0, **_: Any) -> Tensor:
    return torch.full(x.shape, fill_value, dtype=torch.float64)


@row("new_zeros", "new_ones", "new_full")
def new(g: Tracer, x: Value, size: Sequence[int], fill_value: float = 0.0, **_: Any) -> Tensor:
    return torch.full(tuple(size), fill_value, dtype=torch.float64)


ATEN["ones_like"] = lambda g, x, **_: filled(g, x, 1.0)
ATEN["new_ones"] = lambda g, x, size, **_: new(g, x, size, 1.0)
