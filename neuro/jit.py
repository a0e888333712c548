"""`kernel`, `disjoint`, `piece`, `routine`: how compiled loops of axonport are made, and where their code is kept.

No fast math, ever. Compiled loops release the GIL (samples of a batch run in threads; no OpenMP, so a process that
forks later, as Lava does, is safe) and are cached on disk between processes.

Numba ties a cached kernel to the time stamp of the kernel's own file, but a kernel is made of functions of several
files, and constants of further files are compiled into it: after a change there old code would run, silently. So
the name of the cached file holds a digest of every file beside it that mentions this module, and of the `SHARED`
ones. A kernel may be made of pieces from its own folder and from those, and of nothing else.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import caching, cgutils, codegen, compiler, sigutils, types
from numba.core.registry import cpu_target as _cpu_target
from numba.core.runtime.nrt import rtsys
from numba.extending import intrinsic, overload

Function = TypeVar("Function", bound=Callable[..., Any])
njit: Any = numba.njit  # numba's own types know neither _nrt nor its caches
cpu_target: Any = _cpu_target
normalize: Any = sigutils.normalize_signature
MARK = b"neuro.jit"  # a file that says this takes part in kernels
HERE = Path(__file__).parent
SHARED = (HERE / "jit.py", *(HERE / "hardware" / f"{name}.py" for name in ("integer", "spikes", "vectors")))  # of all


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


class _File(caching.IndexDataCacheFile):
    """Compiled variants in files of names that no other process chooses too: numba counts them, and of two processes
    that compile two variants at once the second would put its code where the first says that its own is. All that can
    be lost now is an entry of the index, and with it a compilation."""

    def _data_name(self, _number: int) -> str:
        return f"{self._index_name.removesuffix('.nbi')}.{os.urandom(8).hex()}.nbc"


class _Cache(caching.FunctionCache):
    _impl_class = _Named

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)  # type: ignore[no-untyped-call]
        base, stamp = self._impl.filename_base, self._impl.locator.get_source_stamp()
        self._cache_file: Any = _File(self.cache_path, base, stamp)  # type: ignore[no-untyped-call]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Without `target_context.refresh`, which reads in the compiler: finished code needs none of it (0.4 s)."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk costs the next process a compilation, not this one its result
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
            name = self._impl.filename_base.split("-")[0]  # before line number, Python version and digest
            for old in Path(self.cache_path).glob(f"{name}-*.nb[ci]"):
                if self._impl.digest not in old.name:
                    old.unlink(missing_ok=True)


@contextmanager
def _without_collector() -> Iterator[None]:
    """The compiler makes millions of small objects; the garbage collector, which goes through all there are again and
    again, finds next to nothing and took a tenth of the time (measured)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class _Whole(codegen.JITCodeLibrary):
    """A kernel that Python calls. What unpacks Python's arguments runs once a call and is not optimised."""

    def add_ir_module(self, module: Any) -> None:
        if module.name == "wrapper":
            for function in module.functions:
                if function.blocks:
                    function.attributes.add("noinline")
                    function.attributes.add("optnone")
        super().add_ir_module(module)  # type: ignore[no-untyped-call]


class _Part(codegen.JITCodeLibrary):
    """A kernel inside other kernels: it becomes machine code only in them. That it is optimised before makes some of
    them faster (SpiNNaker 2 by a seventh, measured); once is enough, there are no references to count."""

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager()  # type: ignore[no-untyped-call]
        manager.run(self._final_module, builder)

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
        self._finalized = True


class _Piece(_Part):
    """The same of a `piece`, which is nothing by itself. Not even its functions are optimised before they are where
    they belong: what is known there, as that arrays are disjoint, is not known here (an eighth of the time of Loihi 2's
    dense layers, measured)."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class _Compiler(compiler.Compiler):
    def compile_extra(self, function: Any) -> Any:
        with _without_collector():
            return super().compile_extra(function)  # type: ignore[no-untyped-call]

    def define_pipelines(self) -> Any:
        state = self.state
        kind = (_Piece if state.flags.forceinline else _Part) if state.flags.no_compile else _Whole
        state.library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
        if kind is _Whole:
            state.library.enable_object_caching()
        return super().define_pipelines()  # type: ignore[no-untyped-call]


def _compiled(function: Function, noalias: bool = False, **options: Any) -> Function:
    options |= {"nogil": True, "no_cfunc_wrapper": True, "pipeline_class": _Compiler}
    options.setdefault("forceinline", False)  # else numba takes it over from the piece that this is compiled for
    compiled = njit(**options)(function)
    if compiled is function:  # NUMBA_DISABLE_JIT hands the function back
        return function
    with suppress(RuntimeError):  # no folder on this machine may be written: compile in every process
        compiled._cache = _Cache(function)
    part = cache(lambda: _part(function, noalias, options))
    compiled._compiler._customize_flags = lambda flags: _set(flags, noalias=noalias)
    compiled.get_call_template = lambda args, kws: part().get_call_template(args, kws)
    compiled.get_overload = lambda signature: part().get_overload(signature)
    return cast(Function, compiled)


def _part(function: Callable[..., Any], noalias: bool, options: dict[str, Any]) -> Any:
    """The function as kernels call it. Python cannot, so what unpacks Python's arguments, which for a dozen arrays
    takes longer to compile than most loops (measured), is not made; nor is the code kept, but in its callers."""
    part = njit(no_cpython_wrapper=True, **options)(function)

    def add_overload(found: Any) -> None:
        part.overloads[tuple(found.signature.args)] = found
        part.targetctx.insert_user_function(found.library, found.fndesc, [found.library])

    part.add_overload = add_overload
    part.get_overload = lambda signature: part.overloads[tuple(normalize(signature)[0])].library
    part._compiler._customize_flags = lambda flags: _set(flags, noalias=noalias, no_compile=True)
    return part


def _set(flags: Any, **values: bool) -> Any:
    for name, value in values.items():  # numba has no options of these names
        setattr(flags, name, value)
    return flags


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
    return _compiled(function, error_model="numpy", _nrt=False, noalias=True)


def piece(function: Function) -> Function:
    """A `kernel` that LLVM always copies into its caller: for those that take many arrays, whose passing would cost
    more than their work (measured). Numba's own inlining types it again in every place, which took longer than all
    the rest (measured)."""
    return _compiled(function, error_model="numpy", _nrt=False, forceinline=True)


def routine(function: Function) -> Function:
    """A compiled loop that may allocate arrays of its own, and divides as Python does."""
    return _compiled(function)


def wide() -> None:
    """Inside a kernel: let its loops be compiled for vectors as wide as the machine has. Without it they are half as
    wide on machines with AVX-512. Worth it where loops run over multiples of 64 (a quarter of the time, measured)."""


def set_bytes(flags: Any, at: Any) -> Any:
    """In a kernel: bit k is set where byte k of the eight words flags[at : at + 8] is not 0."""
    return np.uint64(sum(1 << k for k, byte in enumerate(flags[at : at + np.uintp(8)].view(np.uint8)) if byte))


def ones(word: Any) -> Any:
    """In a kernel: how many bits of a uint64 are set, as uint64."""
    return np.uint64(int(word).bit_count())


def lowest(word: Any) -> Any:
    """In a kernel: the place of the lowest set bit of a uint64, as uint64; 64 where none is."""
    return np.uint64(((int(word) & -int(word)).bit_length() - 1) % 65)


def places(word: Any, first: Any, out: Any, at: Any) -> None:
    """In a kernel: out[at + k] = first + the place of the k-th one of a uint64, from the lowest up. out: contiguous,
    32-bit integers. With AVX-512 all at once: a loop over so few as there are ends where no processor expects it."""
    while int(word):
        out[at] = first + lowest(word)
        word, at = int(word) & (int(word) - 1), at + 1


@intrinsic
def _wide(_context: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite knows no attributes with values
        return cgutils.get_null_value(ir.IntType(8).as_pointer())  # type: ignore[no-untyped-call]

    return types.none(), generate


@overload(wide, inline="always")
def _in_kernels() -> Any:
    return lambda: _wide()  # type: ignore[call-arg]  # noqa: PLW0108  # numba inlines a function only


@intrinsic
def _set_bytes(_context: Any, flags: Any, at: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        many = ir.VectorType(ir.IntType(8), 64)
        found = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), many.as_pointer()), align=1)
        return builder.bitcast(builder.icmp_unsigned("!=", found, ir.Constant(many, None)), ir.IntType(64))

    return types.uint64(flags, types.uintp), generate


@intrinsic
def _ones(_context: Any, word: Any) -> Any:
    return types.uint64(types.uint64), lambda _target, builder, _signature, arguments: builder.ctpop(arguments[0])


@intrinsic
def _lowest(_context: Any, word: Any) -> Any:
    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value).data  # type: ignore[no-untyped-call]


def _generate_places(_typing: Any, word: Any, first: Any, out: Any, at: Any) -> Any:
    byte, word32, bit = ir.IntType(8), ir.IntType(32), ir.IntType(1)
    many, some = ir.VectorType(byte, 64), ir.VectorType(word32, 16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def function(name: str, result: Any, takes: list[Any]) -> Any:
            return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, takes), name)  # type: ignore[no-untyped-call]

        def all_of(value: Any) -> Any:
            none = ir.Constant(some, ir.Undefined)
            one = builder.insert_element(none, value, word32(0))
            return builder.shuffle_vector(one, none, ir.Constant(some, [0] * 16))

        ones_of, base = ir.VectorType(bit, 64), all_of(builder.trunc(arguments[1], word32))
        left = builder.trunc(builder.ctpop(arguments[0]), word32)
        numbers, zeros = ir.Constant(many, list(range(64))), ir.Constant(many, None)
        compress = function("llvm.x86.avx512.mask.compress.v64i8", many, [many, many, ones_of])
        packed = builder.call(compress, [numbers, zeros, builder.bitcast(arguments[0], ones_of)])
        store = function(  # this name from LLVM 20 on, with numba 0.62; setup.cfg asks for that
            "llvm.masked.store.v16i32.p0", ir.VoidType(), [some, some.as_pointer(), word32, ir.VectorType(bit, 16)]
        )
        to = builder.gep(_data(context, builder, signature.args[2], arguments[2]), [arguments[3]])

        def write(group: int) -> None:
            lanes = ir.Constant(some, list(range(16 * group, 16 * group + 16)))
            found = builder.zext(builder.shuffle_vector(packed, zeros, lanes), some)
            there = builder.icmp_unsigned("<", lanes, all_of(left))
            at = builder.bitcast(builder.gep(to, [word32(16 * group)]), some.as_pointer())
            builder.call(store, [builder.add(found, base), at, word32(4), there])

        write(0)
        with builder.if_then(builder.icmp_unsigned(">", left, word32(16)), likely=False):
            for group in (1, 2, 3):
                write(group)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, out, types.uintp), generate


_places: Any = intrinsic(_generate_places)


@overload(places, inline="always")
def _(word, first, out, at):  # type: ignore[no-untyped-def]
    if "+avx512vbmi2" in cpu_target.target_context.codegen()._tm_features:
        return lambda word, first, out, at: _places(word, first, out, at)  # noqa: PLW0108
    kind = out.dtype

    def one_by_one(word, first, out, at):  # type: ignore[no-untyped-def]
        left, to = np.uint64(word), np.uintp(at)
        while left != np.uint64(0):
            out[to] = kind(first + np.int64(lowest(left)))
            to += np.uintp(1)
            left &= left - np.uint64(1)

    return one_by_one


overload(set_bytes, inline="always")(lambda flags, at: lambda flags, at: _set_bytes(flags, at))  # type: ignore[call-arg]  # noqa: PLW0108
overload(ones, inline="always")(lambda word: lambda word: _ones(word))  # type: ignore[call-arg]  # noqa: PLW0108
overload(lowest, inline="always")(lambda word: lambda word: _lowest(word))  # type: ignore[call-arg]  # noqa: PLW0108
