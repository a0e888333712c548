"""`add_run`, `sum_runs`, `sum_places`, `moments`: short runs of numbers as vectors, for compiled loops (neuro.jit).

A run of a convolution is one to a few places of some channels, 24 to 300 numbers. The compiler's own vector loops take
32 at once, or 64, and what is left over one by one: half of the time of such a run (measured). Here 16 go at once, then
8, then the rest (half of that in float64). Vectors of 64 bytes: AVX-512 as it is, several registers elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import core, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

A = NDArray[Any]
numba_core: Any = core  # numba's own types know neither code generation nor intrinsics
cgutils, signature = numba_core.cgutils, numba_core.typing.signature
BYTES = 64  # of a vector


def add_run(to: A, a: Any, add: A, b: Any, n: Any) -> None:
    """to[a:a + n] += add[b:b + n].

    Vectors without gaps, all float32 or all float64, and large enough: nothing is checked.
    """
    to[int(a) : int(a) + int(n)] += add[int(b) : int(b) + int(n)]


def sum_runs(to: A, a: Any, add: A, at: A, first: Any, last: Any, shift: Any, n: Any) -> None:
    """to[a:a + n] += add[k:k + n] for k = at[e] + shift, e = first..last - 1, one after the other, in registers.

    Vectors without gaps, to and add all float32 or all float64, at uint32; nothing is checked.
    """
    for k in at[int(first) : int(last)].astype(np.int64) + int(shift):
        to[int(a) : int(a) + int(n)] += add[k : k + int(n)]


def sum_places(to: A, bias: A, add: A, at: A, many: A, start: A, first: A, last: A, shift: A) -> None:
    """to [places * n] = bias [n] + for place p all of add[k:k + n], k = at[e] + shift[j], where j = start[p]..start[p +
    1] - 1 and e = many[first[j]]..many[last[j]] - 1; in that order, in registers.

    Vectors without gaps, to, bias and add all float32 or all float64, the others as `conv_layout.Layout.by_place` has
    them; nothing is checked.
    """
    for place in range(start.size - 1):
        total = to[place * bias.size : (place + 1) * bias.size]
        total[:] = bias
        for j in range(start[place], start[place + 1]):
            for k in at[many[first[j]] : many[last[j]]].astype(np.int64) + shift[j]:
                total += add[k : k + bias.size]


def moments(row: A, one: A, two: A) -> None:
    """one, two [channels], float64 = sum and sum of squares of row [places * channels] per channel, places in order.

    Vectors without gaps; nothing is checked.
    """
    for part in (one, two):
        part[:] = 0.0
    for place in row.reshape(-1, one.size).astype(np.float64):
        one += place
        two += place * place


def fetch(array: A, at: Any, n: Any) -> None:
    """Ask for the cache lines of array[at:at + n]; may be past the end, and never fails.

    A block of neurons reads short stretches far apart, one per step, which the processor does not see coming."""


@overload(fetch, strict=False)
def _fetch_of(array: A, at: Any, n: Any) -> Any:
    return lambda array, at, n: _fetch(array, np.uint64(at), np.uint64(n))  # type: ignore[call-arg]


@overload(add_run, strict=False)
def _add_run(to: A, a: Any, add: A, b: Any, n: Any) -> Any:
    return lambda to, a, add, b, n: _add(to, np.uint64(a), add, np.uint64(b), np.uint64(n))  # type: ignore[call-arg]


@overload(sum_runs, strict=False)
def _sum_runs(to: A, a: Any, add: A, at: A, first: Any, last: Any, shift: Any, n: Any) -> Any:
    def call(to, a, add, at, first, last, shift, n):  # type: ignore[no-untyped-def]
        begin, end = np.uint64(first), np.uint64(last)
        _sum(to, np.uint64(a), add, at, begin, end, np.uint64(shift), np.uint64(n))  # type: ignore[call-arg]

    return call


@overload(sum_places, strict=False)
def _sum_places(to: A, bias: A, add: A, at: A, many: A, start: A, first: A, last: A, shift: A) -> Any:
    def call(to, bias, add, at, many, start, first, last, shift):  # type: ignore[no-untyped-def]
        _places(to, bias, add, at, many, start, first, last, shift)  # type: ignore[call-arg]

    return call


@overload(moments, strict=False)
def _moments_of(row: A, one: A, two: A) -> Any:
    return lambda row, one, two: _moments(row, one, two)  # type: ignore[call-arg]  # noqa: PLW0108


def _flat(*arrays: Any) -> bool:
    return all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays)


def _widths(number: Any) -> tuple[int, ...]:
    full: int = BYTES * 8 // number.bitwidth
    return full, full // 2, 1


def _blocks(builder: Any, n: Any, widths: tuple[int, ...], body: Callable[[Any, int], None]) -> None:
    """body(first, width) for all of 0..n - 1: the widest blocks first, the narrowest last."""
    done = ir.Constant(n.type, 0)
    for width in widths:
        end = builder.sub(n, builder.urem(builder.sub(n, done), ir.Constant(n.type, width)))
        with cgutils.for_range_slice(builder, done, end, ir.Constant(n.type, width), n.type) as (first, _):
            body(first, width)
        done = end


def _vector(builder: Any, data: Any, at: Any, width: int) -> Any:
    """Where ``width`` elements from data[at] on are loaded and stored as one."""
    place = builder.gep(data, [at])
    return builder.bitcast(place, ir.VectorType(place.type.pointee, width).as_pointer())


@intrinsic
def _add(typing: Any, to: Any, a: Any, add: Any, b: Any, n: Any) -> Any:
    if not _flat(to, add) or to.dtype != add.dtype or to.dtype not in (types.float32, types.float64):
        raise TypeError(f"add_run takes vectors of floats in C order, got {to}, {add}")
    align = to.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        left, right = (context.make_array(sig.args[k])(context, builder, arguments[k]).data for k in (0, 2))
        left, right = builder.gep(left, [arguments[1]]), builder.gep(right, [arguments[3]])

        def body(first: Any, width: int) -> None:
            p = _vector(builder, left, first, width)
            q = _vector(builder, right, first, width)
            total = builder.fadd(builder.load(p, align=align), builder.load(q, align=align))
            builder.store(total, p, align=align)

        _blocks(builder, arguments[4], _widths(to.dtype), body)
        return context.get_dummy_value()

    return types.void(to, a, add, b, n), generate


@intrinsic
def _sum(typing: Any, to: Any, a: Any, add: Any, at: Any, first: Any, last: Any, shift: Any, n: Any) -> Any:
    if not _flat(to, add, at) or to.dtype != add.dtype or to.dtype not in (types.float32, types.float64):
        raise TypeError(f"sum_runs takes vectors of floats in C order, got {to}, {add}, {at}")
    align, full = to.dtype.bitwidth // 8, BYTES * 8 // to.dtype.bitwidth

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        left, right, lists = (
            context.make_array(sig.args[k])(context, builder, arguments[k]).data for k in (0, 2, 3)
        )  # fmt: skip
        left, right = builder.gep(left, [arguments[1]]), builder.gep(right, [arguments[6]])

        def body(begin: Any, width: int) -> None:
            kept = _held(builder, [builder.load(p, align=align) for p in _several(builder, left, begin, width, full)])
            _add_all(builder, kept, right, begin, width, lists, arguments[4], arguments[5])
            for total, p in zip(kept, _several(builder, left, begin, width, full), strict=True):
                builder.store(builder.load(total), p, align=align)

        _blocks(builder, arguments[7], _many_widths(full), body)
        return context.get_dummy_value()

    return types.void(to, a, add, at, first, last, shift, n), generate


def _many_widths(full: int) -> tuple[int, ...]:
    """From what eight registers hold down to one number; a multiple of 24 channels, or of 16, is mostly one of them."""
    return (*(int(k * full) for k in (8, 6, 4, 3, 2, 1.5, 1, 0.5)), 1)


def _several(builder: Any, data: Any, at: Any, width: int, full: int) -> list[Any]:
    """Where ``width`` elements from data[at] on are loaded and stored, as vectors of up to ``full``."""
    cuts = range(0, width, full)
    return [_vector(builder, data, builder.add(at, at.type(k)), min(full, width - k)) for k in cuts]


def _held(builder: Any, values: list[Any]) -> list[Any]:
    """Room in registers for vectors that start as ``values``."""
    kept = [cgutils.alloca_once(builder, v.type) for v in values]
    for room, v in zip(kept, values, strict=True):
        builder.store(v, room)
    return kept


def _add_all(builder: Any, kept: Any, data: Any, at: Any, width: int, lists: Any, first: Any, last: Any) -> None:
    """kept += ``width`` elements from data[lists[e] + at] on, e = first..last - 1, one after the other."""
    one, align = at.type(1), 4 if data.type.pointee == ir.FloatType() else 8
    full = BYTES // align
    with cgutils.for_range_slice(builder, first, last, one, one.type) as (e, _):
        k = builder.zext(builder.load(builder.gep(lists, [e]), align=4), one.type)
        for total, q in zip(kept, _several(builder, data, builder.add(k, at), width, full), strict=True):
            builder.store(builder.fadd(builder.load(total), builder.load(q, align=align)), total)


@intrinsic
def _places(
    typing: Any, to: Any, bias: Any, add: Any, at: Any, many: Any, start: Any, first: Any, last: Any, shift: Any
) -> Any:
    given = (to, bias, add, at, many, start, first, last, shift)
    integers = types.uint32, types.uint64, *(types.int64,) * 4
    fits = _flat(*given) and to.dtype == bias.dtype == add.dtype and to.dtype in (types.float32, types.float64)
    if not fits or tuple(a.dtype for a in given[3:]) != integers:
        raise TypeError(f"sum_places takes vectors of floats and integers in C order, got {given}")
    align, full = to.dtype.bitwidth // 8, BYTES * 8 // to.dtype.bitwidth

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        arrays = [context.make_array(t)(context, builder, a) for t, a in zip(sig.args, arguments, strict=True)]
        left, base, right, lists, ends, starts, begins, stops, shifts = (a.data for a in arrays)
        n, places = (cgutils.unpack_tuple(builder, arrays[k].shape)[0] for k in (1, 5))
        one = n.type(1)

        def element(data: Any, k: Any) -> Any:
            return builder.load(builder.gep(data, [k]), align=8)

        def body(block: Any, width: int) -> None:
            with cgutils.for_range(builder, builder.sub(places, one)) as loop:
                p = loop.index
                kept = _held(
                    builder, [builder.load(q, align=align) for q in _several(builder, base, block, width, full)]
                )
                runs = element(starts, p), element(starts, builder.add(p, one))
                with cgutils.for_range_slice(builder, *runs, one, one.type) as (j, _):
                    bounds = element(ends, element(begins, j)), element(ends, element(stops, j))
                    _add_all(builder, kept, right, builder.add(element(shifts, j), block), width, lists, *bounds)
                at = builder.add(builder.mul(p, n), block)
                for total, q in zip(kept, _several(builder, left, at, width, full), strict=True):
                    builder.store(builder.load(total), q, align=align)

        _blocks(builder, n, _many_widths(full), body)
        return context.get_dummy_value()

    return types.void(*given), generate


@intrinsic
def _moments(typing: Any, row: Any, one: Any, two: Any) -> Any:
    if not _flat(row, one, two) or row.dtype not in (types.float32, types.float64) or one.dtype != types.float64:
        raise TypeError(f"moments takes vectors of floats in C order, got {row}, {one}, {two}")
    align = row.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        x, s, q = (context.make_array(t)(context, builder, a) for t, a in zip(sig.args, arguments, strict=True))
        size, channels = (cgutils.unpack_tuple(builder, a.shape)[0] for a in (x, s))

        def body(first: Any, width: int) -> None:
            many = ir.VectorType(ir.DoubleType(), width)
            sums = [cgutils.alloca_once(builder, many) for _ in range(2)]
            for kept in sums:
                builder.store(ir.Constant(many, [0.0] * width), kept)
            with cgutils.for_range_slice(builder, first, size, channels, size.type) as (at, _):
                given = builder.load(_vector(builder, x.data, at, width), align=align)
                value = builder.fpext(given, many) if align == 4 else given
                builder.store(builder.fadd(builder.load(sums[0]), value), sums[0])
                builder.store(builder.fadd(builder.load(sums[1]), builder.fmul(value, value)), sums[1])
            for kept, to in zip(sums, (s, q), strict=True):
                builder.store(builder.load(kept), _vector(builder, to.data, first, width), align=8)

        _blocks(builder, channels, _widths(row.dtype), body)
        return context.get_dummy_value()

    return types.void(row, one, two), generate


@intrinsic
def _fetch(typing: Any, array: Any, at: Any, n: Any) -> Any:
    if not _flat(array):
        raise TypeError(f"fetch takes a vector in C order, got {array}")

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        data = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        line = arguments[2].type(BYTES * 8 // array.dtype.bitwidth)
        with cgutils.for_range_slice(builder, arguments[2].type(0), arguments[2], line, line.type) as (first, _):
            place = builder.bitcast(builder.gep(data, [first]), byte)
            builder.call(function, [place, word(0), word(3), word(1)])  # for reading, into every level, data
        return context.get_dummy_value()

    return types.void(array, at, n), generate
