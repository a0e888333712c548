"""Small tasks that contradict each other, and a network that learns them one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro.learn.continual import Method
from neuro.nn import LI, LIF, Recurrent, SpikingNetwork
from neuro.train.continual import Task, learn_tasks


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(n: int, rank: int, samples: int, seed: int = 0) -> Tensor:
    """Inputs of falling energy in ``rank`` directions, and a little noise."""
    g = rng(seed)
    basis: Tensor = torch.linalg.qr(torch.randn(n, rank, generator=g, dtype=torch.float64)).Q
    amounts = torch.randn(samples, rank, generator=g, dtype=torch.float64) * torch.linspace(2, 1, rank)
    return amounts @ basis.T + 0.01 * torch.randn(samples, n, generator=g, dtype=torch.float64)


def network(
    seed: int = 0, inputs: int = 40, classes: int = 4, recurrent: bool = False, reset: str = "hard"
) -> SpikingNetwork:
    torch.manual_seed(seed)
    middle: nn.Module = LIF(0.5, detach=True, surrogate="sigmoid", reset=reset)
    layers = {
        "a": nn.Linear(inputs, 50, bias=False),
        "n": Recurrent(LIF(0.5, detach=True, surrogate="sigmoid"), 50) if recurrent else middle,
        "b": nn.Linear(50, classes, bias=False),
        "o": LI(0.5),
    }
    for name in "ab":
        nn.init.kaiming_normal_(layers[name].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return SpikingNetwork(layers, input_shape=(inputs,), dt=1e-3, readout="sum")


def tasks(count: int, inputs: int = 40, classes: int = 4) -> list[Task]:
    """Clouds around prototypes that all tasks share, meaning another class in each, and some that are each task's own:
    the shared ones pull answers apart, the own ones are where there is room to learn."""
    shared = np.random.default_rng(99).normal(size=(classes, inputs)) * 0.6
    found = []
    for k in range(count):
        g = np.random.default_rng(100 + k)
        prototypes = np.roll(shared, k, axis=0) + g.normal(size=(classes, inputs)) * 0.6

        def make(n: int, seed: int, prototypes: np.ndarray = prototypes) -> tuple[Tensor, Tensor]:
            g = np.random.default_rng(seed)
            labels = g.integers(0, classes, n)
            x = torch.from_numpy((prototypes[labels] * g.uniform(0.7, 1.3, (n, 1))).astype(np.float32))
            x = x + 0.05 * torch.from_numpy(g.normal(size=x.shape).astype(np.float32))
            return x.expand(5, *x.shape), torch.from_numpy(labels)

        def train(size: int, seed: int, epoch: int, make: object = make):  # type: ignore[no-untyped-def]
            return (make(size, 7 + 1000 * epoch + i) for i in range(30))  # type: ignore[operator]

        def test(size: int, make: object = make):  # type: ignore[no-untyped-def]
            return iter([make(300, 1)])  # type: ignore[operator]

        found.append(Task(str(k), tuple(range(classes)), train, test))
    return found


def outcome(method: Method, **options: Any) -> tuple[float, float]:
    found = learn_tasks(network(**options), tasks(4), method, lr=0.2, scale=1.0)
    return found.acc, found.bwt
