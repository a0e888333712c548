"""DSR is autograd through clamps at the weighted rates that the spikes had."""

from __future__ import annotations

import pytest
import torch
from axon_local_rules import BATCH, CLASSES, STEPS, by_rule, loss_of, ready, same, sample, vector_net
from torch import nn

from neuro.errors import NetworkError
from neuro.learn.bptt import BPTT
from neuro.learn.dsr import DSR
from neuro.nn.layers import IF, LI, LIF, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import Dropout, SumPool2d


def weighted(s, leak):
    """The mean over time with weights leak^(T - 1 - t)."""
    k = torch.tensor([leak ** (len(s) - 1 - t) for t in range(len(s))], dtype=torch.float64)
    return torch.tensordot(k, s.double(), 1) / k.sum()


def spikes_of(model, x):
    record = {}
    with torch.no_grad():
        trace = model(x, record)
    return {n: s.clone() for n, s in record.items()}, trace.clone()


def two(*neurons, out=None):
    return ready(vector_net(*neurons, out=out))


@pytest.mark.parametrize("stretch", [1, 4, STEPS])
def test_by_its_definition(stretch):
    """Two hidden layers of different leaks, and a leaky integrator: the chain rule by hand."""
    model = two(LIF(0.8, 0.9, reset="subtract"), IF(0.8, reset="subtract"), out=LI(0.6))
    x, labels = sample(model)
    found, grads = by_rule(model, DSR(stretch=stretch), x, loss_of(labels))
    fired, trace = spikes_of(model, x)
    assert found.fired == {n: float(s.sum()) for n, s in fired.items()}
    torch.testing.assert_close(found.scores, trace.sum(0))
    model.zero_grad()
    layer = model.layer
    # rates as measured; straight lines through the clamps
    r_1 = (layer("w0")(weighted(x, 0.8)) / 0.9).clamp(0, 1)
    r_1 = weighted(fired["n0"], 1.0) + r_1 - r_1.detach()
    r_2 = (layer("w1")(r_1) / 0.8).clamp(0, 1)
    r_2 = weighted(fired["n1"], 0.6) + r_2 - r_2.detach()
    mean = layer("w")(r_2)
    v, modelled = torch.zeros_like(mean), []
    for _ in range(STEPS):
        v = 0.6 * v + mean
        modelled.append(v)
    modelled = torch.stack(modelled)
    counts = {}
    for n, r in (("n0", r_1), ("n1", r_2)):
        plain = fired[n].double().mean(0) + r - r.detach()
        counts[n] = plain.expand(STEPS, *plain.shape)
    loss, penalty = loss_of(labels)(trace + modelled - modelled.detach(), counts)
    (loss + penalty).backward()
    assert found.loss == pytest.approx(float(loss.detach()))
    same(grads, {n: p.grad for n, p in model.named_parameters()})
    inside = (layer("w1")(r_1) / 0.8).detach()
    assert ((inside > 0) & (inside < 1)).any()
    assert ((inside < 0) | (inside > 1)).any(), "a clamp that is never reached proves nothing"


def test_convolution_pool_and_dropout():
    layers = {"c": nn.Conv2d(2, 3, 3), "n": LIF(0.8, 0.9, reset="subtract"), "d": Dropout(0.4), "p": SumPool2d(2),
              "f": nn.Flatten(), "w": nn.Linear(27, CLASSES)}  # fmt: skip
    model = ready(SpikingNetwork(layers, input_shape=(2, 8, 8), dt=1e-3, readout="sum"))
    x, labels = sample(model)
    model.layer("d").generator = torch.Generator().manual_seed(4)
    found, grads = by_rule(model, DSR(stretch=3), x, loss_of(labels, penalty=0))
    model.layer("d").generator = torch.Generator().manual_seed(4)
    fired, trace = spikes_of(model, x)
    keep = torch.rand((1, BATCH, 3, 6, 6), generator=torch.Generator().manual_seed(4), dtype=torch.float64) >= 0.4
    model.zero_grad()
    r = (model.layer("c")(weighted(x, 0.8)) / 0.9).clamp(0, 1)
    r = weighted(fired["n"], 1.0) + r - r.detach()
    y = model.layer("w")(model.layer("p")(r * keep[0] / 0.6).flatten(1))
    y = y.expand(STEPS, *y.shape)
    loss, _ = loss_of(labels, penalty=0)(trace + y - y.detach(), {})
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()))
    same(grads, {n: p.grad for n, p in model.named_parameters()})


def test_rates_are_clamps_up_to_what_the_membrane_still_holds():
    """What DSR takes for true: |r - clamp(mean input)| is at most the share of one threshold that is left over."""
    steps, theta = 400, 0.9
    model = ready(SpikingNetwork({"w": nn.Linear(9, 6), "n": IF(theta, reset="subtract")}, input_shape=(9,), dt=1e-3))
    x, _ = sample(model, steps=steps)
    fired, _ = spikes_of(model, x)
    wanted = (model.layer("w")(weighted(x, 1.0)) / theta).clamp(0, 1).detach()
    assert (fired["n"].double().mean(0) - wanted).abs().max() < 0.1


def test_watch_sees_rates_and_spikes_are_those_of_bptt():
    model = two(LIF(0.8, 0.9, reset="subtract"), out=LI(0.6))
    x, labels = sample(model)
    seen = {}
    ours = DSR(stretch=4).backward(model, x, loss_of(labels), watch=lambda n, r: seen.setdefault(n, []).append(r))
    assert ours.fired == by_rule(model, BPTT(), x, loss_of(labels))[0].fired
    assert [len(v) for v in seen.values()] == [1, 1]
    torch.testing.assert_close(seen["w0"][0], weighted(x, 0.8))


def test_a_step_of_it_lowers_the_loss():
    model = two(LIF(0.8, 0.9, reset="subtract"), out=LI(0.6))
    x, labels = sample(model, share=0.5, steps=30)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        losses.append(DSR().backward(model, x, loss_of(labels, penalty=0)).loss)
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        (lambda: LIF(0.8), "resets hard"),
        (lambda: CubaLIF(0.5, 0.8, reset="subtract"), "the rate of a CubaLIF"),
        (lambda: Recurrent(LIF(0.8, reset="subtract"), 8), "is recurrent"),
        (lambda: LIF(0.8, reset="subtract", learn=("beta",)), "its leak is learnt"),
    ],
)
def test_what_it_is_not_defined_on_is_named(neuron, said):
    model = vector_net(neuron(), out=LI(0.9))
    x, labels = sample(model)
    with pytest.raises(NetworkError, match=f"'n0': {said}"):
        DSR().backward(model, x, loss_of(labels))
