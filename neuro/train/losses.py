"""Losses on the output's trace and on hidden spikes. Traces are [time, batch, classes], time first.

Scores are what `neuro.nn.network.read` makes of a trace; "count" and "sum" are divided by the number of
steps, so that one ``scale`` serves samples of any length: logits = scale x score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from neuro.nn.network import read

Loss = Callable[[Tensor, Tensor, str, float, float], Tensor]


def logits(trace: Tensor, readout: str, scale: float) -> Tensor:
    """[time, batch, ...] -> [batch, classes]."""
    score = read(trace, readout).flatten(1)
    return score * (scale / len(trace) if readout in ("count", "sum") else scale)


def cross_entropy(trace: Tensor, labels: Tensor, readout: str, scale: float, smoothing: float) -> Tensor:
    """Cross entropy of softmax(logits): of rates ("count"), mean, largest or last membrane."""
    return functional.cross_entropy(logits(trace, readout, scale), labels, label_smoothing=smoothing)


def per_step_cross_entropy(trace: Tensor, labels: Tensor, readout: str, scale: float, smoothing: float) -> Tensor:
    """Mean over steps of the cross entropy of softmax(scale x trace[t]): every step is to be right."""
    flat = trace.flatten(2) * scale
    return functional.cross_entropy(flat.flatten(0, 1), labels.repeat(len(trace)), label_smoothing=smoothing)


def softmax_sum(trace: Tensor, labels: Tensor, readout: str, scale: float, smoothing: float) -> Tensor:
    """Cross entropy of the mean over steps of softmax(scale x trace[t]): a vote of steps."""
    votes = torch.softmax(trace.flatten(2) * scale, 2).mean(0)
    target = functional.one_hot(labels, votes.shape[1]).to(votes.dtype)
    target = target * (1.0 - smoothing) + smoothing / votes.shape[1]
    return -(target * votes.clamp(min=1e-12).log()).sum(1).mean()


def rate_mse(trace: Tensor, labels: Tensor, readout: str, scale: float, smoothing: float) -> Tensor:
    """Mean square of (scale x score - target), target 1 for the label, ``smoothing`` for the others."""
    score = logits(trace, readout, scale)
    target = functional.one_hot(labels, score.shape[1]).to(score.dtype).clamp(min=smoothing)
    return (score - target).square().mean()


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": cross_entropy,
    "per_step_cross_entropy": per_step_cross_entropy,
    "softmax_sum": softmax_sum,
    "rate_mse": rate_mse,
}


def _over_batch(n: Tensor) -> Tensor:
    return n.mean(0)


def firing_penalty(
    spikes: Mapping[str, Tensor],
    mean_spikes: float,
    many: float,
    many_above: float,
    few: float,
    few_below: float,
    over_batch: Callable[[Tensor], Tensor] = _over_batch,
) -> Tensor:
    """Regulariser on hidden activity, summed over layers. n: spikes per neuron and sample.

    over_batch: the mean over samples, where other processes hold some of them.

    mean_spikes mean(n) + many mean(max(0, n - many_above)^2) + few mean(max(0, few_below - mean over the batch of n)^2)
    """
    total = torch.zeros(())
    for s in spikes.values():
        n = s.flatten(2).sum(0)
        total = total + mean_spikes * n.mean()
        total = total + many * (n - many_above).clamp(min=0).square().mean()
        total = total + few * (few_below - over_batch(n)).clamp(min=0).square().mean()
    return total
