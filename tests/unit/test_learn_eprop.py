"""e-prop is autograd with each neuron's own past and nothing of what its spikes do to others."""

from __future__ import annotations

import pytest
import torch
from axon_local_rules import BATCH, CLASSES, STEPS, by_rule, eprop, loss_of, ready, same, sample, vector_net
from torch import nn

from neuro.errors import BadConfig, NetworkError
from neuro.learn import rule
from neuro.learn.bptt import BPTT
from neuro.learn.eprop import EProp, plan
from neuro.nn.adaptive import ALIF, AdLIF
from neuro.nn.layers import LI, LIF, CubaLI, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork

ONE = {
    "LIF": lambda: LIF(0.8, 0.7),
    "LIF, soft, detached": lambda: LIF(0.8, 0.7, reset="subtract", detach=True),
    "CubaLIF": lambda: CubaLIF(0.6, 0.8, 0.7, gain_syn=0.8, gain=0.9, v_reset=-0.1),
    "recurrent LIF": lambda: Recurrent(LIF(0.8, 0.7, reset="subtract"), 8),
    "recurrent CubaLIF": lambda: Recurrent(CubaLIF(0.6, 0.8, 0.7), 8),
    "ALIF": lambda: ALIF(0.8, 0.9, 0.3, 0.6),
    "recurrent ALIF": lambda: Recurrent(ALIF(0.8, 0.9, 0.3, 0.6, detach=True), 8),
    "AdLIF": lambda: AdLIF(0.8, 0.9, 0.05, 0.2, 0.6),
    "recurrent AdLIF, late": lambda: Recurrent(AdLIF(0.8, 0.9, 0.1, 0.2, 0.6, adaptation="euler"), 8),
}


@pytest.mark.parametrize("stretch", [1, 4, STEPS])
@pytest.mark.parametrize("name", ONE)
def test_by_its_definition(name, stretch):
    """The past counts from the first step on, however short the stretches are."""
    model = ready(vector_net(ONE[name](), out=LI(0.85)))
    x, labels = sample(model)
    found, grads = by_rule(model, EProp(stretch=stretch), x, loss_of(labels))
    assert all(found.fired.values())
    same(grads, eprop(model, x, loss_of(labels), stretch, None))


@pytest.mark.parametrize("name", ["LIF", "ALIF", "AdLIF"])
def test_without_recurrence_it_is_bptt(name):
    model = ready(vector_net(ONE[name](), out=LI(0.85)))
    x, labels = sample(model)
    _, ours = by_rule(model, EProp(stretch=STEPS), x, loss_of(labels))
    _, bptt = by_rule(model, BPTT(), x, loss_of(labels))
    same(ours, bptt)


@pytest.mark.parametrize("feedback", ["random", "adaptive"])
@pytest.mark.parametrize("out", [None, 0.85])
def test_feedback_of_several_layers(feedback, out):
    model = ready(
        vector_net(Recurrent(LIF(0.8, 0.7), 8), ALIF(0.8, 0.9, 0.3, 0.5), out=None if out is None else LI(out))
    )
    x, labels = sample(model)
    which = EProp(feedback=feedback, stretch=4, scale=2.0, seed=3)
    _, grads = by_rule(model, which, x, loss_of(labels))
    random = {n: EProp(feedback="random", scale=2.0, seed=3)._feedback(*_of(model, n)) for n in ("n0", "n1")}
    told = random
    if feedback == "adaptive":
        told = {"n0": random["n0"], "n1": random["n1"] + model.layer("w").weight.detach()}
    same(grads, eprop(model, x, loss_of(labels), 4, told))
    # it moves with the output's weights, as weights would that get the same updates
    before = EProp(feedback=feedback, scale=2.0, seed=3)._feedback(*_of(model, "n1"))
    with torch.no_grad():
        model.layer("w").weight.add_(1.0)
    after = EProp(feedback=feedback, scale=2.0, seed=3)._feedback(*_of(model, "n1"))
    assert float((after - before).mean()) == pytest.approx(1.0 if feedback == "adaptive" else 0.0)


def _of(model, name):
    out, hidden = plan(model, "random")
    return out, next(h for h in hidden if h.name == name), torch.zeros((), dtype=torch.float64)


def test_spikes_are_those_of_bptt():
    for name, make in ONE.items():
        model = ready(vector_net(make(), out=LI(0.85))).float()
        x, labels = sample(model)
        ours, _ = by_rule(model, EProp(stretch=4), x, loss_of(labels))
        bptt, _ = by_rule(model, BPTT(truncate=4), x, loss_of(labels))
        assert ours.fired == bptt.fired, name
        torch.testing.assert_close(ours.scores, bptt.scores)


def test_watch_sees_inputs_behind_the_synapse_and_the_readout_its_traces():
    model = ready(vector_net(CubaLIF(0.6, 0.8, 0.7), out=LI(0.85)))
    x, labels = sample(model)
    seen = {}
    EProp(stretch=4).backward(model, x, loss_of(labels), watch=lambda n, r: seen.setdefault(n, []).append(r))
    i, wanted = 0.0, []
    for now in x.double():
        i = 0.6 * i + now
        wanted.append(i)
    torch.testing.assert_close(torch.cat(seen["w0"]).unflatten(0, (-1, BATCH)), torch.stack(wanted))
    assert torch.cat(seen["w"]).shape == (STEPS * BATCH, 8)


def test_what_it_is_not_defined_on_is_named():
    deep = vector_net(LIF(), LIF(), out=LI(0.9))
    x, labels = sample(deep)
    with pytest.raises(NetworkError, match="'n0': does not reach the readout"):
        EProp().backward(deep, x, loss_of(labels))
    learnt = vector_net(LIF(learn=("beta",)), out=LI(0.9))
    with pytest.raises(NetworkError, match="'n0': does not spike, learns a coefficient"):
        EProp().backward(learnt, x, loss_of(labels))
    slow = vector_net(LIF(), out=CubaLI(0.5, 0.9))
    with pytest.raises(NetworkError, match="'out': is read: it must be a leaky integrator"):
        EProp().backward(slow, x, loss_of(labels))
    conv = {"c": nn.Conv2d(1, 1, 3), "n": LIF(), "f": nn.Flatten(), "w": nn.Linear(1, CLASSES)}
    images = SpikingNetwork(conv, input_shape=(1, 3, 3), dt=1e-3, readout="sum")
    with pytest.raises(NetworkError, match="'c': is a Conv2d"):
        EProp().backward(images, *_given(images))
    with pytest.raises(BadConfig, match="feedback must be one of"):
        rule("eprop", feedback="none")


def _given(model):
    x, labels = sample(model)
    return x, loss_of(labels)
