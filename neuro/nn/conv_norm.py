"""Norms behind a convolution, from sums of its currents; their gradients from sums of the gradient.

y = factor x + shift per channel. With the sums S1 of dy and S2 of dy x over time, batch and places, N values each, the
gradient through the statistics is dx = a dy + b x + c (`neuro.nn.conv_passes` computes both):

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
from torch import Tensor, nn

from neuro.nn import conv_passes as cp
from neuro.nn.stateless import ScaleNorm

A = NDArray[Any]


def plain(norm: nn.Module, channels: int, dtype: torch.dtype, samples: int) -> bool:
    """Whether a norm is one that `setting` knows; others, and impossible cases, are torch's to answer."""
    if type(norm) is ScaleNorm:
        return norm.weight.numel() == channels and norm.weight.dtype == dtype
    if type(norm) is not nn.BatchNorm2d or norm.num_features != channels:
        return False
    held = [t for t in (norm.weight, norm.running_mean) if t is not None]
    return all(t.dtype == dtype for t in held) and (not norm.training or samples > 1)


@dataclass(frozen=True)
class Setting:
    """A norm as `conv_passes` takes it: kind; affine float64[2, channels], its weight and bias, or, where it is GIVEN,
    factor and shift, then with mean and rstd [channels]."""

    kind: int
    affine: A
    eps: float = 0.0
    mean: A | None = None
    rstd: A | None = None

    def known(self, held: A) -> A:
        """What a forward pass held, completed for the way back."""
        if self.mean is not None and self.rstd is not None:
            held[cp.MEAN], held[cp.RSTD] = self.mean, self.rstd
        return held

    def gradients(self, known: A, held: A) -> tuple[A, A]:
        """Those of the norm's weight and bias."""
        return known[cp.RSTD] * (held[cp.TWO] - known[cp.MEAN] * held[cp.ONE]), held[cp.ONE]


def setting(norm: nn.Module | None, channels: int) -> Setting:
    """For the next forward pass."""
    affine = np.zeros((2, channels))
    affine[0] = 1.0
    if norm is None:
        return Setting(cp.GIVEN, affine, mean=np.zeros(channels), rstd=np.ones(channels))
    if isinstance(norm, ScaleNorm):
        affine[0] = norm.weight.detach().numpy()
        if norm.training:
            return Setting(cp.SCALE, affine, norm.eps)
        mean, rstd = np.zeros(channels), (_numbers(norm.get_buffer("running_square")) + norm.eps) ** -0.5
        affine[0] *= rstd
        return Setting(cp.GIVEN, affine, mean=mean, rstd=rstd)
    assert isinstance(norm, nn.BatchNorm2d)
    for to, values in zip(affine, (norm.weight, norm.bias), strict=True):
        if values is not None:
            to[:] = values.detach().numpy()
    if norm.training or norm.running_mean is None:
        return Setting(cp.BATCH, affine, norm.eps)
    assert norm.running_var is not None
    mean, rstd = _numbers(norm.running_mean), (_numbers(norm.running_var) + norm.eps) ** -0.5
    affine[0] *= rstd
    affine[1] -= affine[0] * mean
    return Setting(cp.GIVEN, affine, mean=mean, rstd=rstd)


def keep(norm: nn.Module | None, held: A, count: int) -> None:
    """The running statistics of a norm in training, after a forward pass over ``count`` values per channel."""
    if norm is None or not norm.training:
        return
    if isinstance(norm, ScaleNorm):
        norm.batches += 1
        rate = 1.0 / norm.batches if norm.momentum is None else norm.momentum
        _towards(norm.get_buffer("running_square"), held[cp.VARIANCE], rate)
    elif isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        assert norm.num_batches_tracked is not None
        assert norm.running_var is not None
        batches = norm.num_batches_tracked.numpy()
        batches += 1
        rate = 1.0 / float(batches) if norm.momentum is None else norm.momentum
        _towards(norm.running_mean, held[cp.MEAN], rate)
        _towards(norm.running_var, held[cp.VARIANCE] * (count / max(1, count - 1)), rate)


def _numbers(t: Tensor) -> A:
    return t.double().numpy()


def _towards(running: Tensor, now: A, rate: float) -> None:
    held = running.numpy()  # so few numbers take NumPy a fifth of torch's time
    held += rate * (now - held)
