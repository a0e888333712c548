"""`DelayLinear`: a weight and a real delay per synapse, both learnt."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn.delay import DelayedLinear, kept, remembered
from neuro.nn.delay_events import late
from neuro.nn.joined import Carry
from neuro.nn.layers import Temporal
from neuro.node import MAX_DELAY_STEPS

KINDS = ("synaptic", "axonal", "dendritic")


class DelayLinear(Temporal):
    """y[t, o] = sum_i weight[o, i] x(t - delay[o, i], i) + bias[o], x between two steps on the line through them.

    With k = floor(delay) and f = delay - k, x(t - delay) = (1 - f) x[t - k] + f x[t - k - 1], so the delay has a
    gradient, weight (x[t - k - 1] - x[t - k]); at a whole delay it is that of the step above. What arrives after the
    sample has ended is lost. `neuro.nn.delay_events` computes it.

    Args:
        max_delay: in steps; delays start uniformly in 0..max_delay.
        kind: "synaptic", a delay per synapse, delay [out, in]; "axonal", per source, [1, in]; "dendritic", per
            target, [out, 1].
        rounding: compute with whole delays; the gradient passes straight through the rounding (Bengio et al. 2013,
            arXiv:1308.3432). May be set at any time: the last epochs before `rounded`.

    Outside 0..max_delay a delay counts as the bound, and its gradient passes, so that it can return; `clamp_` puts it
    there.

    Raises:
        NetworkError: sizes or max_delay that mean nothing, another kind.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        *,
        bias: bool = False,
        kind: str = "synaptic",
        rounding: bool = False,
    ) -> None:
        super().__init__()
        bad = [f"kind must be one of {KINDS}, got {kind!r}"] if kind not in KINDS else []
        if min(in_features, out_features) < 1:
            bad.append(f"sizes must be positive, got {in_features} -> {out_features}")
        if not isinstance(max_delay, int) or not 1 <= max_delay <= MAX_DELAY_STEPS:
            bad.append(f"max_delay must be a whole number of steps in 1..{MAX_DELAY_STEPS}, got {max_delay!r}")
        if bad:
            raise NetworkError("DelayLinear cannot be built", bad)
        self.max_delay, self.kind, self.rounding = max_delay, kind, rounding
        shape = (1 if kind == "axonal" else out_features, 1 if kind == "dendritic" else in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.delay = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch.nn.Linear
        nn.init.uniform_(self.delay, 0.0, float(max_delay))

    def steps(self) -> Tensor:
        """The delays in use, in steps, of the shape of ``delay``: bounded, and whole with ``rounding``."""
        with torch.no_grad():
            used = self.delay.clamp(0.0, float(self.max_delay))
            used = used.round() if self.rounding else used
        return _Straight.apply(self.delay, used)  # type: ignore[no-untyped-call,no-any-return]

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put delays outside 0..max_delay on the bound; after a step of the optimiser."""
        self.delay.clamp_(0.0, float(self.max_delay))

    def rounded(self) -> DelayedLinear:
        """A layer of its own with the nearest whole delays and the same weights: what a chip holds."""
        whole = self.delay.detach().clamp(0.0, float(self.max_delay)).round().long().expand_as(self.weight)
        layer = DelayedLinear(whole.cpu().numpy(), bias=self.bias is not None).to(self.weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if self.bias is not None and layer.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.to(self.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        return self._late(x, None)

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        y = self._late(x, carry.value)
        carry.value = kept(carry.value, x, self.max_delay + 1)
        return y

    def _late(self, x: Tensor, past: Tensor | None) -> Tensor:
        y = late(x, self.weight, self.steps().expand_as(self.weight), self.max_delay, past)
        return y if self.bias is None else y + self.bias

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        past = remembered(x, state, self.max_delay + 1)
        delay = self.steps()
        k = delay.detach().floor()
        f = delay - k
        y = x.new_zeros((x.shape[0], len(self.weight)))
        for d, then in enumerate(past):
            share = torch.where(k == d, 1 - f, 0.0) + torch.where(k == d - 1, f, 0.0)
            y = y + functional.linear(then, self.weight * share)
        return (y if self.bias is None else y + self.bias), past

    def extra_repr(self) -> str:
        out, n = self.weight.shape
        return f"{n}, {out}, max_delay={self.max_delay}, kind={self.kind!r}, rounding={self.rounding}"


class _Straight(torch.autograd.Function):
    """The second forwards, to the last bit; the gradient of the first backwards."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, used: Tensor) -> Tensor:
        return used.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
