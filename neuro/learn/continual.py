"""Ways to learn task after task, each around any learning rule: plain, and those that keep what was learnt.

A `Method` is told when a task begins and ends, and finds gradients in between. What it keeps between tasks it counts.
`neuro.learn.hlop` is ours; `GPM`, `EWC` and `Replay` are what it is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.learn.bptt import BPTT
from neuro.learn.rule import Learnt, LossOf, Rule
from neuro.learn.watch import recurrences, synapses, watched
from neuro.nn.network import SpikingNetwork

Batches = Iterable[tuple[Tensor, Tensor]]
LossFor = Callable[[Tensor, int], LossOf]


@dataclass
class Method:
    """Plain sequential training: each task by the rule, as if there were no other.

    fixed: parameters that are not trained after the first task, biases, norms and thresholds, which no projection of
    weights protects; the others train them on.
    """

    rule: Rule = field(default_factory=BPTT)
    fixed: bool = False

    def begin(self, task: int, model: SpikingNetwork, batches: Batches, rng: torch.Generator) -> None:
        """Before the first step of task number ``task``. batches: its training data, once."""

    def backward(
        self,
        task: int,
        model: SpikingNetwork,
        x: Tensor,
        labels: Tensor,
        loss_for: LossFor,
        rng: torch.Generator,
    ) -> Learnt:
        """Adds the gradients of a batch. loss_for: (labels, task) -> the loss that `Rule.backward` takes."""
        learnt = self.rule.backward(model, x, loss_for(labels, task), rng=rng)
        self.settle(task, model)
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        """After the last step of a task."""

    def memory(self) -> int:
        """Bytes kept from task to task, besides the network."""
        return 0

    def settle(self, task: int, model: SpikingNetwork) -> None:
        """No gradient, and so no step, for what is fixed after the first task."""
        if self.fixed and task:
            for p in model.parameters():
                if p.dim() <= 1:
                    p.grad = None


@dataclass(frozen=True)
class Weights:
    """The weights of a layer as a matrix: [out, inputs of one output]."""

    name: str
    parameter: Tensor
    layer: nn.Module

    @property
    def width(self) -> int:
        return self.parameter[0].numel()

    def rows(self, x: Tensor, most: int, rng: torch.Generator) -> Tensor:
        """What the watch saw, as [samples, width], patches for a convolution; at most ``most`` that are not silent."""
        if isinstance(self.layer, nn.Conv2d):
            places = torch.randint(len(x), (max(1, most // 8),), generator=rng)
            geometry: Any = (self.layer.kernel_size, self.layer.dilation, self.layer.padding, self.layer.stride)
            patches = functional.unfold(x[places].to(self.parameter.dtype), *geometry)
            x = patches.transpose(1, 2).flatten(0, 1)
        x = x.to(self.parameter.dtype).flatten(1)
        x = x[x.count_nonzero(1) > 0]
        return x if len(x) <= most else x[torch.randperm(len(x), generator=rng)[:most]]


def matrices(model: SpikingNetwork, leave_out: Iterable[str] = ()) -> dict[str, Weights]:
    """Layers with weights by the name under which a watch sees their input; those of recurrence too.

    Raises:
        NetworkError: layers whose weight gradient is no product with one input row: delays, groups.
    """
    found: dict[str, Weights] = {}
    bad = []
    for name, layer in {**synapses(model), **recurrences(model)}.items():
        if name in leave_out:
            continue
        if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
            bad.append(f"{name}: a convolution in groups or with padding {layer.padding_mode!r}")
        elif not isinstance(layer, (nn.Linear, nn.Conv2d)):
            bad.append(f"{name}: {type(layer).__name__}, whose targets each see the inputs at other times")
        else:
            found[name] = Weights(name, layer.weight, layer)
    if bad:
        raise NetworkError("no input row to project on; use other layers, or a method without projections", bad)
    return found


@dataclass
class GPM(Method):
    """Gradient projection memory (Saha, Garg & Roy 2021, arXiv:2103.09762), the measure for `HLOP`.

    After each task the inputs of some samples are decomposed by SVD, and directions are kept until they hold a share
    ``threshold`` (rising by ``rise`` with each task) of their energy; later gradients are projected off them.
    """

    threshold: float = 0.95
    rise: float = 0.003
    samples: int = 300
    most: int = 2000  # rows decomposed
    leave_out: tuple[str, ...] = ()
    bases: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def backward(
        self, task: int, model: SpikingNetwork, x: Tensor, labels: Tensor, loss_for: LossFor, rng: torch.Generator
    ) -> Learnt:
        learnt = super().backward(task, model, x, labels, loss_for, rng)
        for name, weights in matrices(model, self.leave_out).items() if self.bases else ():
            grad, basis = weights.parameter.grad, self.bases[name]
            if grad is not None:
                flat = grad.flatten(1)
                grad.copy_((flat - (flat @ basis) @ basis.T).view_as(grad))
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        seen = inputs(model, matrices(model, self.leave_out), batches, self.samples, self.most, rng)
        share = min(1.0, self.threshold + self.rise * task)
        for name, x in seen.items():
            basis = self.bases.get(name, x.new_zeros(x.shape[1], 0))
            whole = float(x.square().sum())
            rest = x - (x @ basis) @ basis.T
            _, values, directions = torch.linalg.svd(rest, full_matrices=False)
            before = 1 - float(rest.square().sum()) / max(whole, 1e-30)
            held = before + values.square().cumsum(0) / max(whole, 1e-30)
            count = 0 if before >= share else int((held < share).sum()) + 1
            count = min(count, x.shape[1] - basis.shape[1])
            if count:
                basis = torch.linalg.qr(torch.cat([basis, directions[:count].T], 1)).Q
            self.bases[name] = basis

    def memory(self) -> int:
        return sum(b.numel() * b.element_size() for b in self.bases.values())


@torch.no_grad()
def inputs(
    model: SpikingNetwork,
    wanted: dict[str, Weights],
    batches: Batches,
    samples: int,
    most: int,
    rng: torch.Generator,
    over_time: Callable[[str, Tensor, int], Tensor] = lambda name, x, batch: x,
) -> dict[str, Tensor]:
    """What layers receive from some samples, [rows, width] each. over_time: (name, rows in order of steps, samples
    in a step) -> rows, where something else than every step is looked at."""
    seen: dict[str, list[Tensor]] = {n: [] for n in wanted}
    done = batch = 0

    def see(name: str, x: Tensor) -> None:
        if name in seen:
            seen[name].append(wanted[name].rows(over_time(name, x, batch), most, rng))

    with watched(model, see):
        for x, _ in batches:
            batch = min(x.shape[1], samples - done)
            model(x[:, :batch])
            done += batch
            if done >= samples:
                break
    joined = {n: torch.cat(parts) for n, parts in seen.items()}
    return {n: x if len(x) <= most else x[torch.randperm(len(x), generator=rng)[:most]] for n, x in joined.items()}


@dataclass
class EWC(Method):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, PNAS 114:3521): adds strength F (w - w*) to the gradient,
    F the mean square of the gradient of the loss at w*, over batches of at most ``group`` samples, summed over tasks.
    """

    strength: float = 100.0
    samples: int = 500
    group: int = 10
    importance: list[Tensor] = field(default_factory=list, repr=False)
    centre: list[Tensor] = field(default_factory=list, repr=False)

    def backward(
        self, task: int, model: SpikingNetwork, x: Tensor, labels: Tensor, loss_for: LossFor, rng: torch.Generator
    ) -> Learnt:
        learnt = super().backward(task, model, x, labels, loss_for, rng)
        for p, f, w in zip(model.parameters(), self.importance, self.centre, strict=False):
            if p.grad is not None:
                p.grad += self.strength * f * (p.detach() - w)
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        parameters = list(model.parameters())
        found = [torch.zeros_like(p) for p in parameters]
        done = 0
        for x, labels in batches:
            for k in range(0, min(len(labels), self.samples - done), self.group):
                answers = labels[k : k + self.group]
                model.zero_grad()
                self.rule.backward(model, x[:, k : k + self.group], loss_for(answers, task), rng=rng)
                for sums, p in zip(found, parameters, strict=True):
                    if p.grad is not None:
                        sums += p.grad.square() * len(answers)  # noqa: PLW2901  # in place
            done += min(len(labels), self.samples - done)
            if done >= self.samples:
                break
        model.zero_grad()
        scaled = [f / max(done, 1) for f in found]
        self.importance = [a + b for a, b in zip(self.importance, scaled, strict=True)] if self.importance else scaled
        self.centre = [p.detach().clone() for p in parameters]

    def memory(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.importance, *self.centre))


@dataclass
class Replay(Method):
    """Keeps samples of each task, and adds a batch of them, with their own labels, to every step."""

    samples: int = 200  # of a task
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    def backward(
        self, task: int, model: SpikingNetwork, x: Tensor, labels: Tensor, loss_for: LossFor, rng: torch.Generator
    ) -> Learnt:
        learnt = super().backward(task, model, x, labels, loss_for, rng)
        if self.kept:
            past = int(torch.randint(len(self.kept), (), generator=rng))
            old, answers = self.kept[past]
            chosen = torch.randint(len(answers), (len(labels),), generator=rng)
            self.rule.backward(model, old[:, chosen].to(x.dtype), loss_for(answers[chosen], past), rng=rng)
        self.settle(task, model)
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        parts, answers, left = [], [], self.samples
        for x, labels in batches:
            parts.append(x[:, :left] * 1)
            answers.append(labels[:left])
            left -= len(labels[:left])
            if not left:
                break
        self.kept.append((torch.cat(parts, 1), torch.cat(answers)))

    def memory(self) -> int:
        return sum(x.numel() * x.element_size() + y.numel() * y.element_size() for x, y in self.kept)
