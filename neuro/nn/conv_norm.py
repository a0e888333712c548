"""Norms behind a convolution, from sums of its currents; their gradients from sums of the gradient.

y = factor x + shift per channel. With the sums S1 of dy and S2 of dy x over time, batch and places, N values each, the
gradient through the statistics is dx = a dy + b x + c:

- batch norm (Ioffe & Szegedy 2015): a = factor, b = -factor rstd^2 (S2 - mean S1) / N, c = -a S1 / N - b mean;
- `ScaleNorm`: a = factor, b = -weight rstd^3 S2 / N, c = 0, with rstd = (mean of x^2 + eps)^-1/2;
- a norm in evaluation: a = factor, b = c = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuro.nn.stateless import ScaleNorm

A = NDArray[Any]


def plain(norm: nn.Module, channels: int, dtype: torch.dtype, samples: int) -> bool:
    """Whether a norm is one that `normalise` computes; others, and impossible cases, are torch's to answer."""
    if type(norm) is ScaleNorm:
        return norm.weight.numel() == channels and norm.weight.dtype == dtype
    if type(norm) is not nn.BatchNorm2d or norm.num_features != channels:
        return False
    held = [t for t in (norm.weight, norm.running_mean) if t is not None]
    return all(t.dtype == dtype for t in held) and (not norm.training or samples > 1)


@dataclass(frozen=True)
class Normed:
    """y = factor x + shift, [channels] float64 each; live: mean and rstd are those of the batch."""

    factor: A
    shift: A
    mean: A
    rstd: A
    live: bool


def normalise(norm: nn.Module | None, sums: A, count: int) -> Normed:
    """From sums [2, channels] of x and x^2 over ``count`` values; keeps the norm's running statistics."""
    zero, one = np.zeros(sums.shape[1]), np.ones(sums.shape[1])
    if norm is None:
        return Normed(one, zero, zero, one, False)
    mean, square = sums[0] / count, sums[1] / count
    if isinstance(norm, ScaleNorm):
        running = norm.get_buffer("running_square")
        if norm.training:
            norm.batches += 1
            rate = 1.0 / norm.batches if norm.momentum is None else norm.momentum
            running.lerp_(torch.from_numpy(square).to(running.dtype), rate)
        else:
            square = running.double().numpy()
        rstd = (square + norm.eps) ** -0.5
        return Normed(norm.weight.detach().double().numpy() * rstd, zero, zero, rstd, norm.training)
    assert isinstance(norm, nn.BatchNorm2d)
    live = norm.training or norm.running_mean is None
    variance = np.maximum(square - mean * mean, 0.0)
    if not live:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    elif norm.training and norm.running_mean is not None:
        assert norm.num_batches_tracked is not None
        assert norm.running_var is not None
        norm.num_batches_tracked.add_(1)
        rate = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        unbiased = variance * (count / max(1, count - 1))
        norm.running_mean.lerp_(torch.from_numpy(mean).to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(torch.from_numpy(unbiased).to(norm.running_var.dtype), rate)
    rstd = (variance + norm.eps) ** -0.5
    factor = rstd if norm.weight is None else norm.weight.detach().double().numpy() * rstd
    offset = zero if norm.bias is None else norm.bias.detach().double().numpy()
    return Normed(factor, offset - factor * mean, mean, rstd, live)


def gradients(norm: nn.Module | None, n: Normed, s: A, count: int) -> tuple[A, A, A, A, A]:
    """(a, b, c) of above, and the gradients of the norm's weight and bias. s: S1 and S2."""
    zero, centred = np.zeros_like(s[0]), s[1] - n.mean * s[0]
    d_weight, d_bias = n.rstd * centred, s[0]
    if not n.live:
        return n.factor, zero, zero, d_weight, d_bias
    b = -n.factor * n.rstd**2 * centred / count
    if isinstance(norm, ScaleNorm):
        return n.factor, b, zero, d_weight, d_bias
    return n.factor, b, -n.factor * s[0] / count - b * n.mean, d_weight, d_bias
