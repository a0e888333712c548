"""`paged`: room for tables that compiled loops read in no order. `lined`: for what they read in vectors, in order.

In pages of 4 KiB such a table has more of them than the processor's first table of addresses has entries, and asking
the second one for each row took up to a third of the time of a layer of 4096 (measured). So large room begins at a
page of 2 MiB, which the system is asked for; where it gives none, nothing but time is lost.

NumPy's own arrays begin a quarter into a line of the cache, or at its half or three quarters, so that every vector of
64 bytes lies in two lines: loops that do little else took a fifth to a quarter longer (measured).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE = 1 << 21
LINE = 64
LARGE = 1 << 17  # bytes; a smaller table has few pages anyway
ASKS = 1 << 22  # from so many bytes on NumPy asks the system (Linux) for large pages


def paged(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of that shape in C order, not filled."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < LARGE:
        return np.empty(shape, kind)
    raw = np.empty(max(size + PAGE, ASKS), np.uint8)
    begin = -raw.ctypes.data % PAGE
    return raw[begin : begin + size].view(kind).reshape(shape)


def lined(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of that shape in C order, not filled, that begins with a line of the cache."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.empty(size + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + size].view(kind).reshape(shape)
