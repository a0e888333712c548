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
from neuro.nn.few_levels import FewConv2d, FewLinear
from neuro.nn.integer import IntegerLIF
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent, decays
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import SpikingNetwork
from neuro.nn.parallel import ParallelLIF
from neuro.nn.quantised import QuantisedConv2d, QuantisedLinear, QuantisedReLU
from neuro.nn.resonate import ResonateAndFire
from neuro.nn.sigma_delta import Delta, I, SigmaDelta
from neuro.nn.spike_drop import SpikeDrop
from neuro.nn.stateless import AvgPool2d, Dropout, Scale, ScaleNorm, SumPool2d
from neuro.nn.ternary import TernaryLIF
from neuro.nn.unfold import Unfolded, unfold

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
    "Delta",
    "Dropout",
    "FewConv2d",
    "FewLinear",
    "I",
    "IntegerLIF",
    "MaskedLinear",
    "ParallelLIF",
    "QuantisedConv2d",
    "QuantisedLinear",
    "QuantisedReLU",
    "Recurrent",
    "ResonateAndFire",
    "Scale",
    "ScaleNorm",
    "SigmaDelta",
    "SpikeDrop",
    "SpikingNetwork",
    "SumPool2d",
    "Taps",
    "TernaryLIF",
    "Unfolded",
    "decays",
    "to_module",
    "to_network",
    "unfold",
]
