"""A spike-driven transformer block (Meta-SpikeFormer, Yao et al. 2024, ICLR, arXiv:2404.03663), trained with integer
neurons (Luo et al. 2024, arXiv:2407.20708): N(x) = clip(round(D x), 0, D) / D.

    S = N(x);  q, k, v = N(rep(S));  x += rep(N(scale q (k^T v)))        SDSA-3: no softmax, k^T v first
    x += BN(W_2 N(BN(W_1 N(x))))                                         channel MLP

Residuals are added on membranes, so every convolution sees spikes only. rep is RepConv: 1x1, BN, 3x3 of each channel,
1x1, BN, trained apart and folded into one 3x3 convolution (`folded`), exactly up to rounding.

**As events.** A neuron of D levels is D spikes; each population sends them one by one and takes back what was too much
(`neuro.convert.neurons.Settling`), both products are temporal-difference operators. Exact: the trained network itself
is the quantised one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Affine, Conv, Linear, MatMul, Mean, Quantise, Reshape

LEVELS = 4  # D


class Integer(nn.Module):
    """clip(round(D x), 0, D) / D, halves up; the gradient is 1 where 0 <= x <= 1, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        inside = x.clamp(0, 1)
        level = torch.floor(x * LEVELS + 0.5).clamp(0, LEVELS) / LEVELS
        return inside + (level - inside).detach()


class RepConv(nn.Module):
    """1x1 -> BN, padded with its own value of zero -> 3x3 of each channel -> 1x1 -> BN."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, dim, 1, bias=False)
        self.middle = nn.Conv2d(dim, dim, 3, groups=dim, bias=False)
        self.last = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        _, shift = affine(self.norm1)
        shift = shift[:, None, None]
        padded = fn.pad(self.norm1(self.first(x)) - shift, (1, 1, 1, 1)) + shift
        y: Tensor = self.norm2(self.last(self.middle(padded)))
        return y


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift) [channels] of a batch norm at rest."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def folded(rep: RepConv) -> Conv:
    """The one 3x3 convolution, padding 1, that a RepConv is in evaluation."""
    with torch.no_grad():
        a, b = affine(rep.norm1)
        first = a[:, None] * rep.first.weight[:, :, 0, 0]
        taps, last = rep.middle.weight[:, 0], rep.last.weight[:, :, 0, 0]
        weight = torch.einsum("oc,cyx,ci->oiyx", last, taps, first)
        bias = last @ (b * taps.sum((1, 2)))
        scale, shift = affine(rep.norm2)
        return Conv(weight * scale[:, None, None, None], bias * scale + shift, padding=(1, 1))


class Block(nn.Module):
    """x: [batch, dim, height, width], membranes -> the same."""

    def __init__(self, dim: int, heads: int, scale: float = 0.125) -> None:
        super().__init__()
        self.heads, self.scale, self.fire = heads, scale, Integer()
        self.q, self.k, self.v, self.out = (RepConv(dim) for _ in range(4))
        self.up, self.down = nn.Conv2d(dim, 2 * dim, 1, bias=False), nn.Conv2d(2 * dim, dim, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(2 * dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        s, shape = self.fire(x), (len(x), self.heads, -1, x.shape[2] * x.shape[3])
        q, k, v = (self.fire(f(s)).reshape(shape).transpose(-1, -2) for f in (self.q, self.k, self.v))
        a = self.fire(self.scale * (q @ (k.transpose(-1, -2) @ v)))
        x = x + self.out(a.transpose(-1, -2).reshape(x.shape))
        y: Tensor = x + self.norm2(self.down(self.fire(self.norm1(self.up(self.fire(x))))))
        return y


class SpikeDriven(nn.Module):
    """Images [batch, 1, size, size] -> stem 3x3, stride 2 -> blocks -> mean over space -> neurons -> classes."""

    def __init__(self, size: int = 14, dim: int = 24, heads: int = 4, depth: int = 1, classes: int = 10, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.size, self.dim = size, dim
            self.stem, self.norm = nn.Conv2d(1, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim)
            self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
            self.fire, self.head = Integer(), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.stem(x))
        for block in self.blocks:
            z = block(z)
        y: Tensor = self.head(self.fire(z.mean((2, 3))))
        return y


def to_graph(net: SpikeDriven, bits: int = 16) -> Graph:
    """The network as it was trained; images are sent as they are."""
    build, side = Build(), (net.size + 1) // 2
    wire = build("stem", _conv(net.stem, net.norm), build.input("x", 1, net.size, net.size))
    for k, each in enumerate(net.blocks):
        assert isinstance(each, Block)
        wire = _block(build, f"block{k}.", each, wire, net.dim, side)
    wire = build("mean.events", _fire(), build("mean", Mean((2, 3)), wire))
    return build.graph(build("head", Linear(net.head.weight.detach(), net.head.bias.detach()), wire), bits=bits)


def _block(build: Build, at: str, block: Block, wire: str, dim: int, side: int) -> str:
    heads, tokens, rows = block.heads, side * side, {}
    s = build(at + "s", _fire(), wire)
    for name, rep in (("q", block.q), ("k", block.k), ("v", block.v)):
        events = build(f"{at}{name}.events", _fire(), build(at + name, folded(rep), s))
        rows[name] = build(f"{at}{name}.rows", Reshape((heads, dim // heads, tokens)), events)
    # with features first: (q (k^T v))^T = (k^T v)^T q^T = (v k^T) q
    memory = build(at + "memory", MatMul(transposed=True), rows["v"], rows["k"])
    a = build(at + "scaled", Affine(torch.tensor(block.scale)), build(at + "attention", MatMul(), memory, rows["q"]))
    a = build(at + "attention.events", _fire(), build(at + "joined", Reshape((dim, side, side)), a))
    wire = build(at + "sum1", Add(), wire, build(at + "out", folded(block.out), a))
    h = build(at + "up", _conv(block.up, block.norm1), build(at + "up.in", _fire(), wire))
    h = build(at + "down", _conv(block.down, block.norm2), build(at + "up.events", _fire(), h))
    return build(at + "sum2", Add(), wire, h)


def _fire() -> Quantise:
    return Quantise(torch.tensor(1.0 / LEVELS), 0, LEVELS)


def _conv(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> Conv:
    with torch.no_grad():
        scale, shift = affine(norm)
        padding = (int(layer.padding[0]), int(layer.padding[1]))
        return Conv(layer.weight * scale[:, None, None, None], shift, (layer.stride[0], layer.stride[1]), padding)


__all__ = ["Integer", "RepConv", "SpikeDriven", "affine", "folded", "to_graph"]
