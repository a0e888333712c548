"""`kernel`, `disjoint`, `piece`, `routine`: how compiled loops of axonport are made, and where their code is kept.

No fast math, ever. Compiled loops release the GIL (samples of a batch run in threads; no OpenMP, so a process that
forks later, as Lava does, is safe) and are cached on disk between processes.

Numba ties a cached kernel to the time stamp of the kernel's own file, but a kernel is made of functions of several
files, and constants of further files are compiled into it: after a change there old code would run, silently. So
the name of the cached file holds a digest of every file beside it that mentions this module, and of the `SHARED`
ones. A kernel may be made of pieces from its own folder and from those, and of nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import caching, cgutils, types
from numba.extending import intrinsic, overload

Function = TypeVar("Function", bound=Callable[..., Any])
njit: Any = numba.njit  # numba's own types know neither _nrt nor its caches
MARK = b"neuro.jit"  # a file that says this takes part in kernels
HERE = Path(__file__).parent
SHARED = (HERE / "jit.py", HERE / "hardware" / "integer.py")  # pieces that every folder may use


@cache
def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits over the files that take part in the kernels of a folder."""
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.py")), *SHARED):
        text = path.read_bytes()
        if MARK in text or path in SHARED:
            digest.update(path.name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:16]


class _Named(caching.CompileResultCacheImpl):
    def __init__(self, py_func: Any) -> None:
        self.digest = fingerprint(Path(py_func.__code__.co_filename).parent)
        super().__init__(py_func)  # type: ignore[no-untyped-call]

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}-{self.digest}"  # type: ignore[no-untyped-call]


class _Cache(caching.FunctionCache):
    _impl_class = _Named

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk costs the next process a compilation, not this one its result
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
            name = self._impl.filename_base.split("-")[0]  # before line number, Python version and digest
            for old in Path(self.cache_path).glob(f"{name}-*.nb[ci]"):
                if self._impl.digest not in old.name:
                    old.unlink(missing_ok=True)


def _compiled(function: Function, **options: Any) -> Function:
    compiled = njit(nogil=True, **options)(function)
    if compiled is not function:  # NUMBA_DISABLE_JIT hands the function back
        with suppress(RuntimeError):  # no folder on this machine may be written: compile in every process
            compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(Function, compiled)


def kernel(function: Function) -> Function:
    """A compiled loop, cached. ``.py_func`` is the same code without the compiler; NUMBA_DISABLE_JIT=1 runs a
    whole call graph that way.

    A kernel allocates nothing: its caller hands it the room it needs. So numba's reference counting is off,
    whose atomic counters took half of the time and made threads wait for each other (measured)."""
    return _compiled(function, error_model="numpy", _nrt=False)


def disjoint(function: Function) -> Function:
    """A `kernel` none of whose arrays, of those it writes, shares memory with another of its arguments, which is
    for its callers to see to. The compiler then need not ask before every loop, which cost up to half of the
    time of short ones (measured), and keeps sums in registers."""
    compiled = _compiled(function, error_model="numpy", _nrt=False)
    if compiled is not function:
        compiled._compiler._customize_flags = _no_overlap  # type: ignore[attr-defined]  # numba names no such option
    return compiled


def _no_overlap(flags: Any) -> Any:
    flags.noalias = True
    return flags


def piece(function: Function) -> Function:
    """A `kernel` that is always copied into its caller: for those that take many arrays, whose passing
    would cost more than their work (measured)."""
    return _compiled(function, error_model="numpy", _nrt=False, inline="always")


def routine(function: Function) -> Function:
    """A compiled loop that may allocate arrays of its own, and divides as Python does."""
    return _compiled(function)


def wide() -> None:
    """Inside a kernel: let its loops be compiled for vectors as wide as the machine has. Without it they are half as
    wide on machines with AVX-512. Worth it where loops run over multiples of 64 (a quarter of the time, measured)."""


@intrinsic
def _wide(_context: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite knows no attributes with values
        return cgutils.get_null_value(ir.IntType(8).as_pointer())  # type: ignore[no-untyped-call]

    return types.none(), generate


@overload(wide, inline="always")
def _in_kernels() -> Any:
    return lambda: _wide()  # type: ignore[call-arg]  # noqa: PLW0108  # numba inlines a function only
