"""Losses, the regulariser, the learning rate and the optimiser's groups, against formulas written anew."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from neuro.nn.network import read
from neuro.train.build import build
from neuro.train.config import OptimiserConfig
from neuro.train.losses import LOSSES, firing_penalty, logits
from neuro.train.schedule import optimiser_of, rate
from neuro.train.seeds import generator, seed_of

TRACE = np.random.default_rng(0).normal(size=(7, 3, 4))
LABELS = np.array([0, 3, 2])


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def smoothed(smoothing: float) -> np.ndarray:
    return np.eye(4)[LABELS] * (1 - smoothing) + smoothing / 4


def value(kind: str, readout: str = "sum", scale: float = 1.3, smoothing: float = 0.1) -> float:
    return float(LOSSES[kind](torch.from_numpy(TRACE), torch.from_numpy(LABELS), readout, scale, smoothing))


@pytest.mark.parametrize(
    ("readout", "score"),
    [
        ("sum", TRACE.mean(0)),
        ("count", TRACE.mean(0)),
        ("max", TRACE.max(0)),
        ("last", TRACE[-1]),
    ],
)
def test_cross_entropy(readout: str, score: np.ndarray) -> None:
    expected = -(smoothed(0.1) * log_softmax(1.3 * score)).sum(1).mean()
    assert value("cross_entropy", readout) == pytest.approx(expected)
    np.testing.assert_allclose(logits(torch.from_numpy(TRACE), readout, 1.3), 1.3 * score)


def test_readouts() -> None:
    x = torch.from_numpy(TRACE)
    for name, expected in (("sum", TRACE.sum(0)), ("count", TRACE.sum(0)), ("max", TRACE.max(0)), ("last", TRACE[-1])):
        np.testing.assert_allclose(read(x, name), expected)


def test_per_step_cross_entropy() -> None:
    expected = np.mean([-(smoothed(0.1) * log_softmax(1.3 * step)).sum(1).mean() for step in TRACE])
    assert value("per_step_cross_entropy") == pytest.approx(expected)


def test_softmax_sum() -> None:
    votes = np.exp(log_softmax(1.3 * TRACE)).mean(0)
    assert value("softmax_sum") == pytest.approx(-(smoothed(0.1) * np.log(votes)).sum(1).mean())


def test_rate_mse() -> None:
    target = np.where(np.eye(4)[LABELS] == 1, 1.0, 0.1)
    assert value("rate_mse") == pytest.approx(((1.3 * TRACE.mean(0) - target) ** 2).mean())


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_have_right_gradients(kind: str) -> None:
    x = torch.from_numpy(TRACE).requires_grad_()
    labels = torch.from_numpy(LABELS)
    assert torch.autograd.gradcheck(lambda t: LOSSES[kind](t, labels, "sum", 1.3, 0.1), (x,))


def test_firing_penalty() -> None:
    rng = np.random.default_rng(1)
    spikes = {
        "a": (rng.random((20, 5, 6)) < 0.3).astype(float),
        "b": (rng.random((20, 5, 2, 3, 3)) < 0.05).astype(float),
    }
    total = 0.0
    for s in spikes.values():
        n = s.reshape(20, 5, -1).sum(0)
        total += 0.3 * n.mean() + 0.2 * (np.maximum(0, n - 4) ** 2).mean()
        total += 0.5 * (np.maximum(0, 2 - n.mean(0)) ** 2).mean()
    found = firing_penalty({k: torch.from_numpy(s) for k, s in spikes.items()}, 0.3, 0.2, 4.0, 0.5, 2.0)
    assert float(found) == pytest.approx(total)
    assert float(firing_penalty({}, 1, 1, 1, 1, 1)) == 0.0


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_rate_rises_and_falls(schedule: str) -> None:
    c = OptimiserConfig(schedule=schedule, warmup=0.2, start=0.1, final=0.01)
    rates = [rate(k / 100, c) for k in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == pytest.approx(1.0)
    assert all(b > a for a, b in itertools.pairwise(rates[:21]))
    if schedule == "constant":
        assert set(rates[20:]) == {1.0}
    else:
        assert all(b < a for a, b in itertools.pairwise(rates[20:]))
        assert rates[100] == pytest.approx(0.01)
        assert rates[60] == pytest.approx(0.5 * (1 + 0.01))
    assert rates[10] == pytest.approx(0.55)


def test_no_warmup_starts_at_the_top() -> None:
    assert rate(0.0, OptimiserConfig(warmup=0.0)) == 1.0
    assert rate(1.0, OptimiserConfig(warmup=1.0)) == 1.0


def test_only_matrices_decay() -> None:
    model = build(
        (
            {"type": "linear", "out": 4, "bias": True},
            {"type": "batch_norm"},
            {"type": "lif", "beta": 0.9, "learn": ["beta"]},
            {"type": "linear", "out": 3},
            {"type": "li", "beta": 0.9},
        ),
        (5,), 1e-3, "sum", 0, 3,
    )  # fmt: skip
    for kind in ("adamw", "sgd"):
        groups = optimiser_of(model, OptimiserConfig(kind=kind, weight_decay=0.1)).param_groups
        assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
        assert {p.dim() for p in groups[0]["params"]} == {2}
        assert {p.dim() for p in groups[1]["params"]} == {0, 1}
        assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_seeds_are_hashes_of_their_parts() -> None:
    seeds = {seed_of(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert seed_of(1, 2) != seed_of(2, 1)
    assert seed_of(1, 2) == seed_of(1, 2)
    assert min(seeds) >= 0
    assert max(seeds) < 1 << 63
    draws = [torch.rand(1000, generator=generator(0, 2, k)).mean().item() for k in range(20)]
    assert abs(np.mean(draws) - 0.5) < 3 / math.sqrt(12 * 20_000)
