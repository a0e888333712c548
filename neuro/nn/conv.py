"""A convolution of spikes, a norm and neurons as one call (`neuro.nn.joined`).

Spikes are convolved event by event (`neuro.nn.conv_kernels`) where they are few, by torch where they are many; the
sums of a norm are taken while a row of currents is in cache, and its factor is applied where the neurons read
(`neuro.nn.conv_scan`); all that is one compiled call per thread (`neuro.nn.conv_passes`). Only currents and bits are
kept for the gradient. Results do not depend on the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.nn import conv_norm, kernels
from neuro.nn.conv_function import convolve
from neuro.nn.conv_layout import Job
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.grid import GridConv2d
from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import COEFFICIENTS, IF, LIF, CubaLIF, Neuron
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned


@joins(nn.Conv2d, Neuron)
def run(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """Spikes [time, batch, channel, height, width] of a `torch.nn.Conv2d`, perhaps a norm, and neurons."""
    conv, norm, neurons = chain.synapses, chain.norm, chain.neurons
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(neurons, Neuron)
    if not _known(conv, x):
        return None
    samples = x.shape[0] * x.shape[1]
    if _scannable(neurons) and (norm is None or conv_norm.plain(norm, conv.out_channels, x.dtype, samples)):
        return convolve(Job(conv, norm, neurons, carry), x, conv.weight, conv.bias)
    if not isinstance(x, (Spikes, Thinned)):
        return None
    currents = convolve(Job(conv, None, None, None), x, conv.weight, conv.bias)
    if norm is not None:
        currents = norm(currents.flatten(0, 1)).unflatten(0, x.shape[:2])
    y: Tensor = neurons(currents) if carry is None else neurons.resume(currents, carry)
    return y


@joins(GridConv2d, Neuron)
def run_on_grid(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """The same in a chip's weight integers: whole numbers add up without rounding, in any order."""
    conv, neurons = chain.synapses, chain.neurons
    assert isinstance(conv, GridConv2d)
    assert isinstance(neurons, Neuron)
    if chain.norm is not None or not isinstance(x, (Spikes, Thinned)) or not _known(conv, x):
        return None
    currents = convolve(Job(conv, None, None, None), x, *conv.integers())
    y: Tensor = neurons(currents) if carry is None else neurons.resume(currents, carry)
    return y


def _known(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `conv_function` computes this convolution; the others, and the impossible, are torch's to answer."""
    return (
        x.dim() == 5
        and x.device.type == "cpu"
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.float64)
        and conv.weight.dtype == x.dtype
        and conv.weight.device.type == "cpu"
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and x.shape[2] == conv.in_channels
        and all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(x.shape[3:], conv.padding, conv.dilation,
                                                               conv.kernel_size, strict=True))
    )  # fmt: skip


def _scannable(neurons: Neuron) -> bool:
    """Whether `conv_scan` runs these neurons: ours, on no grid, with one fixed number per coefficient."""
    if type(neurons) not in (IF, LIF, CubaLIF) or neurons.grid is not None or neurons.learn:
        return False
    known = surrogate_kind(Rule(neurons.surrogate))[0] > kernels.PRECOMPUTED
    return known and all(neurons.value(name).numel() == 1 for name in COEFFICIENTS)
