"""A Linear and the recurrent or adaptive neurons behind it as one call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.nn.adaptive import AdLIF
from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import Population, Recurrent, weights
from neuro.nn.masked import MaskedLinear


@joins(nn.Linear, Recurrent)
@joins(MaskedLinear, Recurrent)
def recurrent(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """Spikes [time, batch, n] for x [time, batch, inputs]; None where `_run` declines."""
    layer = chain.neurons
    assert isinstance(layer, Recurrent)
    return _run(chain, x, carry, layer.neuron, weights(layer.recurrent)[0])


@joins(nn.Linear, AdLIF)
@joins(MaskedLinear, AdLIF)
def adaptive(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """As `recurrent`, of adaptive neurons that do not listen to themselves."""
    layer = chain.neurons
    assert isinstance(layer, AdLIF)
    return _run(chain, x, carry, layer, None)


def _run(chain: Chain, x: Tensor, carry: Carry | None, neurons: Population, back: Tensor | None) -> Tensor | None:
    """None where there is a norm, a chip's grid, another precision than the weights', or axes besides the last."""
    weight, bias = weights(chain.synapses)
    plain = chain.norm is None and neurons.grid is None and not torch.is_autocast_enabled("cpu")
    if not plain or x.dim() != 3 or x.numel() == 0 or x.dtype != weight.dtype:
        return None
    return neurons.run(x, back, entering=(weight, bias), carry=carry, membrane=False)[0]
