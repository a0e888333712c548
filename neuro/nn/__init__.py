"""Spiking networks in torch: neurons, recurrence, delays, and the bridge to `neuro.ir.Network`.

Tensors are [time, batch, ...] throughout. Spike functions: `neuro.nn.surrogate`.
"""

from neuro.nn import chain as chain  # registers its series
from neuro.nn import conv as conv  # registers its joins
from neuro.nn import dense as dense  # registers its join
from neuro.nn import recurrent_join as recurrent_join
from neuro.nn.adaptive import ALIF, AdLIF
from neuro.nn.bridge import to_module, to_network
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_recurrent import DelayedRecurrent
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent, decays
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import SpikingNetwork
from neuro.nn.quantised import QuantisedConv2d, QuantisedLinear, QuantisedReLU
from neuro.nn.stateless import AvgPool2d, Dropout, Scale, ScaleNorm, SumPool2d

__all__ = [
    "ALIF",
    "IF",
    "LI",
    "LIF",
    "AdLIF",
    "AvgPool2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "DelayLinear",
    "DelayedLinear",
    "DelayedRecurrent",
    "Dropout",
    "MaskedLinear",
    "QuantisedConv2d",
    "QuantisedLinear",
    "QuantisedReLU",
    "Recurrent",
    "Scale",
    "ScaleNorm",
    "SpikingNetwork",
    "SumPool2d",
    "Taps",
    "decays",
    "to_module",
    "to_network",
]
