"""`tile`: a small matrix product that stays in registers, for compiled loops that need one in each step (neuro.jit).

A BLAS call per step costs more than its work where the matrices of a step are small, and its sums may depend on how
many rows there are and on the number of threads; here every element is one sum in rising order, whatever is beside
it. Multiply and add are fused where the processor can (`llvm.fmuladd`). Vectors of 64 bytes: AVX-512 as it is, twice
two registers elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import core, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

A = NDArray[Any]
numba_core: Any = core  # numba's own types know neither code generation nor intrinsics
cgutils, signature = numba_core.cgutils, numba_core.typing.signature
ROWS = 4  # with VECTORS = 2: eight sums at once hide the latency of two fused multiply-adds per cycle
TALL = 8  # where there are many rows: fewer reads of w for a product
VECTORS = 2
BYTES = 64  # of a vector


def lanes(itemsize: int) -> int:
    """Columns of a tile for elements of so many bytes."""
    return VECTORS * BYTES // itemsize


def tile(c: A, d: A, w: A, row: int, column: int) -> None:
    """c[row:row + ROWS, column:column + lanes] += d[row:row + ROWS] @ w, with w of `panels` [inner, lanes].

    All float32 or all float64, in C order, and large enough: nothing is checked.
    """
    rows, columns = slice(row, row + ROWS), slice(column, column + w.shape[1])
    for k in range(w.shape[0]):
        c[rows, columns] += d[rows, k, None] * w[k]


def tall(c: A, d: A, w: A, row: int, column: int) -> None:
    """`tile` with `TALL` rows that overwrites: c[row:row + TALL, ...] = d[row:row + TALL] @ w."""
    rows, columns = slice(row, row + TALL), slice(column, column + w.shape[1])
    c[rows, columns] = 0
    for k in range(w.shape[0]):
        c[rows, columns] += d[rows, k, None] * w[k]


def panels(w: A) -> A:
    """w [inner, n] as [panel, inner, lanes], columns filled up with zeros: a panel is read in one stream, where
    rows far apart would fall on the same lines of the cache."""
    inner, n = w.shape
    wide = lanes(w.itemsize)
    full = np.zeros((inner, -(-n // wide), wide), w.dtype)
    full.reshape(inner, -1)[:, :n] = w
    return np.ascontiguousarray(full.transpose(1, 0, 2))


@overload(tile, strict=False)
def _compiled(c: A, d: A, w: A, row: int, column: int) -> Any:
    def run(c: A, d: A, w: A, row: int, column: int) -> None:
        _tile(c, d, w, np.int64(row), np.int64(column))

    return run


@overload(tall, strict=False)
def _compiled_tall(c: A, d: A, w: A, row: int, column: int) -> Any:
    def run(c: A, d: A, w: A, row: int, column: int) -> None:
        _tall(c, d, w, np.int64(row), np.int64(column))

    return run


def _typed(typing: Any, c: Any, d: Any, w: Any, row: Any, column: Any) -> Any:
    fits = all(isinstance(a, types.Array) and a.ndim == 2 and a.layout == "C" and a.dtype == c.dtype for a in (c, d, w))
    if not fits or c.dtype not in (types.float32, types.float64):
        raise TypeError(f"tile takes matrices of floats in C order, got {c}, {d}, {w}")
    return signature(types.void, c, d, w, row, column), partial(_generate, ROWS, True)


def _typed_tall(typing: Any, c: Any, d: Any, w: Any, row: Any, column: Any) -> Any:
    return _typed(typing, c, d, w, row, column)[0], partial(_generate, TALL, False)


def _generate(height: int, adds: bool, context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    arrays = [context.make_array(t)(context, builder, a) for t, a in zip(sig.args[:3], arguments[:3], strict=True)]
    row, column = arguments[3:]
    number = sig.args[0].dtype
    scalar = context.get_value_type(number)
    width = BYTES // (number.bitwidth // 8)
    vector = ir.VectorType(scalar, width)
    integer = row.type
    (c, c_wide), (d, d_wide), (w, w_wide) = [(a.data, cgutils.unpack_tuple(builder, a.shape)[1]) for a in arrays]
    inner = cgutils.unpack_tuple(builder, arrays[2].shape)[0]
    suffix = f"v{width}f{number.bitwidth}"
    signature_ = ir.FunctionType(vector, [vector] * 3)
    fused = cgutils.get_or_insert_function(builder.module, signature_, f"llvm.fmuladd.{suffix}")
    align = number.bitwidth // 8

    def at(data: Any, wide: Any, r: Any, k: Any) -> Any:
        return builder.gep(data, [builder.add(builder.mul(r, wide), k)])

    def vectors(data: Any, wide: Any, r: Any, k: Any) -> list[Any]:
        first = at(data, wide, r, k)
        steps = [builder.gep(first, [integer(v * width)]) for v in range(VECTORS)]
        return [builder.bitcast(p, vector.as_pointer()) for p in steps]

    rows = [builder.add(row, integer(r)) for r in range(height)]
    places = [vectors(c, c_wide, r, column) for r in rows]
    sums = [[cgutils.alloca_once(builder, vector) for _ in range(VECTORS)] for _ in rows]
    for kept, given in zip(sums, places, strict=True):
        for s, p in zip(kept, given, strict=True):
            builder.store(builder.load(p, align=align) if adds else ir.Constant(vector, None), s)
    with cgutils.for_range(builder, inner) as loop:
        right = [builder.load(p, align=align) for p in vectors(w, w_wide, loop.index, integer(0))]
        for r, kept in zip(rows, sums, strict=True):
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), builder.load(at(d, d_wide, r, loop.index)), ir.IntType(32)(0)
            )
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
            left = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
            for s, b in zip(kept, right, strict=True):
                builder.store(builder.call(fused, [left, b, builder.load(s)]), s)
    for kept, given in zip(sums, places, strict=True):
        for s, p in zip(kept, given, strict=True):
            builder.store(builder.load(s), p, align=align)
    return context.get_dummy_value()


_tile: Any = intrinsic(_typed)
_tall: Any = intrinsic(_typed_tall)
