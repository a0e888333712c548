"""The same neurons in plain torch operations, one step after the other, for tensors that are not on the CPU.

Every layer with a compiled loop takes this path by itself where its input is on another device ("cuda", "mps",
"meta"); the meaning and the gradients are those of the step functions (`neuro.nn.neurons`, `neuro.nn.adaptive`), and
no numpy is involved. It was run on the CPU (`forced`) and on "meta" only: CUDA itself was never run. It is a loop of
small operations over time; where that matters, `torch.compile` can be put around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from neuro.errors import NetworkError
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes

if TYPE_CHECKING:
    from neuro.nn.adaptive import AdLIF
    from neuro.nn.layers import Neuron

Entering = tuple[Tensor, Tensor | None] | None
_FORCED: ContextVar[bool] = ContextVar("neuro.nn.plain", default=False)


def wanted(x: Tensor) -> bool:
    """Whether a layer has to take the plain path for an input."""
    return x.device.type != "cpu" or _FORCED.get()


@contextmanager
def forced() -> Iterator[None]:
    """Within: everything takes the plain path, on the CPU too. For tests and for comparisons."""
    token = _FORCED.set(True)
    try:
        yield
    finally:
        _FORCED.reset(token)


def neuron(
    layer: Neuron, x: Tensor, weight: Tensor | None, entering: Entering, carry: Carry | None
) -> tuple[Tensor, Tensor]:
    """`Neuron.run` as a loop: (spikes, v before the reset); an integrator returns v for both.

    Raises:
        NetworkError: the neuron is on a grid; a chip's integers are trained on the CPU only.
    """
    from neuro.nn.neurons import State, li_step, reset_membrane, rest

    if layer.grid is not None:
        raise NetworkError(f"a chip's integers are trained on the CPU only, the tensors are on '{x.device.type}'")
    p = layer.params(x.dtype)

    def step(current: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        u, state = li_step(current, rest(current) if state is None else state, p)
        if not layer.spiking:
            return u, u, state
        spikes = layer.surrogate(u - p.v_threshold)
        return spikes, u, State(state.i, reset_membrane(u, spikes, p))

    return over_time(step, x, weight, entering, carry)


def adaptive(
    layer: AdLIF, x: Tensor, weight: Tensor | None, entering: Entering, carry: Carry | None
) -> tuple[Tensor, Tensor]:
    """`AdLIF.run` as a loop."""
    from neuro.nn.adaptive import AdaptiveState, adaptive_membrane, adaptive_rest

    p = layer.params(x.dtype)

    def step(current: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        zero = torch.zeros_like(current)
        state = AdaptiveState(zero, zero, zero) if state is None else state
        u, over = adaptive_membrane(current, state, p)
        spikes = layer.surrogate(over)
        return spikes, u, adaptive_rest(u, spikes, state, p)

    return over_time(step, x, weight, entering, carry)


def over_time(
    step: Callable[[Tensor, Any], tuple[Tensor, Tensor, Any]],
    x: Tensor,
    weight: Tensor | None,
    entering: Entering,
    carry: Carry | None,
) -> tuple[Tensor, Tensor]:
    """Stacked spikes and membranes. The carry is that of the compiled path."""
    if entering is not None:
        x = nn.functional.linear(x, *entering)
    elif isinstance(x, Spikes):
        x = x * 1  # bits as numbers, once
    state: Any = None
    sent: Tensor | None = None
    if carry is not None and carry.value is not None:
        state, sent = (carry.value, None) if weight is None else carry.value
    outputs, membranes = [], []
    for current in x:
        back = 0.0 if weight is None or sent is None else nn.functional.linear(sent, weight)
        sent, u, state = step(current + back, state)
        outputs.append(sent)
        membranes.append(u)
    if carry is not None:
        kept = state if weight is None else (state, sent)
        carry.value = tree_map_only(Tensor, Tensor.detach, kept)
    return torch.stack(outputs), torch.stack(membranes)
