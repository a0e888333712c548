"""Torch models as strangers write them, in the manner of common public code; not one line is for the converter."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # as everybody writes it
from torch import Tensor, nn


class LeNet(nn.Module):
    """Functional calls, a hard-coded view, log softmax, dropout that asks self.training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), (2, 2))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, p=0.5, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class LambdaLayer(nn.Module):
    def __init__(self, lambd) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        return self.lambd(x)  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    def __init__(self, in_planes: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_planes != planes:
            if option == "A":
                self.shortcut = LambdaLayer(
                    lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4), "constant", 0)
                )
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_planes, planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(planes)
                )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """CIFAR's, with either of the two shortcuts; a pool over whatever is left, a view by size(0)."""

    def __init__(self, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1, option))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, option), BasicBlock(16, 16, 1, option))
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer2(self.layer1(out))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Down, up by a transposed convolution and by nearest neighbours, concatenation across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding="same"), nn.SiLU())
        self.up2 = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.up1 = nn.Upsample(scale_factor=2, mode="nearest")
        self.mid = nn.Conv2d(16, 8, 1)
        self.out = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x = self.up2(self.bottom(x2))
        x = F.relu(self.mid(torch.cat([x2, x], dim=1)))
        x = torch.cat((x1, self.up1(x)), 1)
        return torch.sigmoid(self.out(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class InvertedResidual(nn.Module):
    def __init__(self, inp: int, oup: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inp * expand
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = nn.Sequential(
            nn.Conv2d(inp, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(inplace=True),
            SqueezeExcite(hidden),
            nn.Conv2d(hidden, oup, 1, bias=False),
            nn.BatchNorm2d(oup),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)  # type: ignore[no-any-return]


class MobileNet(nn.Module):
    """Depthwise and grouped convolutions, a shuffle of channels, squeeze and excite, a mean over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.features = nn.Sequential(InvertedResidual(8, 8, 1, 2), InvertedResidual(8, 16, 2, 2))
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.stem(x))
        x = F.leaky_relu(self.grouped(x), 0.1)
        n, c, h, w = x.shape
        x = x.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        x = x.mean([2, 3])
        return self.classifier(x)  # type: ignore[no-any-return]


class ViT(nn.Module):
    """nn.MultiheadAttention as it comes (batch_first=False), a class token, positions, pre-norm blocks."""

    def __init__(self, dim: int = 16, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 7, stride=7)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2 * depth + 1)])
        self.attn = nn.ModuleList([nn.MultiheadAttention(dim, heads, dropout=0.1) for _ in range(depth)])
        self.mlp = nn.ModuleList(
            [nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth)]
        )
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).permute(2, 0, 1)  # tokens first
        cls = self.cls_token.expand(-1, x.shape[1], -1)
        x = torch.cat((cls, x), dim=0) + self.pos_embed.transpose(0, 1)
        for k, (attn, mlp) in enumerate(zip(self.attn, self.mlp, strict=True)):
            h = self.norms[2 * k](x)
            x = x + attn(h, h, h, need_weights=k == 0)[0]
            x = x + mlp(self.norms[2 * k + 1](x))
        return self.head(self.norms[-1](x[0]))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Written out by hand: one projection for all three, reshape and permute, a causal mask in a buffer."""

    mask: Tensor

    def __init__(self, dim: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = attn.masked_fill(self.mask[:, :, :n, :n] == 0, float("-inf"))
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)  # type: ignore[no-any-return]


class GPTLike(nn.Module):
    """Attention by hand, then by einsum, torch's encoder layer; a new GELU written out; mean over time."""

    def __init__(self, dim: int = 12, length: int = 6) -> None:
        super().__init__()
        self.inp = nn.Conv1d(4, dim, 3, padding=1)
        self.attn = Attention(dim, 3, length)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.enc = nn.TransformerEncoderLayer(dim, 2, 2 * dim, batch_first=True, activation="gelu", norm_first=True)
        self.head = nn.Linear(dim, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x).transpose(1, 2)
        x = x + self.attn(x)
        x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        a = torch.softmax(torch.einsum("bid,bjd->bij", q, k) / math.sqrt(q.size(-1)), -1)
        x = x + torch.einsum("bij,bjd->bid", a, v)
        return self.head(self.enc(x).mean(dim=1))  # type: ignore[no-any-return]


class Shared(nn.Module):
    """One layer called twice, one weight used by two layers, Python arithmetic on the way, indices written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.again = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.act = nn.PReLU(8)
        self.last = nn.Linear(8, 6)
        self.drop = nn.Identity()

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        h = self.act(self.first(x))
        h = self.again(self.again(h)) / 2 + 1 - h
        h[:, 0] = 0
        y = self.drop(self.last(h)) * scale
        y = y + F.linear(torch.relu(h), self.first.weight.t())
        a, b = y.split([2, 4], dim=-1)
        return torch.stack([a.sum(-1), b.unsqueeze(1).squeeze(1).mean(-1)], dim=1)


def strangers() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """name -> (module in float64 with non-trivial statistics, a sample); the same every time."""
    rng = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    found: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "lenet": (LeNet(), (normal(4, 1, 28, 28),)),
        "resnet_a": (ResNet("A"), (normal(4, 3, 16, 16),)),
        "resnet_b": (ResNet("B"), (normal(4, 3, 16, 16),)),
        "unet": (UNet(), (normal(2, 1, 16, 16),)),
        "mobilenet": (MobileNet(), (normal(4, 3, 16, 16),)),
        "vit": (ViT(), (normal(4, 1, 28, 28),)),
        "gpt": (GPTLike(), (normal(5, 4, 6),)),
        "shared": (Shared(), (normal(4, 6), normal(4, 6))),
    }
    for module, _ in found.values():
        module.double()
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point() and tensor.ndim and (tensor.ndim < 4 or tensor.requires_grad):
                    tensor.copy_(normal(*tensor.shape) / max(1, tensor[0].numel()) ** 0.5)
            for name, buffer in module.named_buffers():
                if name.endswith("running_var"):
                    buffer.copy_(buffer.abs() + 0.5)
    return found
