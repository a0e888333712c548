"""SLTT is autograd with the edges between steps detached; SLTT-K is right in the mean; spikes are those of BPTT."""

from __future__ import annotations

import itertools

import pytest
import torch
from axon_local_rules import BATCH, CLASSES, NETS, STEPS, by_rule, loss_of, ready, same, sample, sltt, vector_net
from torch import nn

from neuro.errors import BadConfig, NetworkError
from neuro.learn import rule
from neuro.learn.bptt import BPTT
from neuro.learn.sltt import SLTT
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.layers import LI, LIF, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import Dropout


@pytest.mark.parametrize("stretch", [1, 4, STEPS])
@pytest.mark.parametrize("name", NETS)
def test_the_gradient_is_that_of_the_graph_without_edges_through_time(name, stretch):
    model = ready(NETS[name]())
    x, labels = sample(model)
    judged = loss_of(labels, model.readout)
    found, grads = by_rule(model, SLTT(stretch=stretch), x, judged)
    spikes, wanted = sltt(model, x, judged, stretch)
    assert found.fired == {n: float(torch.stack(s).detach().sum()) for n, s in spikes.items()}
    assert all(found.fired.values()), "a layer without spikes proves nothing"
    same(grads, wanted)


@pytest.mark.parametrize("name", ["LIF hard", "CubaLIF", "recurrent", "adaptive", "conv, soft"])
def test_spikes_and_loss_are_those_of_bptt_in_the_same_pieces(name):
    model = ready(NETS[name]()).float()
    x, labels = sample(model)
    ours, _ = by_rule(model, SLTT(stretch=4), x, loss_of(labels))
    bptt, _ = by_rule(model, BPTT(truncate=4), x, loss_of(labels))
    assert ours.fired == bptt.fired
    assert ours.loss == pytest.approx(bptt.loss, rel=1e-5)
    torch.testing.assert_close(ours.scores, bptt.scores)


@pytest.mark.parametrize("neuron", [lambda: LIF(0.0, 0.7), lambda: CubaLIF(0.0, 0.0, 0.7, reset="subtract")])
def test_without_leak_and_reset_into_the_next_step_it_is_bptt(neuron):
    """beta 0 leaves nothing of a step in the next."""
    model = ready(vector_net(neuron(), neuron(), out=LI(0.0)))
    x, labels = sample(model)
    _, ours = by_rule(model, SLTT(stretch=STEPS), x, loss_of(labels))
    _, bptt = by_rule(model, BPTT(), x, loss_of(labels))
    same(ours, bptt)
    leaky = ready(vector_net(LIF(0.8, 0.7), LIF(0.8, 0.7), out=LI(0.0)))
    _, ours = by_rule(leaky, SLTT(stretch=STEPS), x, loss_of(labels))
    _, bptt = by_rule(leaky, BPTT(), x, loss_of(labels))
    assert (ours["layers.w0.weight"] - bptt["layers.w0.weight"]).abs().max() > 1e-3


class Drawn:
    """Stands in for torch.randperm: one order of stretches."""

    def __init__(self, first):
        self.first = first

    def __call__(self, n, generator):
        rest = [k for k in range(n) if k not in self.first]
        return torch.tensor([*self.first, *rest])


@pytest.mark.parametrize(("stretch", "k"), [(1, 2), (2, 4)])
def test_sltt_k_is_unbiased(stretch, k, monkeypatch):
    """The mean over all draws of K steps of T, times T / K, is SLTT's gradient."""
    steps = 6
    model = ready(NETS["recurrent"]())
    x, labels = sample(model, steps=steps)
    judged = loss_of(labels)
    _, whole = by_rule(model, SLTT(stretch=stretch), x, judged)
    draws = list(itertools.combinations(range(steps // stretch), k // stretch))
    total = {name: torch.zeros_like(g) for name, g in whole.items()}
    for drawn in draws:
        monkeypatch.setattr(torch, "randperm", Drawn(drawn))
        found, grads = by_rule(model, SLTT(stretch=stretch, steps=k), x, judged, rng=torch.Generator())
        _, wanted = sltt(model, x, judged, stretch, learns=drawn.__contains__)
        same(grads, wanted)
        for name, g in grads.items():
            total[name] += g
    same({name: g / len(draws) * steps / k for name, g in total.items()}, whole)
    assert found.fired == by_rule(model, SLTT(stretch=stretch), x, judged)[0].fired


def test_sltt_k_draws_as_its_generator_says():
    model = ready(NETS["LIF hard"]())
    x, labels = sample(model)
    grads = [by_rule(model, SLTT(stretch=1, steps=3), x, loss_of(labels), rng=torch.Generator().manual_seed(s))[1]
             for s in (5, 5, 6)]  # fmt: skip
    assert torch.equal(grads[0]["layers.w0.weight"], grads[1]["layers.w0.weight"])
    assert not torch.equal(grads[0]["layers.w0.weight"], grads[2]["layers.w0.weight"])
    with pytest.raises(NetworkError, match="rng"):
        SLTT(steps=10).backward(model, x, loss_of(labels))


@pytest.mark.parametrize("name", ["LIF hard", "conv", "delays", "recurrent"])
@pytest.mark.parametrize("k", [0, 4])
def test_watch_sees_what_weight_gradients_are_products_with(name, k):
    model = ready(NETS[name]())
    x, labels = sample(model, steps=8)
    seen = {}
    SLTT(stretch=2, steps=k).backward(
        model, x, loss_of(labels), rng=torch.Generator().manual_seed(3),
        watch=lambda layer, rows: seen.setdefault(layer, []).append(torch.as_tensor(rows.clone())),
    )  # fmt: skip
    heads = [n for n in model.names if isinstance(model.layer(n), (nn.Linear, nn.Conv2d, DelayLinear))]
    back = [f"{n}.recurrent" for n in model.names if isinstance(model.layer(n), Recurrent)]
    assert sorted(seen) == sorted(heads + back)
    if back and not k:
        record = {}
        model(x, record)
        sent = record["n0"].clone()
        assert torch.equal(torch.cat(seen["n0.recurrent"]), torch.cat([0 * sent[:1], sent[:-1]]).flatten(0, 1))
    rows = torch.cat(seen[heads[0]]).unflatten(0, (-1, BATCH))
    assert len(rows) == (k or 8)
    if not k:
        assert torch.equal(rows, x.double())
    assert not any(model.layer(n)._forward_pre_hooks for n in heads)


def test_dropout_holds_still_over_stretches():
    layers = {"w0": nn.Linear(9, 8), "n0": LIF(0.8, 0.6), "d": Dropout(0.4), "w": nn.Linear(8, CLASSES)}
    model = ready(SpikingNetwork(layers, input_shape=(9,), dt=1e-3, readout="sum"))
    x, _ = sample(model)
    grads = []
    for stretch in (STEPS, 3):
        model.layer("d").generator = torch.Generator().manual_seed(9)
        linear = lambda trace, spikes: (trace[..., 0].mean(), torch.zeros(()))  # noqa: E731
        grads.append(by_rule(model, SLTT(stretch=stretch), x, linear)[1])
    same(grads[0], grads[1])


def test_norms_take_the_statistics_of_a_stretch():
    layers = {"c": nn.Conv2d(2, 3, 3), "norm": nn.BatchNorm2d(3), "n": LIF(0.8, 0.6), "flat": nn.Flatten(),
              "w": nn.Linear(108, CLASSES)}  # fmt: skip
    model = ready(SpikingNetwork(layers, input_shape=(2, 8, 8), dt=1e-3, readout="sum"))
    with torch.no_grad():
        model.layer("norm").weight.fill_(1.0)
        model.layer("norm").bias.fill_(0.2)
    x, labels = sample(model)
    for stretch in (1, 4):
        model.layer("norm").reset_running_stats()
        ours, grads = by_rule(model, SLTT(stretch=stretch), x, loss_of(labels))
        mean = model.layer("norm").running_mean.clone()
        model.layer("norm").reset_running_stats()
        bptt, _ = by_rule(model, BPTT(truncate=stretch), x, loss_of(labels))
        assert ours.fired == bptt.fired
        torch.testing.assert_close(mean, model.layer("norm").running_mean)
        if stretch == 1:
            model.layer("norm").reset_running_stats()
            _, wanted = sltt(model, x, loss_of(labels), 1)
            same(grads, wanted)


def test_what_it_is_not_defined_on_is_named():
    layers = {"a": nn.Linear(9, 8), "n": LIF(), "b": nn.Linear(8, 8), "m": LIF(), "w": nn.Linear(8, CLASSES)}
    edges = [("input", "a"), ("a", "n"), ("n", "b"), ("b", "m"), ("m", "b"), ("m", "w"), ("w", "output")]
    model = SpikingNetwork(layers, edges, input_shape=(9,), dt=1e-3, readout="sum")
    x, labels = sample(model)
    with pytest.raises(NetworkError, match="loop over layers"):
        SLTT().backward(model, x, loss_of(labels))
    with pytest.raises(BadConfig, match="stretch is 0"):
        rule("sltt", stretch=0)
    with pytest.raises(BadConfig, match="multiple of stretch"):
        rule("sltt", stretch=4, steps=6)
