"""Operations that front ends need besides those of `neuro.convert.ops`: entries taken, padded, spread over space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as fn
from torch import Tensor

from neuro.convert.ops import Op, op


@op
@dataclass(frozen=True, eq=False)
class Take(Op):
    """Entries of an axis that counts the batch as 0, in any order, also repeatedly: y[.., k, ..] = x[.., index[k], ..]
    (nearest-neighbour upsampling, broadcasting, a gather of constant indices)."""

    linear: ClassVar[bool] = True
    axis: int
    index: tuple[int, ...]

    def problems(self) -> list[str]:
        bad = [] if self.axis >= 1 else [f"axis must not be the batch, got {self.axis}"]
        if not self.index or min(self.index) < 0:
            bad.append("index must hold at least one entry, none negative")
        return bad

    def value(self, *x: Tensor) -> Tensor:
        return x[0].index_select(self.axis, torch.tensor(self.index, dtype=torch.int64, device=x[0].device))


@op
@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Zeros around the last axes: before and after, one number for each axis padded, the last axis last."""

    linear: ClassVar[bool] = True
    before: tuple[int, ...]
    after: tuple[int, ...]

    def problems(self) -> list[str]:
        bad = [] if len(self.before) == len(self.after) else ["before and after must name the same axes"]
        if min((*self.before, *self.after), default=0) < 0:
            bad.append("padding must not be negative; use a Slice")
        return bad

    def value(self, *x: Tensor) -> Tensor:
        pairs = [n for pair in zip(reversed(self.before), reversed(self.after), strict=True) for n in pair]
        return fn.pad(x[0], pairs)


@op
@dataclass(frozen=True, eq=False)
class ConvTranspose(Op):
    """Transposed convolution in one or two dimensions. weight: [in, out / groups, *kernel], as torch has it."""

    linear: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    output_padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    def problems(self) -> list[str]:
        dims = self.weight.ndim - 2
        bad = [] if dims in (1, 2) else [f"weight must have one or two dimensions of space, got {self.weight.shape}"]
        for name in ("stride", "padding", "output_padding", "dilation"):
            if len(getattr(self, name)) != dims:
                bad.append(f"{name} must have {dims} numbers, got {getattr(self, name)}")
        return bad

    def value(self, *x: Tensor) -> Tensor:
        run = fn.conv_transpose1d if self.weight.ndim == 3 else fn.conv_transpose2d
        how = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return run(x[0], self.weight, self.bias, *how)


@op
@dataclass(frozen=True, eq=False)
class LogSoftmax(Op):
    """x - log sum exp(x) along an axis."""

    axis: int = -1

    def value(self, *x: Tensor) -> Tensor:
        return torch.log_softmax(x[0], self.axis)


@op
@dataclass(frozen=True, eq=False)
class Largest(Op):
    """Largest value over axes, which count the batch as 0."""

    axes: tuple[int, ...]
    keepdim: bool = False

    def value(self, *x: Tensor) -> Tensor:
        return x[0].amax(self.axes, self.keepdim)
