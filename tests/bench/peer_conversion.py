"""The network of the proof `conversion`, and spikingjelly's converter on it; run by the interpreter that has it.

    PYTHON peer_conversion.py TASK.npz OUT.json

The task holds the trained tensors as plain arrays, calibration images, the test set and how many steps. Every mode of
`ann2snn` that a CNN can have is run: thresholds from the maximum, from a percentile, from shares of the maximum, per
channel, with half a threshold to start from, and local threshold balancing. The answer is the mean of the outputs, as
in spikingjelly's own example.
"""

from __future__ import annotations

import copy
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

KEEP = "tensor:"


class Cnn(nn.Module):
    """28 x 28 images -> 10 classes: three convolutions with batch norm, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.AvgPool2d(2)
        self.conv3 = nn.Conv2d(12, 24, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(24)
        self.relu3 = nn.ReLU()
        self.pool3 = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(216, 48)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        x = self.pool3(self.relu3(self.bn3(self.conv3(x))))
        x = self.relu4(self.fc1(torch.flatten(x, 1)))
        return self.fc2(x)


def accuracies(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> list[float]:
    """After each step."""
    from spikingjelly.activation_based import functional

    right = torch.zeros(steps, dtype=torch.float64)
    with torch.no_grad():
        for images, labels in zip(x.split(500), y.split(500), strict=True):
            functional.reset_net(network)
            total: Tensor | None = None
            for t in range(steps):
                now = network(images)
                total = now if total is None else total + now
                right[t] += (total.argmax(1) == labels).sum()
    return [float(r) / len(y) for r in right]


def main(task: Path, out: Path) -> None:
    from spikingjelly.activation_based import ann2snn

    torch.set_num_threads(1)
    with np.load(task) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    network = Cnn()
    network.load_state_dict({n.removeprefix(KEEP): a for n, a in arrays.items() if n.startswith(KEEP)})
    network.eval()
    x, y, steps = arrays["x"], arrays["y"], int(arrays["steps"])
    calibration = [(part,) for part in arrays["calibration"].split(100)]
    modes = {
        "max": {"mode": "Max"},
        "99.9%": {"mode": "99.9%"},
        "max / 2": {"mode": 0.5},
        "99.9%, channels, half threshold": {"mode": "99.9%", "channel_wise": True, "half_threshold": True},
    }
    recipes = {name: ann2snn.RateCodingRecipe(dataloader=calibration, **mode) for name, mode in modes.items()}
    recipes["local threshold balancing"] = ann2snn.LocalThresholdBalancingRecipe(dataloader=calibration)
    with torch.no_grad():
        right = sum(int((network(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    found: dict[str, object] = {"version": version("spikingjelly"), "ann": right / len(y)}
    found["recipes"] = {
        name: accuracies(ann2snn.Converter(recipe).convert(copy.deepcopy(network)), x, y, steps)
        for name, recipe in recipes.items()
    }
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
