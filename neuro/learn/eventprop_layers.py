"""The chain of layers that EventProp is defined on, read from a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn.eventprop_kernels import arrive
from neuro.nn.delay import DelayedLinear
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.joined import Carry
from neuro.nn.kernels import over_rows
from neuro.nn.layers import Neuron, Recurrent, weights
from neuro.nn.levels import LevelLayer
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork
from neuro.nn.spikes import Events, Spikes

COEFFICIENTS = ("alpha", "gain_syn", "beta", "gain", "v_threshold", "v_reset")


@dataclass(frozen=True, eq=False)
class Stage:
    """Synapses and the neurons behind them.

    entrance, name: of the two layers. weight [out, in], bias [out], delay [out, in] in steps (None: at once), loop
    [out, out]: in the graph that makes them of the parameters, in reals. used: (weight, bias, loop) as the layers
    compute with them, a chip's integers where they train on those. longest: delay in whole steps. coefficients: of
    each neuron, in the dtype of the weights.
    """

    entrance: str
    name: str
    synapses: nn.Module
    neuron: Neuron
    weight: Tensor
    bias: Tensor | None
    delay: Tensor | None
    loop: Tensor | None
    used: tuple[Tensor, Tensor | None, Tensor | None]
    longest: int
    coefficients: dict[str, NDArray[Any]]

    @property
    def n(self) -> int:
        return len(self.weight)

    @property
    def spiking(self) -> bool:
        return self.neuron.spiking

    @property
    def subtract(self) -> bool:
        return self.neuron.reset == "subtract"

    @cached_property
    def table(self) -> NDArray[Any]:
        """W^T as the layers compute with it, [in, out]."""
        return np.ascontiguousarray(self.used[0].detach().numpy().T)

    def run(self, x: Spikes, arrived: Events, late: Carry, state: Carry) -> tuple[Tensor, Tensor]:
        """(spikes, v before the reset) of the next steps, as the network computes them; v for both of a readout.

        arrived: the events of x.
        """
        weight, bias, loop = self.used
        if loop is not None and self.delay is None and self.neuron.grid is None:
            return self.neuron.run(x, loop, entering=(weight, bias), carry=state)
        if self.delay is not None:
            return self.neuron.run(self.synapses.resume(x, late), loop, carry=state)  # type: ignore[operator]
        rows = len(x.words)
        zeros = torch.zeros((rows, self.n), dtype=weight.dtype)
        total = zeros if bias is None else bias.detach().repeat(rows, 1)
        over_rows(
            arrive, torch.get_num_threads(), len(total), len(arrived.index) * self.n, arrived.start, arrived.index,
            self.table, total.numpy(),
        )  # fmt: skip
        return self.neuron.run(total.view(*x.shape[:2], -1), loop, carry=state)


def stages(model: SpikingNetwork) -> list[Stage]:
    """The network as a chain of stages, the last a readout.

    Raises:
        NetworkError: every layer that EventProp is not defined on, and why.
    """
    bad: list[str] = []
    names: list[str] = []
    here = INPUT
    while True:
        nexts = model.targets(here)
        if len(nexts) != 1 or (here != INPUT and len(model.sources(here)) != 1):
            bad.append(f"'{here}' feeds {nexts} and hears {model.sources(here)}; EventProp wants a chain")
            break
        here = nexts[0]
        if here == OUTPUT or here in names:
            break
        names.append(here)
    left = [n for n in model.names if n not in names]
    bad += [f"'{n}' is not in the chain from input to output" for n in left if not bad]
    found: list[Stage] = []
    entrance: str | None = None
    for name in names:
        layer = model.layer(name)
        if isinstance(layer, (nn.Linear, DelayedLinear, DelayLinear)):
            if entrance is not None:
                bad.append(f"'{entrance}' feeds '{name}' with no neurons between")
            entrance = name
            if isinstance(layer, DelayLinear) and layer.shape().name != "linear":
                bad.append(f"'{name}' has delays of kernel '{layer.kernel}', as wide as many arrivals; use 'linear'")
            if isinstance(layer, LevelLayer):
                bad.append(f"'{name}' is on axon types of a chip; train that part with rule 'bptt'")
        elif isinstance(layer, Neuron) or type(layer) is Recurrent:  # kinds of loops with delays are others
            problems = _neuron_problems(layer, name == names[-1])
            if entrance is None:
                problems.append("no synapses in front of it")
            bad += [f"'{name}' ({_type(layer)}): {p}" for p in problems]
            if entrance is not None and not problems:
                found.append(_stage(model, entrance, name))
            entrance = None
        elif not (isinstance(layer, nn.Flatten) and not found and entrance is None):
            bad.append(f"'{name}' ({_type(layer)}) has no spike times; EventProp knows Linear, DelayedLinear, "
                       "DelayLinear, IF, LIF, CubaLIF, Recurrent, LI and CubaLI")  # fmt: skip
    if not bad and (not found or entrance is not None):
        bad.append("the network does not end in LI or CubaLI")
    if bad:
        raise NetworkError("EventProp is not defined on this network; use rule 'bptt', or change", bad)
    return found


def _type(layer: nn.Module) -> str:
    inner = getattr(layer, "neuron", None)
    return type(layer).__name__ + (f" of {type(inner).__name__}" if inner is not None else "")


def _neuron_problems(layer: nn.Module, last: bool) -> list[str]:
    neuron = layer.neuron if isinstance(layer, Recurrent) else layer
    if not isinstance(neuron, Neuron):
        return ["no adjoint for these neurons; use LIF or CubaLIF"]
    bad = []
    if neuron.learn:
        bad.append(f"learns {', '.join(neuron.learn)}; EventProp learns weights and delays")
    if last and neuron.spiking:
        bad.append("the number of output spikes has no derivative by their times; end in LI or CubaLI")
    if not last and not neuron.spiking:
        bad.append("sends no spikes to what follows")
    if neuron.spiking and not bad and not bool((neuron.value("v_threshold") > neuron.value("v_reset")).all()):
        bad.append("v_threshold must be above v_reset")
    return bad


def _stage(model: SpikingNetwork, entrance: str, name: str) -> Stage:
    synapses, layer = model.layer(entrance), model.layer(name)
    neuron = layer.neuron if isinstance(layer, Recurrent) else layer
    assert isinstance(neuron, Neuron)
    weight, bias = weights(synapses)
    delay: Tensor | None = None
    longest = 0
    if isinstance(synapses, DelayLinear):
        delay, longest = synapses.steps().expand_as(weight), synapses.max_delay
    elif isinstance(synapses, DelayedLinear):
        delay = synapses.get_buffer("delay_steps").to(weight.dtype)
        longest = int(delay.max())
    loop = weights(layer.recurrent)[0] if isinstance(layer, Recurrent) else None
    used = (weight, bias, loop)
    if neuron.grid is not None:
        unit = neuron.grid().unit
        weight, bias, loop = weight * unit, None if bias is None else bias * unit, None if loop is None else loop * unit
    values = {}
    for c in COEFFICIENTS:
        given = neuron.settled(c).detach().to(weight.dtype)
        values[c] = given.expand(len(weight)).contiguous().numpy()
    return Stage(entrance, name, synapses, neuron, weight, bias, delay, loop, used, longest, values)
