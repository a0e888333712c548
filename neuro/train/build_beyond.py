"""Layer types of a configuration for the neurons beyond integrate-and-fire: one table each, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from neuro.extend import did_you_mean
from neuro.ir import ACTIVATIONS, Shape
from neuro.nn.integer import IntegerLIF
from neuro.nn.layers import decays
from neuro.nn.parallel import ParallelLIF
from neuro.nn.resonate import ResonateAndFire
from neuro.nn.sigma_delta import Delta, I, SigmaDelta
from neuro.nn.surrogate import SURROGATES, AnySurrogate, surrogate
from neuro.nn.ternary import TernaryLIF


@dataclass(frozen=True)
class _Spec:
    """beta per step, or tau_mem in seconds. learn: which coefficients are trained; one value each with ``each``."""

    v_threshold: float = 1.0
    learn: tuple[str, ...] = ()
    each: bool = False

    def problems(self) -> list[str]:
        return [] if self.v_threshold >= 0 else ["v_threshold must not be negative"]

    def values(self, shape: Shape, **given: float) -> dict[str, Any]:
        """The coefficients, one for each neuron where that is wanted."""
        values: dict[str, Any] = {"v_threshold": self.v_threshold, **given}
        return {n: np.full(shape, v) for n, v in values.items()} if self.each else values


@dataclass(frozen=True)
class _LeakySpec(_Spec):
    """As `_Spec`, with a surrogate gradient."""

    beta: float | None = None
    tau_mem: float | None = None
    surrogate: str = "fast_sigmoid"
    surrogate_alpha: float | None = None

    def problems(self) -> list[str]:
        bad = super().problems()
        if self.surrogate not in SURROGATES:
            bad.append(f"surrogate '{self.surrogate}' is unknown. {did_you_mean(self.surrogate, SURROGATES)}")
        if (self.beta is None) == (self.tau_mem is None):
            bad.append("needs either beta, or tau_mem in seconds")
        return bad

    def decay(self, dt: float) -> float:
        if self.tau_mem is not None:
            return decays(self.tau_mem, dt)["beta"]
        assert self.beta is not None
        return self.beta

    def spike(self) -> AnySurrogate:
        return surrogate(self.surrogate, self.surrogate_alpha)


@dataclass(frozen=True)
class ResonateSpec(_LeakySpec):
    """`neuro.nn.ResonateAndFire`. period: seconds; up to period_max (if given), in equal ratios from neuron to neuron
    in the order of a step. resets, detach: of the layer. learn: which of period, beta, v_threshold."""

    period: float = 0.01
    period_max: float | None = None
    resets: bool = False
    detach: bool = False

    def problems(self) -> list[str]:
        good = self.period > 0 and (self.period_max is None or self.period_max >= self.period)
        return super().problems() + ([] if good else ["periods must be positive, period_max at least period"])

    def build(self, shape: Shape, dt: float) -> nn.Module:
        given = self.values(shape, beta=self.decay(dt), period=self.period / dt)
        if self.period_max is not None:
            given["period"] = np.geomspace(self.period, self.period_max, int(np.prod(shape))).reshape(shape) / dt
        return ResonateAndFire(
            **given, resets=self.resets, detach=self.detach, surrogate=self.spike(), learn=self.learn
        )


@dataclass(frozen=True)
class ParallelSpec(_LeakySpec):
    """`neuro.nn.ParallelLIF`. learn: which of beta, v_threshold."""

    def build(self, shape: Shape, dt: float) -> nn.Module:
        return ParallelLIF(**self.values(shape, beta=self.decay(dt)), surrogate=self.spike(), learn=self.learn)


@dataclass(frozen=True)
class TernarySpec(_LeakySpec):
    """`neuro.nn.TernaryLIF`. v_threshold_low: - v_threshold if left out. learn: which of beta and the thresholds."""

    v_threshold_low: float | None = None
    v_reset: float = 0.0
    detach: bool = False

    def build(self, shape: Shape, dt: float) -> nn.Module:
        low = -self.v_threshold if self.v_threshold_low is None else self.v_threshold_low
        given = self.values(shape, beta=self.decay(dt), v_threshold_low=low, v_reset=self.v_reset)
        return TernaryLIF(**given, detach=self.detach, surrogate=self.spike(), learn=self.learn)


@dataclass(frozen=True)
class DeltaSpec:
    """`neuro.nn.Delta`: v_threshold is the smallest change that is sent."""

    v_threshold: float = 0.0
    cumulative: bool = False

    def build(self, shape: Shape, dt: float) -> nn.Module:
        return Delta(self.v_threshold, cumulative=self.cumulative)


@dataclass(frozen=True)
class SigmaDeltaSpec:
    """`neuro.nn.SigmaDelta`. learn_bias: a bias per neuron is trained, from ``bias`` on."""

    v_threshold: float = 0.0
    bias: float = 0.0
    activation: str = "relu"
    cumulative: bool = False
    learn_bias: bool = False

    def problems(self) -> list[str]:
        known = self.activation in ACTIVATIONS
        return [] if known else [f"activation must be one of {ACTIVATIONS}, got '{self.activation}'"]

    def build(self, shape: Shape, dt: float) -> nn.Module:
        bias = np.full(shape, self.bias) if self.learn_bias else self.bias
        learn = ("bias",) if self.learn_bias else ()
        return SigmaDelta(self.v_threshold, bias, activation=self.activation, cumulative=self.cumulative, learn=learn)


@dataclass(frozen=True)
class IntegratorSpec:
    """`neuro.nn.I`, the readout behind messages."""

    gain: float = 1.0

    def build(self, shape: Shape, dt: float) -> nn.Module:
        return I(self.gain)


@dataclass(frozen=True)
class IntegerSpec(_Spec):
    """`neuro.nn.IntegerLIF`: integers 0..levels. beta: per step. learn: ("v_threshold",) or none."""

    levels: int = 4
    beta: float = 1.0
    detach: bool = False

    def build(self, shape: Shape, dt: float) -> nn.Module:
        return IntegerLIF(
            **self.values(shape), beta=self.beta, levels=self.levels, detach=self.detach, learn=self.learn
        )


Build = Callable[[Any, Shape, float, torch.Generator], nn.Module]


def _row(spec: type) -> tuple[type, Build]:
    return spec, lambda given, shape, dt, rng: given.build(shape, dt)


BEYOND: dict[str, tuple[type, Build]] = {
    "resonate_and_fire": _row(ResonateSpec),
    "parallel_lif": _row(ParallelSpec),
    "ternary_lif": _row(TernarySpec),
    "integer_lif": _row(IntegerSpec),
    "delta": _row(DeltaSpec),
    "sigma_delta": _row(SigmaDeltaSpec),
    "integrator": _row(IntegratorSpec),
}
