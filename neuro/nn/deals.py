"""`take`, `tell`, `wait`: phases of a compiled loop whose work several threads share out among themselves (neuro.jit).

A call from Python per phase had the threads wake up and wait for the slowest of them each time, with the interpreter
between two phases: a quarter of a training step of a convolutional network (measured). Here one call per thread, a
hand, runs all phases::

    k = take(state, PHASE, me, pieces)
    while k < pieces:
        ...  # piece k, whoever runs it
        tell(state, PHASE)
        k = take(state, PHASE, me, pieces)
    wait(state, PHASE, pieces)  # what all have written is there to read

A hand has a share of its own, the same stretch of the pieces in every phase, whose data its cache holds; when that is
done it helps the next one. It waits not for the others but for their pieces: whoever is late, or never comes, is waited
for by nobody, so there is no deadlock, however many callers share a pool. What a piece computes must depend on k alone:
then results do not depend on threads. Without the compiler there is one hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import config, core, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from neuro.nn import kernels
from neuro.nn.pool import pool

A = NDArray[Any]
numba_core: Any = core  # numba's own types know neither code generation nor intrinsics
numba_config: Any = config
cgutils = numba_core.cgutils
LINE = 8  # int64 in a line of the cache: counters that share one slow each other down
SPINS = 2000  # looks at a counter, some ten microseconds, before the processor is offered to somebody else
YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


def take(state: A, phase: Any, me: Any, pieces: Any) -> Any:
    """In a kernel: the number of the next piece of a phase for hand ``me``; ``pieces``, how many there are, where none
    is left. Each is given out once. state int64[phases, hands + 1, LINE]."""
    state[phase, me, 0] += 1
    return min(state[phase, me, 0] - 1, pieces)


def tell(state: A, phase: Any) -> None:
    """In a kernel: a piece is done."""
    state[phase, -1, 0] += 1


def wait(state: A, phase: Any, pieces: Any) -> None:
    """In a kernel: until so many pieces of a phase are done."""
    assert state[phase, -1, 0] >= pieces, "without the compiler there is one hand, and no waiting"


def hands(phases: int, size: int, function: Callable[..., None], arguments: tuple[Any, ...], room: Any) -> Any:
    """function(state, me, *room(), *arguments) by as many threads as ``size`` array elements are worth; all take part
    in all phases. Returns the room of the caller, who is hand 0."""
    threads = torch.get_num_threads()
    count = 1 if numba_config.DISABLE_JIT else max(1, min(threads, size // kernels.WORTH_A_THREAD))
    state = np.zeros((phases, count + 1, LINE), np.int64)
    own = room()
    jobs = [pool(threads).submit(function, state, me, *room(), *arguments) for me in range(1, count)]
    try:
        function(state, 0, *own, *arguments)
    finally:
        for job in jobs:
            if not job.cancel():  # who has not begun yet has nothing left to do
                job.result()
    return own


@overload(take, strict=False)
def _take_in_kernels(state: A, phase: Any, me: Any, pieces: Any) -> Any:
    def call(state, phase, me, pieces):  # type: ignore[no-untyped-def]
        many = np.int64(state.shape[1]) - 1
        for other in range(many):
            whose = (np.int64(me) + other) % many
            first, last = np.int64(pieces) * whose // many, np.int64(pieces) * (whose + 1) // many
            if _look(state, (np.int64(phase) * (many + 1) + whose) * LINE) < last - first:  # type: ignore[call-arg]
                k = first + _add_one(state, (np.int64(phase) * (many + 1) + whose) * LINE)
                if k < last:
                    return k
        return np.int64(pieces)

    return call


@overload(tell, strict=False)
def _tell_in_kernels(state: A, phase: Any) -> Any:
    def call(state, phase):  # type: ignore[no-untyped-def]
        _add_one(state, ((np.int64(phase) + 1) * np.int64(state.shape[1]) - 1) * LINE)  # type: ignore[call-arg]

    return call


@overload(wait, strict=False)
def _wait_in_kernels(state: A, phase: Any, pieces: Any) -> Any:
    def call(state, phase, pieces):  # type: ignore[no-untyped-def]
        at, looks = ((np.int64(phase) + 1) * np.int64(state.shape[1]) - 1) * LINE, 0
        while _look(state, at) < pieces:  # type: ignore[call-arg]
            looks += 1
            if looks > SPINS:
                _give_way()

    return call


def _counter(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
    state, at = arguments
    return builder.gep(context.make_array(kind)(context, builder, state).data, [at])


@intrinsic
def _add_one(_typing: Any, state: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = _counter(context, builder, sig.args[0], arguments)
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "seq_cst")

    return types.int64(state, types.int64), generate


@intrinsic
def _look(_typing: Any, state: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.load_atomic(_counter(context, builder, sig.args[0], arguments), "seq_cst", 8)

    return types.int64(state, types.int64), generate


@intrinsic
def _give_way(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _sig: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, YIELD), [])
        return context.get_dummy_value()

    return types.void(), generate
