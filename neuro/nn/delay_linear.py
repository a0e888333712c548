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
from neuro.nn.delay_shapes import KERNELS, Kernel, Plan, shares
from neuro.nn.delay_wide import wide
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
        kernel: "linear", "triangle" or "gauss", wider than the line while ``sigma`` (steps, may be set at any time) is
            above 0: `neuro.nn.delay_shapes`. sigma starts at max_delay / 2 for those two.
        rounding: compute with whole delays, whatever the kernel; the gradient passes straight through the rounding
            (Bengio et al. 2013, arXiv:1308.3432). May be set at any time: the last epochs before `rounded`.
        plan: how sigma and rounding change over a run; `settle` sets them.

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
        kernel: str = "linear",
        rounding: bool = False,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        bad = [f"kind must be one of {KINDS}, got {kind!r}"] if kind not in KINDS else []
        bad += [f"kernel must be one of {KERNELS}, got {kernel!r}"] if kernel not in KERNELS else []
        if min(in_features, out_features) < 1:
            bad.append(f"sizes must be positive, got {in_features} -> {out_features}")
        if not isinstance(max_delay, int) or not 1 <= max_delay <= MAX_DELAY_STEPS:
            bad.append(f"max_delay must be a whole number of steps in 1..{MAX_DELAY_STEPS}, got {max_delay!r}")
        if bad:
            raise NetworkError("DelayLinear cannot be built", bad)
        self.max_delay, self.kind, self.kernel, self.rounding = max_delay, kind, kernel, rounding
        self.sigma = 0.0 if kernel == "linear" else max_delay / 2
        self.plan = plan or Plan()
        shape = (1 if kind == "axonal" else out_features, 1 if kind == "dendritic" else in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.delay = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch.nn.Linear
        nn.init.uniform_(self.delay, 0.0, float(max_delay))

    def settle(self, epoch: int, epochs: int) -> None:
        """Width and rounding of an epoch of a run of ``epochs``, as ``plan`` has them; a pure function of both."""
        if self.plan.sigma is not None:
            self.sigma = self.plan.sigma(epoch, epochs)
        self.rounding = self.plan.whole(epoch, epochs)

    def shape(self) -> Kernel:
        """The kernel in use: the line between two steps with ``rounding``, which sees one of them only."""
        return Kernel() if self.rounding else Kernel(self.kernel, self.sigma)

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
        carry.value = kept(carry.value, x, self.shape().reach(self.max_delay))
        return y

    def _late(self, x: Tensor, past: Tensor | None) -> Tensor:
        kernel, delay = self.shape(), self.steps().expand_as(self.weight)
        if kernel.name == "linear":
            y = late(x, self.weight, delay, self.max_delay, past)
        else:
            y = wide(x, self.weight, delay, kernel, self.max_delay, past)
        return y if self.bias is None else y + self.bias

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        kernel = self.shape()
        past = remembered(x, state, kernel.reach(self.max_delay))
        y = x.new_zeros((x.shape[0], len(self.weight)))
        for then, share in zip(past, shares(self.steps(), kernel, self.max_delay, len(past)), strict=True):
            y = y + functional.linear(then, self.weight * share)
        return (y if self.bias is None else y + self.bias), past

    def extra_repr(self) -> str:
        out, n = self.weight.shape
        return f"{n}, {out}, max_delay={self.max_delay}, kind={self.kind!r}, " + (
            f"kernel={self.kernel!r}, sigma={self.sigma:g}, rounding={self.rounding}"
        )


class _Straight(torch.autograd.Function):
    """The second forwards, to the last bit; the gradient of the first backwards."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, used: Tensor) -> Tensor:
        return used.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
