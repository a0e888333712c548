"""`TernaryLIF`: two thresholds, three messages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuro.nn import plain
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.layers import Value
from neuro.nn.surrogate import AnySurrogate, SpikeFunction
from neuro.nn.surrogate import surrogate as make_surrogate


class TernaryState(NamedTuple):
    """The membrane after the reset, [batch, ...]."""

    v: Tensor


class TernaryLIF(Held):
    """Leaky integrate-and-fire neurons that send -1, 0 or 1, as `neuro.ir.TernaryLIF` and Lava's:

    v[t] = beta v[t-1] + gain x[t] + drive;  s = (v > v_threshold) - (v < v_threshold_low);  v = v_reset where s is
    not 0. Gradient: ds/dv = h(v - v_threshold) + h(v_threshold_low - v), h the surrogate. Plain torch operations, one
    step after the other.

    Args:
        beta: in [0, 1). v_threshold, v_threshold_low, v_reset, gain, drive: numbers, or one per neuron.
        detach, surrogate: as for `LIF`. learn: which of "beta", "v_threshold", "v_threshold_low" are trained.

    Raises:
        NetworkError: as `Held`; v_threshold_low above v_threshold.
    """

    graded = True
    DECAYS = ("beta",)
    LEARNABLE = ("beta", "v_threshold", "v_threshold_low")

    def __init__(
        self,
        beta: Value = 0.9,
        v_threshold: Value = 1.0,
        v_threshold_low: Value = -1.0,
        *,
        v_reset: Value = 0.0,
        gain: Value = 1.0,
        drive: Value = 0.0,
        detach: bool = False,
        surrogate: str | SpikeFunction | AnySurrogate = "fast_sigmoid",
        learn: tuple[str, ...] = (),
    ) -> None:
        given = {"beta": beta, "v_threshold": v_threshold, "v_threshold_low": v_threshold_low, "v_reset": v_reset}
        swapped = (np.asarray(v_threshold_low) > np.asarray(v_threshold)).any()
        bad = ["v_threshold_low must not lie above v_threshold"] if swapped else []
        super().__init__({**given, "gain": gain, "drive": drive}, learn, bad)
        self.detach = detach
        self.surrogate = make_surrogate(surrogate)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(messages, v before the reset) of currents [time, batch, ...]."""
        return plain.over_time(self._one, current, weight, entering, carry)

    def _one(self, x: Tensor, state: TernaryState | None) -> tuple[Tensor, Tensor, TernaryState]:
        c = {n: self.value(n).to(x.dtype) for n in ("beta", "gain", "drive", "v_reset")}
        v = c["beta"] * (torch.zeros_like(x) if state is None else state.v) + c["gain"] * x + c["drive"]
        up, down = self._reached(v)
        fired = (up + down).detach() if self.detach else up + down
        return up - down, v, TernaryState(v * (1.0 - fired) + c["v_reset"] * fired)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(messages, v after the reset), both [time, batch, ...]."""
        messages, u = self.run(current, weight, carry=carry)
        up, down = self._reached(u)  # the gradient of the reset is that of both comparisons, not of their difference
        fired = (up + down).detach() if self.detach else up + down
        return messages, u * (1.0 - fired) + self.value("v_reset").to(u.dtype) * fired

    def _reached(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """1 where u is above the upper threshold, and where it is below the lower one."""
        high, low = (self.value(n).to(u.dtype) for n in ("v_threshold", "v_threshold_low"))
        return self.surrogate(u - high), self.surrogate(low - u)

    def step(self, x: Tensor, state: TernaryState | None) -> tuple[Tensor, TernaryState]:
        """One step."""
        message, _, state = self._one(x, state)
        return message, state
