"""`lanes`, `put`: 64 neurons as one value of a compiled loop (neuro.jit).

A loop over an array of 64 numbers becomes vectors only where the compiler sees that it may, and what it computes goes
through memory from one such loop to the next: the membrane of a step was stored and loaded four times, which took
longer than all of its arithmetic (measured). A value of `Lanes` stays in registers from step to step. It knows + - * /
among its like; ``over`` compares, ``pick`` chooses, ``word`` makes bits of a comparison.

Every operation is that of each element alone, rounded as such: nothing is fused, nothing is reordered.
Without the compiler `lanes` is a NumPy array of 64 elements, and everything here does the same with it; += would
change it in place and is not there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import core, types
from numba.extending import intrinsic, lower_builtin, models, overload, register_model, type_callable
from numpy.typing import NDArray

A = NDArray[Any]
numba_core: Any = core  # numba's own types know neither code generation nor intrinsics
cgutils, signature = numba_core.cgutils, numba_core.typing.signature
SIZE = 64


def lanes(a: A, row: Any, column: Any) -> Any:
    """a[row, column : column + 64] of a matrix in C order, which has them: nothing is checked."""
    return a[int(row), int(column) : int(column) + SIZE].copy()


def put(a: A, row: Any, column: Any, value: Any) -> None:
    """a[row, column : column + 64] = value."""
    a[int(row), int(column) : int(column) + SIZE] = value


def over(a: Any, b: Any) -> Any:
    """Where a > b."""
    return a > b


def pick(mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""
    return np.where(mask, a, b)


def word(mask: Any) -> Any:
    """The mask as uint64, bit k for element k."""
    return np.uint64(sum(1 << k for k, one in enumerate(mask) if one))


def size_of(a: Any) -> Any:
    """Element by element, without the sign."""
    return abs(a)


def larger(a: Any, b: Any) -> Any:
    """Element by element a where a > b, else b."""
    return np.where(a > b, a, b)


def alike(number: Any, like: Any) -> Any:
    """64 times the number, in the type of ``like``."""
    return np.full(SIZE, number, like.dtype)


class Lanes(types.Type):
    """64 numbers of a kind."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class Mask(types.Type):
    """64 bits."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


Primitive: Any = models.PrimitiveModel
mask_type = Mask()
FLOATS: dict[Any, Any] = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


@register_model(Lanes)
class _LanesModel(Primitive):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(FLOATS[kind.dtype], SIZE))


@register_model(Mask)
class _MaskModel(Primitive):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), SIZE))


def _place(context: Any, builder: Any, kind: Any, given: Any, row: Any, column: Any) -> Any:
    array = context.make_array(kind)(context, builder, given)
    at = builder.add(builder.mul(row, cgutils.unpack_tuple(builder, array.shape)[1]), column)
    vector = ir.VectorType(FLOATS[kind.dtype], SIZE)
    return builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer())


def _matrix(a: Any) -> bool:
    return isinstance(a, types.Array) and a.ndim == 2 and a.layout == "C" and a.dtype in FLOATS


@intrinsic
def _load(_typing: Any, a: Any, row: Any, column: Any) -> Any:
    if not _matrix(a):
        raise TypeError(f"lanes are read from matrices of floats in C order, got {a}")

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, sig.args[0], *arguments), align=a.dtype.bitwidth // 8)

    return Lanes(a.dtype)(a, row, column), generate


@intrinsic
def _store(_typing: Any, a: Any, row: Any, column: Any, value: Any) -> Any:
    if not _matrix(a) or value != Lanes(a.dtype):
        raise TypeError(f"lanes are put into matrices of floats of their kind, got {a}, {value}")

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _place(context, builder, sig.args[0], *arguments[:3])
        builder.store(arguments[3], place, align=a.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(a, row, column, value), generate


@intrinsic
def _alike(_typing: Any, number: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], sig.args[0], like.dtype)
        return _splat(builder, value)

    return like(number, like), generate


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(ir.VectorType(value.type, SIZE), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), SIZE), [0] * SIZE))


@intrinsic
def _over(_typing: Any, a: Any, b: Any) -> Any:
    return mask_type(a, b), lambda _context, builder, _signature, given: builder.fcmp_ordered(">", *given)


@intrinsic
def _pick(_typing: Any, mask: Any, a: Any, b: Any) -> Any:
    return a(mask, a, b), lambda _context, builder, _signature, given: builder.select(*given)


@intrinsic
def _word(_typing: Any, mask: Any) -> Any:
    return types.uint64(mask), lambda _context, builder, _signature, given: builder.bitcast(given[0], ir.IntType(64))


@intrinsic
def _size(_typing: Any, a: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        number = ir.IntType(a.dtype.bitwidth)
        many = ir.VectorType(number, SIZE)
        rest = ir.Constant(many, [(1 << (a.dtype.bitwidth - 1)) - 1] * SIZE)
        return builder.bitcast(builder.and_(builder.bitcast(given[0], many), rest), given[0].type)

    return a(a), generate


# numba inlines a function only, and only one that has the names of the arguments
inlined: Any = partial(overload, strict=False, inline="always")
load, store, spread, compare, choose, bits, sign_off = (
    cast(Any, f) for f in (_load, _store, _alike, _over, _pick, _word, _size)
)
inlined(lanes)(lambda a, row, column: lambda a, row, column: load(a, row, column))  # noqa: PLW0108
inlined(put)(lambda a, row, column, value: lambda a, row, column, value: store(a, row, column, value))  # noqa: PLW0108
inlined(alike)(lambda number, like: lambda number, like: spread(number, like))  # noqa: PLW0108
inlined(over)(lambda a, b: lambda a, b: compare(a, b))  # noqa: PLW0108
inlined(pick)(lambda mask, a, b: lambda mask, a, b: choose(mask, a, b))  # noqa: PLW0108
inlined(larger)(lambda a, b: lambda a, b: choose(compare(a, b), a, b))
inlined(word)(lambda mask: lambda mask: bits(mask))  # noqa: PLW0108
inlined(size_of)(lambda a: lambda a: sign_off(a))  # noqa: PLW0108


def _operation(symbol: Callable[[Any, Any], Any], name: str) -> None:
    @type_callable(symbol)
    def typed(_context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return a if isinstance(a, Lanes) and a == b else None

        return typer

    lower: Any = lower_builtin(symbol, Lanes, Lanes)  # type: ignore[no-untyped-call]

    @lower  # type: ignore[untyped-decorator]
    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return getattr(builder, name)(*given)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operation(_symbol, _name)


__all__ = ["alike", "lanes", "larger", "over", "pick", "put", "size_of", "word"]
