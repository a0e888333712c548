"""Nodes without state: the ends of a network, weights, convolution, pools, rectifier, scale and delay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from neuro.node import (
    MAX_WINDOW,
    UNREADABLE,
    Array,
    IntArray,
    Node,
    Shape,
    frozen,
    is_shape,
    one_of,
    too_large,
)


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Where events enter. ``shape`` is that of one step, e.g. (12,) or (2, 34, 34).

    high: the largest value of a channel in a step, 1..255. 1: spikes. More: events counted up to ``high``, or
    the values of pixels.
    """

    shape: Shape
    high: int = 1

    def problems(self) -> list[str]:
        if not is_shape(self.shape):
            return [f"shape must be a tuple of positive integers, got {self.shape!r}"]
        self._set("shape", tuple(int(n) for n in self.shape))
        if not _whole(self.high, 1, MAX_HIGH):
            return [f"high must be a whole number in 1..{MAX_HIGH}, got {self.high!r}"]
        self._set("high", int(self.high))
        return too_large(self.shape)


MAX_HIGH = 255  # of an input channel: a simulator takes bytes
MAX_LEVELS = 1 << 16  # of a quantised activation: no chip has more


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= int(value) <= high


READOUTS = ("count", "sum", "max", "last")


@dataclass(frozen=True, eq=False)
class Output(Node):
    """Where answers leave. ``readout`` says how time becomes one score per channel.

    "count": number of spikes, of a source that spikes (perhaps through a Flatten or a Delay).
    "sum", "max", "last": of the source's membrane v (after the reset) over the steps of a sample;
    of what the source sends, where it has no membrane. The decision is the argmax, lowest index on a tie.
    """

    readout: str = "count"

    def problems(self) -> list[str]:
        return [] if one_of(self.readout, READOUTS) else [f"readout must be one of {READOUTS}, got {self.readout!r}"]


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y[t, o] = sum_i weight[o, i] x[t - delay_steps[o, i], i].

    weight: [out, in]. delay_steps: int64[out, in] whole steps per synapse, or None for none.
    """

    weight: Array
    delay_steps: IntArray | None = None

    def problems(self) -> list[str]:
        bad = []
        if self.weight.ndim != 2:
            bad.append(f"weight must be [out, in], got shape {self.weight.shape}")
        if self.delay_steps is not None and self.delay_steps.shape != self.weight.shape:
            bad.append(f"delay_steps {self.delay_steps.shape} must have weight's shape {self.weight.shape}")
        return bad


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """`Linear` plus bias[o] in every step. bias: [out]."""

    bias: Array = field(kw_only=True)

    def problems(self) -> list[str]:
        bad = super().problems()
        if self.weight.ndim == 2 and self.bias.shape != (self.weight.shape[0],):
            bad.append(f"bias must be [{self.weight.shape[0]}], got shape {self.bias.shape}")
        return bad


def _pair(value: object) -> tuple[int, int]:
    """An int or a pair of ints, as torch and NIR write kernel sizes; (-1, -1) if it is neither."""
    try:
        array = np.atleast_1d(np.asarray(value))
    except UNREADABLE:
        return (-1, -1)
    if array.dtype.kind not in "iu" or array.ndim != 1 or array.size not in (1, 2):
        return (-1, -1)
    if array.max() > MAX_WINDOW:
        return (-1, -1)
    return (int(array[0]), int(array[-1]))


@dataclass(frozen=True, eq=False)
class Conv2d(Node):
    """2-D cross-correlation of x [in, height, width] with zero padding, plus bias.

    weight: [out, in / groups, kernel_h, kernel_w]. stride, padding, dilation: (h, w). bias: [out].
    """

    weight: Array
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: Array = field(default_factory=lambda: np.zeros(1))

    def problems(self) -> list[str]:
        bad = []
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            given = getattr(self, name)
            self._set(name, _pair(given))
            if min(getattr(self, name)) < least:
                bad.append(f"{name} must be one or two integers in {least}..{MAX_WINDOW}, got {given!r}")
        if self.weight.ndim != 4:
            bad.append(f"weight must be [out, in / groups, kernel_h, kernel_w], got {self.weight.shape}")
            return bad
        out = self.weight.shape[0]
        if not isinstance(self.groups, (int, np.integer)) or self.groups < 1 or out % int(self.groups):
            bad.append(f"groups must be a positive divisor of {out} output channels, got {self.groups!r}")
        else:
            self._set("groups", int(self.groups))
        if self.bias.size == 1:
            self._set("bias", frozen(np.full(out, self.bias.item()), np.float64))
        if self.bias.shape != (out,):
            bad.append(f"bias must be [{out}], got shape {self.bias.shape}")
        return bad


@dataclass(frozen=True, eq=False)
class _Pool2d(Node):
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def problems(self) -> list[str]:
        bad = []
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            given = getattr(self, name)
            self._set(name, _pair(given))
            if min(getattr(self, name)) < least:
                bad.append(f"{name} must be one or two integers in {least}..{MAX_WINDOW}, got {given!r}")
        return bad


@dataclass(frozen=True, eq=False)
class SumPool2d(_Pool2d):
    """Sum over windows of x [channel, height, width]; windows that stick out are dropped."""


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Pool2d):
    """`SumPool2d` divided by the window's area (padding counts, as torch's default)."""


@dataclass(frozen=True, eq=False)
class MaxPool2d(_Pool2d):
    """Largest value of each window of x [channel, height, width]; windows that stick out are dropped.

    Padding never wins (it is minus infinity), and is at most half a window.
    """

    def problems(self) -> list[str]:
        bad = super().problems()
        if not bad and any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            bad.append(f"padding {self.padding} must be at most half of kernel_size {self.kernel_size}")
        return bad


@dataclass(frozen=True, eq=False)
class QuantisedReLU(Node):
    """y = step clip(floor(x / step + 1/2), 0, levels): a rectifier that sends one of levels + 1 values.

    step: of x's shape, or a scalar, or [channel, 1, 1]. levels: 1..65536, 2^bits - 1 for a code of so many bits.
    """

    _positive: ClassVar[tuple[str, ...]] = ("step",)
    step: Array
    levels: int

    def problems(self) -> list[str]:
        if not _whole(self.levels, 1, MAX_LEVELS):
            return [f"levels must be a whole number in 1..{MAX_LEVELS}, got {self.levels!r}"]
        self._set("levels", int(self.levels))
        return []


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """Row-major reshape of one step to a vector."""


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """y = scale * x, element by element. scale: the shape of x, or a scalar."""

    scale: Array


@dataclass(frozen=True, eq=False)
class Delay(Node):
    """y[t] = x[t - steps]. steps: int64 whole steps per channel (axonal delay), or a scalar."""

    steps: IntArray
