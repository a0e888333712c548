"""What a layer's weight gradient is a product with, handed to whoever wants to see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from neuro.learn.rule import Watch
from neuro.nn.delay import DelayedLinear
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.layers import Recurrent
from neuro.nn.network import SpikingNetwork

SYNAPSES = (nn.Linear, nn.Conv2d, DelayedLinear, DelayLinear)


def synapses(model: SpikingNetwork) -> dict[str, nn.Module]:
    """name -> layer, of the layers with weights, in order; the weights of a `Recurrent` are not among them."""
    return {n: model.layer(n) for n in model.order if n in model.names and isinstance(model.layer(n), SYNAPSES)}


def has_weights(layer: nn.Module) -> bool:
    """Whether a layer is shown to a watch."""
    return isinstance(layer, (*SYNAPSES, Recurrent))


def recurrences(model: SpikingNetwork) -> dict[str, nn.Module]:
    """name.recurrent -> the weights of each `Recurrent`."""
    found = {n: model.layer(n) for n in model.order if n in model.names}
    return {f"{n}.recurrent": layer.recurrent for n, layer in found.items() if isinstance(layer, Recurrent)}


@contextmanager
def watched(model: SpikingNetwork, watch: Watch | None) -> Iterator[None]:
    """Calls watch(name, rows) for the input of each layer with weights while the model runs; None: nothing.

    A `Recurrent` NAME has two: its input belongs to the layer in front, what returns to it is NAME.recurrent.
    """
    with ExitStack() as open_hooks:
        for name, layer in synapses(model).items() if watch is not None else ():

            def see(layer: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
                assert watch is not None
                x: Tensor = given[0].detach()
                watch(name, x.flatten(0, 1) if isinstance(layer, (DelayedLinear, DelayLinear)) else x)

            open_hooks.callback(layer.register_forward_pre_hook(see).remove)
        for name in recurrences(model) if watch is not None else ():

            def look(layer: nn.Module, given: tuple[Any, ...], y: Tensor, name: str = name) -> None:
                assert watch is not None
                watch(name, y.detach()[:-1].flatten(0, 1))  # the spikes that came back one step later

            open_hooks.callback(model.layer(name.removesuffix(".recurrent")).register_forward_hook(look).remove)
        yield
