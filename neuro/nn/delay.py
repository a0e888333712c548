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
from neuro.nn.delay_events import late
from neuro.nn.joined import Carry
from neuro.nn.layers import Temporal, weights
from neuro.nn.spikes import Spikes


class Delay(Temporal):
    """y[t] = x[t - steps] per channel. steps: integers >= 0 of the shape of a step, or one for all."""

    def __init__(self, steps: int | np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.register_buffer("steps", _steps(steps))

    def forward(self, x: Tensor) -> Tensor:
        return _shift(x, self.get_buffer("steps"))

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        return _after(self, x, carry, int(self.get_buffer("steps").max()))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        steps = self.get_buffer("steps").expand(x.shape[1:])
        past = remembered(x, state, int(steps.max()))
        y = torch.zeros_like(x)
        for d, then in enumerate(past):
            y = torch.where(steps == d, then, y)
        return y, past


class Taps(Temporal):
    """Several delays of every channel side by side: y[t, k n + j] = x[t - steps[k], j], [time, batch, len(steps) n].

    channels: n, or (n, height, width) of a feature map, whose places stay: [time, batch, len(steps) n, height, width].
    A convolution behind it has a kernel over time too, of len(steps) steps that may lie apart.

    With weights w and -w behind the taps (0, d) a neuron without leak integrates the last d steps: what came in goes
    out again d steps later. So a chip without decay forgets.
    """

    def __init__(self, steps: Sequence[int], channels: int | tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("steps", _steps(np.array(steps)))
        self.shape = (channels,) if isinstance(channels, int) else tuple(channels)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.get_buffer("steps").tolist()
        late = [min(d, len(x)) for d in steps]  # beyond the end of the sample nothing arrives
        x = x.clone()  # bits become numbers once, not for each delay
        return torch.cat([functional.pad(x[: len(x) - d], (0, 0) * (x.dim() - 1) + (d, 0)) for d in late], 2)

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        return _after(self, x, carry, int(self.get_buffer("steps").max()))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        steps = self.get_buffer("steps").tolist()
        past = remembered(x, state, max(steps))
        return torch.cat([past[d] if d < len(past) else torch.zeros_like(x) for d in steps], 1), past


class DelayedLinear(Temporal):
    """y[t, o] = sum_i weight[o, i] x[t - delay_steps[o, i], i] + bias[o]: a delay per synapse.

    Runs by events where there are few, else one matrix product per distinct delay (`neuro.nn.delay_events`).

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
        return delayed(x, self.get_buffer("delay_steps"), *weights(self))

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        steps, past = self.get_buffer("delay_steps"), carry.value
        carry.value = kept(past, x, int(steps.max()))
        return delayed(x, steps, *weights(self), past)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        steps = self.get_buffer("delay_steps")
        past = remembered(x, state, int(steps.max()))
        y = x.new_zeros((x.shape[0], steps.shape[0]))
        for d, then in enumerate(past):
            y = y + functional.linear(then, torch.where(steps == d, self.weight, 0.0))
        return (y if self.bias is None else y + self.bias), past


def delayed(x: Tensor, steps: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor | None = None) -> Tensor:
    """The equation of `DelayedLinear`. x: [time, batch, in]; steps, weight: [out, in]; past: what came before x."""
    y = late(x, weight, steps, 0 if steps.is_meta else int(steps.max()), past)
    return y if bias is None else y + bias


def remembered(x: Tensor, past: list[Tensor] | None, longest: int) -> list[Tensor]:
    """[x, what came one step ago, ...], at most ``longest`` steps back."""
    return [x, *([] if past is None else past)[:longest]]


def kept(past: Tensor | None, x: Tensor, steps: int) -> Tensor:
    """The last steps of past and x, without history, for the next piece of a long sample."""
    if isinstance(x, Spikes) and (past is None or isinstance(past, Spikes)):
        words = x.words if past is None else np.concatenate([past.words, x.words])
        batch = x.shape[1]
        words = words[max(0, len(words) - steps * batch) :].copy()
        return Spikes(words, (len(words) // batch, *x.shape[1:]), x.dtype)
    whole = torch.cat([part.detach().clone() for part in (past, x) if part is not None])
    return whole[max(0, len(whole) - steps) :].clone()


def _after(layer: Temporal, x: Tensor, carry: Carry, steps: int) -> Tensor:
    """``layer`` over x, with what came before it in front."""
    past = carry.value
    carry.value = kept(past, x, steps)
    return layer(x) if past is None else layer(torch.cat([past.clone(), x.clone()]))[len(past) :]  # type: ignore[no-any-return]


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
