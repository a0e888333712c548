"""Make lava-nc 0.10.0 importable on current Python and NumPy, without touching site-packages.

Its wheel is the last one (the project is archived) and says Python 3.10. Three things stand in the way
of newer versions, each met here and nowhere else:

- Python 3.11 refuses a dataclass instance as a default value (lava/magma/compiler/var_model.py). That one
  module is imported while `dataclasses.dataclass` makes hashable classes; afterwards it is as before.
- NumPy 2.4 no longer knows ``np.reshape(newshape=)``, which Lava's reshaped ports call in every time step.
  Their two functions are replaced by the same reshape with a positional shape. No arithmetic is touched.
- Importing Lava fixes multiprocessing's start method for the whole interpreter; that call is kept from
  having an effect here (Lava's runtime is only ever run in a process of its own, see `lava_runtime`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import multiprocessing
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np

from neuro.errors import MissingExtra, OracleError

VERSION = "0.10.0"
PIP = f"pip install 'axonport[lava]' && pip install --no-deps --ignore-requires-python lava-nc=={VERSION}"
MISSING = f"lava-nc missing; {PIP}"
_VAR_MODEL = "lava.magma.compiler.var_model"
_PORTS = "lava.magma.core.process.ports.ports"
_MARK = "_mended_by_axonport"
_lock = threading.Lock()


def lava_version() -> str | None:
    """Version of the installed lava-nc, None if there is none. Imports nothing."""
    try:
        found = importlib.util.find_spec("lava") is not None
    except ValueError:  # a module of that name without a spec, such as a test's stand-in
        found = False
    if not found:
        return None
    try:
        return version("lava-nc")
    except PackageNotFoundError:
        return None


def available() -> bool:
    """Whether `import_lava` has a lava-nc of the known version to import. Imports nothing."""
    return lava_version() == VERSION


def import_lava() -> None:
    """Make ``import lava...`` work from here on. Calling it again does nothing.

    Raises:
        MissingExtra: lava-nc is not installed; the message has the pip commands.
        OracleError: another version than the one everything here was checked with, or it does not import.
    """
    found = lava_version()
    if found is None:
        raise MissingExtra(MISSING)
    if found != VERSION:
        raise OracleError(f"lava-nc {found} is installed, only {VERSION} is known to work. {PIP}")
    with _lock:
        if _mended():
            return
        start_method = multiprocessing.set_start_method
        multiprocessing.set_start_method = lambda *_a, **_k: None
        try:
            _import_var_model()
            ports = importlib.import_module(_PORTS)
            importlib.import_module("lava.magma.core.process.process")
            _mend_reshape(ports)
        except (ImportError, AttributeError, TypeError, ValueError) as cause:
            raise OracleError(f"lava-nc {found} cannot be imported: {cause}. {PIP}") from cause
        finally:
            multiprocessing.set_start_method = start_method


def _import_var_model() -> None:
    try:
        importlib.import_module(_VAR_MODEL)
        return  # Python 3.10
    except ValueError as refusal:
        if "mutable default" not in str(refusal):
            raise
    # Everything that module needs is loaded by now, so only its own classes are made differently.
    sys.modules.pop(_VAR_MODEL, None)
    plain = dataclasses.dataclass
    dataclasses.dataclass = functools.partial(plain, unsafe_hash=True)
    try:
        importlib.import_module(_VAR_MODEL)
    finally:
        dataclasses.dataclass = plain


def _mended() -> bool:
    ports = sys.modules.get(_PORTS)
    return ports is not None and getattr(ports.ReshapePort, _MARK, False)


def _reshaped(data: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return data.reshape(shape)


def _mend_reshape(ports: ModuleType) -> None:
    port = ports.ReshapePort
    setattr(port, _MARK, True)
    port.get_transform_func_fwd = lambda self: functools.partial(_reshaped, shape=self.shape)
    port.get_transform_func_bwd = lambda self: functools.partial(_reshaped, shape=self.old_shape)
