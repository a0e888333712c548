"""Layers that torch lacks: sum pooling, element-wise scale, a norm without shift, a dropout that holds still."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn.joined import Carry
from neuro.nn.layers import Temporal, Value
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import thin


class SumPool2d(nn.Module):
    """Sum over windows of [batch, channel, height, width]; windows that stick out are dropped."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = _both(kernel_size)
        self.stride = self.kernel_size if stride is None else _both(stride)
        self.padding = _both(padding)

    def forward(self, x: Tensor) -> Tensor:
        (h, w), windows = self.padding, (self.kernel_size, self.stride)
        # padded by hand: torch refuses padding beyond half a window, the IR does not
        return functional.avg_pool2d(functional.pad(x, (w, w, h, h)), *windows, divisor_override=1)


class AvgPool2d(SumPool2d):
    """`SumPool2d` divided by the window's area; padding counts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (self.kernel_size[0] * self.kernel_size[1])


def _both(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class Scale(nn.Module):
    """y = scale x, element by element; a constant."""

    def __init__(self, scale: Value) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(np.array(scale, np.float64)).to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale")


class ScaleNorm(nn.Module):
    """Batch norm that only scales: y = weight x / sqrt(mean of x^2), per channel (axis 1).

    Nothing is subtracted and nothing added, so it folds into the weights before it and leaves no bias,
    which a chip would start to integrate before the first input arrives.
    """

    def __init__(self, channels: int, start: float = 1.0, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))
        self.register_buffer("running_square", torch.ones(channels))
        self.momentum: float | None = momentum
        self.eps = eps
        self.batches = 0

    def reset_running_stats(self) -> None:
        """Forget; with momentum None the statistics are then the plain mean over batches."""
        self.get_buffer("running_square").fill_(1.0)
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        running = self.get_buffer("running_square")
        if self.training:
            square = x.square().mean([d for d in range(x.dim()) if d != 1])
            self.batches += 1
            running.lerp_(square.detach(), 1.0 / self.batches if self.momentum is None else self.momentum)
        else:
            square = running
        return x * (self.weight * (square + self.eps).rsqrt()).view(shape)


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, ScaleNorm)


def affine_of(norm: Any) -> tuple[Tensor, Tensor | None]:
    """(factor, shift) per channel of a norm in evaluation mode: y = factor x + shift. None: no shift.

    Raises:
        NetworkError: it keeps no running statistics.
    """
    if isinstance(norm, ScaleNorm):
        return norm.weight * (norm.get_buffer("running_square") + norm.eps).rsqrt(), None
    if norm.running_var is None:
        raise NetworkError("a batch norm without running statistics cannot be folded")
    factor = (norm.running_var + norm.eps).rsqrt()
    if not norm.affine:
        return factor, -norm.running_mean * factor
    factor = factor * norm.weight
    return factor, norm.bias - norm.running_mean * factor


class Dropout(Temporal):
    """Drops the same neurons in all steps of a sample, with probability p, in training only.

    Random numbers come from ``generator``, which whoever trains must set: nothing here reads the
    global state.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise NetworkError(f"dropout p must lie in [0, 1), got {p!r}")
        self.p = p
        self.generator: torch.Generator | None = None
        self.part: tuple[int, int] | None = None  # (first, all) of the samples seen here, where others see the rest

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return self._thinned(x, self._keep(x))

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` with the mask that the first piece of the sample drew."""
        if not self.training or self.p == 0.0:
            return x
        if carry.value is None:
            carry.value = self._keep(x)
        return self._thinned(x, carry.value)

    def _keep(self, x: Tensor) -> Tensor:
        """Who stays, bool[1, batch, ...]; the same on every device."""
        if self.generator is None:
            raise NetworkError("Dropout in training needs a generator; set layer.generator = torch.Generator()")
        first, everybody = self.part or (0, x.shape[1])
        shape = (1, everybody, *x.shape[2:])
        drawn = torch.rand(shape, generator=self.generator, dtype=x.dtype)[:, first : first + x.shape[1]] >= self.p
        return drawn.to(x.device)

    def _thinned(self, x: Tensor, keep: Tensor) -> Tensor:
        if isinstance(x, Spikes):
            return thin(x, keep, float(torch.ones((), dtype=x.dtype) / (1.0 - self.p)))
        return x * (keep.to(x.dtype) / (1.0 - self.p))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if not self.training or self.p == 0.0:
            return x, None
        raise NetworkError("Dropout cannot train inside a loop of layers; put it outside")
