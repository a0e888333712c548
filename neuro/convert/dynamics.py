"""More neurons for `neuro.convert.engine`, all integrate-and-fire with reset by subtraction, code "rate". With z[t] the
mean input so far and theta = step high:

V[t] = v0 theta + t z[t] - theta S[t-1];  S[t] = S[t-1] + s;  estimate theta S[t] / t

They differ in v0, in what s may be, and in what they do before they start to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from neuro.convert.neurons import REACHED
from neuro.convert.ops import Quantise
from neuro.errors import ConversionError


def refuse_negative(neurons: Quantise) -> None:
    """Raises ConversionError where levels go below 0."""
    if neurons.low:
        raise ConversionError(f"these neurons have no negative values, their levels go down to {neurons.low}")


@dataclass(frozen=True)
class Ideal:
    """No spikes: the quantised value of the input at once. code: that of the other populations."""

    code: str = "rate"

    def begin(self, neurons: Quantise, z: Tensor) -> None:
        return None

    def step(self, neurons: Quantise, state: None, z: Tensor, t: int) -> tuple[Tensor, Tensor, None]:
        return neurons.value(z), torch.zeros_like(z), None


@dataclass(frozen=True, eq=False)
class Primed:
    """s = 1 where V >= theta. v0: of each neuron, in theta, broadcast against an input without its batch."""

    code: ClassVar[str] = "rate"
    v0: Tensor

    def begin(self, neurons: Quantise, z: Tensor) -> Tensor:
        refuse_negative(neurons)
        return torch.zeros_like(z)

    def step(self, neurons: Quantise, state: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        theta = neurons.step * neurons.high
        s = (t * z + self.v0 * theta - theta * state >= theta * REACHED).to(z.dtype)
        now = state + s
        return theta * now / t, s, now


@dataclass(frozen=True)
class Signed:
    """s = 1 where V >= theta; s = -1 where V < 0 and S > 0: what was sent too early is taken back (SNM, Wang et al.
    2022, IJCAI). Populations with negative levels may also go below 0."""

    code: ClassVar[str] = "rate"
    v0: float = 0.5

    def begin(self, neurons: Quantise, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def step(self, neurons: Quantise, state: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        theta = neurons.step * neurons.high
        v = (t * z - theta * state) / theta + self.v0
        up = v >= REACHED
        least = -float("inf") if neurons.low else 0.0
        down = (v < REACHED - 1) & (state > least)
        s = up.to(z.dtype) - down.to(z.dtype)
        now = state + s
        return theta * now / t, s.abs(), now


@dataclass(frozen=True)
class Burst:
    """s = clip(floor(V / theta), 0, most): several spikes in a step (Li and Zeng 2022, IJCAI; most = 5 there).
    theta S / t may exceed theta; it is not cut, as in the original."""

    code: ClassVar[str] = "rate"
    most: int = 5
    v0: float = 0.5

    def begin(self, neurons: Quantise, z: Tensor) -> Tensor:
        refuse_negative(neurons)
        return torch.zeros_like(z)

    def step(self, neurons: Quantise, state: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        theta = neurons.step * neurons.high
        v = (t * z - theta * state) / theta + self.v0
        s = torch.floor(v + (1 - REACHED)).clamp(0, self.most)
        now = state + s
        return theta * now / t, s, now


class Watched(NamedTuple):
    """Spikes of the present phase, and what the phases before have taught: for `Residual` 1 or 0 (silenced), for
    `Offset` the shift of v0 in theta."""

    spikes: Tensor
    learnt: Tensor


@dataclass(frozen=True)
class Residual:
    """SRP (Hao et al. 2023, AAAI): ``wait`` steps as integrate-and-fire; neurons whose membrane then is below 0 have
    fired too often and stay silent; everything else starts anew. After t > wait steps the answer is that of t - wait
    counted ones; latency is all t."""

    code: ClassVar[str] = "rate"
    wait: int = 4
    v0: float = 0.5

    def begin(self, neurons: Quantise, z: Tensor) -> Watched:
        refuse_negative(neurons)
        return Watched(torch.zeros_like(z), torch.ones_like(z))

    def step(self, neurons: Quantise, state: Watched, z: Tensor, t: int) -> tuple[Tensor, Tensor, Watched]:
        theta = neurons.step * neurons.high
        counted = t - self.wait if t > self.wait else t
        v = (counted * z - theta * state.spikes) / theta + self.v0
        s = (v >= REACHED).to(z.dtype) * state.learnt
        now = state.spikes + s
        shown = theta * now / counted
        if t == self.wait:
            return shown, s, Watched(torch.zeros_like(now), (v - s >= REACHED - 1).to(z.dtype))
        return shown, s, Watched(now, state.learnt)


@dataclass(frozen=True)
class Offset:
    """COS (Hao et al. 2023, ICLR): ``rounds`` times, ``rho`` steps as integrate-and-fire; a neuron that has fired more
    (less) often than clip(floor(t z / theta + 1/2), 0, t) times starts the next round with its v0 one theta lower
    (higher). Then the steps that count; latency is all of them."""

    code: ClassVar[str] = "rate"
    rho: int = 4
    rounds: int = 1
    v0: float = 0.5

    def begin(self, neurons: Quantise, z: Tensor) -> Watched:
        refuse_negative(neurons)
        return Watched(torch.zeros_like(z), torch.zeros_like(z))

    def step(self, neurons: Quantise, state: Watched, z: Tensor, t: int) -> tuple[Tensor, Tensor, Watched]:
        theta = neurons.step * neurons.high
        before = self.rho * self.rounds
        counted = t - before if t > before else (t - 1) % self.rho + 1
        v = (counted * z - theta * state.spikes) / theta + self.v0 + state.learnt
        s = (v >= REACHED).to(z.dtype)
        now = state.spikes + s
        shown = theta * now / counted
        if t <= before and counted == self.rho:
            expected = torch.floor(counted * z / theta + self.v0 + (1 - REACHED)).clamp(0, counted)
            return shown, s, Watched(torch.zeros_like(now), state.learnt - (now - expected).clamp(-1, 1))
        return shown, s, Watched(now, state.learnt)


def waiting(dynamics: Any) -> int:
    """Steps before the ones that count."""
    if isinstance(dynamics, Residual):
        return dynamics.wait
    return dynamics.rho * dynamics.rounds if isinstance(dynamics, Offset) else 0
