"""Pruning: which synapses there are is part of a layer, is learnt with it, and reaches the chip.

A layer that is pruned has a buffer ``kept``, bool like its weight, saved with it. A synapse that is not kept has the
weight 0 itself, not 0 by a product: every kernel, the `Network`, its NIR file and a chip's compiler see a zero, that is
no synapse. Training masks the gradient and writes the zeros again behind the optimiser, so they stay.

- "magnitude": the smallest weights go, along s(p) = sparsity (1 - (1 - (p - start) / (end - start))^3), p the share of
  the steps that are done (Zhu & Gupta 2017, arXiv:1710.01878), in ``updates`` cuts.
- "lottery": train, prune, rewind the weights that are left to what they were after ``rewind`` epochs, and again
  (Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671, for rewind > 0). The epochs of the
  run are shared among rounds + 1 trainings, each with the whole schedule of the learning rate; behind the k-th the
  share (1 - sparsity)^(k / rounds) of the synapses is kept.
- "n:m": of every m inputs that follow each other n weights stay for each output (in a convolution: of m input channels,
  at each tap), those of the largest size, from ``start`` on (Mishra et al. 2021, arXiv:2104.08378, for 2:4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro.errors import BadConfig
from neuro.extend import did_you_mean
from neuro.nn.network import SpikingNetwork
from neuro.train.noise import weighted

KEPT = "kept"  # the buffer
METHODS = ("magnitude", "lottery", "n:m")
SCOPES = ("layer", "global")


@dataclass(frozen=True)
class PruneConfig:
    """method: see `neuro.train.prune`. sparsity: share of the synapses that goes, of "magnitude" and "lottery".

    scope: "layer" cuts each layer to that share, "global" finds one size of weights for all. start, end: shares of the
    run. layers: names of those that are pruned, all with weights where left out.
    """

    method: str = "magnitude"
    sparsity: float = 0.9
    scope: str = "layer"
    start: float = 0.2
    end: float = 0.7
    updates: int = 20
    rounds: int = 3
    rewind: int = 0
    n: int = 2
    m: int = 4
    layers: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        bad = []
        for name, value, known in (("method", self.method, METHODS), ("scope", self.scope, SCOPES)):
            bad += [] if value in known else [f"{name} '{value}' is unknown. {did_you_mean(value, known)}"]
        if not 0 <= self.sparsity < 1:
            bad.append(f"sparsity is {self.sparsity}, it must lie in [0, 1)")
        if not 0 <= self.start <= self.end <= 1:
            bad.append(f"start and end are {self.start} and {self.end}, they must rise within [0, 1]")
        if not 1 <= self.n < self.m:
            bad.append(f"n:m is {self.n}:{self.m}, n must be at least 1 and less than m")
        bad += [f"{n} must be at least 1" for n in ("updates", "rounds") if getattr(self, n) < 1]
        return bad + (["rewind must not be negative"] if self.rewind < 0 else [])

    def problems_of_run(self, epochs: int, quantise_from: float | None, delays: bool) -> list[str]:
        """What a run of so many epochs cannot do; quantise_from: share after which it trains on integers."""
        bad = []
        if self.method == "lottery":
            if epochs % (self.rounds + 1):
                bad.append(
                    f"train.epochs is {epochs}, not shared evenly by the {self.rounds + 1} trainings of the lottery"
                )
            elif self.rewind >= self.per_round(epochs):
                bad.append(f"prune.rewind is {self.rewind}, a training has {self.per_round(epochs)} epochs")
            if delays:
                bad.append("prune.method 'lottery' would rewind delays whose schedule is that of the whole run")
        if quantise_from is not None and quantise_from < self.last:
            bad.append(f"quantise.start is {quantise_from}, pruning ends at {self.last:g}; end it before")
        return bad

    @property
    def last(self) -> float:
        """Share of the run behind which no synapse goes any more."""
        return {"magnitude": self.end, "n:m": self.start, "lottery": self.rounds / (self.rounds + 1)}[self.method]

    def per_round(self, epochs: int) -> int:
        """Epochs of one training: all but for the lottery."""
        return epochs // (self.rounds + 1) if self.method == "lottery" else epochs

    def sparsity_at(self, done: float) -> float:
        """The cubic schedule: what is cut when the share ``done`` of the run is behind us."""
        if done >= self.end:
            return self.sparsity
        part = max(0.0, done - self.start) / (self.end - self.start)
        return self.sparsity * (1.0 - (1.0 - part) ** 3)

    def cuts(self, steps: int) -> set[int]:
        """Optimiser steps, of ``steps``, behind which weights are cut."""
        if self.method == "lottery":
            return set()
        if self.method == "n:m":
            return {max(1, round(self.start * steps))}
        span = self.end - self.start
        return {max(1, round((self.start + span * k / self.updates) * steps)) for k in range(1, self.updates + 1)}


def prunable(model: SpikingNetwork, names: Iterable[str] = ()) -> dict[str, Any]:
    """Modules whose weights can be pruned, by their names in the model: those of some layers, or of all.

    Raises:
        BadConfig: names that are no layers with weights, all of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in model.names:
        inside = {name + ("." + part if part else ""): m for part, m in weighted(model.layer(name)).items()}
        if inside:
            found[name] = inside
    wanted = tuple(names) or tuple(found)
    bad = [f"'{n}' is no layer with weights. {did_you_mean(n, found)}" for n in wanted if n not in found]
    if bad:
        raise BadConfig("prune.layers", bad)
    return {path: module for name in wanted for path, module in found[name].items()}


def attach(model: SpikingNetwork, c: PruneConfig | None) -> None:
    """Give the layers of a configuration their masks, all synapses kept but those that a layer never had.

    Raises:
        BadConfig: as `prunable`; n:m of a layer whose inputs are not whole groups.
    """
    if c is None:
        return
    chosen = prunable(model, c.layers)
    if c.method == "n:m":
        bad = [
            f"'{name}' has {layer.weight.shape[1]} inputs, not groups of {c.m}; name the others in prune.layers"
            for name, layer in chosen.items()
            if layer.weight.shape[1] % c.m
        ]
        if bad:
            raise BadConfig(f"prune {c.n}:{c.m}", bad)
    for layer in chosen.values():
        layer.register_buffer(KEPT, possible(layer))


def possible(layer: nn.Module) -> Tensor:
    """Bool like the weight: synapses that a layer can have (`neuro.nn.MaskedLinear` has not all)."""
    weight: Any = layer.weight
    mask = layer._buffers.get("mask")
    return torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.bool()


def masks(model: nn.Module) -> dict[str, Tensor]:
    """kept of every layer that has one, by its name in the model."""
    return {n: kept for n, m in model.named_modules() if (kept := m._buffers.get(KEPT)) is not None}


def restore(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Masks onto layers that took the place of the pruned ones, under the same names."""
    modules = dict(model.named_modules())
    for name, kept in found.items():
        modules[name].register_buffer(KEPT, kept)


def freeze_zeros(model: SpikingNetwork, names: Iterable[str] = ()) -> None:
    """Weights that are 0 become synapses that are not there: for a network that was read from a file.

    Raises:
        BadConfig: as `prunable`.
    """
    for layer in prunable(model, names).values():
        layer.register_buffer(KEPT, (layer.weight.detach() != 0) & possible(layer))


@torch.no_grad()
def apply(model: nn.Module) -> None:
    """Weights of synapses that are not kept become 0."""
    for layer in model.modules():
        kept = layer._buffers.get(KEPT)
        if kept is not None:
            layer.weight.masked_fill_(~kept, 0.0)  # type: ignore[operator]


def mask_gradients(model: nn.Module) -> None:
    """Gradients to synapses that are not kept become 0: neither the norm nor the optimiser's moments see them."""
    for layer in model.modules():
        kept = layer._buffers.get(KEPT)
        weight: Any = layer._parameters.get("weight")
        if kept is not None and weight.grad is not None:
            weight.grad.masked_fill_(~kept, 0.0)


def sparsity(model: nn.Module) -> float:
    """Share of the synapses of pruned layers that are gone."""
    found = [(kept, possible(m)) for m in model.modules() if (kept := m._buffers.get(KEPT)) is not None]
    total = sum(int(there.sum()) for _, there in found)
    return 1.0 - sum(int(kept.sum()) for kept, _ in found) / total if total else 0.0


@torch.no_grad()
def cut_smallest(model: nn.Module, share: float, scope: str = "layer") -> None:
    """Keep all but the ``share`` of each pruned layer's (or of all layers') synapses with the smallest weights.

    Synapses that are gone go first, so none comes back while the share rises. Of equal ones the first goes.
    """
    layers = [m for m in model.modules() if m._buffers.get(KEPT) is not None]
    for group in [layers] if scope == "global" else [[m] for m in layers]:
        sizes, where = [], []
        for layer in group:
            there, weight = possible(layer), layer.weight.detach()  # type: ignore[operator]
            size = torch.where(layer.get_buffer(KEPT), weight.abs().double(), -1.0)
            sizes.append(size[there])
            where.append(there)
        values = torch.cat(sizes)
        stays = torch.ones(len(values), dtype=torch.bool)
        stays[torch.argsort(values, stable=True)[: round(share * len(values))]] = False
        parts = torch.split(stays, [len(s) for s in sizes])
        for layer, there, part in zip(group, where, parts, strict=True):
            kept = torch.zeros_like(there)
            kept[there] = part
            layer.get_buffer(KEPT).copy_(kept)
    apply(model)


@torch.no_grad()
def cut_groups(model: nn.Module, n: int, m: int) -> None:
    """Keep, of every m inputs of an output, the n with the largest weights, of equal ones the first."""
    for layer in model.modules():
        kept = layer._buffers.get(KEPT)
        if kept is None:
            continue
        weight: Any = layer.weight
        size = torch.where(kept, weight.detach().abs(), -1.0).movedim(1, -1)
        groups = size.reshape(*size.shape[:-1], -1, m)
        order = torch.argsort(groups, dim=-1, descending=True, stable=True)
        stays = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
        kept &= stays.reshape(size.shape).movedim(-1, 1)
    apply(model)


def after_step(model: nn.Module, c: PruneConfig | None, step: int, steps: int) -> bool:
    """Behind the optimiser's ``step``-th step of ``steps``: zeros again, and a cut where one is due (True)."""
    if c is None:
        return False
    apply(model)
    if step not in c.cuts(steps):
        return False
    if c.method == "n:m":
        cut_groups(model, c.n, c.m)
    else:
        cut_smallest(model, c.sparsity_at(step / steps), c.scope)
    return True


def early(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all that a rewound training starts from: everything but the masks."""
    return {k: v.detach().clone() for k, v in model.state_dict().items() if k.rpartition(".")[2] != KEPT}


def rewound(model: nn.Module, start: Mapping[str, Tensor], c: PruneConfig, finished: int) -> None:
    """Behind the ``finished``-th training of the lottery: cut by the weights as they are, go back to the early ones."""
    cut_smallest(model, 1.0 - (1.0 - c.sparsity) ** (finished / c.rounds), c.scope)
    model.load_state_dict(start, strict=False)
    apply(model)


__all__ = [
    "KEPT",
    "METHODS",
    "PruneConfig",
    "after_step",
    "apply",
    "attach",
    "cut_groups",
    "cut_smallest",
    "early",
    "freeze_zeros",
    "mask_gradients",
    "masks",
    "possible",
    "prunable",
    "restore",
    "rewound",
    "sparsity",
]
