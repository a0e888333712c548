"""A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) with softmax attention, layer norm and GELU:

    z_0 = [class token, patches] + positions
    z' = z + W_o (softmax(q k^T / sqrt(d)) v),  q, k, v = W (layer norm of z)
    z = z' + W_2 gelu(W_1 (layer norm of z'))

**As events.** Weights see nothing but events: populations stand behind every layer norm, q, k, v, softmax, the heads'
answers and GELU (SpikeZIP-TF, You et al. 2024, arXiv:2406.03470). Softmax, layer norm, GELU and both products of
attention are temporal-difference operators: they keep f of all that arrived and send what it changed by.

Exact: once nobody sends any more, every population holds the levels of the quantised transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import (
    Add,
    Concat,
    Constant,
    Conv,
    Function,
    LayerNorm,
    Linear,
    MatMul,
    Permute,
    Reshape,
    Slice,
    Softmax,
)


class Block(nn.Module):
    """One layer: x [batch, tokens, dim] -> the same."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        n = self.norm1(x)
        q, k, v = (f(n).reshape(batch, tokens, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        x = x + self.out((p @ v).transpose(1, 2).reshape(batch, tokens, dim))
        y: Tensor = x + self.down(fn.gelu(self.up(self.norm2(x))))
        return y


class ViT(nn.Module):
    """Images [batch, 1, size, size] -> classes. Patches overlap where stride < patch."""

    def __init__(
        self, size: int = 14, patch: int = 5, stride: int = 3, dim: int = 32, heads: int = 2, depth: int = 2,
        classes: int = 10, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(1, dim, patch, stride)
            self.tokens = ((size - patch) // stride + 1) ** 2
            self.size, self.dim = size, dim
            self.token = nn.Parameter(0.02 * torch.randn(1, dim))
            self.places = nn.Parameter(0.02 * torch.randn(1 + self.tokens, dim))
            self.blocks = nn.ModuleList(Block(dim, heads, 2 * dim) for _ in range(depth))
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.token.expand(len(z), 1, -1), z], 1) + self.places
        for block in self.blocks:
            z = block(z)
        y: Tensor = self.head(self.norm(z[:, 0]))
        return y


def to_graph(vit: ViT, x: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """The quantised transformer, steps calibrated on images x; its input is 0..levels / levels."""
    build, dim, tokens = Build(), vit.dim, vit.tokens
    wire = build.neurons("pixels", build.input("x", 1, vit.size, vit.size), levels)
    wire = build("patches", _conv(vit.patches), wire)
    wire = build("rows", Permute((0, 2, 1)), build("flat", Reshape((dim, tokens)), wire))
    wire = build("tokens", Concat(1), build("token", Constant(vit.token.detach())), wire)
    wire = build("placed", Add(), wire, build("places", Constant(vit.places.detach())))
    for k, each in enumerate(vit.blocks):
        assert isinstance(each, Block)
        wire = _block(build, f"block{k}.", each, wire, levels, (1 + tokens, dim))
    wire = build.neurons("norm.events", build("norm", _norm(vit.norm), wire), levels, signed=True)
    return build.graph(build("head", _linear(vit.head), build("class", Slice(1, 0, 1, drop=True), wire)), x, bits=bits)


def _block(build: Build, at: str, block: Block, wire: str, levels: int, shape: tuple[int, int]) -> str:
    (tokens, dim), heads = shape, block.heads
    n = build.neurons(at + "norm1.events", build(at + "norm1", _norm(block.norm1), wire), levels, signed=True)
    split = {}
    for name, layer in (("q", block.q), ("k", block.k), ("v", block.v)):
        events = build.neurons(f"{at}{name}.events", build(at + name, _linear(layer), n), levels, signed=True)
        rows = build(f"{at}{name}.rows", Reshape((tokens, heads, dim // heads)), events)
        split[name] = build(f"{at}{name}.heads", Permute((0, 2, 1, 3)), rows)
    scores = build(at + "scores", MatMul(transposed=True), split["q"], split["k"])
    p = build.neurons(at + "p", build(at + "softmax", Softmax(-1, (dim // heads) ** -0.5), scores), 2 * levels)
    mixed = build(at + "mixed", MatMul(), p, split["v"])
    joined = build(at + "joined", Reshape((tokens, dim)), build(at + "back", Permute((0, 2, 1, 3)), mixed))
    mixed = build.neurons(at + "mixed.events", joined, levels, signed=True)
    wire = build(at + "sum1", Add(), wire, build(at + "out", _linear(block.out), mixed))
    n = build.neurons(at + "norm2.events", build(at + "norm2", _norm(block.norm2), wire), levels, signed=True)
    g = build(at + "gelu", Function("gelu"), build(at + "up", _linear(block.up), n))
    g = build.neurons(at + "gelu.events", g, levels, signed=True)
    return build(at + "sum2", Add(), wire, build(at + "down", _linear(block.down), g))


def _linear(layer: nn.Linear) -> Linear:
    return Linear(layer.weight.detach(), layer.bias.detach())


def _norm(layer: nn.LayerNorm) -> LayerNorm:
    return LayerNorm(tuple(layer.normalized_shape), layer.weight.detach(), layer.bias.detach(), layer.eps)


def _conv(layer: nn.Conv2d) -> Conv:
    bias = None if layer.bias is None else layer.bias.detach()
    return Conv(layer.weight.detach(), bias, (layer.stride[0], layer.stride[1]))
