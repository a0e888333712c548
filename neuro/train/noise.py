"""Noise in training: the network learns on devices that are not what was written into them.

In every batch the gradient is that of a network with other weights, thresholds and time constants, and is applied to
the clean ones (Murray & Edwards 1994, IEEE Trans. Neural Netw. 5:792; Joshi et al. 2020, Nat. Commun. 11:2473). With g
from N(0, 1), one number for each synapse, neuron and batch::

    weight            w  ->  w + weight |w| g
    weight_absolute   w  ->  w + weight_absolute g            in the units of the weights
    threshold         v_threshold  ->  v_threshold exp(threshold g)
    mismatch          w  ->  w + mismatch |w| g,  v_threshold  ->  v_threshold exp(mismatch g),
                      tau  ->  tau exp(mismatch g), that is decay  ->  decay^exp(-mismatch g)
    spike_drop        each spike of the input and of a layer is lost with probability spike_drop (`neuro.nn.SpikeDrop`)

mismatch is a device as `neuro.robust.mismatched` makes them, another in each batch. Weights on few levels or on a grid
of bits from the start deviate behind the rounding, as those of a device do. Synapses that are pruned stay absent. The
spikes that a recurrent layer sends back to itself are not dropped.

What is drawn depends on (seed, epoch, batch) alone, so a run resumes to the bit and several processes draw the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro.ir import Shape
from neuro.nn.grid import GridLayer
from neuro.nn.layers import Temporal
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork, spikes
from neuro.nn.quantised import QuantisedWeights
from neuro.nn.spike_drop import SpikeDrop
from neuro.train.seeds import generator

STREAM_NOISE = 5  # of neuro.train.seeds
WEIGHT, ABSOLUTE, THRESHOLD, MISMATCH = range(4)  # each kind draws for itself, so that none moves another
DECAYS = ("alpha", "beta", "rho")
LOST = "{}_lost"  # the name of what loses the spikes of a layer


@dataclass(frozen=True)
class NoiseConfig:
    """See `neuro.train.noise`. start: share of the epochs after which it begins. It ends where training on a chip's
    integers begins, but with integers = true, weights deviate and spikes are lost there too: before the rounding."""

    weight: float = 0.0
    weight_absolute: float = 0.0
    threshold: float = 0.0
    spike_drop: float = 0.0
    mismatch: float = 0.0
    start: float = 0.0
    integers: bool = False

    def problems(self) -> list[str]:
        names = ("weight", "weight_absolute", "threshold", "mismatch")
        bad = [f"{n} is {getattr(self, n)}, it must not be negative" for n in names if getattr(self, n) < 0]
        bad += [
            f"{n} is {getattr(self, n)}, it must be below 1" for n in ("threshold", "mismatch") if getattr(self, n) >= 1
        ]
        if not 0 <= self.spike_drop < 1:
            bad.append(f"spike_drop is {self.spike_drop}, it must lie in [0, 1)")
        if not 0 <= self.start <= 1:
            bad.append(f"start is {self.start}, it must lie in [0, 1]")
        if self.integers and (self.threshold or self.mismatch):
            bad.append(
                "integers keeps weight noise and spike_drop; thresholds and decays of a chip's integers are exact"
            )
        return bad


def with_drops(model: SpikingNetwork, c: NoiseConfig | None) -> SpikingNetwork:
    """The same layers, in a chain with wires that lose spikes where ``c`` asks for them."""
    if c is None or not c.spike_drop:
        return model
    layers: dict[str, nn.Module] = {}
    if model.high == 1:
        layers[LOST.format(INPUT)] = SpikeDrop(c.spike_drop)
    for name in model.names:
        layers[name] = model.layer(name)
        if spikes(layers[name]) and (name, OUTPUT) not in model.edges:
            layers[LOST.format(name)] = SpikeDrop(c.spike_drop)
    return SpikingNetwork(
        layers, input_shape=model.input_shape, dt=model.dt, readout=model.readout, discretisation=model.discretisation,
        high=model.high,
    )  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """The noise of one epoch. disturb(model, batch): a context in which the model is another device."""

    config: NoiseConfig | None
    seed: int
    epoch: int
    quantised: bool

    @staticmethod
    def of(c: NoiseConfig | None, model: nn.Module, seed: int, epoch: int, epochs: int, quantised: bool) -> Noise:
        """What an epoch of a run has; switches the model's lossy wires on or off."""
        on = c is not None and epoch >= round(c.start * epochs) and (c.integers or not quantised)
        for layer in model.modules():
            if isinstance(layer, SpikeDrop):
                layer.p = c.spike_drop if c is not None and on else 0.0
        return Noise(c if on else None, seed, epoch, quantised)

    @contextmanager
    def disturb(self, model: SpikingNetwork, batch: int) -> Iterator[None]:
        """Within: weights, thresholds and decays deviate. Behind it they are, to the bit, what they were, and the
        gradients that were found are theirs."""
        c = self.config
        if c is None or not (c.weight or c.weight_absolute or c.threshold or c.mismatch):
            yield
            return
        draw = _Draw(lambda kind: generator(self.seed, STREAM_NOISE, self.epoch, batch, kind))
        undo: list[Callable[[], None]] = []
        try:
            for layer in weighted(model).values():
                undo.append(_move_weight(layer, c, draw))
            if c.threshold or c.mismatch:
                for layer, shape in populations(model):
                    undo += _move_neurons(layer, shape, c, draw)
            yield
        finally:
            for step in reversed(undo):
                step()


class _Draw:
    """Normal numbers by kind, each kind from its own generator."""

    def __init__(self, make: Callable[[int], torch.Generator]) -> None:
        self._make, self._made = make, dict[int, torch.Generator]()

    def __call__(self, kind: int, like: Tensor | Shape, sigma: float) -> Tensor | float:
        """sigma g of a shape; 0 where sigma is."""
        if not sigma:
            return 0.0
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        shape, dtype = (like.shape, like.dtype) if isinstance(like, Tensor) else (like, torch.float64)
        return sigma * torch.randn(shape, generator=self._made[kind], dtype=dtype)


def weighted(model: nn.Module) -> dict[str, Any]:
    """Every module with a matrix or kernel called weight, by its name in the model."""
    found = {}
    for name, layer in model.named_modules():
        weight = layer._parameters.get("weight")
        if weight is not None and weight.dim() >= 2:
            found[name] = layer
    return found


def present(layer: nn.Module) -> Tensor | None:
    """Bool like the weight: the synapses that there are; None for all."""
    masks = [layer._buffers.get(name) for name in ("kept", "mask")]
    there = [mask.bool() for mask in masks if mask is not None]
    return None if not there else there[0] if len(there) == 1 else there[0] & there[1]


@torch.no_grad()
def _move_weight(layer: Any, c: NoiseConfig, draw: _Draw) -> Callable[[], None]:
    """Moves the weights of a layer; returns what moves them back."""
    settled = isinstance(layer, QuantisedWeights) and not isinstance(layer, GridLayer)
    weight = layer.weight.detach()
    held = layer.real()[0].detach() if settled else weight
    moved = held * 0.0
    moved += held.abs() * draw(WEIGHT, held, c.weight)
    moved += draw(ABSOLUTE, held, c.weight_absolute)
    moved += held.abs() * draw(MISMATCH, held, c.mismatch)
    there = present(layer)
    if there is not None:
        moved *= there
    if settled:
        layer.noise = moved

        def undo() -> None:
            layer.noise = None

        return undo
    clean = weight.clone()
    layer.weight.add_(moved)

    def back() -> None:
        with torch.no_grad():
            layer.weight.copy_(clean)

    return back


def _move_neurons(layer: nn.Module, shape: Shape, c: NoiseConfig, draw: _Draw) -> list[Callable[[], None]]:
    """Moves thresholds and decays of a population; returns what moves them back."""
    undo = []
    if spikes(layer) or bool(getattr(layer, "graded", False)):
        factor = torch.exp(torch.zeros(shape, dtype=torch.float64) + draw(THRESHOLD, shape, c.threshold)
                           + draw(MISMATCH, shape, c.mismatch))  # fmt: skip
        undo += _exchange(layer, "v_threshold", lambda theta: theta * factor, shape)
    if c.mismatch:
        for name in DECAYS:
            power = torch.exp(torch.zeros(shape, dtype=torch.float64) - draw(MISMATCH, shape, c.mismatch))
            undo += _exchange(layer, name, lambda decay, power=power: decay**power, shape)  # type: ignore[misc]
    return undo


def _exchange(layer: nn.Module, name: str, move: Callable[[Tensor], Tensor], shape: Shape) -> list[Callable[[], None]]:
    """Puts another value, one per neuron, in the place of a coefficient that is fixed or learnt."""
    fixed, learnt = f"{name}_fixed", f"{name}_learnt"
    if layer._buffers.get(fixed) is not None:
        clean = layer._buffers[fixed]
        assert clean is not None
        layer._buffers[fixed] = move(clean.expand(shape))
        return [lambda: layer._buffers.__setitem__(fixed, clean)]
    old = layer._parameters.get(learnt)
    if old is None:
        return []
    value = old.detach().double().expand(shape)
    value = move(value) if name == "v_threshold" else torch.logit(move(torch.sigmoid(value)))
    new = nn.Parameter(value.to(old.dtype), requires_grad=old.requires_grad)
    layer._parameters[learnt] = new

    def back() -> None:
        layer._parameters[learnt] = old
        if new.grad is not None:
            grad = new.grad.sum_to_size(old.shape)
            old.grad = grad if old.grad is None else old.grad + grad

    return [back]


def populations(model: SpikingNetwork) -> list[tuple[nn.Module, Shape]]:
    """Every population with thresholds or decays, and the shape of what it sends in a step."""
    was, found = model.training, []
    model.eval()
    try:
        with torch.no_grad():
            for name, shape in _shapes(model).items():
                layer: Any = model.layer(name)
                inner = getattr(layer, "neuron", layer)
                held = (*inner._buffers, *inner._parameters)
                if any(n.removesuffix("_fixed").removesuffix("_learnt") in ("v_threshold", *DECAYS) for n in held):
                    found.append((inner, shape))
    finally:
        model.train(was)
    return found


def _shapes(model: SpikingNetwork) -> dict[str, Shape]:
    """Shape of what each layer sends in a step."""
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
    sent = {INPUT: torch.zeros((1, *model.input_shape), dtype=dtype)}
    for name in model.order:
        if name in (INPUT, OUTPUT):
            continue
        first, *others = (sent[s] for s in model.sources(name) if (s, name) not in model.feedback)
        x = sum(others, first)
        layer = model.layer(name)
        sent[name] = layer.step(x, None)[0] if isinstance(layer, Temporal) else layer(x)
    return {name: tuple(y.shape[1:]) for name, y in sent.items() if name != INPUT}


__all__ = ["Noise", "NoiseConfig", "populations", "present", "weighted", "with_drops"]
