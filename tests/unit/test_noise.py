"""Noise in training: it moves what it says by as much as it says, leaves the clean weights alone, and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuro import results
from neuro.errors import BadConfig, NetworkError
from neuro.nn import FewLinear, Recurrent, SpikeDrop
from neuro.nn.bridge import to_network
from neuro.nn.layers import IF, LI, LIF, CubaLIF
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.train.config import Config
from neuro.train.loop import fit
from neuro.train.noise import Noise, NoiseConfig, populations, with_drops

TABLE: dict[str, Any] = {
    "name": "noisy",
    "seed": 3,
    "data": {"dataset": "braille", "limit": 54, "steps": 20, "dt": 0.1},
    "layers": [
        {"type": "linear", "out": 16},
        {"type": "cuba_lif", "alpha": 0.8, "beta": 0.9, "recurrent": True, "learn": ["beta"]},
        {"type": "linear", "out": 27},
        {"type": "li", "beta": 0.9},
    ],
    "optimiser": {"lr": 5e-3, "ema": 0.5},
    "train": {"epochs": 3, "batch_size": 18, "threads": 1},
    "noise": {"weight": 0.1, "weight_absolute": 0.01, "threshold": 0.05, "spike_drop": 0.1, "mismatch": 0.1},
}


def net(learn: tuple[str, ...] = ()) -> SpikingNetwork:
    rng = torch.Generator().manual_seed(0)
    layers = {
        "a": nn.Linear(40, 60, bias=False),
        "b": Recurrent(CubaLIF(0.8, 0.9, learn=learn), 60),
        "c": nn.Linear(60, 5, bias=False),
        "d": LI(0.9),
    }
    model = SpikingNetwork(layers, input_shape=(40,), dt=1e-3, readout="sum")
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0.0, 0.3, generator=rng)
    return model


def noise(quantised: bool = False, epoch: int = 0, **given: Any) -> Noise:
    return Noise(NoiseConfig(**given), 7, epoch, quantised)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_weights_deviate_as_said_and_come_back_to_the_bit() -> None:
    model = net()
    clean = state(model)
    with noise(weight=0.1).disturb(model, 0):
        relative = {k: (v - clean[k]) / clean[k] for k, v in model.state_dict().items() if k.endswith("weight")}
    assert same(clean, state(model))
    with noise(weight_absolute=0.02).disturb(model, 0):
        moved = torch.cat([(v - clean[k]).flatten() for k, v in model.state_dict().items() if k.endswith("weight")])
    g = torch.cat([r.flatten() for r in relative.values()])
    assert len(relative) == 3
    assert abs(float(g.mean())) < 0.005
    assert float(g.std()) == pytest.approx(0.1, rel=0.05)
    assert float(moved.std()) == pytest.approx(0.02, rel=0.05)
    assert same(clean, state(model))


def test_every_batch_epoch_and_seed_draws_anew_and_the_same_again() -> None:
    model = net()

    def seen(which: Noise, batch: int) -> torch.Tensor:
        with which.disturb(model, batch):
            return model.layer("a").weight.detach().clone()

    first = seen(noise(weight=0.1), 0)
    assert torch.equal(first, seen(noise(weight=0.1), 0))
    others = [seen(noise(weight=0.1), 1), seen(noise(weight=0.1, epoch=1), 0)]
    others.append(seen(Noise(NoiseConfig(weight=0.1), 8, 0, False), 0))
    assert not any(torch.equal(first, other) for other in others)
    with_threshold = seen(noise(weight=0.1, threshold=0.2), 0)
    assert torch.equal(first, with_threshold), "one kind of noise does not move another"


def test_the_gradient_is_that_at_the_noisy_point() -> None:
    model, x = net().double(), (torch.rand(15, 4, 40, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    with noise(weight=0.2).disturb(model, 0):
        model(x).square().sum().backward()
        moved = state(model)
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model.load_state_dict(moved)
    model(x).square().sum().backward()
    assert all(torch.equal(found[n], p.grad) for n, p in model.named_parameters())


@pytest.mark.parametrize("learn", [(), ("v_threshold", "beta")])
def test_mismatch_moves_thresholds_and_time_constants_of_each_neuron(learn: tuple[str, ...]) -> None:
    model = net(learn)
    clean, neuron = state(model), model.layer("b").neuron
    shapes = [shape for _, shape in populations(model)]
    assert shapes == [(60,), (5,)]
    x = (torch.rand(15, 4, 40, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    with noise(mismatch=0.1).disturb(model, 0):
        theta, beta = (neuron.value(n).detach().double() for n in ("v_threshold", "beta"))
        assert theta.shape == beta.shape == (60,)
        assert float(theta.log().std()) == pytest.approx(0.1, rel=0.3)
        tau = torch.log(torch.tensor(0.9, dtype=torch.float64)) / beta.log()
        assert float(tau.log().std()) == pytest.approx(0.1, rel=0.3)
        assert model.layer("d").value("beta").shape == (5,)
        model(x).square().sum().backward()
    assert same(clean, state(model))
    if learn:
        for name in ("v_threshold_learnt", "beta_learnt"):
            p = neuron.get_parameter(name)
            assert p.grad is not None
            assert p.grad.shape == p.shape
            assert float(p.grad.abs()) > 0


def test_device_noise_is_behind_the_rounding_of_few_levels() -> None:
    model = SpikingNetwork({"a": FewLinear(40, 60, False), "b": IF()}, input_shape=(40,), dt=1e-3)
    layer = model.layer("a")
    clean, latent = layer.real()[0].detach(), layer.weight.detach().clone()
    with noise(weight=0.1).disturb(model, 0):
        moved = layer.real()[0].detach()
        assert len(moved.unique()) > 100
        assert float(((moved - clean)[clean != 0] / clean[clean != 0]).std()) == pytest.approx(0.1, rel=0.1)
        assert not moved[clean == 0].any()
    assert torch.equal(layer.real()[0], clean)
    assert torch.equal(layer.weight, latent)


def test_spike_drop_loses_the_share_each_spike_for_itself_and_keeps_bits() -> None:
    drop = SpikeDrop(0.3)
    drop.generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(50, 8, 70, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    x = Spikes.pack(dense)
    y = drop(x)
    assert isinstance(y, Spikes)
    left = y.dense()
    assert not ((left == 1) & (dense == 0)).any()
    assert float(left.sum() / dense.sum()) == pytest.approx(0.7, abs=0.01)
    always = (dense.sum(0) > 10) & (left.sum(0) == 0)
    assert not always.any(), "no neuron is silenced for a whole sample"
    drop.generator.manual_seed(0)
    real = dense.clone().requires_grad_()
    again = drop(real)
    assert torch.equal(again, left), "dense and bits lose the same"
    again.sum().backward()
    assert float(real.grad.mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(NetworkError, match="generator"):
        SpikeDrop(0.1).train()(x)


def test_lossy_wires_change_nothing_but_training() -> None:
    model = net()
    made = with_drops(model, NoiseConfig(spike_drop=0.2))
    assert [n for n in made.names if n not in model.names] == ["input_lost", "b_lost"]
    x = (torch.rand(15, 4, 40, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    assert torch.equal(made.eval()(x), model.eval()(x))
    assert list(to_network(made).nodes) == list(to_network(model).nodes)
    Noise.of(NoiseConfig(spike_drop=0.2, start=0.5), made, 0, 0, 4, False)
    assert made.layer("b_lost").p == 0.0
    Noise.of(NoiseConfig(spike_drop=0.2, start=0.5), made, 0, 2, 4, False)
    assert made.layer("b_lost").p == 0.2
    Noise.of(NoiseConfig(spike_drop=0.2, start=0.5), made, 0, 3, 4, True)
    assert made.layer("b_lost").p == 0.0, "noise ends where the chip's integers begin"


class Stopped(Exception):
    pass


def test_a_noisy_run_resumes_to_the_bit_and_differs_from_a_quiet_one(tmp_path: Path) -> None:
    config = Config.from_table(TABLE)

    def stop(row: Any) -> None:
        raise Stopped

    whole = fit(config, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Stopped):
            fit(config, tmp_path / "broken", on_epoch=stop)
    broken = fit(config, tmp_path / "broken")
    for name in (results.WEIGHTS, results.METRICS):
        assert (whole.path / name).read_bytes() == (broken.path / name).read_bytes()
    quiet = fit(config.with_changes(noise=None), tmp_path / "quiet")
    assert quiet.metrics[0]["loss"] != whole.metrics[0]["loss"]
    assert list(quiet.network.nodes) == list(whole.network.nodes)
    weights = [n.weight for n in quiet.network.nodes.values() if hasattr(n, "weight")]
    assert all(np.isfinite(w).all() for w in weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": -0.1}, "must not be negative"),
        ({"spike_drop": 1.0}, r"\[0, 1\)"),
        ({"mismatch": 1.5}, "below 1"),
        ({"integers": True, "threshold": 0.1}, "exact"),
        ({"wait": 0.1}, "unknown"),
    ],
)
def test_noise_that_means_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Config.from_table({**TABLE, "noise": change})


def test_conv_and_lif_thresholds_have_the_shape_of_the_layer() -> None:
    layers = {
        "a": nn.Conv2d(1, 3, 3, bias=False),
        "b": LIF(0.9, 0.2),
        "f": nn.Flatten(),
        "c": nn.Linear(48, 2),
        "d": LI(),
    }
    model = SpikingNetwork(layers, input_shape=(1, 6, 6), dt=1e-3, readout="sum")
    assert [shape for _, shape in populations(model)] == [(3, 4, 4), (2,)]
    x = (torch.rand(9, 2, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with noise(threshold=0.2).disturb(model, 0):
        model(x).sum().backward()
    assert model.layer("a").weight.grad is not None
