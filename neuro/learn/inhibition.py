"""Lateral inhibition learnt by Hebb's rule alone: orthogonal projection that is as hard as a direction was used.

`neuro.learn.hlop` protects the directions that lateral neurons found, wholly, and all others not at all. Here the
inputs x of a layer with weights W inhibit each other directly, through lateral synapses M [n, n] that learn

    M += mean over a task's samples of x x^T / mean |x|^2,

Hebb's rule with a gain control and nothing else: what fires together inhibits each other. What drives the weights, the
gradient g (one row per output), settles under that inhibition, d r / dt = g - r - M r / softness, where

    dW = g (1 + M / softness)^-1.

This is the step that weighs what is to be learnt against the old answers it moves, the minimum over dW of

    |dW - g|^2 + sum over old tasks of mean |dW x|^2 / (softness mean |x|^2):

a direction with a share s of the old inputs' energy is left 1 / (1 + s / softness) of its gradient. The matrix is that
of orthogonal weights modification (Zeng, Chen, Cui & Yu 2019, Nature Machine Intelligence 1:364, arXiv:1810.01256),
which finds it by recursive least squares; that lateral synapses can learn it, by the rule above, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.learn.bptt import BPTT
from neuro.learn.continual import Batches, LossFor, Method, Weights, matrices
from neuro.learn.lateral import Seen, is_seen, over_time, show
from neuro.learn.rule import Learnt
from neuro.nn.network import SpikingNetwork

SOFTNESS = 2e-4  # chosen on validation splits of permuted digits
WIDEST = 12_000  # inputs of a layer: its lateral synapses then take 1.2 GB while they settle


@dataclass
class Inhibition(Method):
    """Soft Hebbian orthogonal projection around ``rule``.

    Args:
        softness: share of the old inputs' energy at which a direction keeps half of its gradient. More: the network
            learns more freely, and forgets more.
        sees: what lateral synapses see under ``BPTT()``: "rates", the mean over all steps; "spikes" of each step; or
            the leak b, 0 < b < 1, of traces. Other rules show traces, rates or pieces by themselves.
        most: rows of a batch that they learn from, chosen at random.
        leave_out: layers that are not protected.
        project: False leaves gradients alone: what is forgotten without.

    Raises:
        NetworkError: at the first task: softness or sees as above, layers without an input row to project on
            (`matrices`) or with more than `WIDEST` inputs.
    """

    softness: float = SOFTNESS
    sees: Seen = "rates"
    most: int = 512
    leave_out: tuple[str, ...] = ()
    project: bool = True
    fixed: bool = True
    synapses: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _settled: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def begin(self, task: int, model: SpikingNetwork, batches: Batches, rng: torch.Generator) -> None:
        bad = [] if self.softness > 0 else [f"softness must be above 0, got {self.softness!r}"]
        if not is_seen(self.sees):
            bad.append(f'sees must be "spikes", "rates" or a leak between 0 and 1, got {self.sees!r}')
        bad += [
            f"{n}: {w.width:,} inputs, at most {WIDEST:,} can inhibit each other; leave it out, or use HLOP"
            for n, w in matrices(model, self.leave_out).items()
            if w.width > WIDEST
        ]
        if bad:
            raise NetworkError("lateral inhibition cannot be learnt", bad)

    def backward(
        self, task: int, model: SpikingNetwork, x: Tensor, labels: Tensor, loss_for: LossFor, rng: torch.Generator
    ) -> Learnt:
        learnt = super().backward(task, model, x, labels, loss_for, rng)
        for name, weights in matrices(model, self.leave_out).items() if self.project else ():
            grad = weights.parameter.grad
            if grad is not None and name in self._settled:
                grad.copy_((grad.flatten(1) @ self._settled[name]).view_as(grad))
        return learnt

    def end(self, task: int, model: SpikingNetwork, batches: Batches, loss_for: LossFor, rng: torch.Generator) -> None:
        layers = matrices(model, self.leave_out)
        found = {n: _Correlation(w) for n, w in layers.items()}
        for x, labels in batches:
            count = x.shape[1]

            def see(name: str, rows: Tensor, count: int = count) -> None:
                if name in found:
                    seen = over_time(self.sees, rows, count) if self.rule == BPTT() else rows
                    found[name].learn(layers[name].rows(seen, self.most, rng))

            show(self.rule, model, x, labels, loss_for, task, see, rng)
        for name, weights in layers.items():
            learnt = found[name].normalised()
            self.synapses[name] = self.synapses[name] + learnt if name in self.synapses else learnt
            whole = self.synapses[name].double() / self.softness
            whole.diagonal().add_(1.0)
            self._settled[name] = torch.cholesky_inverse(torch.linalg.cholesky(whole)).to(weights.parameter.dtype)

    def memory(self) -> int:
        """Lateral synapses, each once: they are symmetric."""
        return sum(m.element_size() * len(m) * (len(m) + 1) // 2 for m in self.synapses.values())


class _Correlation:
    """Sum of x x^T and of |x|^2 over all rows that were seen."""

    def __init__(self, weights: Weights) -> None:
        self.products = torch.zeros(weights.width, weights.width, dtype=weights.parameter.dtype)
        self.energy = 0.0

    def learn(self, x: Tensor) -> None:
        self.products.addmm_(x.T, x)
        self.energy += float(x.square().sum())

    def normalised(self) -> Tensor:
        """x x^T over |x|^2: of trace 1, or nothing where nobody fired."""
        return self.products / self.energy if self.energy else self.products
