"""`SpikeDrop`: a wire that loses spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import Dropout


class SpikeDrop(Dropout):
    """Loses each spike with probability p, every spike for itself, in training only; x is 0 and 1, or anything.

    Unlike `Dropout` it draws anew in every step and scales nothing: what is left are spikes, and stay bits. The
    gradient passes where a spike would have passed. Random numbers as in `Dropout`.
    """

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward`: no spike knows of another, so nothing is carried."""
        return self.forward(x)

    def _keep(self, x: Tensor) -> Tensor:
        """What arrives, bool like x."""
        if self.generator is None:
            raise NetworkError("SpikeDrop in training needs a generator; set layer.generator = torch.Generator()")
        first, everybody = self.part or (0, x.shape[1])
        shape = (x.shape[0], everybody, *x.shape[2:])
        drawn = torch.rand(shape, generator=self.generator, dtype=torch.float32) >= self.p
        return drawn[:, first : first + x.shape[1]].to(x.device)

    def _thinned(self, x: Tensor, keep: Tensor) -> Tensor:
        if isinstance(x, Spikes):
            found: Tensor = _Lose.apply(x, keep)  # type: ignore[no-untyped-call]
            return found
        return x * keep.to(x.dtype)


class _Lose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Spikes, keep: Tensor) -> Tensor:
        ctx.keep = Spikes.pack(keep, x.dtype)  # one bit each until the gradient comes
        return Spikes(np.bitwise_and(x.words, ctx.keep.words), tuple(x.shape), x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.keep.dense(), None
