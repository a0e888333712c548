"""Architectures by name, for state dicts: widths are read off the shapes, the wiring is what the name says.

    mlp           fully connected layers with ReLU between, in the order of the file; any names
    lenet5        conv1 5x5, pool, conv2 5x5, pool, fc1, fc2 (, fc3); ReLU, average pools
    vgg_small     features.N convolutions 3x3 and batch norms as in torchvision's numbering, classifier.N; max pools
    resnet_small  conv1, bn1, layerK.B.{conv1, bn1, conv2, bn2, shortcut.0, shortcut.1}, linear: the CIFAR form

A row takes the shapes of a file and gives (module, shape of one sample); names and shapes that do not match are found
by comparing the module's own with the file's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping

import torch.nn.functional as fn
from torch import Tensor, nn

from neuro.errors import ConversionError

Shapes = Mapping[str, tuple[int, ...]]
Sample = tuple[int, ...]
ARCHITECTURES: dict[str, Callable[[Shapes, Sample | None], tuple[nn.Module, Sample]]] = {}


def architecture(name: str) -> Callable[..., Callable[[Shapes, Sample | None], tuple[nn.Module, Sample]]]:
    def keep(
        build: Callable[[Shapes, Sample | None], tuple[nn.Module, Sample]],
    ) -> Callable[[Shapes, Sample | None], tuple[nn.Module, Sample]]:
        ARCHITECTURES[name] = build
        return build

    return keep


def width(shapes: Shapes, name: str, otherwise: int, axis: int = 0) -> int:
    """A size that the file has, or the usual one, so that what is missing is found with everything else."""
    found = shapes.get(name, ())
    return found[axis] if len(found) > axis else otherwise


class Mlp(nn.Module):
    """Layers kept under the names that the file has for them."""

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.names = list(layers)
        for name, layer in layers.items():
            parent: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(last, layer)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for name in self.names[:-1]:
            x = fn.relu(self.get_submodule(name)(x))
        return self.get_submodule(self.names[-1])(x)  # type: ignore[no-any-return]


@architecture("mlp")
def mlp(shapes: Shapes, sample: Sample | None) -> tuple[nn.Module, Sample]:
    """Raises:
    ConversionError: no matrices, or a matrix that does not take what the one before gives; all of them.
    """
    found = {n.removesuffix(".weight"): s for n, s in shapes.items() if n.endswith(".weight") and len(s) == 2}
    listed = list(found.items())
    bad = [] if listed else ["there is no NAME.weight of two axes"]
    for (one, a), (two, b) in itertools.pairwise(listed):
        if b[1] != a[0]:
            bad.append(f"'{two}' takes {b[1]} values, '{one}' before it gives {a[0]}")
    if bad:
        raise ConversionError("this is no mlp", bad)
    layers = {name: nn.Linear(s[1], s[0], bias=f"{name}.bias" in shapes) for name, s in listed}
    return Mlp(layers), sample or (listed[0][1][1],)


class LeNet5(nn.Module):
    def __init__(self, shapes: Shapes, sample: Sample) -> None:
        super().__init__()
        channels, height, _ = sample
        c1, c2 = width(shapes, "conv1.weight", 6), width(shapes, "conv2.weight", 16)
        kernel = width(shapes, "conv1.weight", 5, 2)
        self.conv1 = nn.Conv2d(channels, c1, kernel, padding=2 if height == 28 else 0)
        self.conv2 = nn.Conv2d(c1, c2, width(shapes, "conv2.weight", 5, 2))
        sizes = [width(shapes, "fc1.weight", 400, 1), width(shapes, "fc1.weight", 120), width(shapes, "fc2.weight", 84)]
        self.fc1 = nn.Linear(sizes[0], sizes[1])
        self.fc2 = nn.Linear(sizes[1], sizes[2])
        if "fc3.weight" in shapes:
            self.fc3 = nn.Linear(sizes[2], width(shapes, "fc3.weight", 10))

    def forward(self, x: Tensor) -> Tensor:
        x = fn.avg_pool2d(fn.relu(self.conv1(x)), 2)
        x = fn.avg_pool2d(fn.relu(self.conv2(x)), 2)
        x = self.fc2(fn.relu(self.fc1(x.flatten(1))))
        return self.fc3(fn.relu(x)) if hasattr(self, "fc3") else x


@architecture("lenet5")
def lenet5(shapes: Shapes, sample: Sample | None) -> tuple[nn.Module, Sample]:
    sample = sample or (width(shapes, "conv1.weight", 1, 1), 28, 28)
    return LeNet5(shapes, sample), sample


class Vgg(nn.Module):
    """Convolutions with batch norms where the file has them, ReLU; a pool where the numbering leaves a gap."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        rows: dict[int, nn.Module] = {}
        weights = _numbered(shapes, "features")
        last = max(weights, default=-1)
        at, before = 0, 3
        while at <= last:
            shape = weights.get(at, ())
            if len(shape) == 4:
                rows[at] = nn.Conv2d(
                    shape[1], shape[0], shape[2], padding=shape[2] // 2, bias=f"features.{at}.bias" in shapes
                )
                before = shape[0]
                if len(weights.get(at + 1, ())) == 1:
                    at += 1
                    rows[at] = nn.BatchNorm2d(before)
                rows[at + 1] = nn.ReLU()
                at += 2
            else:
                rows[at] = nn.MaxPool2d(2)
                at += 1
        rows[at] = nn.MaxPool2d(2)
        self.features = nn.Sequential(*(rows[k] for k in sorted(rows)))
        ends = _numbered(shapes, "classifier")
        matrices = [k for k, shape in sorted(ends.items()) if len(shape) == 2]
        tail: dict[int, nn.Module] = {k: nn.Linear(ends[k][1], ends[k][0]) for k in matrices}
        for k in range(max(matrices, default=-1)):
            if k not in tail:
                tail[k] = nn.ReLU() if k - 1 in tail else nn.Dropout()
        self.classifier = nn.Sequential(*(tail[k] for k in sorted(tail)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def _numbered(shapes: Shapes, prefix: str) -> dict[int, tuple[int, ...]]:
    found = {}
    for name, shape in shapes.items():
        match = re.fullmatch(rf"{prefix}\.(\d{{1,4}})\.weight", name)
        if match:
            found[int(match[1])] = shape
    return found


@architecture("vgg_small")
def vgg_small(shapes: Shapes, sample: Sample | None) -> tuple[nn.Module, Sample]:
    """Raises:
    ConversionError: there are no features.N or classifier.N, or the size of the image cannot be told.
    """
    convolutions = _numbered(shapes, "features")
    matrices = {k: s for k, s in _numbered(shapes, "classifier").items() if len(s) == 2}
    first = min((k for k, s in convolutions.items() if len(s) == 4), default=None)
    if first is None or not matrices:
        raise ConversionError("this is no vgg_small: it needs features.N.weight of four axes and classifier.N.weight")
    module = Vgg(shapes)
    pools = sum(isinstance(layer, nn.MaxPool2d) for layer in module.features)
    channels = [s[0] for _, s in sorted(convolutions.items()) if len(s) == 4][-1]
    side = math.isqrt(max(1, matrices[min(matrices)][1] // channels)) << pools
    return module, sample or (convolutions[first][1], side, side)


class Block(nn.Module):
    def __init__(self, shapes: Shapes, name: str, before: int, stride: int) -> None:
        super().__init__()
        planes = width(shapes, f"{name}.conv1.weight", before)
        self.conv1 = nn.Conv2d(before, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if f"{name}.shortcut.0.weight" in shapes or stride != 1 or planes != before:
            self.shortcut = nn.Sequential(nn.Conv2d(before, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(fn.relu(self.bn1(self.conv1(x)))))
        return fn.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        planes = width(shapes, "conv1.weight", 16)
        self.conv1 = nn.Conv2d(width(shapes, "conv1.weight", 3, 1), planes, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        found = [re.match(r"layer(\d{1,3})\.(\d{1,3})\.", name) for name in shapes]
        blocks = sorted({(int(m[1]), int(m[2])) for m in found if m})
        self.stages = sorted({stage for stage, _ in blocks})
        for stage in self.stages:
            row = []
            for k in [b for s, b in blocks if s == stage]:
                name = f"layer{stage}.{k}"
                row.append(Block(shapes, name, planes, 2 if k == 0 and stage != self.stages[0] else 1))
                planes = width(shapes, f"{name}.conv1.weight", planes)
            self.add_module(f"layer{stage}", nn.Sequential(*row))
        self.linear = nn.Linear(planes, width(shapes, "linear.weight", 10))

    def forward(self, x: Tensor) -> Tensor:
        x = fn.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(fn.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


@architecture("resnet_small")
def resnet_small(shapes: Shapes, sample: Sample | None) -> tuple[nn.Module, Sample]:
    return ResNet(shapes), sample or (width(shapes, "conv1.weight", 3, 1), 32, 32)
