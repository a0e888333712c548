"""What lateral synapses see of a layer's input, and how they see a task's data once more."""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.learn.bptt import BPTT
from neuro.learn.continual import LossFor
from neuro.learn.rule import Rule, Watch
from neuro.learn.watch import watched
from neuro.nn.network import SpikingNetwork

Seen = str | float  # "spikes" of each step, "rates", or the leak of traces


def over_time(what: Seen, x: Tensor, batch: int) -> Tensor:
    """x [steps x batch, ...], step after step, as lateral synapses see it: as it is; the mean over all steps, [batch,
    ...]; or traces a[t] = what a[t-1] + x[t], as many rows as x has."""
    if what == "spikes":
        return x
    real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    steps: Tensor = real.reshape(-1, batch, *x.shape[1:])
    if not isinstance(what, float):
        return steps.mean(0)
    trace = torch.empty_like(steps)
    held = torch.zeros_like(steps[0])
    for t, now in enumerate(steps):
        held = trace[t] = held * what + now
    return trace.flatten(0, 1)


def is_seen(what: object) -> bool:
    """Whether `over_time` knows it."""
    return what in ("spikes", "rates") or (isinstance(what, float) and 0 < what < 1)


def show(
    rule: Rule, model: SpikingNetwork, x: Tensor, labels: Tensor, loss: LossFor, task: int, watch: Watch,
    rng: torch.Generator,
) -> None:  # fmt: skip
    """A batch, of which nothing but the watch learns: what the rule's weight gradients are products with."""
    if rule == BPTT():  # what layers receive, for which nothing needs to go backwards
        with torch.no_grad(), watched(model, watch):
            model(x)
    else:
        rule.backward(model, x, loss(labels, task), rng=rng, watch=watch)
        model.zero_grad()
