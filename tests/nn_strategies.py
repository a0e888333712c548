"""Hypothesis strategies for torch modules that have a place in a `Network`."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from neuro import ir, reference
from neuro.nn.delay import Delay, DelayedLinear
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import AvgPool2d, Dropout, Scale, SumPool2d


def _noise(rng: np.random.Generator, layer: nn.Module, scale: float) -> nn.Module:
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape) * scale))
        for name, buffer in layer.named_buffers():
            if name.startswith("running"):
                low = 0.5 if name.endswith("var") else -0.5
                buffer.copy_(torch.from_numpy(rng.uniform(low, 1.5, buffer.shape)))
    return layer


@st.composite
def neurons(draw, shape, spiking=True):
    """A neuron for a population of this shape, scalar or per-neuron parameters."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    each = draw(st.booleans())

    def value(low, high):
        return rng.uniform(low, high, shape if each else ())

    options = {"gain": value(0.5, 1.5), "gain_syn": value(0.5, 1.5)}
    cls = draw(st.sampled_from((IF, LIF, CubaLIF) if spiking else (LI, CubaLI)))
    if cls is not IF:
        options |= {"beta": value(0.0 if draw(st.booleans()) else 0.5, 0.99), "drive": value(-0.1, 0.1)}
    if cls.synapse:
        options["alpha"] = value(0.1, 0.9)
    if spiking:
        options |= {"v_threshold": value(0.5, 1.5), "v_reset": value(-0.2, 0.3)}
        options["reset"] = draw(st.sampled_from(["hard", "subtract"]))
    return cls(**options)


@st.composite
def modules(draw):
    """A SpikingNetwork in float64: convolutions or not, batch norm, recurrence, delays, skips, a readout."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers: list[tuple[str, nn.Module]] = []
    image = draw(st.booleans())
    shape: tuple[int, ...] = (2, 7, 6) if image else (draw(st.integers(1, 5)),)
    input_shape = shape

    def add(layer: nn.Module) -> None:
        layers.append((f"{len(layers)}.{type(layer).__name__}", layer))

    if image:
        c = draw(st.integers(1, 3))
        add(nn.Conv2d(2, c, 3, draw(st.sampled_from([1, 2])), (1, 0), bias=draw(st.booleans())))
        if draw(st.booleans()):
            add(nn.BatchNorm2d(c))
        size = layers[0][1](torch.zeros(1, *shape)).shape[1:]
        add(draw(neurons(tuple(size))))
        pool = draw(st.sampled_from([None, SumPool2d(2), AvgPool2d((2, 1), 1, (1, 1)), nn.AvgPool2d(2, 1)]))
        if pool is not None:
            add(pool)
            size = pool(torch.zeros(1, *size)).shape[1:]
        add(nn.Flatten())
        shape = (int(np.prod(size)),)
    for _ in range(draw(st.integers(1, 2))):
        n = draw(st.integers(1, 5))
        kind = draw(st.sampled_from(["plain", "bias", "norm", "delayed"]))
        if kind == "delayed":
            add(DelayedLinear(rng.integers(0, 4, (n, shape[0])), bias=draw(st.booleans())))
        else:
            add(nn.Linear(shape[0], n, bias=kind == "bias"))
        if kind == "norm":
            add(nn.BatchNorm1d(n))
        neuron = draw(neurons((n,)))
        add(Recurrent(neuron, n) if draw(st.booleans()) else neuron)
        extra = draw(
            st.sampled_from([None, Dropout(0.5), Delay(rng.integers(0, 3, n)), Scale(rng.uniform(0.5, 1.5, n))])
        )
        if extra is not None:
            add(extra)
        shape = (n,)
    readout = draw(st.sampled_from(["count", "sum", "max", "last"]))
    if readout == "count" or draw(st.booleans()):
        add(nn.Linear(shape[0], 3))
        add(draw(neurons((3,))))
    else:
        add(nn.Linear(shape[0], 3))
        add(draw(neurons((3,), spiking=False)))
    table = {name: _noise(rng, layer, 0.7) for name, layer in layers}
    dt = draw(st.sampled_from([1e-4, 1e-3, 0.0125]))
    rule = draw(st.sampled_from(["exact", "euler"]))
    return SpikingNetwork(table, input_shape=input_shape, dt=dt, readout=readout, discretisation=rule).double().eval()


@st.composite
def spikes_for(draw, input_shape, steps=(1, 12), batch=(1, 3)):
    """uint8[time, batch, *input_shape]."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t, b = draw(st.integers(*steps)), draw(st.integers(*batch))
    return (rng.random((t, b, *input_shape)) < draw(st.sampled_from([0.1, 0.5]))).astype(np.uint8)


def clear_of_thresholds(network: ir.Network, dense: np.ndarray, margin: float = 1e-9) -> bool:
    """No membrane so close to its threshold that the last bit of a sum could decide."""
    sent = reference.run(network, dense, record=("spikes", "v")).v
    for name, v in sent.items():
        theta = getattr(network.nodes[name], "v_threshold", None)
        if theta is not None and (np.abs(v - theta) < margin).any():
            return False
    return True
