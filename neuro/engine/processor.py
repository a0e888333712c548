"""What a loop tells the processor: fetch this line, wait for the other threads. Compiled with neuro.jit.

Written as LLVM's own instructions; without the compiler (NUMBA_DISABLE_JIT=1) fetching does nothing and one thread
waits for nobody.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as _cgutils
from numpy.typing import NDArray

from neuro.jit import kernel

U = np.uintp
I64 = np.int64
PATIENCE = 4000  # looks at the counter, some microseconds, before a waiting thread lets others have the processor

cgutils: Any = _cgutils  # numba says nothing of their types
intrinsic: Any = extending.intrinsic
overload: Any = extending.overload
_give_way: Any = types.ExternalFunction("sched_yield", types.int32())


def prefetch(array: NDArray[Any], index: Any) -> None:
    """Ask for the cache line of array[index]; may be past the end, and never fails."""


def arrive(counter: NDArray[np.int64]) -> None:
    """counter[0] += 1, whole, and after all that this thread wrote before."""
    counter[0] += 1


def seen(counter: NDArray[np.int64]) -> Any:
    """counter[0] as it is now, read before all that this thread reads after."""
    return counter[0]


def give_way() -> None:
    """Let another thread have the processor, if one is waiting for it."""


def _place(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value).data


def _generate_prefetch(typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(_place(context, builder, array, arguments[0]), [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, word(0), word(3), word(1)])  # for reading, into every level, data
        return context.get_dummy_value()

    return types.void(array, types.uintp), generate


def _generate_arrive(typing: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, counter, arguments[0])
        builder.atomic_rmw("add", place, ir.IntType(64)(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(counter), generate


def _generate_seen(typing: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, counter, arguments[0]), "acquire", 8)

    return types.int64(counter), generate


# Numba wants the two signatures equal, annotations too: so neither has any.


_prefetch: Any = intrinsic(_generate_prefetch)
_arrive: Any = intrinsic(_generate_arrive)
_seen: Any = intrinsic(_generate_seen)


@overload(prefetch, inline="always")
def _(array, index):  # type: ignore[no-untyped-def]
    return lambda array, index: _prefetch(array, U(index))


@overload(arrive, inline="always")
def _(counter):  # type: ignore[no-untyped-def]
    return lambda counter: _arrive(counter)  # noqa: PLW0108


@overload(seen, inline="always")
def _(counter):  # type: ignore[no-untyped-def]
    return lambda counter: _seen(counter)  # noqa: PLW0108


@overload(give_way)
def _():  # type: ignore[no-untyped-def]
    def ask():  # type: ignore[no-untyped-def]
        _give_way()

    return ask


@kernel
def meet(counter: NDArray[np.int64], goal: int) -> None:
    """Arrive, and wait until ``goal`` arrivals have been counted. What others wrote before theirs can be read then."""
    arrive(counter)
    looks = 0
    while seen(counter) < goal:
        looks += 1
        if looks > PATIENCE:
            give_way()
