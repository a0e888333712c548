"""Mixture of experts with one expert per sample (Switch, Fedus et al. 2022, arXiv:2101.03961):

    p = softmax(W_r x + b_r),  e = argmax p,  y = p_e (V_e relu(W_e x + b_e) + c_e)

**As events.** The router is a population with mutual inhibition; it runs first, and its winner is latched. A winner's
spike count is its share p_e, in levels. Every expert stands behind a gate: one that was not chosen gets no event, its
neurons stay silent, and messages grow with the number of chosen experts, not of all. The last product is a
temporal-difference operator.

Exact: the quantised mixture. Its winner is the float router's wherever the two largest logits of that one are further
apart than quantised inputs can move them (`margins`); anywhere else it may be another, and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.families.build import Build, Settled, settle
from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Linear, Product, Quantise, Slice, Softmax
from neuro.convert.ops_beyond import Gate, Winner, threshold


class MoE(nn.Module):
    """x [batch, inputs] -> [batch, classes]; ``active``: experts per sample."""

    def __init__(
        self, inputs: int, hidden: int = 16, classes: int = 10, experts: int = 8, active: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.router, self.active = nn.Linear(inputs, experts), active
        self.up = nn.Parameter(torch.randn(experts, hidden, inputs, generator=rng) * (2 / inputs) ** 0.5)
        self.up_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.down = nn.Parameter(torch.randn(experts, classes, hidden, generator=rng) * (2 / hidden) ** 0.5)
        self.down_bias = nn.Parameter(torch.zeros(experts, classes))
        with torch.no_grad():
            self.router.weight.copy_(torch.randn(experts, inputs, generator=rng) * 0.3 * inputs**-0.5)
            self.router.bias.zero_()
        self.extra_loss: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(self.router(x), -1)
        chosen = torch.zeros_like(p).scatter(-1, p.topk(self.active, -1).indices, 1.0)
        # as many samples for each expert: E sum_e (share of samples) (mean p), Fedus et al. eq. 4
        self.extra_loss = 0.2 * p.shape[1] * (chosen.mean(0) * p.mean(0)).sum()
        h = fn.relu(torch.einsum("bi,ehi->beh", x, self.up) + self.up_bias)
        y = torch.einsum("beh,ech->bec", h, self.down) + self.down_bias
        return (y * (p * chosen)[..., None]).sum(1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """router: x -> shares [experts], levels of p of the winners and 0 elsewhere. experts: (x, shares) -> classes."""

    router: Graph
    experts: Graph


def to_graphs(moe: MoE, x: Tensor, levels: int = 16, shares: int = 32, bits: int = 14) -> Mixture:
    """Steps calibrated on x [batch, inputs] in 0..1."""
    build, (experts, _, inputs) = Build(), moe.up.shape
    pixels = build.neurons("pixels", build.input("x", inputs), levels)
    logits = build("logits", Linear(moe.router.weight.detach(), moe.router.bias.detach()), pixels)
    winners = build("winners", Product(), build("p", Softmax(), logits), build("winner", Winner(moe.active), logits))
    build("shares", Quantise(torch.tensor(1.0 / shares), 0, shares), winners)
    router = build.graph("shares", x, bits=bits)
    at_rest = router.ops["pixels"]  # the same neurons send to router and experts

    build = Build()
    pixels = build("pixels", at_rest, build.input("x", inputs))
    given = build.input("shares", experts)
    chosen = build("open", threshold(torch.zeros(())), given)
    parts = []
    for e in range(experts):
        unit = torch.zeros(experts)
        unit[e] = 1.0
        wire = build(f"expert{e}.up", Linear(moe.up[e].detach()), build(f"expert{e}.gate", Gate(e), pixels, chosen))
        bias = build(f"expert{e}.up_bias", Linear(torch.outer(moe.up_bias[e].detach(), unit)), chosen)
        wire = build.neurons(f"expert{e}.hidden", build(f"expert{e}.sum", Add(), wire, bias), levels)
        wire = build(f"expert{e}.down", Linear(moe.down[e].detach()), wire)
        bias = build(f"expert{e}.down_bias", Linear(torch.outer(moe.down_bias[e].detach(), unit)), chosen)
        answer = build(f"expert{e}.answer", Add(), wire, bias)
        parts.append(build(f"expert{e}", Product(), answer, build(f"expert{e}.share", Slice(1, e, e + 1), given)))
    with torch.no_grad():
        return Mixture(router, build.graph(build("y", Add(), *parts), x, router.run(x), bits=bits))


def run(mixture: Mixture, x: Tensor) -> tuple[Settled, Settled]:
    """Router until it is silent, its winners latched, then the experts."""
    first = settle(mixture.router, x, most=2000)
    return first, settle(mixture.experts, x, first.reference, most=2000)


def margins(moe: MoE, mixture: Mixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """(margin, bound) [batch]: between the float router's best and each other logit, the smallest difference left of
    what quantised inputs and rounded weights can move it by, and that movement; exact where margin > 0.

    With x = x_q + d, |d_i| known, logits l_e - l_f move by at most sum_i |w_e - w_f|_i |d_i| + (rounding of weights).
    """
    with torch.no_grad():
        x = x.to(torch.float64)
        weight, bias = moe.router.weight.double(), moe.router.bias.double()
        logits = fn.linear(x, weight, bias)
        quantised = mixture.router.values(x)
        best = logits.argmax(-1)
        layer = mixture.router.ops["logits"]
        assert isinstance(layer, Linear)
        assert layer.bias is not None
        change = (layer.weight - weight).abs()
        d = (quantised["pixels"] - x).abs()
        rest = quantised["pixels"] @ change.T + (layer.bias - bias).abs()
        moved = torch.einsum("bei,bi->be", (weight[best][:, None] - weight[None]).abs(), d)
        moved = moved + rest + rest.gather(1, best[:, None])
        gap = logits.gather(1, best[:, None]) - logits - moved
        gap.scatter_(1, best[:, None], torch.inf)
        at = gap.argmin(1, keepdim=True)
        return gap.gather(1, at)[:, 0], moved.gather(1, at)[:, 0]
