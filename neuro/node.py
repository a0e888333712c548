"""`Node`: what all nodes of a `neuro.ir.Network` share: frozen dataclasses of read-only, checked arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neuro.errors import NetworkError, ShapeMismatch

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Shape = tuple[int, ...]
Edge = tuple[str, str]

RULES = ("exact", "euler")
RESETS = ("hard", "subtract")
ADAPTATIONS = ("symplectic", "euler", "threshold")
MAX_DELAY_STEPS = 1 << 20  # a delay line longer than this is a mistake in units, not a model
MAX_CHANNELS = 1 << 24  # of one node and step (128 MiB of float64): more is a mistake, not a layer
MAX_WINDOW = 1 << 12  # of kernel, stride, padding and dilation: no sensor has more pixels in a row
# what foreign arrays (ragged lists, tensors that need a gradient, masked or lazy ones) raise when read
UNREADABLE = (TypeError, ValueError, OverflowError, RuntimeError)


def frozen(value: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # what does not fit float64 becomes inf, which the caller refuses
        array: NDArray[Any] = np.array(value, dtype=dtype)  # always a copy: nobody else may hold a writable view
    array.setflags(write=False)
    return array


def one_of(value: object, allowed: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in allowed


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. Arrays are float64 (delays int64), read-only, checked by `problems`."""

    _ints: ClassVar[tuple[str, ...]] = ()
    _positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        bad: list[str] = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "Array":
                self._set(f.name, self._number(f.name, value, bad))
            elif f.type == "IntArray" or (f.type == "IntArray | None" and value is not None):
                self._set(f.name, self._steps(f.name, value, bad))
        if not bad:
            bad += self.problems()
        if bad:
            raise NetworkError(f"{type(self).__name__} cannot be built", bad)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, value: ArrayLike, bad: list[str]) -> Array | None:
        try:
            raw = np.asarray(value)
            if raw.dtype.kind not in "buif":
                raise TypeError(f"dtype {raw.dtype}")
            array = frozen(raw, np.float64)
        except UNREADABLE as cause:
            bad.append(f"{name} must be an array of real numbers, got {type(value).__name__} ({cause})")
            return None
        if array.size == 0:
            bad.append(f"{name} is empty (shape {array.shape}); give at least one value")
        elif not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            bad.append(f"{name} holds {count} value(s) that are NaN or infinite; all must be finite")
        elif name in self._positive and not (array > 0).all():
            bad.append(f"{name} must be positive, the smallest is {array.min():g}")
        return array

    def _steps(self, name: str, value: ArrayLike, bad: list[str]) -> IntArray | None:
        try:
            raw = np.asarray(value)
            if raw.dtype.kind not in "buif":
                raise TypeError(f"dtype {raw.dtype}")
            if not np.isfinite(raw).all() or not np.array_equal(raw, np.rint(raw)):
                raise ValueError("some are fractional, NaN or infinite")
        except UNREADABLE as cause:
            bad.append(f"{name} must hold whole numbers of steps ({cause}); round it first")
            return None
        if raw.size == 0:
            bad.append(f"{name} is empty (shape {raw.shape}); give at least one value")
        elif raw.min() < 0 or raw.max() > MAX_DELAY_STEPS:  # before the cast, which would wrap
            bad.append(
                f"{name} must lie in 0..{MAX_DELAY_STEPS} steps, found {raw.min()}..{raw.max()}; "
                "a spike cannot arrive before it was sent"
            )
        else:
            return frozen(raw, np.int64)
        return None

    def problems(self) -> list[str]:
        """Everything wrong with this node alone, one sentence each."""
        return []

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # pickle and deepcopy hand back writable arrays
            self._set(name, frozen(value, value.dtype) if isinstance(value, np.ndarray) else value)


def is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) > 0
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in shape)
    )


def too_large(shape: Shape) -> list[str]:
    """A complaint if one step of this shape is beyond `MAX_CHANNELS`; checked before anything is allocated."""
    if math.prod(shape) <= MAX_CHANNELS:
        return []
    return [f"shape {shape} has {math.prod(shape)} channels, at most {MAX_CHANNELS} are allowed in a node"]


def expand(values: NDArray[Any], shape: Shape, what: str) -> NDArray[Any]:
    """``values`` broadcast to ``shape`` if they are one value, or have its axes with some of length 1.

    numpy's rule of leading axes is not used: [4] beside [2, 4, 4] would be per column, which nobody means.

    Raises:
        ShapeMismatch: neither.
    """
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape)
    if values.ndim == len(shape) and all(n in (1, m) for n, m in zip(values.shape, shape, strict=True)):
        return np.broadcast_to(values, shape)
    raise ShapeMismatch(f"{what} shape {values.shape}, input has {shape}")
