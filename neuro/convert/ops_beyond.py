"""Operations that families beyond layered networks need: comparison, tables, winners, gates, sums in order, quotients.

All of them run on estimates like those of `neuro.convert.ops`. A table of a quantised value is what makes any function
of one neuron exact: the k-th spike of a neuron carries phi[k] - phi[k-1], and the sum of all of them is phi[k].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuro.convert.ops import Op, Quantise, op


@op
@dataclass(frozen=True, eq=False)
class Threshold(Quantise):
    """Neurons that compare: y = step where x > theta, strictly and in the exact sense of floats, else 0; low = 0 and
    high = 1. theta broadcasts against a value without its batch. Not a number is not above anything."""

    theta: Tensor

    def problems(self) -> list[str]:
        bad = super().problems()
        if (self.low, self.high) != (0, 1):
            bad.append(f"a threshold unit has levels 0..1, got {self.low}..{self.high}")
        return bad

    def levels(self, x: Tensor) -> Tensor:
        return (x > self.theta).to(x.dtype)


def threshold(theta: Tensor) -> Threshold:
    """Units that send 1 where x > theta."""
    return Threshold(theta.new_ones(()), 0, 1, theta)


def places(x: Tensor, step: Tensor, low: int, count: int) -> Tensor:
    """int64: which of count levels low, low + 1, .. (times step) a value is; the nearest one, halves up."""
    return (torch.floor(x / step + 0.5) - low).clamp(0, count - 1).long()


@op
@dataclass(frozen=True, eq=False)
class Lookup(Op):
    """y = data[k_1, k_2, ..] element by element, k_i the level of the i-th value (`places`), values broadcast.

    data: [levels of the 1st, of the 2nd, ..]; steps: one positive number per value; lows: their lowest levels.
    """

    arity: ClassVar[int] = -1
    data: Tensor
    steps: Tensor
    lows: tuple[int, ...]

    def problems(self) -> list[str]:
        bad = []
        if not self.data.ndim == len(self.steps) == len(self.lows):
            bad.append(f"a table of {self.data.ndim} axes needs as many steps and lows, got {self.steps}, {self.lows}")
        if not bool((self.steps > 0).all()):
            bad.append(f"steps must be positive, got {self.steps}")
        return bad

    def value(self, *x: Tensor) -> Tensor:
        at = zip(x, self.steps, self.lows, self.data.shape, strict=True)
        index = [places(each, step, low, count) for each, step, low, count in at]
        return self.data[tuple(index)]  # indices broadcast


@op
@dataclass(frozen=True, eq=False)
class EdgeTables(Op):
    """y_j = sum_i data[i, k_i, j] on the last axis, k_i the level of x_i: one table on every edge (KAN).

    data: [in, levels, out]. step: positive scalar; low: lowest level.
    """

    data: Tensor
    step: Tensor
    low: int

    def problems(self) -> list[str]:
        bad = [] if self.data.ndim == 3 else [f"data must be [in, levels, out], got {tuple(self.data.shape)}"]
        return bad if bool(self.step > 0) else [*bad, f"step must be positive, got {self.step}"]

    def value(self, *x: Tensor) -> Tensor:
        k = places(x[0], self.step, self.low, self.data.shape[1])
        total = self.data[0, k[..., 0]]
        for i in range(1, len(self.data)):
            total = total + self.data[i, k[..., i]]
        return total


@op
@dataclass(frozen=True, eq=False)
class Winner(Op):
    """1 for the ``count`` largest along the last axis, 0 for the others; the first of equal ones wins. Units that
    inhibit each other; latched, it is a second input of the rest (see `neuro.convert.families.moe`)."""

    count: int = 1

    def value(self, *x: Tensor) -> Tensor:
        order = torch.sort(x[0], dim=-1, descending=True, stable=True).indices[..., : self.count]
        return torch.zeros_like(x[0]).scatter(-1, order, 1.0)


@op
@dataclass(frozen=True, eq=False)
class Gate(Op):
    """(x, units): x where units[..., unit] > 0, else 0: whoever is behind a closed gate gets no event at all."""

    arity: ClassVar[int] = 2
    unit: int

    def value(self, *x: Tensor) -> Tensor:
        is_open = x[1][..., self.unit] > 0
        return torch.where(is_open.reshape(*is_open.shape, *(1,) * (x[0].ndim - is_open.ndim)), x[0], 0.0)


@op
@dataclass(frozen=True, eq=False)
class Accumulate(Op):
    """start + x[:, 0] + x[:, 1] + .., added in this order, so that float sums are those of whoever adds so too.
    start: [*rest], of what is left without axis 1."""

    linear: ClassVar[bool] = True
    start: Tensor

    def value(self, *x: Tensor) -> Tensor:
        total = self.start.expand(len(x[0]), *self.start.shape)
        for each in x[0].unbind(1):
            total = total + each
        return total


@op
@dataclass(frozen=True, eq=False)
class Quotient(Op):
    """a / b element by element, broadcast."""

    arity: ClassVar[int] = 2

    def value(self, *x: Tensor) -> Tensor:
        return x[0] / x[1]
