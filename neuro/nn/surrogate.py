"""Spike functions: a step forwards, a smooth stand-in for its derivative backwards.

Forwards every surrogate is s = 1 where x > 0, else 0 (strictly: x = 0 does not fire), with
x = v - v_threshold. Backwards ds/dx is replaced by h(x), one row of `SURROGATES`. ``alpha`` is the
steepness: larger means narrower around the threshold.

Any callable that maps x to spikes and carries its own gradient (an object of snntorch.surrogate, say)
can stand in for a row; its h is read through autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuro.errors import BadConfig
from neuro.extend import did_you_mean

SpikeFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One surrogate: h(x, alpha), its default steepness, its equation and where it comes from."""

    derivative: Callable[[Tensor, float], Tensor]
    alpha: float
    equation: str
    source: str


def _fast_sigmoid(x: Tensor, alpha: float) -> Tensor:
    return (x.abs() * alpha + 1.0).pow_(-2)


def _atan(x: Tensor, alpha: float) -> Tensor:
    return (x * (0.5 * math.pi * alpha)).square_().add_(1.0).reciprocal_().mul_(0.5 * alpha)


def _triangle(x: Tensor, alpha: float) -> Tensor:
    return (x.abs() * (-alpha * alpha) + alpha).clamp_(min=0.0)


def _sigmoid(x: Tensor, alpha: float) -> Tensor:
    z = x * alpha
    return torch.sigmoid(z).mul_(torch.sigmoid(-z)).mul_(alpha)  # 1 - q would cancel far above the threshold


def _normal(x: Tensor, mean: float, sigma: float) -> Tensor:
    return ((x - mean) * (1.0 / sigma)).square_().mul_(-0.5).exp_().mul_(1.0 / (sigma * math.sqrt(2.0 * math.pi)))


def _gaussian(x: Tensor, alpha: float) -> Tensor:
    return _normal(x, 0.0, 1.0 / alpha)


def _straight_through(x: Tensor, alpha: float) -> Tensor:
    return torch.full_like(x, alpha)


def _multi_gaussian(x: Tensor, alpha: float) -> Tensor:
    sigma, height, widen, gamma = 1.0 / alpha, 0.15, 6.0, 0.5
    sides = _normal(x, sigma, widen * sigma) + _normal(x, -sigma, widen * sigma)
    return gamma * ((1.0 + height) * _normal(x, 0.0, sigma) - height * sides)


SURROGATES: dict[str, Row] = {
    "fast_sigmoid": Row(
        _fast_sigmoid, 25.0, "h = 1 / (1 + alpha |x|)^2", "Zenke & Vogels 2021, Neural Comput. 33:899; as snnTorch's"
    ),
    "atan": Row(_atan, 2.0, "h = (alpha / 2) / (1 + (pi alpha x / 2)^2)", "Fang et al. 2021, ICCV (arXiv:2007.05785)"),
    "triangle": Row(
        _triangle, 1.0, "h = alpha max(0, 1 - alpha |x|)", "Esser et al. 2016, PNAS 113:11441, scaled to unit area"
    ),
    # the same function as fast_sigmoid; the steepness its authors use
    "superspike": Row(
        _fast_sigmoid, 100.0, "h = 1 / (1 + alpha |x|)^2", "Zenke & Ganguli 2018, Neural Comput. 30:1514"
    ),
    "sigmoid": Row(
        _sigmoid, 25.0, "h = alpha q (1 - q), q = 1 / (1 + exp(-alpha x))", "Zenke & Vogels 2021, as snnTorch's"
    ),
    "gaussian": Row(
        _gaussian, 2.0, "h = N(x; 0, 1/alpha)", "Yin, Corradi & Bohte 2021, Nat. Mach. Intell. 3:905, eq. 5"
    ),
    "straight_through": Row(_straight_through, 1.0, "h = alpha", "Bengio et al. 2013, arXiv:1308.3432"),
    "multi_gaussian": Row(
        _multi_gaussian,
        2.0,
        "h = 0.5 (1.15 N(x; 0, s) - 0.15 (N(x; s, 6 s) + N(x; -s, 6 s))), s = 1/alpha",
        "Yin, Corradi & Bohte 2021, Nat. Mach. Intell. 3:905, methods",
    ),
}


class _Spike(torch.autograd.Function):
    """1 where x > 0; the gradient is multiplied by h(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, row: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.row = row
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.row.derivative(x), None


@dataclass(frozen=True)
class Surrogate:
    """A row of `SURROGATES` with its steepness. Call it for spikes; `derivative` is h."""

    name: str
    alpha: float

    def derivative(self, x: Tensor) -> Tensor:
        """h(x), the shape of x."""
        return SURROGATES[self.name].derivative(x, self.alpha)

    def __call__(self, x: Tensor) -> Tensor:
        """Spikes 0 or 1 in the dtype of x."""
        spikes: Tensor = _Spike.apply(x, self)  # type: ignore[no-untyped-call]
        return spikes


@dataclass(frozen=True)
class ForeignSurrogate:
    """Someone else's spike function; it must act element by element."""

    function: SpikeFunction

    def derivative(self, x: Tensor) -> Tensor:
        """h(x), read from the gradient that the function declares."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            (h,) = torch.autograd.grad(self.function(leaf).sum(), leaf)
        return h

    def __call__(self, x: Tensor) -> Tensor:
        """Whatever the function returns for x."""
        return self.function(x)


AnySurrogate = Surrogate | ForeignSurrogate


def surrogate(which: str | SpikeFunction | AnySurrogate = "fast_sigmoid", alpha: float | None = None) -> AnySurrogate:
    """A spike function by name, or a foreign callable made to fit.

    Args:
        which: a key of `SURROGATES`, or a callable x -> spikes with a gradient of its own.
        alpha: steepness, positive; the row's default if None. Not for callables.

    Raises:
        BadConfig: unknown name, alpha that is not positive and finite, alpha given with a callable.
    """
    if isinstance(which, (Surrogate, ForeignSurrogate)) and alpha is None:
        return which
    if not isinstance(which, str):
        if not callable(which):
            raise BadConfig(f"a surrogate is a name or a callable, got {type(which).__name__}")
        if alpha is not None:
            raise BadConfig("alpha belongs to the named surrogates; a callable brings its own steepness")
        return ForeignSurrogate(which)
    if which not in SURROGATES:
        raise BadConfig(f"unknown surrogate '{which}'. {did_you_mean(which, SURROGATES)}")
    value = SURROGATES[which].alpha if alpha is None else alpha
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise BadConfig(f"surrogate '{which}': alpha must be positive and finite, got {value!r}")
    return Surrogate(which, float(value))
