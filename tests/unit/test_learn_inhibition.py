"""Lateral inhibition: the step that Hebb's synapses settle at is the best trade of new against old."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from axon_tasks import low_rank, network, outcome, rng, tasks
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn import rule
from neuro.learn.continual import GPM, Method
from neuro.learn.hlop import HLOP
from neuro.learn.inhibition import Inhibition
from neuro.nn import LI, LIF, DelayLinear, SpikingNetwork
from neuro.train.continual import learn_tasks


def loss_for(labels: Tensor, task: int) -> Any:
    return lambda trace, spikes: ((trace.sum(0) - 1).square().mean(), torch.zeros((), dtype=trace.dtype))


def one_layer(width: int) -> SpikingNetwork:
    torch.manual_seed(0)
    layers = {"a": nn.Linear(width, 5, bias=False), "o": LI(0.5)}
    return SpikingNetwork(layers, input_shape=(width,), dt=1e-3, readout="sum").double()


def taught(softness: float, *inputs: Tensor) -> tuple[Inhibition, SpikingNetwork]:
    method, net = Inhibition(softness=softness), one_layer(inputs[0].shape[1])
    for task, x in enumerate(inputs):
        batches = [(x.expand(3, *x.shape), torch.zeros(len(x), dtype=torch.int64))]
        method.begin(task, net, batches, rng())
        method.end(task, net, batches, loss_for, rng())
    return method, net


def step(method: Inhibition, net: SpikingNetwork, task: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient as it is, what the method makes of it)."""
    found = []
    for by in (Method(), method):
        net.zero_grad()
        by.backward(task, net, x.expand(3, *x.shape), torch.zeros(len(x), dtype=torch.int64), loss_for, rng())
        grad = net.layer("a").weight.grad
        assert isinstance(grad, Tensor)
        found.append(grad.clone())
    return found[0], found[1]


def test_the_step_weighs_what_is_new_against_old_answers() -> None:
    """The minimum of the objective in the module's text, of which torch finds that the gradient is nothing there."""
    softness = 1e-2
    old = (low_rank(30, 6, 200, 0), low_rank(30, 5, 200, 3))
    method, net = taught(softness, *old)
    gradient, found = step(method, net, 2, low_rank(30, 8, 64, 9))
    change = found.clone().requires_grad_()
    objective = (change - gradient).square().sum()
    for x in old:
        objective = objective + (x @ change.T).square().sum(1).mean() / (softness * x.square().sum(1).mean())
    (slope,) = torch.autograd.grad(objective, change)
    assert float(slope.norm()) < 1e-10 * float(gradient.norm())
    moved, freely = (float((old[0] @ g.T).norm()) for g in (found, gradient))
    assert moved < 0.3 * freely
    assert float(found.norm()) > 0.1 * float(gradient.norm())


def test_what_settles_under_inhibition_is_that_step() -> None:
    softness = 0.1
    x = low_rank(20, 4, 200)
    method, net = taught(softness, x)
    gradient, found = step(method, net, 1, low_rank(20, 8, 64, 9))
    synapses = (x.T @ x) / x.square().sum()  # by Hebb's rule, written out once more
    torch.testing.assert_close(method.synapses["a"], synapses, rtol=1e-12, atol=1e-14)
    r = torch.zeros_like(gradient)
    for _ in range(2000):
        r = r + 0.05 * (gradient - r - r @ synapses / softness)
    torch.testing.assert_close(found, r, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()))


def test_softness_is_between_everything_and_nothing() -> None:
    x, new = low_rank(30, 6, 200), low_rank(30, 8, 64, 9)
    gradient, found = step(*taught(1e9, x), 1, new)
    torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-12)
    gradient, found = step(*taught(1e-12, x[:, :] * 1.0), 1, new)
    assert float((x @ found.T).norm()) < 1e-4 * float((x @ gradient.T).norm())


def test_nothing_is_forgotten_with_it_and_much_without() -> None:
    """The only difference between the first two is whether gradients are projected; the subspaces stand beside."""
    acc, bwt = outcome(Inhibition(softness=1e-3))
    off_acc, off_bwt = outcome(Inhibition(softness=1e-3, project=False))
    assert acc > 0.95
    assert bwt > -0.02
    assert off_bwt < -0.1
    assert off_acc < acc - 0.1
    for other in (HLOP(rows={"a": 6, "b": 10}), GPM(fixed=True)):
        assert acc > outcome(other)[0] - 0.02


@pytest.mark.parametrize("name", ["ottt", "dsr"])
def test_it_wraps_rules_that_show_traces_or_rates(name: str) -> None:
    options = {"reset": "subtract"} if name == "dsr" else {}
    acc, bwt = outcome(Inhibition(rule(name), softness=1e-3), **options)
    _, off = outcome(Inhibition(rule(name), softness=1e-3, project=False), **options)
    assert acc > 0.9
    assert bwt > -0.03
    assert off < bwt - 0.1


def test_convolutions_learn_from_patches_and_synapses_count_once() -> None:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "c": nn.Conv2d(1, 4, 3, bias=False), "n": LIF(0.5), "f": nn.Flatten(), "b": nn.Linear(64, 2, bias=False),
        "o": LI(0.5),
    }  # fmt: skip
    nn.init.constant_(layers["c"].weight, 0.4)  # type: ignore[arg-type]
    net = SpikingNetwork(layers, input_shape=(1, 6, 6), dt=1e-3, readout="sum")
    method = Inhibition(leave_out=("b",), softness=1e-6)
    x, labels = torch.rand(3, 8, 1, 6, 6, generator=rng()), torch.zeros(8, dtype=torch.int64)
    x[..., 0] = x[..., 1] = 0.0  # so that patches leave some directions free
    x[..., 2:, :] = 0.0
    method.begin(0, net, [(x, labels)], rng())
    method.end(0, net, [(x, labels)], loss_for, rng())
    assert set(method.synapses) == {"c"}
    assert method.memory() == 45 * 4
    new = torch.rand(3, 8, 1, 6, 6, generator=rng(1))
    patches = nn.functional.unfold(x[0], 3).transpose(1, 2).flatten(0, 1)
    moved = []
    for by in (method, Method(fixed=True)):
        net.zero_grad()
        by.backward(1, net, new, labels, loss_for, rng())
        grad = net.layer("c").weight.grad
        assert isinstance(grad, Tensor)
        moved.append(float((patches @ grad.flatten(1).T).norm() / grad.norm()))
    assert moved[0] < 0.01 * moved[1]


def test_what_cannot_inhibit_is_refused_all_at_once() -> None:
    wide = SpikingNetwork({"w": nn.Linear(12_001, 1), "n": LIF(0.5)}, input_shape=(12_001,), dt=1e-3)
    with pytest.raises(NetworkError) as said:
        Inhibition(softness=0.0, sees="ends").begin(0, wide, [], rng())
    assert all(part in str(said.value) for part in ("softness", '"rates"', "w: 12,001 inputs, at most 12,000"))
    late = SpikingNetwork({"d": DelayLinear(5, 4, 3), "n": LIF(0.5)}, input_shape=(5,), dt=1e-3)
    with pytest.raises(NetworkError, match="d: DelayLinear"):
        Inhibition().begin(0, late, [], rng())


@pytest.mark.parametrize("bad", [1.5, -0.1])
def test_a_rate_that_falls_over_more_than_a_task_is_refused(bad: float) -> None:
    with pytest.raises(NetworkError, match="a share of a task's steps"):
        learn_tasks(network(), tasks(1), Method(), anneal=bad)
