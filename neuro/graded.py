"""Neurons beyond integrate-and-fire: those that send numbers instead of spikes, and resonators.

``graded`` neurons send numbers, zero most of the time: a message says how much, not only that. They count as events
where cost is counted, but not as spikes: an Output cannot count them, it reads their membrane v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuro.neuron import Neuron
from neuro.node import Array, one_of

ACTIVATIONS = ("relu", "identity")


def _flag(name: str, value: object) -> list[str]:
    return [] if isinstance(value, (bool, np.bool_)) else [f"{name} must be True or False, got {value!r}"]


@dataclass(frozen=True, eq=False)
class TernaryLIF(Neuron):
    """`LIF` with two thresholds, which sends -1, 0 or 1:

    v[t] = b v[t-1] + (1 - b) (v_leak + r x[t]);  s = (v > v_threshold) - (v < v_threshold_low);  v = v_reset where
    s is not 0. tau_mem in seconds. As Lava's TernaryLIF.
    """

    graded: ClassVar[bool] = True
    tau_mem: Array
    v_threshold: Array
    v_threshold_low: Array
    r: Array = 1.0  # type: ignore[assignment]  # scalars become arrays in __post_init__
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]

    def problems(self) -> list[str]:
        bad = super().problems()
        if not bad and (self.v_threshold_low > self.v_threshold).any():
            bad.append("v_threshold_low must not lie above v_threshold")
        return bad


@dataclass(frozen=True, eq=False)
class I(Neuron):  # noqa: E742  # its name in NIR
    """Integrator: v[t] = v[t-1] + r x[t], sent in every step. Behind sigma-delta neurons it decodes what they mean.

    ``r`` acts per step, as that of `IF`.
    """

    graded: ClassVar[bool] = True
    r: Array = 1.0  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Delta(Neuron):
    """Delta encoder: sends changes of x that are large enough, and keeps the rest for later:

    d[t] = x[t] - x[t-1] + residue[t-1];  s = d where abs(e) >= v_threshold, else 0;  residue = d - s
    e = d, or ``cumulative``: the sum of d since the last message.

    v = x. The sum of all messages is x - residue. As Lava's Delta (the threshold itself sends).
    """

    graded: ClassVar[bool] = True
    v_threshold: Array
    cumulative: bool = False

    def problems(self) -> list[str]:
        bad = super().problems() + _flag("cumulative", self.cumulative)
        if not bad and (self.v_threshold < 0).any():
            bad.append("v_threshold must not be negative")
        return bad


@dataclass(frozen=True, eq=False)
class SigmaDelta(Neuron):
    """Sigma-delta neuron: adds up messages, applies an activation, sends the change of it as `Delta` does:

    sigma[t] = sigma[t-1] + x[t];  v[t] = f(sigma[t] + bias), f the ``activation``, "relu" or "identity".

    As Lava's SigmaDelta; v starts at 0, so a bias is sent in the first step.
    """

    graded: ClassVar[bool] = True
    v_threshold: Array
    bias: Array = 0.0  # type: ignore[assignment]
    activation: str = "relu"
    cumulative: bool = False

    def problems(self) -> list[str]:
        bad = super().problems() + _flag("cumulative", self.cumulative)
        if not one_of(self.activation, ACTIVATIONS):
            bad.append(f"activation must be one of {ACTIVATIONS}, got {self.activation!r}")
        if not bad and (self.v_threshold < 0).any():
            bad.append("v_threshold must not be negative")
        return bad


@dataclass(frozen=True, eq=False)
class ResonateAndFire(Neuron):
    """Resonate-and-fire neuron (Izhikevich 2001): a damped oscillator, driven in its real part:

    v[t] + 1j im[t] = b exp(2j pi dt / period) (v[t-1] + 1j im[t-1]) + x[t],  b the decay of tau_mem over a step.

    It fires where v >= v_threshold and im has just risen from below 0, and nothing is reset; with ``resets`` where
    im >= v_threshold, and then v = 0, im = v_threshold. period and tau_mem in seconds. As Lava's RF and RF_IZ.
    """

    spiking: ClassVar[bool] = True
    _positive: ClassVar[tuple[str, ...]] = ("tau_mem", "period")
    tau_mem: Array
    period: Array
    v_threshold: Array
    resets: bool = False

    def problems(self) -> list[str]:
        return super().problems() + _flag("resets", self.resets)
