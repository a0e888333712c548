"""Backpropagation through time with surrogate gradients: whole samples, or pieces whose memory does not grow with them.

Truncated backpropagation through time (Williams & Peng 1990, Neural Comput. 2:490): the state goes from piece to
piece, no gradient does. Each piece has a loss of its own, as if it were the sample, and counts by its share of the
steps; gradients add up over the pieces of a sample, and the optimiser steps once per batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.learn.rule import Learnt, LossOf, Watch, joined, pieces
from neuro.learn.watch import has_weights, watched
from neuro.nn.joined import Carry
from neuro.nn.layers import Temporal
from neuro.nn.network import SpikingNetwork, read


@dataclass(frozen=True)
class BPTT:
    """truncate: steps of a piece; 0 for whole samples. A layer that cannot run in pieces raises `NetworkError`."""

    integers: ClassVar[bool] = True  # whether it goes on where weights and state are a chip's integers

    truncate: int = 0

    def problems(self) -> list[str]:
        return [] if self.truncate >= 0 else [f"truncate is {self.truncate}, it must not be negative"]

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`."""
        hidden = [n for n in model.names if isinstance(model.layer(n), Temporal) and has_weights(model.layer(n))]
        if watch is not None and self.truncate and hidden:
            raise NetworkError("in pieces nobody can watch the inputs of these layers; leave out truncate", hidden)
        carry: dict[str, Carry] | None = {} if self.truncate else None
        loss, scores, fired = 0.0, None, dict[str, float]()
        for part in pieces(x, self.truncate or len(x)):
            spikes: dict[str, Tensor] = {}
            with watched(model, watch):
                trace = model(part, spikes, carry)
            error, penalty = loss_of(trace, spikes)
            share = len(part) / len(x)
            ((error + penalty) * share if self.truncate else error + penalty).backward()  # type: ignore[no-untyped-call]
            loss += float(error.detach()) * share
            scores = joined(scores, read(trace.detach(), model.readout).flatten(1), model.readout)
            for name, s in spikes.items():
                fired[name] = fired.get(name, 0.0) + float(s.detach().sum(dtype=torch.float64))
        assert scores is not None
        return Learnt(loss, scores, fired)
