"""SLTT and SLTT-K: the gradient of each step through the layers of that step, none through time.

Meng et al. 2023 (ICCV, arXiv:2302.14311). With e = dL/ds, h the surrogate's derivative and s_in the layer's input::

    delta[t] = e[t] h(u[t] - v_threshold)      e_below[t] = W^T delta[t]      dL/dW = sum over t of delta[t] s_in[t]^T

What a membrane, a synaptic current or a recurrent spike brings from the step before is a constant (`neuro.nn.cut`);
where there is none of it, this is backpropagation through time. Spikes are those of any other rule.

Norms: those of a batch take the statistics of a stretch, as the paper's take those of a step; spikes then are those of
"bptt" with ``truncate = stretch``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.learn import online
from neuro.learn.rule import Learnt, LossOf, Watch
from neuro.nn.network import SpikingNetwork


@dataclass(frozen=True)
class SLTT:
    """stretch: steps that are run and judged together; 1 is the paper's loss at every step. steps: K of SLTT-K, how
    many of a sample's steps learn, drawn anew in every batch, a multiple of stretch; 0 for all.

    The others run without a graph, and the gradient is the sum over those drawn, not scaled up: in the mean over draws
    K / T of SLTT's.
    """

    integers: ClassVar[bool] = True  # whether it goes on where weights and state are a chip's integers

    stretch: int = 10
    steps: int = 0

    def problems(self) -> list[str]:
        bad = [] if self.stretch >= 1 else [f"stretch is {self.stretch}, it must be at least 1"]
        if self.steps < 0 or (self.stretch >= 1 and self.steps % self.stretch):
            bad.append(f"steps is {self.steps}, it must be a multiple of stretch, {self.stretch}")
        return bad

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. watch: the inputs at the steps that learn.

        Raises:
            NetworkError: a memory that cannot be cut off, loops over layers; SLTT-K without rng.
        """
        online.refuse("sltt", online.problems(model))
        learns = None
        if self.steps:
            number = -(-len(x) // self.stretch)
            if rng is None:
                raise NetworkError("SLTT-K draws the steps that learn; give rng")
            drawn = set(torch.randperm(number, generator=rng)[: self.steps // self.stretch].tolist())
            learns = drawn.__contains__
        late = online.lateness(model)
        seer = online.Seer(watch)
        made = online.shadow(model, seer=seer)
        parts = online.stretches(made, x, self.stretch, late=late, learns=learns, seer=seer)
        return online.learn(parts, model, loss_of)
