"""The one place that hands functions of this package to numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile on first call, keep on disk, run without the interpreter lock. No fastmath, ever."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
