"""Task after task: `tasks` from data sets, `learn_tasks` through a method, and how much is left of each in the end.

A[k, j] is the accuracy on task j after training on task k (Lopez-Paz & Ranzato 2017, arXiv:1706.08840):
ACC = mean_j A[K, j], BWT = mean over j < K of A[K, j] - A[j, j].

A task that says which classes it has is answered among those (task-incremental: one head per task, as rows of the last
layer that no other task touches); tasks with the same classes share the head (domain-incremental).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.datasets import loader
from neuro.datasets.images import images
from neuro.datasets.source import source
from neuro.errors import BadConfig, NetworkError
from neuro.events import EventSet
from neuro.learn.continual import Method
from neuro.learn.rule import LossOf
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import Dropout
from neuro.train.losses import logits
from neuro.train.seeds import generator, seed_of

STREAM = 5  # of neuro.train.seeds
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """classes: outputs among which it is answered. train: (batch size, seed, epoch) -> batches in random order; test:
    batch size -> batches. x is [time, batch, *shape], labels are numbers of outputs. samples: that are trained on."""

    name: str
    classes: tuple[int, ...]
    train: Callable[[int, int, int], Batches] = field(repr=False)
    test: Callable[[int], Batches] = field(repr=False)
    samples: int = 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """accuracy: [tasks, tasks], row k after task k; what has not been trained yet is in it too. memory: bytes that the
    method kept between tasks. losses: of the last epoch of each task."""

    tasks: tuple[str, ...]
    accuracy: NDArray[np.float64]
    memory: int
    losses: tuple[float, ...]

    @property
    def acc(self) -> float:
        """Mean accuracy over all tasks in the end."""
        return float(self.accuracy[-1].mean())

    @property
    def bwt(self) -> float:
        """Backward transfer: what later tasks changed of earlier ones, below 0 for what was forgotten."""
        last = len(self.accuracy) - 1
        return float(np.mean([self.accuracy[last, j] - self.accuracy[j, j] for j in range(last)])) if last else 0.0


def permuted_digits(
    count: int, *, steps: int = 6, seed: int = 0, path: Path | str | None = None, split: str = "test"
) -> list[Task]:
    """The same images with their pixels in another order in each task, the first as they are; real values 0..1, the
    same in every step. split: what is answered, "valid" while choosing, "test" in the end."""
    train, test = images("train", path), images(split, path)
    n = train.images[0].size
    found = []
    for k in range(count):
        order = np.arange(n) if k == 0 else np.random.default_rng([seed, STREAM, k]).permutation(n)

        def of(part: Any, chosen: NDArray[np.int64], order: NDArray[np.int64] = order) -> tuple[Tensor, Tensor]:
            flat = part.images[chosen].reshape(len(chosen), -1)[:, order].astype(np.float32) / np.float32(255)
            x = torch.from_numpy(flat).to(torch.get_default_dtype())
            return x.expand(steps, *x.shape), torch.from_numpy(part.labels[chosen])

        def shuffled(size: int, seed: int, epoch: int, of: Any = of) -> Batches:
            order = loader.order(len(train), True, seed, epoch)
            return (of(train, order[i : i + size]) for i in range(0, len(order), size))

        def in_order(size: int, of: Any = of) -> Batches:
            return (of(test, np.arange(i, min(i + size, len(test)))) for i in range(0, len(test), size))

        found.append(Task(f"order {k}", tuple(range(len(train.classes))), shuffled, in_order, len(train)))
    return found


def split_classes(
    dataset: str,
    per_task: int,
    *,
    steps: int | None = None,
    dt: float | None = None,
    path: Path | str | None = None,
    split: str = "test",
    folds: tuple[EventSet, EventSet] | None = None,
) -> list[Task]:
    """A data set's classes in order, ``per_task`` of them in each task.

    folds: (train, test) recordings instead of the data set's own splits.

    Raises:
        BadConfig: fewer classes than a task has.
    """
    of = source(dataset)
    train, test = folds or (of.load("train", path), of.load(split, path))
    grid = (of.dt if dt is None else dt, of.steps if steps is None else steps)
    if not 1 <= per_task <= len(of.classes):
        raise BadConfig(f"{dataset} has {len(of.classes)} classes, a task cannot have {per_task}")
    found = []
    for first in range(0, len(of.classes) - per_task + 1, per_task):
        classes = tuple(range(first, first + per_task))
        mine, theirs = (s.subset(np.flatnonzero(np.isin(s.labels, classes))) for s in (train, test))

        def batches(part: EventSet, size: int, grid: tuple[float, int] = grid, **more: Any) -> Batches:
            for words, labels in loader.words(part, size, *grid, **more):
                shape = (grid[1], len(labels), *part.shape)
                yield Spikes(words, shape, torch.get_default_dtype()), torch.from_numpy(labels)

        def shuffled(size: int, seed: int, epoch: int, mine: EventSet = mine, batches: Any = batches) -> Batches:
            return batches(mine, size, seed=seed, epoch=epoch)  # type: ignore[no-any-return]

        def in_order(size: int, theirs: EventSet = theirs, batches: Any = batches) -> Batches:
            return batches(theirs, size, shuffle=False)  # type: ignore[no-any-return]

        found.append(Task(" ".join(of.classes[c] for c in classes), classes, shuffled, in_order, len(mine)))
    return found


def learn_tasks(
    model: SpikingNetwork,
    tasks: list[Task],
    method: Method,
    *,
    epochs: int = 1,
    lr: float = 0.1,
    momentum: float = 0.0,
    batch_size: int = 64,
    scale: float = 1.0,
    clip: float = 0.0,
    anneal: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """Trains on one task after another by SGD, and tests on all of them after each.

    scale: logits = scale x mean score over time. Momentum begins anew with each task, and no weight decays: a step
    must stay where the method's gradient lies. anneal: the share of a task's steps, its last ones, over which the
    learning rate falls in a line to nothing; what the last batches happened to hold is then not learnt in their own
    favour, nor at the cost of earlier tasks.

    Raises:
        NetworkError: anneal outside 0..1, or of a task that does not say how many samples it has.
    """
    bad = [] if 0 <= anneal <= 1 else [f"anneal is {anneal}, a share of a task's steps: 0 to 1"]
    bad += [
        f"{t.name}: samples is {t.samples}, and with anneal must be known" for t in tasks if anneal and t.samples < 1
    ]
    if bad:
        raise NetworkError("tasks cannot be learnt like this", bad)
    outputs = {c for task in tasks for c in task.classes}
    everything = tuple(range(max(outputs) + 1))

    def loss_for(labels: Tensor, task: int) -> LossOf:
        def loss_of(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            answers = _among(logits(trace, model.readout, scale), tasks[task].classes, everything)
            return functional.cross_entropy(answers, labels), torch.zeros(())

        return loss_of

    drop = torch.Generator()
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.generator = drop
    accuracy = np.zeros((len(tasks), len(tasks)))
    losses = []
    for k, task in enumerate(tasks):
        rng = generator(seed, STREAM, k)
        optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)

        def of(epoch: int, task: Task = task, k: int = k) -> Batches:
            return task.train(batch_size, seed_of(seed, STREAM, k) >> 32, epoch)

        method.begin(k, model, of(epochs), rng)
        steps, step = epochs * -(-task.samples // batch_size), 0
        loss, seen = 0.0, 0
        for epoch in range(epochs):
            model.train()
            loss, seen = 0.0, 0
            for number, (x, labels) in enumerate(of(epoch)):
                drop.manual_seed(seed_of(seed, STREAM, k, epoch, number))
                learnt = method.backward(k, model, x, labels, loss_for, rng)
                if clip:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                if anneal:
                    optimiser.param_groups[0]["lr"] = lr * min(1.0, (steps - step) / (steps * anneal))
                optimiser.step()
                optimiser.zero_grad()
                step += 1
                loss, seen = loss + learnt.loss * len(labels), seen + len(labels)
        losses.append(loss / max(seen, 1))
        model.eval()
        method.end(k, model, of(epochs + 1), loss_for, rng)
        model.eval()
        accuracy[k] = [_accuracy(model, other, batch_size, everything) for other in tasks]
    return Outcome(tuple(t.name for t in tasks), accuracy, method.memory(), tuple(losses))


def _among(scores: Tensor, classes: tuple[int, ...], everything: tuple[int, ...]) -> Tensor:
    """Scores of other classes put out of reach."""
    if len(classes) == len(everything):
        return scores
    others = torch.ones(scores.shape[1], dtype=torch.bool)
    others[list(classes)] = False
    return scores.masked_fill(others, -torch.inf)


@torch.no_grad()
def _accuracy(model: SpikingNetwork, task: Task, size: int, everything: tuple[int, ...]) -> float:
    right = seen = 0
    for x, labels in task.test(size):
        scores = _among(model.scores(model(x)), task.classes, everything)
        right += int((scores.argmax(1) == labels).sum())
        seen += len(labels)
    return right / max(seen, 1)
