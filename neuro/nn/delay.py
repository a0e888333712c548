"""Delays in whole steps: per channel (axonal) and per synapse. Time is first: [time, batch, ...]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn.layers import Temporal


class Delay(Temporal):
    """y[t] = x[t - steps] per channel. steps: integers >= 0 of the shape of a step, or one for all."""

    def __init__(self, steps: int | np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.register_buffer("steps", _steps(steps))

    def forward(self, x: Tensor) -> Tensor:
        return _shift(x, self.get_buffer("steps"))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        past = [] if state is None else state
        steps = self.get_buffer("steps").expand(x.shape[1:])
        past = [x, *past[: int(steps.max())]]
        y = torch.zeros_like(x)
        for d, then in enumerate(past):
            y = torch.where(steps == d, then, y)
        return y, past


class Taps(Temporal):
    """Several delays of every channel side by side: y[t, k n + j] = x[t - steps[k], j], [time, batch, len(steps) n].

    With weights w and -w behind the taps (0, d) a neuron without leak integrates the last d steps: what came in goes
    out again d steps later. So a chip without decay forgets.
    """

    def __init__(self, steps: Sequence[int], channels: int) -> None:
        super().__init__()
        self.register_buffer("steps", _steps(np.array(steps)))
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        steps = self.get_buffer("steps").tolist()
        late = [min(d, len(x)) for d in steps]  # beyond the end of the sample nothing arrives
        return torch.cat([functional.pad(x[: len(x) - d], (0, 0, 0, 0, d, 0)) for d in late], -1)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        steps = self.get_buffer("steps").tolist()
        past = [x, *([] if state is None else state)][: max(steps) + 1]
        return torch.cat([past[d] if d < len(past) else torch.zeros_like(x) for d in steps], -1), past


class DelayedLinear(Temporal):
    """y[t, o] = sum_i weight[o, i] x[t - delay_steps[o, i], i] + bias[o]: a delay per synapse.

    Runs one matrix product per distinct delay, over the inputs that have it.

    Args:
        delay_steps: int[out, in], each >= 0.

    Raises:
        NetworkError: delays that are negative, fractional or not [out, in].
    """

    def __init__(self, delay_steps: np.ndarray[Any, Any] | Tensor, bias: bool = False) -> None:
        super().__init__()
        steps = _steps(delay_steps)
        if steps.dim() != 2:
            raise NetworkError(f"delay_steps must be [out, in], got shape {tuple(steps.shape)}")
        self.register_buffer("delay_steps", steps)
        self.weight = nn.Parameter(torch.empty(steps.shape))
        self.bias = nn.Parameter(torch.zeros(steps.shape[0])) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch.nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        return delayed(x, self.get_buffer("delay_steps"), self.weight, self.bias)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        past = [] if state is None else state
        steps = self.get_buffer("delay_steps")
        past = [x, *past[: int(steps.max())]]
        y = x.new_zeros((x.shape[0], steps.shape[0]))
        for d, then in enumerate(past):
            y = y + functional.linear(then, torch.where(steps == d, self.weight, 0.0))
        return (y if self.bias is None else y + self.bias), past


def delayed(x: Tensor, steps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The equation of `DelayedLinear`. x: [time, batch, in]; steps, weight: [out, in]."""
    y = x.new_zeros((*x.shape[:2], steps.shape[0]))
    for d in torch.unique(steps).tolist():
        if d >= x.shape[0]:
            continue  # arrives after the sample has ended
        columns = (steps == d).any(0).nonzero()[:, 0]
        part = torch.where(steps[:, columns] == d, weight[:, columns], 0.0)
        y = y + functional.pad(functional.linear(x[: x.shape[0] - d][..., columns], part), (0, 0, 0, 0, d, 0))
    return y if bias is None else y + bias


def _steps(values: Any) -> Tensor:
    raw = np.asarray(values)
    if raw.dtype.kind not in "iu" or raw.size == 0 or raw.min() < 0:
        raise NetworkError(f"delays are whole numbers of steps >= 0, got {raw.dtype} of shape {raw.shape}")
    return torch.from_numpy(raw.astype(np.int64))


def _shift(x: Tensor, steps: Tensor) -> Tensor:
    """x[t - steps] with zeros before the start. x: [time, batch, *shape]."""
    steps = steps.expand(x.shape[2:])
    t = torch.arange(x.shape[0]).view(-1, *[1] * steps.dim()) - steps
    source = t.clamp(min=0).unsqueeze(1).expand(x.shape)
    return torch.gather(x, 0, source) * (t >= 0).unsqueeze(1).to(x.dtype)
