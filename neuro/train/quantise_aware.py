"""Quantisation-aware training: put a `SpikingNetwork` on a chip's integers, in place.

`prepare` folds batch norm away and settles every neuron layer with the layers that feed it on one grid
(`neuro.nn.grid`). From then on weights, thresholds, biases, decays and the state itself are what the chip
holds, the gradients pass straight through, and `neuro.nn.bridge.to_network` writes weights that lie
exactly on that grid: compiling them rounds nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from neuro.errors import NetworkError
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_recurrent import DelayedRecurrent
from neuro.nn.grid import Formats, GridLayer, on_grid, settle
from neuro.nn.layers import Neuron, Recurrent
from neuro.nn.levels import LevelLayer, Levels, on_levels, settle_levels
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork
from neuro.nn.stateless import NORMS, AvgPool2d, Dropout, SumPool2d, affine_of

WEIGHTED = (nn.Linear, nn.Conv2d, DelayedLinear)
# what may stand between spikes and weights: sums of spikes are whole numbers, averages are not
WHOLE = (Neuron, Recurrent, nn.Flatten, SumPool2d, Dropout, Delay, Taps)


def fold_batch_norm(network: SpikingNetwork) -> None:
    """Fold each batch norm into the Linear or Conv2d before it, as in evaluation mode; its place passes on.

    Raises:
        NetworkError: a batch norm that follows something else.
    """
    bad = []
    for name in network.names:
        norm: Any = network.layer(name)
        if not isinstance(norm, NORMS):
            continue
        (source, *more) = network.sources(name)
        layer: Any = None if source == INPUT else network.layer(source)
        if more or not isinstance(layer, WEIGHTED):
            bad.append(f"'{name}' must directly follow one Linear or Conv2d")
            continue
        with torch.no_grad():
            factor, shift = affine_of(norm)
            layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
            if layer.bias is not None:
                shift = layer.bias * factor + (0.0 if shift is None else shift)
            layer.bias = None if shift is None else nn.Parameter(shift.clone())
        network.replace(name, nn.Identity())
    if bad:
        raise NetworkError("batch norm cannot be folded", bad)


def prepare(
    network: SpikingNetwork, formats: Formats | Levels, state: bool = True, max_steps: int | None = None
) -> None:
    """Put the whole network on the grid of ``formats``, in place; parameters keep their names.

    Args:
        formats: `Formats` for number formats (Loihi 2), `Levels` for axons with types (TrueNorth).
        state: False leaves u and v real and quantises weights, thresholds, biases and decays only.
        max_steps: the longest sample. No input that long can wrap i or clip a readout; compile with it too.

    Raises:
        NetworkError: layers that have no place on the grid, all of them.
    """
    looped = [name for name in network.names if isinstance(network.layer(name), DelayedRecurrent)]
    if looped:
        problems = [f"'{name}' has recurrent delays, which are not trained on integers; compile it" for name in looped]
        raise NetworkError("the network cannot be trained on this chip's integers", problems)
    for name in network.names:
        layer = network.layer(name)
        if isinstance(layer, DelayLinear):
            network.replace(name, layer.rounded())  # a chip's delays are whole, and stay as they are from here on
    fold_batch_norm(network)
    bad: list[str] = []
    grids: dict[str, GridLayer] = {}
    for name in network.names:
        layer = network.layer(name)
        if isinstance(layer, WEIGHTED):
            bad += _whole_numbers(network, name)
            grids[name] = on_levels(layer) if isinstance(formats, Levels) else on_grid(layer, formats)
            grids[name].peak = _peak(network, name)
    for name in network.names:
        layer = network.layer(name)
        neuron = layer.neuron if isinstance(layer, Recurrent) else layer
        if not isinstance(neuron, Neuron):
            continue
        sources = _through_identity(network, name)
        odd = [s for s in sources if s not in grids]
        members = [grids[s] for s in sources if s in grids]
        if isinstance(layer, Recurrent):
            loop = layer.recurrent
            inner = on_levels(loop) if isinstance(formats, Levels) else on_grid(loop, formats)
            members.append(inner)
            layer.recurrent = inner  # type: ignore[assignment]  # a GridLinear is an nn.Linear
        if odd or not members:
            bad.append(f"'{name}' is fed by {', '.join(map(repr, odd)) or 'nothing'}, which holds no weights")
            continue
        try:
            if isinstance(formats, Levels):
                settle_levels(neuron, [m for m in members if isinstance(m, LevelLayer)], formats, max_steps)
            else:
                settle(neuron, members, formats, state, max_steps)
        except NetworkError as problem:
            bad.append(f"'{name}': {problem}")
    for name, grid in grids.items():
        if not hasattr(grid, "group"):
            bad.append(f"'{name}' feeds no neuron")
        elif len(_targets(network, name)) != 1:
            bad.append(f"'{name}' feeds {len(_targets(network, name))} layers, one neuron layer is allowed")
        network.replace(name, grid)
    if bad:
        raise NetworkError("the network cannot be trained on this chip's integers", bad)


def _through_identity(network: SpikingNetwork, name: str) -> list[str]:
    """Sources of a layer, seen through layers that do nothing."""
    found: list[str] = []
    for source in network.sources(name):
        passes = source != INPUT and isinstance(network.layer(source), nn.Identity)
        found += _through_identity(network, source) if passes else [source]
    return found


def _targets(network: SpikingNetwork, name: str) -> list[str]:
    found: list[str] = []
    for source, target in network.edges:
        if source == name:
            passes = target != OUTPUT and isinstance(network.layer(target), nn.Identity)
            found += _targets(network, target) if passes else [target]
    return found


def _peak(network: SpikingNetwork, name: str) -> int:
    """The largest number that one input of a layer can be in a step: pools and several sources add up spikes."""
    total = 0
    for source in _through_identity(network, name):
        layer = None if source == INPUT else network.layer(source)
        if layer is None or isinstance(layer, (Neuron, Recurrent)):
            total += 1
        else:
            area = math.prod(layer.kernel_size) if isinstance(layer, SumPool2d) else 1
            total += area * _peak(network, source)
    return total


def _whole_numbers(network: SpikingNetwork, name: str) -> list[str]:
    """Complaints about sources that do not send whole numbers to a weight layer."""
    bad = []
    for source in _through_identity(network, name):
        if source == INPUT:
            continue
        layer = network.layer(source)
        if (
            not isinstance(layer, WHOLE)
            or isinstance(layer, AvgPool2d)
            or (isinstance(layer, Neuron) and not layer.spiking)
        ):
            bad.append(
                f"'{name}' gets real numbers from '{source}' ({type(layer).__name__}); use SumPool2d or a stride"
            )
        elif not isinstance(layer, (Neuron, Recurrent)):
            bad += _whole_numbers(network, source)
    return bad
