"""Hebbian orthogonal projection: a network that learns task after task without forgetting, by lateral learning alone.

Xiao et al. 2024, arXiv:2402.11984. Beside each layer with weights W lie lateral neurons (`neuro.learn.subspace`) that
learn from its input which directions are used. In later tasks

    dW = gradient (1 - H^T H),  H the lateral rows of all tasks before,

so that inputs of old tasks, which lie in the span of H, keep their answers: dW x = 0. The forward pass, the errors and
the learning rule stay as they are: H learns from what the rule's weight gradient is a product with (spikes for
"bptt", their traces for "ottt", rates for "dsr"), which is why this wraps any rule.

What has to keep is not the answer to every spike but what a neuron makes of them: a membrane of leak b holds W a with
a[t] = b a[t-1] + s[t], a readout that sums over time holds W times the rates. Spikes in a single step are mostly noise
around these, and lateral neurons that see them spend rows on it; ``sees`` gives them traces or rates under "bptt" too.

The step must stay in the projected space: plain or momentum SGD without weight decay, momentum begun anew with each
task. Adam scales each weight by itself, which leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.learn.bptt import BPTT
from neuro.learn.continual import Batches, LossFor, Method, inputs, matrices
from neuro.learn.lateral import is_seen, over_time, show
from neuro.learn.rule import Learnt, Watch
from neuro.learn.subspace import Subspace
from neuro.nn.network import SpikingNetwork


@dataclass
class HLOP(Method):
    """Hebbian orthogonal projection around ``rule``.

    Args:
        rows: lateral neurons recruited in each task, by layer: a number for all tasks, or one per task, the last for
            all that follow. Layers that are not named are not protected. Recurrent weights: NAME.recurrent.
        energy: recruit as many as are needed, up to ``rows``, until they explain this share of the layer's input at
            the end of a task; what is more is let go. 0: all of ``rows``.
        rate, repeats, burst: see `Subspace`.
        seen: samples that new lateral neurons start from; 0: from random directions.
        most: rows of a batch that lateral neurons learn from.
        passes: how often, at the end of a task, lateral neurons alone learn from its data once more: by then the
            layers below have come to rest.
        cool: the rate in the last of these passes, as a share of ``rate``; it falls by the same factor in each.
        sees: what lateral neurons see, by layer: "spikes" of each step (where not named); "rates", the mean over all
            steps; or the leak b, 0 < b < 1, of traces as above. Under ``BPTT()`` alone: other rules show traces, rates
            or pieces by themselves.
        project: False leaves gradients alone: what is forgotten without.
    """

    rows: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    energy: float = 0.0
    rate: float = 2.0
    repeats: int = 5
    burst: int = 0
    seen: int = 200
    most: int = 512
    passes: int = 0
    cool: float = 1.0
    sees: Mapping[str, str | float] = field(default_factory=dict)
    project: bool = True
    fixed: bool = True
    spaces: dict[str, Subspace] = field(default_factory=dict, repr=False)

    def begin(self, task: int, model: SpikingNetwork, batches: Batches, rng: torch.Generator) -> None:
        layers = matrices(model)
        unknown = [
            f"'{n}' is not a layer with weights; there are {', '.join(layers)}" for n in self.rows if n not in layers
        ]
        if unknown:
            raise NetworkError("HLOP cannot find the layers that rows names", unknown)
        bad = list(self._problems())
        if bad:
            raise NetworkError("HLOP cannot see that", bad)
        wanted = {n: layers[n] for n in self.rows}
        model_was = model.training
        model.eval()
        start = inputs(model, wanted, batches, self.seen, self.most, rng, self._over_time) if self.seen else {}
        model.train(model_was)
        for name, weights in wanted.items():
            if name not in self.spaces:
                self.spaces[name] = Subspace(
                    weights.width, rate=self.rate, repeats=self.repeats, burst=self.burst,
                    dtype=weights.parameter.dtype,
                )  # fmt: skip
            counts = self.rows[name]
            count = counts if isinstance(counts, int) else counts[min(task, len(counts) - 1)]
            self.spaces[name].grow(count, start.get(name), rng=rng)

    def backward(
        self, task: int, model: SpikingNetwork, x: Tensor, labels: Tensor, loss_for: LossFor, rng: torch.Generator
    ) -> Learnt:
        layers = matrices(model)
        learnt = self.rule.backward(
            model, x, loss_for(labels, task), rng=rng, watch=self._learning(model, x.shape[1], rng)
        )
        for name, space in self.spaces.items() if self.project and task else ():
            grad = layers[name].parameter.grad
            if grad is not None:
                grad.copy_(space.project(grad.flatten(1)).view_as(grad))
        self.settle(task, model)
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        batches = list(batches) if self.passes else batches  # several passes over what may be an iterator
        for k in range(self.passes):
            for space in self.spaces.values():
                space.rate = self.rate * self.cool ** ((k + 1) / self.passes)
            for x, labels in batches:
                show(self.rule, model, x, labels, loss_for, task, self._learning(model, x.shape[1], rng), rng)
        if self.energy:
            layers = matrices(model)
            wanted = {n: layers[n] for n in self.spaces}
            found = inputs(model, wanted, batches, max(self.seen, 1), self.most, rng, self._over_time)
            for name, x in found.items():
                self.spaces[name].keep(x, self.energy)
        for space in self.spaces.values():
            space.merge()
            space.rate = self.rate

    def _problems(self) -> Iterator[str]:
        for name, what in self.sees.items():
            if name not in self.rows:
                yield f"sees names '{name}', which has no lateral neurons; there are {', '.join(self.rows)}"
            if not is_seen(what):
                yield f'sees[\'{name}\'] must be "spikes", "rates" or a leak between 0 and 1, got {what!r}'
        if self.sees and self.rule != BPTT():
            yield f"{self.rule} shows traces, rates or pieces by itself; leave out sees, or use BPTT()"

    def _over_time(self, name: str, x: Tensor, batch: int) -> Tensor:
        """x [steps x batch, ...] as lateral neurons of this layer see it."""
        return over_time(self.sees.get(name, "spikes"), x, batch)

    def _learning(self, model: SpikingNetwork, batch: int, rng: torch.Generator) -> Watch:
        """Shows the lateral neurons what their layers see."""
        layers = matrices(model)

        def see(name: str, rows: Tensor) -> None:
            space = self.spaces.get(name)
            if space is not None:
                space.learn(layers[name].rows(self._over_time(name, rows, batch), self.most, rng))

        return see

    def memory(self) -> int:
        return sum(s.rows.numel() * s.rows.element_size() for s in self.spaces.values())
