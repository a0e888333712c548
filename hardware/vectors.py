"""Integers added up sixteen at a time, as one vector each: inside kernels of any chip (neuro.jit).

The compiler makes sixteen single additions of a loop over so few, at four times the cost (measured).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as _cgutils

BLOCK = 16  # int32 of one cache line and one vector
cgutils: Any = _cgutils  # numba says nothing of their types
intrinsic: Any = extending.intrinsic
overload: Any = extending.overload


def add_block(sums: Any, place: Any, weight: Any, of: Any) -> None:
    """In a kernel: sums[place : place + BLOCK] += weight[of : of + BLOCK], modulo what sums hold; both flat."""
    for k in range(BLOCK):
        sums[int(place) + k] += weight[int(of) + k]


def add_four(sums: Any, place: Any, weight: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """In a kernel: `add_block` of four blocks of weights, which begin at a, b, c and d; sums are read and written
    once."""
    for of in (a, b, c, d):
        add_block(sums, place, weight, of)


def add_where(
    sums: Any, place: Any, weight: Any, a: Any, p: Any, b: Any, q: Any, c: Any, r: Any, d: Any, s: Any
) -> None:
    """In a kernel: sums[place + k] += weight[a + k] for the k < 32 whose bit of p, 32 of them, is set; likewise from b
    by q, from c by r and from d by s. Sums are read and written once."""
    for of, bits in ((a, p), (b, q), (c, r), (d, s)):
        for k in range(2 * BLOCK):
            if (int(bits) >> k) & 1:
                sums[int(place) + k] += weight[int(of) + k]


def _vector(context: Any, builder: Any, kind: Any, array: Any, place: Any, many: int) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    kind = ir.VectorType(ir.IntType(kind.dtype.bitwidth), many).as_pointer()
    return builder.bitcast(builder.gep(data, [place]), kind)


def _generate_where(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, place, weight, *pairs = arguments
    many = 2 * BLOCK
    to = _vector(context, builder, signature.args[0], sums, place, many)
    total = builder.load(to, align=4)
    for of, bits in zip(pairs[::2], pairs[1::2], strict=True):
        found = builder.load(_vector(context, builder, signature.args[2], weight, of, many), align=4)
        asked = builder.bitcast(builder.trunc(bits, ir.IntType(many)), ir.VectorType(ir.IntType(1), many))
        total = builder.select(asked, builder.add(total, found), total)
    builder.store(total, to, align=4)
    return context.get_dummy_value()


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The code of either: sums, place, weight and any number of places there."""
    wide, narrow = (signature.args[k].dtype.bitwidth for k in (0, 2))
    to = _vector(context, builder, signature.args[0], arguments[0], arguments[1], BLOCK)
    kind, total = ir.VectorType(ir.IntType(wide), BLOCK), None
    for of in arguments[3:]:
        found = _vector(context, builder, signature.args[2], arguments[2], of, BLOCK)
        found = builder.load(found, align=narrow // 8)
        if wide != narrow:
            found = builder.sext(found, kind) if wide > narrow else builder.trunc(found, kind)
        total = found if total is None else builder.add(total, found)
    builder.store(builder.add(builder.load(to, align=wide // 8), total), to, align=wide // 8)
    return context.get_dummy_value()


def _typed_block(_typing: Any, sums: Any, place: Any, weight: Any, of: Any) -> Any:
    return types.void(sums, types.uintp, weight, types.uintp), _generate


def _typed_four(_typing: Any, sums: Any, place: Any, weight: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return types.void(sums, types.uintp, weight, *[types.uintp] * 4), _generate


def _typed_where(
    _typing: Any, sums: Any, place: Any, weight: Any, a: Any, p: Any, b: Any, q: Any, c: Any, r: Any, d: Any, s: Any
) -> Any:
    return types.void(sums, types.uintp, weight, *[types.uintp, types.int64] * 4), _generate_where


_add_block: Any = intrinsic(_typed_block)
_add_four: Any = intrinsic(_typed_four)
_add_where: Any = intrinsic(_typed_where)


# numba wants the signatures of both forms equal, annotations too: so neither has any
overload(add_block, inline="always")(
    lambda sums, place, weight, of: lambda sums, place, weight, of: _add_block(sums, place, weight, of)  # noqa: PLW0108
)
overload(add_where, inline="always")(
    lambda sums, place, weight, a, p, b, q, c, r, d, s: (
        lambda sums, place, weight, a, p, b, q, c, r, d, s: _add_where(sums, place, weight, a, p, b, q, c, r, d, s)  # noqa: PLW0108
    )
)
overload(add_four, inline="always")(
    lambda sums, place, weight, a, b, c, d: (
        lambda sums, place, weight, a, b, c, d: _add_four(sums, place, weight, a, b, c, d)  # noqa: PLW0108
    )
)
