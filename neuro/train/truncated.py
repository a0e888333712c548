"""Loss and gradients of a batch: over whole samples, or in pieces whose memory does not grow with the sample.

Truncated backpropagation through time (Williams & Peng 1990, Neural Comput. 2:490): the state goes from piece to
piece, no gradient does. Each piece has a loss of its own, as if it were the sample, and counts by its share of the
steps; gradients add up over the pieces of a sample, and the optimiser steps once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.nn.joined import Carry
from neuro.nn.network import SpikingNetwork, read
from neuro.nn.spikes import Spikes

Loss = Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Learnt:
    """loss: without the penalty. scores: of the readout over the whole sample, [batch, classes]. fired: spikes of each
    recorded layer."""

    loss: float
    scores: Tensor
    fired: dict[str, float]


def backward(model: SpikingNetwork, x: Tensor, truncate: int, readout: str, loss_of: Loss) -> Learnt:
    """Adds the gradients of a batch to the parameters.

    Args:
        x: [time, batch, *], dense or `Spikes`.
        truncate: steps of a piece; 0 for whole samples.
        loss_of: (trace, spikes by layer) -> (loss, penalty), of a piece.

    Raises:
        NetworkError: a layer that cannot run in pieces.
    """
    carry: dict[str, Carry] | None = {} if truncate else None
    loss, scores, fired = 0.0, None, dict[str, float]()
    for part in pieces(x, truncate or len(x)):
        spikes: dict[str, Tensor] = {}
        trace = model(part, spikes, carry)
        error, penalty = loss_of(trace, spikes)
        share = len(part) / len(x)
        ((error + penalty) * share if truncate else error + penalty).backward()  # type: ignore[no-untyped-call]
        loss += float(error.detach()) * share
        scores = _joined(scores, read(trace.detach(), readout).flatten(1), readout)
        for name, s in spikes.items():
            fired[name] = fired.get(name, 0.0) + float(s.detach().sum(dtype=torch.float64))
    assert scores is not None
    return Learnt(loss, scores, fired)


def pieces(x: Tensor, steps: int) -> Iterator[Tensor]:
    """x[0:steps], x[steps:2 steps] and so on; `Spikes` stay bits."""
    batch = x.shape[1]
    for begin in range(0, len(x), steps):
        end = min(begin + steps, len(x))
        if isinstance(x, Spikes):
            yield Spikes(x.words[begin * batch : end * batch], (end - begin, *x.shape[1:]), x.dtype)
        else:
            yield x[begin:end]


def _joined(before: Tensor | None, now: Tensor, readout: str) -> Tensor:
    """Scores of two stretches of time as those of both."""
    if before is None or readout == "last":
        return now
    return torch.maximum(before, now) if readout == "max" else before + now
