"""What is installed, and whether the pieces work together; each check does the thing it speaks of."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from neuro.errors import NeuroError

LAVA_REMEDY = (
    "pip install 'axonport[lava]' && pip install --no-deps --ignore-requires-python lava-nc==0.10.0 "
    "(without it certificates say: not run)"
)


@dataclass(frozen=True)
class Check:
    """One line of `neuro doctor`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    optional: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python() -> Check:
    found = (
        f"{platform.python_implementation()} {sys.version.split()[0]} on {platform.system()}, {os.cpu_count()} cores"
    )
    return Check("python", sys.version_info >= (3, 10), found, "Python 3.10 or newer is needed")


def _package(name: str, extra: str | None = None) -> Check:
    found = _version(name)
    wanted = name if extra is None else f"'axonport[{extra}]'"
    remedy = "" if found else f"pip install {wanted}"
    return Check(name, found is not None, found or "not installed", remedy, optional=extra is not None)


def _compiler() -> Check:
    """Compile and run one kernel, and say where the cache is."""
    from neuro.hardware import integer

    value = int(integer.shift_to_zero(-3, 1))
    return Check("compiled kernels", value == -1, f"shift_to_zero(-3, 1) = {value}", "expected -1: reinstall numba")


def _lava() -> Check:
    from neuro.hardware.export import lava_shim

    try:
        lava_shim.import_lava()
    except NeuroError as problem:
        return Check("lava-nc", False, str(problem).split(". ")[0], LAVA_REMEDY, optional=True)
    return Check("lava-nc", True, f"{_version('lava-nc')}, imports on this Python", optional=True)


def _data(name: str) -> Check:
    from neuro.datasets.source import source

    found = source(name)
    return Check(f"data: {name}", True, f"{len(found.load('all'))} recordings embedded, {found.licence}")


def _chip(name: str) -> Check:
    from neuro.hardware.target import load_target

    chip = load_target(name).chip
    return Check(f"chip: {name}", True, f"{chip.title}, {len(chip.quantities())} constants with sources")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (NeuroError, ImportError, OSError) as problem:
        return Check(
            name, False, f"{type(problem).__name__}: {problem}", "reinstall: pip install -e . -c constraints.txt"
        )


def examine() -> list[Check]:
    """Every check, in the order of what builds on what."""
    from neuro.datasets.source import source, sources
    from neuro.hardware.target import targets

    checks = [_python()]
    checks += [_package(n) for n in ("numpy", "numba", "torch", "nir", "h5py", "matplotlib", "safetensors")]
    checks += [_package(n, n) for n in ("tonic", "snntorch", "norse")]
    checks.append(_guarded("compiled kernels", _compiler))
    checks.append(_guarded("lava-nc", _lava))
    checks += [_guarded(f"data: {n}", lambda n=n: _data(n)) for n in sources() if source(n).embedded]  # type: ignore[misc]
    checks += [_guarded(f"chip: {n}", lambda n=n: _chip(n)) for n in targets()]  # type: ignore[misc]
    return checks
