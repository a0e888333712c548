"""The two neurons that everything rests on: `Settling` (ST-BIF) and `Firing` (integrate-and-fire, reset by
subtraction). Recipes are these with other options, and those of `neuro.convert.recipes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from neuro.convert.ops import Quantise
from neuro.errors import ConversionError


@dataclass(frozen=True)
class Settling:
    """Bipolar integrate-and-fire with a tracer, ST-BIF (You et al. 2024, ICML, arXiv:2406.03470); V in steps:

    V[t] = 1/2 + z[t] / step - S[t-1];  s = +1 where V >= 1 and S < high, -1 where V < 0 and S > low;  S[t] = S[t-1] + s

    At rest S = clip(floor(z / step + 1/2), low, high): exactly the quantised value, whatever the order of arrival.
    at_once: messages are graded, up to so many levels in one step (1: spikes; high - low: settled in one step).
    """

    code: ClassVar[str] = "sum"
    at_once: int = 1

    def begin(self, neurons: Quantise, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def step(self, neurons: Quantise, state: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        s = (neurons.levels(z) - state).clamp(-self.at_once, self.at_once)
        now = state + s
        return neurons.step * now, (s != 0).to(z.dtype), now


REACHED = 1 - 2.0**-30  # t times a mean over t steps is off by a rounding; a V that meets theta on a grid must fire


class Fired(NamedTuple):
    """Spikes so far."""

    spikes: Tensor


@dataclass(frozen=True)
class Firing:
    """Integrate-and-fire, reset by subtraction; theta = step high, so that a spike in every step is the largest level:

    V[t] = v0 theta + t z[t] - theta S[t-1];  s = 1 where V >= theta;  S[t] = S[t-1] + s;  estimate theta S[t] / t

    with z[t] the mean input so far, so t z[t] is the input's sum. v0 = 1/2: Bu et al. 2022 (AAAI). Where the input is
    even in time and t = high, the estimate is the quantised value (QCFS, Bu et al. 2022, ICLR).
    """

    code: ClassVar[str] = "rate"
    v0: float = 0.5

    def begin(self, neurons: Quantise, z: Tensor) -> Fired:
        if neurons.low:
            raise ConversionError(f"integrate-and-fire neurons send no negative values, these go down to {neurons.low}")
        return Fired(torch.zeros_like(z))

    def step(self, neurons: Quantise, state: Fired, z: Tensor, t: int) -> tuple[Tensor, Tensor, Fired]:
        theta = neurons.step * neurons.high
        s = (t * z + self.v0 * theta - theta * state.spikes >= theta * REACHED).to(z.dtype)
        count = state.spikes + s
        return theta * count / t, s, Fired(count)
