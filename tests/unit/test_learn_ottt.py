"""OTTT and DECOLLE are autograd on graphs whose weights see traces; OTTT-O is a walk of plain gradient steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from axon_local_rules import BATCH, CLASSES, NETS, STEPS, by_rule, loss_of, ready, same, sample, traced, vector_net
from torch import nn

from neuro.errors import BadConfig, NetworkError
from neuro.learn import rule
from neuro.learn.bptt import BPTT
from neuro.learn.decolle import DECOLLE
from neuro.learn.ottt import OTTT
from neuro.learn.sltt import SLTT
from neuro.nn.layers import LI, LIF, Recurrent
from neuro.nn.network import SpikingNetwork

TRACED = [
    "LIF hard",
    "CubaLIF",
    "IF",
    "recurrent",
    "adaptive",
    "adaptive, recurrent",
    "conv",
    "conv, soft",
    "spiking end",
    "reset to another value, gains",
]


@pytest.mark.parametrize("stretch", [1, 4, STEPS])
@pytest.mark.parametrize("name", TRACED)
def test_ottt_by_its_definition(name, stretch):
    model = ready(NETS[name]())
    x, labels = sample(model)
    found, grads = by_rule(model, OTTT(stretch=stretch), x, loss_of(labels))
    assert all(found.fired.values())
    same(grads, traced(model, x, loss_of(labels), stretch))


def test_of_one_layer_with_a_detached_reset_it_is_bptt():
    """A trace is all that one layer's past is, where the reset gives no gradient."""
    layers = {"w": nn.Linear(9, CLASSES), "n": LIF(0.8, 0.7, reset="subtract", detach=True)}
    model = ready(SpikingNetwork(layers, input_shape=(9,), dt=1e-3, readout="count"))
    x, labels = sample(model)
    _, ours = by_rule(model, OTTT(stretch=STEPS), x, loss_of(labels))
    _, bptt = by_rule(model, BPTT(), x, loss_of(labels))
    same(ours, bptt)
    _, without = by_rule(model, SLTT(stretch=STEPS), x, loss_of(labels))
    assert (without["layers.w.weight"] - bptt["layers.w.weight"]).abs().max() > 1e-3


def test_spikes_are_those_of_bptt():
    for name in TRACED:
        model = ready(NETS[name]()).float()
        x, labels = sample(model)
        bptt, _ = by_rule(model, BPTT(truncate=4), x, loss_of(labels))
        for which in (OTTT(stretch=4), DECOLLE(stretch=4)):
            ours, _ = by_rule(model, which, x, loss_of(labels))
            assert ours.fired == bptt.fired, name


def test_ottt_online_is_a_step_of_sgd_after_every_stretch():
    rate = 0.5
    model = ready(NETS["LIF hard"]())
    x, labels = sample(model)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    _, grads = by_rule(model, OTTT(stretch=4, online=rate), x, loss_of(labels))
    for n, p in model.named_parameters():
        assert torch.equal(p, start[n])
    _, whole = by_rule(model, OTTT(stretch=4), x, loss_of(labels))
    assert (grads["layers.w.weight"] - whole["layers.w.weight"]).abs().max() > 1e-8
    # one stretch: nothing walks before the end
    _, one = by_rule(model, OTTT(stretch=STEPS, online=rate), x, loss_of(labels))
    _, wanted = by_rule(model, OTTT(stretch=STEPS), x, loss_of(labels))
    same(one, wanted, 1e-8)
    # small rates walk hardly at all
    _, slow = by_rule(model, OTTT(stretch=4, online=1e-9), x, loss_of(labels))
    for n, g in whole.items():
        torch.testing.assert_close(slow[n], g, rtol=1e-4, atol=1e-5)


def test_ottt_online_sees_the_weights_of_the_step_before():
    """One linear readout: the second stretch's loss is that of weights moved by the first's gradient."""
    rate = 0.1
    model = ready(SpikingNetwork({"w": nn.Linear(9, CLASSES, bias=False), "out": LI(0.0)}, input_shape=(9,), dt=1e-3,
                                 readout="sum"))  # fmt: skip
    x, labels = sample(model, steps=2)
    found, grads = by_rule(model, OTTT(stretch=1, online=rate), x, loss_of(labels, penalty=0))
    w = model.layer("w").weight.detach().clone().requires_grad_()
    first = nn.functional.cross_entropy(x[0].double() @ w.t(), labels) / 2
    (g_0,) = torch.autograd.grad(first, w)
    moved = (w.detach() - rate * g_0).requires_grad_()
    second = nn.functional.cross_entropy(x[1].double() @ moved.t(), labels) / 2
    (g_1,) = torch.autograd.grad(second, moved)
    torch.testing.assert_close(grads["layers.w.weight"], g_0 + g_1)
    assert found.loss == pytest.approx(float((first + second).detach()))


@pytest.mark.parametrize("which", [OTTT(stretch=4), DECOLLE(stretch=4)])
@pytest.mark.parametrize("name", ["CubaLIF", "recurrent", "conv, soft"])
def test_watch_sees_the_traces(which, name):
    model = ready(NETS[name]())
    x, labels = sample(model)
    seen = {}
    which.backward(model, x, loss_of(labels), watch=lambda n, rows: seen.setdefault(n, []).append(rows))
    heads = [n for n in model.names if isinstance(model.layer(n), (nn.Linear, nn.Conv2d))]
    back = [f"{n}.recurrent" for n in model.names if isinstance(model.layer(n), Recurrent)]
    assert sorted(seen) == sorted([*heads, *back])
    neuron = model.layer("n0").neuron if back else model.layer("n0")
    j = a = 0.0
    wanted = []
    for now in x.double():
        j = float(neuron.value("alpha").detach()) * j + now
        a = float(neuron.value("beta").detach()) * a + j
        wanted.append(a)
    torch.testing.assert_close(torch.cat(seen[heads[0]]).unflatten(0, (-1, BATCH)), torch.stack(wanted))


@pytest.mark.parametrize("stretch", [1, 4, STEPS])
@pytest.mark.parametrize("name", TRACED)
def test_decolle_by_its_definition(name, stretch):
    model = ready(NETS[name]())
    which = DECOLLE(stretch=stretch, scale=3.0, seed=2)
    x, labels = sample(model)
    _, grads = by_rule(model, which, x, loss_of(labels))
    same(grads, traced(model, x, loss_of(labels), stretch, alone=True, readout=which.readout))


def test_decolle_readouts_follow_from_the_seed():
    trace = torch.zeros(2, 3, CLASSES)
    a = DECOLLE().readout("n0", 50, trace)
    assert torch.equal(a, DECOLLE().readout("n0", 50, trace))
    assert not torch.equal(a, DECOLLE(seed=1).readout("n0", 50, trace))
    assert not torch.equal(a, DECOLLE().readout("n1", 50, trace))
    assert float(a.std()) == pytest.approx(50**-0.5, rel=0.2)


def test_what_they_are_not_defined_on_is_named():
    delays = ready(NETS["delays"]())
    x, labels = sample(delays)
    for which in (OTTT(), DECOLLE()):
        with pytest.raises(NetworkError, match=r"'w0'.*DelayLinear"):
            which.backward(delays, x, loss_of(labels))
    normed = {"c": nn.Conv2d(2, 3, 3), "norm": nn.BatchNorm2d(3), "n": LIF(), "f": nn.Flatten(), "w": nn.Linear(108, 4)}
    model = SpikingNetwork(normed, input_shape=(2, 8, 8), dt=1e-3, readout="sum")
    with pytest.raises(NetworkError, match="'norm': a norm"):
        OTTT().backward(model, *_given(model))
    with pytest.raises(NetworkError, match="'w': weights without neurons"):
        DECOLLE().backward(vector_net(LIF()), *_given(vector_net(LIF())))
    each = vector_net(LIF(np.linspace(0.2, 0.9, 8)), out=LI(0.9))
    with pytest.raises(NetworkError, match="one beta for all neurons"):
        OTTT().backward(each, *_given(each))
    hooked = vector_net(LIF(), out=LI(0.9))
    hooked.layer("w0").register_forward_hook(lambda *_: None)  # runs by itself: no trace would be seen
    with pytest.raises(NetworkError, match="run together"):
        OTTT().backward(hooked, *_given(hooked))
    with pytest.raises(BadConfig, match="online"):
        rule("ottt", online=-1.0)


def _given(model):
    x, labels = sample(model)
    return x, loss_of(labels)
