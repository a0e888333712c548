"""Learning rules by their definition: autograd through plain steps of layers, with edges detached by hand; networks
to try them on."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from neuro.nn.adaptive import ALIF, AdLIF
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent, Temporal
from neuro.nn.network import SpikingNetwork
from neuro.nn.stateless import SumPool2d

STEPS, BATCH, CLASSES = 11, 3, 4


def vector_net(*neurons, out=None, inputs=9, widths=(8, 7), readout="sum", synapse=nn.Linear):
    layers, n = {}, inputs
    for k, (neuron, width) in enumerate(zip(neurons, widths, strict=False)):
        layers |= {f"w{k}": synapse(n, width), f"n{k}": neuron}
        n = width
    layers |= {"w": nn.Linear(n, CLASSES), **({} if out is None else {"out": out})}
    return SpikingNetwork(layers, input_shape=(inputs,), dt=1e-3, readout=readout)


def conv_net(neuron):
    layers = {
        "c0": nn.Conv2d(2, 3, 3, padding=1),
        "n0": neuron(),
        "pool": SumPool2d(2),
        "c1": nn.Conv2d(3, 4, 2, bias=False),
        "n1": neuron(),
        "flat": nn.Flatten(),
        "w": nn.Linear(36, CLASSES),
        "out": LI(0.7),
    }
    return SpikingNetwork(layers, input_shape=(2, 8, 8), dt=1e-3, readout="sum")


def ready(model, seed=0, scale=2.5):
    """In float64, with weights of its own seed, large enough for spikes."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("weight", "bias")):
                fan_in = max(1, p[0].numel())
                p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * scale / fan_in**0.5)
            elif name.endswith("delay"):
                p.copy_(torch.rand(p.shape, generator=generator, dtype=p.dtype) * 2.9)
    return model


def sample(model, seed=1, share=0.3, steps=STEPS):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((steps, BATCH, *model.input_shape), generator=generator) < share
    return x.to(torch.uint8), torch.randint(0, CLASSES, (BATCH,), generator=generator)


def loss_of(labels, readout="sum", penalty=0.01):
    def judged(trace, spikes):
        score = trace[-1] if readout == "last" else trace.sum(0)
        fired = sum((s.flatten(2).sum(0) - 1.0).square().mean() for s in spikes.values()) if penalty else 0.0
        return functional.cross_entropy(score, labels), torch.as_tensor(penalty * fired)

    return judged


def same(found, wanted, tolerance=1e-9):
    assert found.keys() == wanted.keys()
    for name, w in wanted.items():
        if w is None:
            assert found[name] is None or not found[name].any(), name
        else:
            assert found[name] is not None, name
            scale = max(1.0, float(w.abs().max()))
            torch.testing.assert_close(
                found[name], w, rtol=0.0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
            )


LEARN = ("beta", "v_threshold")
NETS = {
    "LIF hard": lambda: vector_net(LIF(0.8, 0.7), LIF(0.7, 0.6, learn=LEARN), out=LI(0.9)),
    "LIF soft": lambda: vector_net(LIF(0.8, 0.7, reset="subtract", learn=LEARN), LIF(0.7, 0.6, reset="subtract")),
    "CubaLIF": lambda: vector_net(CubaLIF(0.6, 0.8, learn=("alpha", *LEARN)), CubaLIF(0.5, 0.7, reset="subtract"),
                                  out=CubaLI(0.4, 0.8)),
    "IF": lambda: vector_net(IF(0.9), IF(0.8, reset="subtract"), out=LI(0.5)),
    "reset to another value, gains": lambda: vector_net(
        CubaLIF(0.5, 0.8, 0.7, v_reset=-0.3, gain_syn=0.8, gain=0.9, drive=0.02, learn=("alpha", *LEARN)),
        LIF(0.8, 0.5, gain=0.6), out=LI(0.9)),
    "spiking end": lambda: SpikingNetwork(
        {"w0": nn.Linear(9, 8), "n0": LIF(0.8, 0.6), "w": nn.Linear(8, CLASSES), "n1": LIF(0.7, 0.5)},
        input_shape=(9,), dt=1e-3, readout="count"),
    "spikes counted": lambda: vector_net(LIF(0.8, 0.7), LIF(0.7, 0.6), readout="count"),
    "a value per neuron": lambda: vector_net(LIF(np.linspace(0.2, 0.9, 8), learn=LEARN), out=LI(0.9)),
    "last membrane": lambda: vector_net(LIF(0.8, 0.7), out=LI(0.9), readout="last"),
    "recurrent": lambda: vector_net(Recurrent(CubaLIF(0.6, 0.8, 0.6, learn=("alpha", *LEARN)), 8),
                                    Recurrent(LIF(0.8, 0.6, reset="subtract"), 7), out=LI(0.9)),
    "adaptive": lambda: vector_net(AdLIF(0.8, 0.9, 0.05, 0.2, 0.6, learn=("beta", "v_threshold", "rho", "b")),
                                   ALIF(0.8, 0.9, 0.3, 0.6, learn=("beta", "v_threshold")), out=LI(0.9)),
    "adaptive, recurrent": lambda: vector_net(Recurrent(ALIF(0.8, 0.9, 0.3, 0.6), 8),
                                              Recurrent(AdLIF(0.8, 0.9, 0.1, 0.2, 0.6, adaptation="euler"), 7),
                                              out=LI(0.9)),
    "no steepness that a kernel knows": lambda: vector_net(LIF(0.8, 0.7, surrogate="gaussian"), out=LI(0.9)),
    "conv": lambda: conv_net(lambda: LIF(0.8, 0.7)),
    "conv, soft": lambda: conv_net(lambda: CubaLIF(0.5, 0.8, 0.7, reset="subtract", learn=("beta",))),
    "delays": lambda: vector_net(LIF(0.8, 0.5), LIF(0.7, 0.4), out=LI(0.9),
                                 synapse=lambda i, o: DelayLinear(i, o, 3, bias=True)),
    "whole delays": lambda: SpikingNetwork(
        {"w0": nn.Linear(9, 8), "n0": LIF(0.8, 0.6), "d": Delay(2),
         "w1": DelayedLinear(torch.arange(40).view(5, 8) % 4), "n1": LIF(0.8, 0.5),
         "w": nn.Linear(5, CLASSES)}, input_shape=(9,), dt=1e-3, readout="sum"),
}  # fmt: skip

DELAYS = (Delay, Taps, DelayedLinear, DelayLinear)


def constant(state):
    return tree_map_only(torch.Tensor, torch.Tensor.detach, state)


def gradients(model):
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def by_rule(model, rule, x, loss_of, **options):
    """(what the rule returned, gradients by name)."""
    model.zero_grad()
    found = rule.backward(model, x, loss_of, **options)
    return found, gradients(model)


def judge(outputs, spikes, loss_of, stretch, learns=lambda number: True):
    """The sum of the stretches' losses, each by its share."""
    steps, total = len(outputs), 0.0
    for number, begin in enumerate(range(0, steps, stretch)):
        end = min(begin + stretch, steps)
        if learns(number):
            seen = {name: torch.stack(s[begin:end]) for name, s in spikes.items()}
            loss, penalty = loss_of(torch.stack(outputs[begin:end]), seen)
            total = total + (loss + penalty) * (end - begin) / steps
    return total


def sltt(model, x, loss_of, stretch, learns=lambda number: True):
    """Every state but that of a delay detached between steps."""
    model.zero_grad()
    states, outputs, spikes = {}, [], {}
    for now in x.to(next(model.parameters()).dtype):
        y = now
        for name in model.names:
            layer = model.layer(name)
            if isinstance(layer, Temporal):
                state = states.get(name)
                y, states[name] = layer.step(y, state if isinstance(layer, DELAYS) else constant(state))
                if getattr(layer, "spiking", False):
                    spikes.setdefault(name, []).append(y)
            else:
                y = layer(y)
        outputs.append(y)
    judge(outputs, spikes, loss_of, stretch, learns).backward()
    return spikes, gradients(model)


class Traced:
    """a of one input: j = alpha j + s, a = beta a + j."""

    def __init__(self, neuron):
        self.alpha = 0.0 if isinstance(neuron, AdLIF) else float(neuron.value("alpha").detach())
        self.beta = float(neuron.value("beta").detach())
        self.j = self.a = 0.0

    def __call__(self, s):
        self.j = self.alpha * self.j + s.detach()
        self.a = self.beta * self.a + self.j
        return self.a


def weighted(layer, x, a, always):
    """layer(x), whose gradient to x is as ever, to the weights that with a, to the bias that with ``always``."""
    apply = functional.linear if isinstance(layer, nn.Linear) else functional.conv2d
    options = () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding)
    bias = None if layer.bias is None else layer.bias.detach()
    y = apply(x, layer.weight.detach(), bias, *options)
    ghost = apply(a, layer.weight, None, *options)
    if layer.bias is not None:
        ghost = ghost + (layer.bias * always).view(-1, *[1] * (ghost.dim() - 2))
    return y + ghost - ghost.detach()


def traced(model, x, loss_of, stretch, *, alone=False, readout=None):
    """OTTT; alone and readout (name, n, trace) -> G: DECOLLE. Networks of pairs of weights and neurons, with pools,
    flattens and the like between."""
    model.zero_grad()
    states, traces, outputs, spikes, local = {}, {}, [], {}, {}
    names = list(model.names)
    for now in x.to(next(model.parameters()).dtype):
        y = now
        for name, after in zip(names, [*names[1:], None], strict=True):
            layer = model.layer(name)
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                following = model.layer(after)
                inner = following.neuron if isinstance(following, Recurrent) else following
                at, one = traces.setdefault(name, (Traced(inner), Traced(inner)))
                y = y.detach() if alone else y
                y = weighted(layer, y, at(y), one(torch.ones((), dtype=y.dtype)))
            elif isinstance(layer, Recurrent):
                inner, sent = states.get(name) or (None, torch.zeros_like(y))
                at = traces.setdefault(name, Traced(layer.neuron))
                y = y + weighted(layer.recurrent, sent.detach(), at(sent), 1.0)
                y, inner = layer.neuron.step(y, constant(inner))
                states[name] = (inner, y)
                spikes.setdefault(name, []).append(y)
            elif isinstance(layer, Temporal):
                y, states[name] = layer.step(y, constant(states.get(name)))
                if layer.spiking:
                    spikes.setdefault(name, []).append(y)
            else:
                y = layer(y)
        outputs.append(y)
    if readout is not None:
        shape = torch.stack(outputs)
        for name, fired in spikes.items():
            if name == names[-1]:
                continue  # what is read learns from the loss itself
            g = readout(name, fired[0][0].numel(), shape)
            local[name] = [s.flatten(1) @ g.t() for s in fired]
    total = judge(outputs, spikes, loss_of, stretch)
    for series in local.values():
        total = total + judge(series, {}, loss_of, stretch)
    total.backward()
    return gradients(model)


def eprop(model, x, loss_of, stretch, feedback):
    """Each neuron's own past attached, and nothing of what spikes bring to other neurons of the same layer. feedback:
    name -> B [outputs, n], which takes the place of the output's weights on the way back; None: those themselves."""
    model.zero_grad()
    states, outputs, spikes = {}, [], {}
    names = list(model.names)
    hidden = [n for n in names if getattr(model.layer(n), "spiking", False)]
    head = names[names.index(hidden[-1]) + 1]
    for now in x.to(next(model.parameters()).dtype):
        y, ghost = now, 0.0
        for name in names:
            layer = model.layer(name)
            if name == head:
                y = layer(y.detach() if feedback else y) + ghost
            elif isinstance(layer, Recurrent):
                inner, sent = states.get(name) or (None, torch.zeros_like(y))
                y, inner = layer.neuron.step(y + layer.recurrent(sent.detach()), inner)
                states[name] = (inner, y)
            elif isinstance(layer, Temporal):
                y, states[name] = layer.step(y, states.get(name))
            else:
                y = layer(y)
            if name in hidden:
                spikes.setdefault(name, []).append(y)
                if feedback:
                    told = y @ feedback[name].t()
                    ghost = ghost + told - told.detach()
                if name != hidden[-1]:
                    y = y.detach()
        outputs.append(y)
    judge(outputs, spikes, loss_of, stretch).backward()
    return gradients(model)
