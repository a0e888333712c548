"""`add_product`: a matrix product added to stretches of rows, for compiled loops (neuro.jit).

The gradient of a convolution's input is a product per place and row of the kernel, whose columns are pixels side by
side. To store all of them and to add them up afterwards took a quarter longer than to add each product where it
belongs (measured), and a call of BLAS per chunk of rows kept Python busy while other threads waited for it.

Every element is one sum in rising order, whatever rows are beside it. Multiply and add are fused where the processor
can (`llvm.fmuladd`). Vectors of 64 bytes: AVX-512 as it is, several registers elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import core, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

A = NDArray[Any]
numba_core: Any = core  # numba's own types know neither code generation nor intrinsics
cgutils = numba_core.cgutils
BYTES = 64  # of a vector
ROWS = 8  # with three vectors: 24 sums, three of w and one more are most of 32 registers


def add_product(c: A, a: Any, d: A, b: Any, w: A, e: Any, order: A, first: Any, last: Any, n: Any) -> None:
    """c[r, a:a + n] += sum over k of d[r, b + k] w[k, e:e + n], rows r in order[first:last], k = 0..len(w) - 1.

    order: int64. All others float32 or all float64, in C order, and large enough: nothing is checked.
    """
    k = w.shape[0]
    for r in order[int(first) : int(last)]:
        total = np.zeros(int(n), w.dtype)
        for j in range(k):
            total += d[r, int(b) + j] * w[j, int(e) : int(e) + int(n)]
        c[r, int(a) : int(a) + int(n)] += total


@overload(add_product, strict=False)
def _add_product(c: A, a: Any, d: A, b: Any, w: A, e: Any, order: A, first: Any, last: Any, n: Any) -> Any:
    def call(c, a, d, b, w, e, order, first, last, n):  # type: ignore[no-untyped-def]
        begin, end = np.int64(first), np.int64(last)
        _product(c, np.int64(a), d, np.int64(b), w, np.int64(e), order, begin, end, np.int64(n))  # type: ignore[call-arg]

    return call


@intrinsic
def _product(
    typing: Any, c: Any, a: Any, d: Any, b: Any, w: Any, e: Any, order: Any, first: Any, last: Any, n: Any
) -> Any:
    listed = isinstance(order, types.Array) and order.dtype == types.int64 and order.layout == "C"
    fits = listed and all(
        isinstance(x, types.Array) and x.ndim == 2 and x.layout == "C" and x.dtype == c.dtype for x in (c, d, w)
    )
    if not fits or c.dtype not in (types.float32, types.float64):
        raise TypeError(f"add_product takes matrices of floats in C order, got {c}, {d}, {w}")
    full = BYTES * 8 // c.dtype.bitwidth

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        _, a, _, b, _, e, _, first, last, n = arguments
        one = n.type(1)
        to, left, right = (_Matrix(context, builder, sig.args[k], arguments[k]) for k in (0, 2, 4))
        listed = context.make_array(sig.args[6])(context, builder, arguments[6]).data
        rows = builder.sub(last, first)
        tall = builder.sub(last, builder.srem(rows, n.type(ROWS)))
        done = n.type(0)
        for widths in ((full,) * 3, (full, full // 2), (full,), (full // 2,), (1,)):
            across = sum(widths)
            end = builder.sub(n, builder.srem(builder.sub(n, done), n.type(across)))
            with cgutils.for_range_slice(builder, done, end, n.type(across), n.type) as (at, _):
                x, y = builder.add(a, at), builder.add(e, at)
                with cgutils.for_range_slice(builder, first, tall, n.type(ROWS), n.type) as (r, _):
                    _tile(builder, ROWS, widths, (to, x), (left, b), (right, y), listed, r)
                with cgutils.for_range_slice(builder, tall, last, one, n.type) as (r, _):
                    _tile(builder, 1, widths, (to, x), (left, b), (right, y), listed, r)
            done = end
        return context.get_dummy_value()

    return types.void(c, a, d, b, w, e, order, first, last, n), generate


class _Matrix:
    def __init__(self, context: Any, builder: Any, kind: Any, given: Any) -> None:
        array = context.make_array(kind)(context, builder, given)
        self.builder, self.data = builder, array.data
        self.height, self.across = cgutils.unpack_tuple(builder, array.shape)
        self.align = kind.dtype.bitwidth // 8

    def at(self, row: Any, column: Any) -> Any:
        return self.builder.gep(self.data, [self.builder.add(self.builder.mul(row, self.across), column)])

    def vectors(self, row: Any, column: Any, widths: tuple[int, ...]) -> list[Any]:
        """Where vectors of these widths, side by side from [row, column] on, are loaded and stored."""
        first, found, done = self.at(row, column), [], 0
        for width in widths:
            kind = ir.VectorType(first.type.pointee, width).as_pointer()
            found.append(self.builder.bitcast(self.builder.gep(first, [column.type(done)]), kind))
            done += width
        return found


def _tile(
    builder: Any, height: int, widths: tuple[int, ...], to: Any, left: Any, right: Any, listed: Any, row: Any
) -> None:
    """``height`` rows, those listed from ``row`` on, and the sum of ``widths`` columns, whose sums are in registers."""
    (c, x), (d, b), (w, y) = to, left, right
    integer, scalar = row.type, c.data.type.pointee
    kinds = [ir.VectorType(scalar, width) for width in widths]
    rows = [builder.load(builder.gep(listed, [builder.add(row, integer(r))])) for r in range(height)]
    starts = [d.at(r, b) for r in rows]
    sums = [[cgutils.alloca_once(builder, kind) for kind in kinds] for _ in rows]
    for kept in sums:
        for s, kind in zip(kept, kinds, strict=True):
            builder.store(ir.Constant(kind, None), s)
    with cgutils.for_range(builder, w.height) as loop:
        factors = [builder.load(p, align=w.align) for p in w.vectors(loop.index, y, widths)]
        for start, kept in zip(starts, sums, strict=True):
            single = builder.load(builder.gep(start, [loop.index]))
            for s, factor in zip(kept, factors, strict=True):
                builder.store(_fused(builder, single, factor, builder.load(s)), s)
    for r, kept in zip(rows, sums, strict=True):
        for s, p in zip(kept, c.vectors(r, x, widths), strict=True):
            builder.store(builder.fadd(builder.load(p, align=c.align), builder.load(s)), p, align=c.align)


def _fused(builder: Any, single: Any, factor: Any, total: Any) -> Any:
    """single factor + total, rounded once where the processor can."""
    vector = factor.type
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    undefined = ir.Constant(vector, ir.Undefined)
    spread = builder.shuffle_vector(builder.insert_element(undefined, single, ir.IntType(32)(0)), undefined, zeros)
    name = f"llvm.fmuladd.v{vector.count}f{32 if single.type == ir.FloatType() else 64}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [spread, factor, total])
