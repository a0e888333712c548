"""What is trained is what the chip computes: a module on the grid equals Loihi 2's simulated integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nn_strategies import spikes_for
from torch import nn

from neuro import ir
from neuro.hardware.compile import compile as compile_network
from neuro.hardware.loihi2.compiler import TARGET
from neuro.nn.bridge import to_module, to_network
from neuro.nn.delay import DelayedLinear
from neuro.nn.grid import Formats, GridLayer
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import ScaleNorm, SumPool2d
from neuro.train.quantise_aware import prepare

CHIP = TARGET.chip.formats
LOIHI2 = Formats(CHIP["weight_mixed"], CHIP["weight_conv"], CHIP["decay"], CHIP["threshold"], CHIP["bias"])
LIGHT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def trained(draw) -> SpikingNetwork:
    """Networks as `neuro.train` makes them: unit gains, hard reset, no bias."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-2, 1))  # of weights and thresholds alike
    layers: list[nn.Module] = []

    def neuron() -> nn.Module:
        theta, decays = scale * rng.uniform(0.5, 2), rng.uniform(0.3, 0.98, 2)
        kind = draw(st.sampled_from(["if", "lif", "cuba"]))
        if kind == "if":
            return IF(theta)
        return LIF(decays[0], theta) if kind == "lif" else CubaLIF(decays[1], decays[0], theta)

    if draw(st.booleans()):
        shape: tuple[int, ...] = (2, 6, 6)
        layers += [nn.Conv2d(2, 3, 3, padding=1, bias=False), ScaleNorm(3, 0.5), neuron()]
        if draw(st.booleans()):
            layers += [SumPool2d(2)]
        layers += [nn.Flatten()]
        n = 27 if isinstance(layers[-2], SumPool2d) else 108
    else:
        shape, n = (draw(st.integers(5, 9)),), 0
        n = shape[0]
    m = draw(st.integers(5, 9))  # enough weights for their greatest common divisor to be the grid
    fan = nn.Linear(n, m, bias=False) if draw(st.booleans()) else DelayedLinear(rng.integers(0, 5, (m, n)))
    hidden = neuron()
    layers += [fan, Recurrent(hidden, m) if draw(st.booleans()) else hidden]
    layers += [nn.Linear(m, 3, bias=False), draw(st.sampled_from([LI(0.9), CubaLI(0.7, 0.95), neuron()]))]
    for layer in layers:
        for name, p in layer.named_parameters():
            with torch.no_grad():
                spread = 0.5 if "recurrent" in name else 1.5
                p.copy_(torch.from_numpy(rng.normal(size=p.shape) * scale * spread / np.sqrt(max(1, p[0].numel()))))
        if isinstance(layer, ScaleNorm):
            layer.get_buffer("running_square").uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
    readout = "count" if layers[-1].spiking else draw(st.sampled_from(["sum", "max", "last"]))
    names = {f"{k}_{type(layer).__name__}": layer for k, layer in enumerate(layers)}
    return SpikingNetwork(names, input_shape=shape, dt=1e-3, readout=readout).eval()


@LIGHT
@given(st.data())
def test_module_on_the_grid_is_the_chip(data: st.DataObject) -> None:
    """Every spike of every layer, and v of the readout, are those of the compiled integers."""
    module = data.draw(trained())
    prepare(module, LOIHI2)
    dense = data.draw(spikes_for(module.input_shape, steps=(5, 40)))
    steps, batch = dense.shape[:2]
    spikes: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        trace = module(torch.from_numpy(dense), spikes)
    network = to_network(module)
    program = compile_network(network, "loihi2", max_steps=steps)
    assert not program.substitutions
    lossy = [e for e in program.budget if e.max_error > 1e-12]
    assert not lossy, "the trained network lies on the grid, so compiling loses nothing"
    chip = TARGET.run(program, dense.reshape(steps, batch, -1), probes=((program.output, "v"),))
    for name, s in spikes.items():
        first = program.skew[name]
        np.testing.assert_array_equal(
            chip.spikes[name][first : first + steps].reshape(s.shape), s.numpy(), err_msg=name
        )
    if module.readout != "count":
        first = program.skew[program.output]
        v = chip.probes[program.output, "v"][first : first + steps] * program.scale[program.output]
        np.testing.assert_allclose(v.reshape(trace.shape), trace.numpy(), rtol=1e-5, atol=1e-6 * np.abs(v).max())


@LIGHT
@given(st.data())
def test_weights_are_whole_multiples_of_one_unit(data: st.DataObject) -> None:
    module = data.draw(trained())
    prepare(module, LOIHI2)
    network = to_network(module)
    for name in module.names:
        layer = module.layer(name)
        if isinstance(layer, GridLayer):
            unit = layer.group.unit()
            k = network.nodes[name].weight / (unit * 2.0 ** layer.group.exponent(layer, unit))
            np.testing.assert_allclose(k, np.rint(k), atol=1e-9)
            assert np.rint(k).min() >= layer.format.low
            assert np.rint(k).max() <= layer.format.high
            assert not (np.rint(k) % layer.format.step).any()


@LIGHT
@given(st.data())
def test_integers_stay_close_to_the_reals(data: st.DataObject) -> None:
    """Preparing changes weights by at most half a step of their format, and thresholds not at all."""
    module = data.draw(trained())
    before = to_network(module)
    prepare(module, LOIHI2)
    after = to_network(module)
    for name in before.of(*{type(n) for n in before.nodes.values()}):
        old, new = before.nodes[name], after.nodes[name]
        if hasattr(old, "weight"):
            layer = module.layer(name.removesuffix("_recurrent"))
            layer = layer.recurrent if isinstance(layer, Recurrent) else layer
            unit = layer.group.unit()
            half = 0.5 * layer.format.step * unit * 2.0 ** layer.group.exponent(layer, unit)
            assert np.abs(old.weight - new.weight).max() <= half * (1 + 1e-9)
        if hasattr(old, "v_threshold"):
            np.testing.assert_allclose(new.v_threshold, old.v_threshold, rtol=1e-12)


@LIGHT
@given(st.data())
def test_a_network_from_the_grid_is_a_plain_network(data: st.DataObject) -> None:
    """Its real-valued module has the weights, and the state that is not rounded agrees; ties with a threshold,
    which whole numbers of weights often hit and rounded reals decide either way, are left out."""
    module = data.draw(trained())
    prepare(module, LOIHI2, state=False)
    dense = torch.from_numpy(data.draw(spikes_for(module.input_shape)))
    network = to_network(module)
    spiking = {n: network.nodes[n] for n in network.of(ir.Neuron) if network.nodes[n].spiking}
    with torch.no_grad():
        near = [
            to_module(
                network.replace_nodes({n: replace(x, v_threshold=x.v_threshold * by) for n, x in spiking.items()}),
                torch.float64,
            )(dense).numpy()
            for by in (1 - 1e-9, 1 + 1e-9)
        ]
        assume(np.allclose(*near, rtol=1e-7, atol=1e-7))
        plain = to_module(network, torch.float64)(dense).numpy()
        np.testing.assert_allclose(module.double()(dense).numpy(), plain, rtol=1e-9, atol=1e-9)
