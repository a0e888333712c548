"""A Linear and the recurrent neurons behind it as one call."""

from __future__ import annotations

from torch import Tensor, nn

from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import Recurrent, weights


@joins(nn.Linear, Recurrent)
def run(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """Spikes [time, batch, n] for x [time, batch, inputs]; None where there is a norm or a chip's grid."""
    layer, synapses = chain.neurons, chain.synapses
    assert isinstance(layer, Recurrent)
    assert isinstance(synapses, nn.Linear)
    if chain.norm is not None or layer.neuron.grid is not None or x.device.type != "cpu":
        return None
    entering = (synapses.weight, synapses.bias)
    return layer.neuron.run(x, weights(layer.recurrent)[0], entering=entering, carry=carry, membrane=False)[0]
