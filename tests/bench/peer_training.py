"""One training step of one framework: forward, loss, backward; run by the interpreter that has the framework.

    PYTHON peer_training.py '{"framework": "spikingjelly", "task": "linear_lif", "n": 256, "steps": 500, "batch": 16,
                              "rate": 0.05, "input_gradient": true, "threads": 2}'

Everybody gets the same weights, the same input and the same task, and the care of somebody who knows the framework:
one matrix product over all steps, then the neurons over time; whole time in one call where there is such a thing.

- neuro: `neuro.nn.SpikingNetwork`; spikes come and go as bits. Imported before torch (see neuro/__init__.py).
- torch_loop: a plain loop over steps in torch, the oracle of all checks.
- snntorch: Leaky, one step at a time. spikingjelly: LIFNode, step_mode "m".
- norse: LIFBoxCell in Lift. Its surrogate is 1 / (1 + |x|)^2 (1.1.0 takes no notice of alpha), and the gradient flows
  through the reset.
- spyx: Sequential of Linear and LIF in spyx.nn.run, jitted, as its documentation has it. It subtracts the threshold
  one step later, with gradient. spyx_hoisted: rewritten by hand, with the products out of its loop over time.
- floor: nobody's; the dense matrix products of each layer alone.

LIF: v = 0.9 v + W x, fires above 1, v = 0 then (no gradient through that), surrogate 1 / (1 + (pi x)^2), no bias.
linear_lif: one Linear and LIF, n to n; loss: spikes counted per sample and neuron, times fixed random numbers.
net: 700-256-256-20, two layers of LIF and one of leaky integrators; cross-entropy of what they add up over time.
input_gradient: whether dloss/dinput is computed, as within a deeper network; the same for all.
"""

from __future__ import annotations

import math
import sys
import warnings
from importlib.metadata import version

import numpy as np
from axon_peers import Work, serve

BETA, SIZES = 0.9, (700, 256, 256, 20)


class Problem:
    """Weights [target, source], input [time, batch, channel] (uint8 if spiking), labels; from the seed alone."""

    def __init__(self, a):
        self.task, self.input_gradient = a["task"], a["input_gradient"]
        steps, batch, rate = a["steps"], a["batch"], a["rate"]
        self.sizes = SIZES if self.task == "net" else (a["n"], a["n"])
        rng = np.random.default_rng(1)
        shape = (steps, batch, self.sizes[0])
        if rate is None:
            self.x = rng.standard_normal(shape, np.float32)
        else:
            self.x = (rng.random(shape, np.float32) < rate).astype(np.uint8)
        # currents such that some 4 % of the neurons fire in a step
        rates = [1.0 if rate is None else rate, 0.04, 0.04]
        pairs = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        self.weights = [
            (0.25 / math.sqrt(m * rates[k]) * rng.standard_normal((n, m))).astype(np.float32)
            for k, (m, n) in enumerate(pairs)
        ]
        self.labels = rng.integers(0, self.sizes[-1], batch)
        self.r = rng.standard_normal((batch, self.sizes[-1])).astype(np.float32)
        self.spiking = rate is not None


def rows_of(gradients):
    """Gradients as short lists: a fixed sample of values and the norm."""
    found = []
    for g in gradients:
        g = np.asarray(g, np.float64).ravel()
        found.append({"norm": float(np.linalg.norm(g)), "values": g[:: max(1, g.size // 499)][:499].tolist()})
    return found


def torch_work(p, forward, parameters, x, said, scale=1.0):
    """A step for any framework on torch. forward(x) -> per-sample sums over time [batch, last]. scale: of weights and
    gradients against the problem's."""
    import torch
    from torch.nn import functional

    r, labels = torch.from_numpy(p.r), torch.from_numpy(p.labels)

    def forward_alone():
        out = forward(x)
        return (out * r).sum() if p.task == "linear_lif" else functional.cross_entropy(out, labels)

    def step():
        for w in (x, *parameters):
            w.grad = None
        loss = forward_alone()
        loss.backward()
        return loss

    def check():
        loss = step()
        gradients = [w.grad.numpy() * scale for w in parameters]
        if p.input_gradient:
            gradients.append(x.grad.numpy())
        return {"loss": float(loss), "gradients": rows_of(gradients)}

    if p.input_gradient:
        x.requires_grad_(True)
    return Work(step, check, step, {"version": said, "torch": torch.__version__}, forward=forward_alone)


def dense_input(p):
    import torch

    return torch.from_numpy(p.x.astype(np.float32))


def linears(p, make, scale=1.0):
    """The weights in some framework's Linear."""
    import torch

    layers = []
    for w in p.weights:
        layer = make(w.shape[1], w.shape[0], bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w * np.float32(scale)))
        layers.append(layer)
    return layers, [layer.weight for layer in layers]


def neuro(p, a):
    import torch

    import neuro
    from neuro.nn import LI, LIF, SpikingNetwork
    from neuro.nn.spikes import Spikes

    fcs, weights = linears(p, torch.nn.Linear)
    layers = {}
    for k, fc in enumerate(fcs):
        last = p.task == "net" and k == len(fcs) - 1
        layers |= {f"w{k}": fc, f"n{k}": LI(BETA) if last else LIF(BETA, detach=True, surrogate="atan")}
    net = SpikingNetwork(layers, input_shape=(p.sizes[0],), dt=1e-3, readout="sum" if p.task == "net" else "count")
    x = torch.from_numpy(p.x)  # spikes as uint8 are packed within the step
    if p.input_gradient and p.spiking:
        x = Spikes.pack(x, torch.float32)  # what a layer before would send
    return torch_work(p, lambda x: net.scores(net(x)), weights, x, neuro.__version__)


def torch_loop(p, a):
    """convention: of the framework that is checked against this."""
    import torch

    convention = a.get("convention")

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 0).to(u.dtype)

        @staticmethod
        def backward(ctx, g):
            (u,) = ctx.saved_tensors
            h = 1 / (1 + u.abs()) ** 2 if convention == "norse" else 1 / (1 + (math.pi * u) ** 2)
            return g * h

    def lif(current):
        v = torch.zeros_like(current[0])
        found = []
        for c in current:
            if convention == "spyx":
                s = Spike.apply(v - 1)
                v = BETA * v + c - s
            else:
                v = BETA * v + c
                s = Spike.apply(v - 1)
                v = v * (1 - (s if convention == "norse" else s.detach()))
            found.append(s)
        return torch.stack(found)

    def li(current):
        v = torch.zeros_like(current[0])
        found = []
        for c in current:
            v = BETA * v + c
            found.append(v)
        return torch.stack(found)

    fcs, weights = linears(p, torch.nn.Linear)

    def forward(x):
        for k, fc in enumerate(fcs):
            x = (li if p.task == "net" and k == len(fcs) - 1 else lif)(fc(x))
        return x.sum(0)

    return torch_work(p, forward, weights, dense_input(p), torch.__version__)


def snntorch(p, a):
    import snntorch as snn
    import torch
    from snntorch import surrogate

    fcs, weights = linears(p, torch.nn.Linear)
    neurons = [
        snn.Leaky(
            BETA,
            spike_grad=surrogate.atan(alpha=2.0),
            reset_mechanism="none" if p.task == "net" and k == len(fcs) - 1 else "zero",
        )
        for k in range(len(fcs))
    ]

    def forward(x):
        for k, (fc, neuron) in enumerate(zip(fcs, neurons, strict=True)):
            current, mem = fc(x), neuron.reset_mem()
            last = p.task == "net" and k == len(fcs) - 1
            found = []
            for c in current:
                spk, mem = neuron(c, mem)
                found.append(mem if last else spk)
            x = torch.stack(found)
        return x.sum(0)

    return torch_work(p, forward, weights, dense_input(p), version("snntorch"))


def spikingjelly(p, a):
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    fcs, weights = linears(p, lambda m, n, bias: layer.Linear(m, n, bias=bias, step_mode="m"))
    neurons = []
    for k in range(len(fcs)):
        last = p.task == "net" and k == len(fcs) - 1
        made = neuron.LIFNode(
            tau=1 / (1 - BETA),
            decay_input=False,
            v_threshold=1e9 if last else 1.0,  # its way to a leaky integrator
            v_reset=0.0,
            surrogate_function=surrogate.ATan(alpha=2.0),
            detach_reset=True,
            step_mode="m",
            store_v_seq=last,
        )
        neurons.append(made)

    def forward(x):
        for fc, made in zip(fcs, neurons, strict=True):
            functional.reset_net(made)
            x = made(fc(x))
        return neurons[-1].v_seq.sum(0) if p.task == "net" else x.sum(0)

    older = "older" in getattr(neuron, "__file__", "")
    return torch_work(p, forward, weights, dense_input(p), "0.0.0.0.14" if older else version("spikingjelly"))


def norse(p, a):
    import torch
    from norse.torch import LIFBoxCell, LIFBoxParameters, Lift

    gain = 1 - BETA  # dt / tau_mem: its input is multiplied by that
    fcs, weights = linears(p, torch.nn.Linear, 1 / gain)
    box = LIFBoxParameters(tau_mem_inv=torch.as_tensor(gain / 1e-3), method="super")
    neurons = [Lift(LIFBoxCell(box, dt=1e-3)) for _ in fcs]

    def li(current):
        v = torch.zeros_like(current[0])
        found = []
        for c in current:  # its LI has a synapse that cannot be left out
            v = v + gain * (c - v)
            found.append(v)
        return torch.stack(found)

    def forward(x):
        for k, (fc, made) in enumerate(zip(fcs, neurons, strict=True)):
            x = li(fc(x)) if p.task == "net" and k == len(fcs) - 1 else made(fc(x))[0]
        return x.sum(0)

    return torch_work(p, forward, weights, dense_input(p), version("norse"), 1 / gain)


def spyx(p, a, hoisted=False):
    import jax
    import jax.numpy as jnp
    import spyx.nn as snn
    from flax import nnx
    from spyx import axn

    weights = [jnp.asarray(w.T.copy()) for w in p.weights]
    x, r, labels = jnp.asarray(p.x.astype(np.float32)), jnp.asarray(p.r), jnp.asarray(p.labels)
    spike = axn.custom(lambda u: 1 / (1 + (jnp.pi * u) ** 2))
    neurons = [
        snn.LI((w.shape[1],), BETA, rngs=nnx.Rngs(0))
        if p.task == "net" and k == len(weights) - 1
        else snn.LIF((w.shape[1],), BETA, activation=spike, rngs=nnx.Rngs(0))
        for k, w in enumerate(weights)
    ]
    dense = [nnx.Linear(*w.shape, use_bias=False, rngs=nnx.Rngs(0)) for w in weights]
    model = snn.Sequential(*(m for pair in zip(dense, neurons, strict=True) for m in pair))
    graph, kernels, rest = nnx.split(model, nnx.PathContains("kernel"), ...)
    kernels = jax.tree.unflatten(jax.tree.structure(kernels), weights)

    def trace(kernels, x):
        if not hoisted:
            return snn.run(nnx.merge(graph, kernels, rest), x)[0]
        for w, neuron in zip(jax.tree.leaves(kernels), neurons, strict=True):
            x, _ = snn.run(neuron, x @ w)
        return x

    def loss(kernels, x):
        out = trace(kernels, x).sum(0)
        if p.task == "linear_lif":
            return (out * r).sum()
        return -jax.nn.log_softmax(out)[jnp.arange(len(labels)), labels].mean()

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1) if p.input_gradient else (0,))).lower(kernels, x).compile()

    def step():
        return jax.block_until_ready(compiled(kernels, x))

    def check():
        value, gradients = step()
        found = [np.asarray(g).T for g in jax.tree.leaves(gradients[0])] + [np.asarray(g) for g in gradients[1:]]
        return {"loss": float(value), "gradients": rows_of(found)}

    return Work(step, check, step, {"version": version("spyx"), "jax": jax.__version__})


def spyx_hoisted(p, a):
    return spyx(p, a, hoisted=True)


def floor(p, a):
    import torch

    x, flat = dense_input(p), []
    for k, w in enumerate(p.weights):
        rows = x.shape[0] * x.shape[1]
        source, target = torch.rand(rows, w.shape[1]), torch.rand(rows, w.shape[0])
        weight = torch.from_numpy(w)
        out = torch.empty_like(target), torch.empty_like(weight), torch.empty_like(source)
        flat.append((source, target, weight, out, k > 0 or p.input_gradient))

    def step():
        for source, target, weight, (y, dw, dx), wanted in flat:
            torch.mm(source, weight.t(), out=y)
            torch.mm(target.t(), source, out=dw)
            if wanted:
                torch.mm(target, weight, out=dx)

    return Work(step, None, step, {"version": torch.__version__})


FRAMEWORKS = {f.__name__: f for f in (neuro, torch_loop, snntorch, spikingjelly, norse, spyx, spyx_hoisted, floor)}


def build(a):
    warnings.simplefilter("ignore")
    if a["framework"] == "neuro":
        import neuro  # noqa: F401  before torch: it tells torch's idle threads to sleep
    jax = a["framework"].startswith("spyx")
    if not jax:
        import torch

        torch.set_num_threads(a["threads"])
    p = Problem(a)
    work = FRAMEWORKS[a["framework"]](p, a)
    if not jax:  # which compiles for the real size, before the clock and the count
        tiny = FRAMEWORKS[a["framework"]](Problem(a | {"steps": 4, "batch": 2}), a)
        work.tiny = tiny.step
    work.said["python"] = sys.version.split()[0]
    return work


if __name__ == "__main__":
    serve(build)
