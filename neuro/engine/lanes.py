"""Sixteen synapses at a time, where the processor can gather and scatter (AVX-512). Compiled with neuro.jit.

Which is right only if no two of the sixteen have one target: whoever builds rows says whether that is so. Elsewhere,
and without the compiler, the same additions are made one after the other: the bits are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as _cgutils
from numba.core.registry import cpu_target as _cpu_target
from numpy.typing import NDArray

from neuro.jit import kernel

LANES = 16
U = np.uintp
WORD, BYTE = ir.IntType(32), ir.IntType(8).as_pointer()
INDEX, BITS = ir.VectorType(WORD, LANES), ir.VectorType(ir.IntType(1), LANES)

cgutils: Any = _cgutils  # numba says nothing of their types
cpu_target: Any = _cpu_target
intrinsic: Any = extending.intrinsic
overload: Any = extending.overload


def add_lanes(inbox: NDArray[Any], to: Any, target: NDArray[Any], s: Any, weight: Any, w: Any, count: Any) -> None:
    """inbox[to + target[s + k]] += weight[w + k], or += weight where that is a number, for k < count <= LANES. No two
    of these targets are equal. target and weight may be read LANES - 1 entries beyond what is asked for."""
    for k in range(count):
        place = U(k)
        inbox[to + U(target[s + place])] += weight[w + place] if np.ndim(weight) else weight


@kernel
def repeats(pointer: NDArray[np.uint32], first: int, rows: int, target: NDArray[Any], s: int) -> bool:
    """Whether some row has one target twice in LANES synapses counted from its beginning."""
    for row in range(rows):
        begin, end = U(pointer[U(first + row)]), U(pointer[U(first + row + 1)])
        for group in range(begin, end, U(LANES)):
            last = min(U(group) + U(LANES), end)
            for k in range(U(group) + U(1), last):
                same = False
                for j in range(U(group), U(k)):
                    same |= target[U(s) + U(j)] == target[U(s) + U(k)]
                if same:
                    return True
    return False


def _data(context: Any, builder: Any, kind: Any, value: Any, place: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, value).data
    return builder.gep(data, [place])


def _generate(typing: Any, inbox: Any, to: Any, target: Any, s: Any, weight: Any, w: Any, count: Any) -> Any:
    real = isinstance(inbox.dtype, types.Float)
    values = ir.VectorType(ir.FloatType() if real else WORD, LANES)
    kind = "dps" if real else "dpi"
    each = isinstance(weight, types.Array)
    narrow = (weight.dtype if each else weight).bitwidth < 32

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def read(array: int, place: int, many: Any, align: int) -> Any:
            at = _data(context, builder, signature.args[array], arguments[array], arguments[place])
            return builder.load(builder.bitcast(at, many.as_pointer()), align=align)

        def function(result: Any, takes: list[Any], name: str) -> Any:
            return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, takes), name)

        base = builder.bitcast(_data(context, builder, signature.args[0], arguments[0], arguments[1]), BYTE)
        wide = target.dtype.bitwidth
        index = read(2, 3, ir.VectorType(ir.IntType(wide), LANES), wide // 8)
        index = builder.zext(index, INDEX) if wide < 32 else index
        lanes = builder.sub(builder.shl(WORD(1), builder.trunc(arguments[6], WORD)), WORD(1))
        mask = builder.bitcast(builder.trunc(lanes, ir.IntType(LANES)), BITS)
        if each:
            added = read(4, 5, ir.VectorType(ir.IntType(16), LANES) if narrow else values, 2 if narrow else 4)
        else:
            one = builder.sext(arguments[4], WORD) if narrow else arguments[4]
            added = ir.Constant(values, ir.Undefined)
            for lane in range(LANES):
                added = builder.insert_element(added, one, WORD(lane))
        if each and narrow:
            added = builder.sext(added, values)
        gather = function(values, [values, BYTE, INDEX, BITS, WORD], f"llvm.x86.avx512.mask.gather.{kind}.512")
        scatter = function(ir.VoidType(), [BYTE, BITS, INDEX, values, WORD], f"llvm.x86.avx512.mask.scatter.{kind}.512")
        before = builder.call(gather, [ir.Constant(values, None), base, index, mask, WORD(4)])
        after = (builder.fadd if real else builder.add)(before, added)
        builder.call(scatter, [base, mask, index, after, WORD(4)])
        return context.get_dummy_value()

    return types.void(inbox, types.uintp, target, types.uintp, weight, types.uintp, types.uintp), generate


_add_lanes: Any = intrinsic(_generate)


# Numba wants signatures of both forms equal, annotations too: so neither has any.


@overload(add_lanes, inline="always")
def _(inbox, to, target, s, weight, w, count):  # type: ignore[no-untyped-def]
    if "+avx512f" in cpu_target.target_context.codegen()._tm_features:
        return lambda inbox, to, target, s, weight, w, count: _add_lanes(inbox, to, target, s, weight, w, count)  # noqa: PLW0108
    if isinstance(weight, types.Array):

        def one_by_one(inbox, to, target, s, weight, w, count):  # type: ignore[no-untyped-def]
            for k in range(count):
                inbox[to + U(target[s + U(k)])] += weight[w + U(k)]

        return one_by_one

    def all_the_same(inbox, to, target, s, weight, w, count):  # type: ignore[no-untyped-def]
        for k in range(count):
            inbox[to + U(target[s + U(k)])] += weight

    return all_the_same
