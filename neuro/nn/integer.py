"""Integer leaky integrate-and-fire (I-LIF): trained with integers, run with spikes.

In one step, D = ``levels``::

    u[t] = beta v[t-1] + x[t]
    s[t] = how many of the thresholds (k - 1/2) v_threshold, k = 1..D, lie below u[t]; an integer in 0..D
    v[t] = u[t] - v_threshold s[t]

so s is u / v_threshold rounded, and clipped to 0..D (Luo et al. 2024, ECCV, arXiv:2407.20708; Yao et al. 2024,
arXiv:2411.16061, SDT-V3). Ties round down here, because a spike needs more than the threshold. Gradient: straight
through the rounding, nothing where u / v_threshold is outside 0..D. With T = 1 it trains at the cost of a network
without time; `neuro.nn.unfold.unfold` writes what it computes as an ordinary network of integrate-and-fire neurons,
which sends D binary sub-steps for every integer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro.nn import plain
from neuro.nn.grid import straight_through
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.layers import Value


class IntegerState(NamedTuple):
    """The membrane after the reset, [batch, ...]."""

    v: Tensor


class IntegerLIF(Held):
    """I-LIF neurons, see the module's equations.

    Args:
        v_threshold: what one level stands for, positive. beta: decay per step, in [0, 1]; without meaning where a
            sample has one step. Numbers, or one value per neuron. levels: D, at least 1.
        detach: no gradient through the reset. learn: ("v_threshold",) or none; trained as exp(w).

    Raises:
        NetworkError: as `Held`; levels that are no whole number from 1 on.
    """

    POSITIVE = ("v_threshold",)
    LEARNABLE = ("v_threshold",)

    def __init__(
        self,
        v_threshold: Value = 1.0,
        beta: Value = 1.0,
        *,
        levels: int = 4,
        detach: bool = False,
        learn: tuple[str, ...] = (),
    ) -> None:
        whole = isinstance(levels, int) and not isinstance(levels, bool) and levels >= 1
        bad = [] if whole else [f"levels must be a whole number from 1 on, got {levels!r}"]
        decay = torch.as_tensor(beta, dtype=torch.float64)
        bad += [] if ((decay >= 0) & (decay <= 1)).all() else [f"beta must lie in [0, 1], it reaches {decay.max():g}"]
        super().__init__({"v_threshold": v_threshold, "beta": beta}, learn, bad)
        self.levels, self.detach = int(levels), detach

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(integers in the dtype of the currents, u) of currents [time, batch, ...]."""
        return plain.over_time(self._one, current, weight, entering, carry)

    def _one(self, x: Tensor, state: IntegerState | None) -> tuple[Tensor, Tensor, IntegerState]:
        theta = self.value("v_threshold").to(x.dtype)
        u = x if state is None else self.value("beta").to(x.dtype) * state.v + x
        z = u / theta
        s = straight_through(z.clamp(0, self.levels), torch.ceil(z - 0.5).clamp(0, self.levels) + 0.0)  # no -0
        return s, u, IntegerState(u - theta * (s.detach() if self.detach else s))

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(integers, v after the reset), both [time, batch, ...]."""
        s, u = self.run(current, weight, carry=carry)
        return s, u - self.value("v_threshold").to(u.dtype) * (s.detach() if self.detach else s)

    def step(self, x: Tensor, state: IntegerState | None) -> tuple[Tensor, IntegerState]:
        """One step."""
        s, _, state = self._one(x, state)
        return s, state

    def _shown(self) -> dict[str, object]:
        return {"levels": self.levels}
