"""Recorded spikes past the caches: 64 bytes at a time written to memory that nobody reads soon. Compiled (neuro.jit).

An ordinary store first brings the line from memory that it then overwrites, and pushes weights out of the cache; paired
runs of a batch gained 0 to 15 %. What is written so is seen by other threads after the next lock that they take, as the
end of a thread is one.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as _cgutils
from numpy.typing import NDArray

BLOCK = 64  # bytes: a cache line, and the flags of 64 neurons
WORTH = 1 << 20  # bytes of a record from which it does not stay in a cache anyway
KEPT = 1 << 26  # bytes of records that are kept for later ones
UNUSED = 3  # references of what only `_kept` holds: its own, that of the loop, that of the call that counts
U = np.uintp
cgutils: Any = _cgutils  # numba says nothing of their types
intrinsic: Any = extending.intrinsic
overload: Any = extending.overload
_kept: list[NDArray[np.uint8]] = []
_lock = threading.Lock()


def begins(array: Any) -> Any:
    """In a kernel: the address of an array."""
    return array.ctypes.data


def send(record: Any, at: Any, source: Any, begin: Any) -> None:
    """In a kernel: bytes at.. of a contiguous array are source[begin : begin + BLOCK]. Their address is a multiple of
    BLOCK, which is for the caller to see to."""
    record.reshape(-1)[int(at) : int(at) + BLOCK] = source[int(begin) : int(begin) + BLOCK]


def room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes, whatever stands there, from a multiple of BLOCK on.

    The system hands out memory zeroed, which takes as long as to fill it. So the last few records, at most `KEPT`
    bytes, are kept, and given out again as soon as nobody but this module refers to them."""
    size = int(np.prod(shape))
    found = _again(size + BLOCK - 1) if size >= WORTH else np.empty(size + BLOCK - 1, np.uint8)
    at = -found.ctypes.data % BLOCK
    return found[at : at + size].reshape(shape)


def _again(size: int) -> NDArray[np.uint8]:
    with _lock:
        for old in _kept:
            if old.size == size and sys.getrefcount(old) == UNUSED:
                return old
        found = np.empty(size, np.uint8)
        _kept.append(found)
        while sum(old.size for old in _kept) > KEPT:
            del _kept[0]
        return found


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value).data


def _generate_begins(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(_data(context, builder, array, arguments[0]), ir.IntType(64))

    return types.uintp(array), generate


def _generate_send(typing: Any, record: Any, at: Any, source: Any, begin: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        many = ir.VectorType(ir.IntType(8), BLOCK).as_pointer()
        to = builder.gep(_data(context, builder, record, arguments[0]), [arguments[1]])
        from_ = builder.gep(_data(context, builder, source, arguments[2]), [arguments[3]])
        line = builder.load(builder.bitcast(from_, many), align=1)
        stored = builder.store(line, builder.bitcast(to, many), align=BLOCK)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(record, types.uintp, source, types.uintp), generate


_begins: Any = intrinsic(_generate_begins)
_send: Any = intrinsic(_generate_send)


# Numba wants the signatures of both forms equal, annotations too: so neither has any.


@overload(begins, inline="always")
def _(array):  # type: ignore[no-untyped-def]
    return lambda array: _begins(array)  # noqa: PLW0108


@overload(send, inline="always")
def _(record, at, source, begin):  # type: ignore[no-untyped-def]
    return lambda record, at, source, begin: _send(record, at, source, begin)  # noqa: PLW0108
