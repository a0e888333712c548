"""One training step of a convolutional network in one framework; run by the interpreter that has the framework.

    PYTHON peer_conv.py '{"framework": "spikingjelly", "steps": 15, "batch": 32, "rate": 0.07, "threads": 2}'

The network of the preset nmnist without dropout: 2 x 28 x 28 - conv 24, 5 x 5 / 2 - conv 48, 3 x 3 / 2 - conv 96,
3 x 3 - linear 10; batch norm and LIF behind each convolution, leaky integrators at the end; cross-entropy of what they
add up over time. LIF: v = 0.8 v + x, fires above 1, v = 0 then (no gradient through that), surrogate
1 / (1 + (pi u)^2). Input: spikes of a ring of pixels, ``rate`` on average, uint8 for neuro, float32 for the others.

Everybody sees all steps at once in convolutions and norms, and has its weights and input with channels innermost in
memory (channels_last) where ``last``, which is the faster way for every one of them.

- neuro: `neuro.nn.SpikingNetwork`. torch_loop: a plain loop over steps in torch; in float64 the oracle of the check.
- snntorch: Leaky, one step at a time. spikingjelly: layer.* and LIFNode in step_mode "m".
- floor: nobody's; the dense convolutions alone, forwards and backwards, without the gradient of the input.
"""

from __future__ import annotations

import math
import sys
import warnings
from importlib.metadata import version

import numpy as np
from axon_peers import Work, serve
from peer_training import rows_of

BETA, OUT_BETA, START = 0.8, 0.95, 0.6
CONVS = ((2, 24, 5, 2, 2), (24, 48, 3, 2, 1), (48, 96, 3, 1, 0))  # in, out, kernel, stride, padding
FLAT, CLASSES = 96 * 5 * 5, 10


class Problem:
    """Weights, input uint8 [time, batch, 2, 28, 28] and labels, from the seed alone."""

    def __init__(self, a):
        rng = np.random.default_rng(1)
        steps, batch, self.rate = a["steps"], a["batch"], a["rate"]
        self.last, self.double = a.get("last", True), a.get("double", False)
        y, x = np.mgrid[:28, :28] - 13.5
        ring = np.exp(-(((np.hypot(x, y) - 7.0) / 3.0) ** 2))
        chance = np.minimum(1.0, self.rate * ring / ring.mean())
        self.x = (rng.random((steps, batch, 2, 28, 28), np.float32) < chance).astype(np.uint8)
        sizes = [(o, i, k, k) for i, o, k, _, _ in CONVS] + [(CLASSES, FLAT)]
        fans = [i * k * k for i, _, k, _, _ in CONVS] + [FLAT]
        self.weights = [
            (rng.standard_normal(s) / math.sqrt(f)).astype(np.float32) for s, f in zip(sizes, fans, strict=True)
        ]
        self.labels = rng.integers(0, CLASSES, batch)


def layers(p, conv, norm, linear):
    """Convolutions, norms and the linear layer of some framework, with the problem's weights."""
    import torch

    convs = [conv(i, o, k, stride=s, padding=q, bias=False) for i, o, k, s, q in CONVS]
    norms = [norm(o) for _, o, *_ in CONVS]
    last = linear(FLAT, CLASSES, bias=False)
    with torch.no_grad():
        for layer, w in zip([*convs, last], p.weights, strict=True):
            layer.weight.copy_(torch.from_numpy(w))
        for layer in norms:
            layer.weight.fill_(START)
    if p.last:
        for layer in convs:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return convs, norms, last


def dense_input(p):
    """float32 [time, batch, 2, 28, 28]."""
    import torch

    x = torch.from_numpy(p.x.astype(np.float32))
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]) if p.last else x


def work_of(p, forward, parameters, x, said):
    """A step for any framework on torch. forward(x) -> membrane summed over time [batch, classes]."""
    import torch
    from torch.nn import functional

    labels = torch.from_numpy(p.labels)

    def forward_alone():
        return functional.cross_entropy(forward(x) * 0.03, labels)

    def step():
        for w in parameters:
            w.grad = None
        loss = forward_alone()
        loss.backward()
        return loss

    def check():
        loss = step()
        return {"loss": float(loss.detach()), "gradients": rows_of([w.grad.contiguous().numpy() for w in parameters])}

    return Work(step, check, step, {"version": said, "torch": torch.__version__}, forward=forward_alone)


def parameters_of(convs, norms, last):
    return [*(m.weight for m in convs), *(t for m in norms for t in (m.weight, m.bias)), last.weight]


def neuro(p):
    import torch
    from torch import nn

    import neuro
    from neuro.nn import LI, LIF, SpikingNetwork

    convs, norms, last = layers(p, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    chain = {}
    for k, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        chain |= {f"conv{k}": conv, f"norm{k}": norm, f"lif{k}": LIF(BETA, detach=True, surrogate="atan")}
    chain |= {"flat": nn.Flatten(), "last": last, "out": LI(OUT_BETA)}
    net = SpikingNetwork(chain, input_shape=(2, 28, 28), dt=1e-3, readout="sum")
    x = torch.from_numpy(p.x)
    return work_of(p, lambda x: net.scores(net(x)), parameters_of(convs, norms, last), x, neuro.__version__)


def folded(layer, x):
    """A layer over all steps at once."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def li(current):
    import torch

    v = torch.zeros_like(current[0])
    total = torch.zeros_like(v)
    for c in current:
        v = OUT_BETA * v + c
        total = total + v
    return total


def torch_loop(p):
    import torch
    from torch import nn

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 0).to(u.dtype)

        @staticmethod
        def backward(ctx, g):
            return g / (1 + (math.pi * ctx.saved_tensors[0]) ** 2)

    def lif(current):
        v = torch.zeros_like(current[0])
        found = []
        for c in current:
            v = BETA * v + c
            s = Spike.apply(v - 1)
            v = v * (1 - s.detach())
            found.append(s)
        return torch.stack(found)

    convs, norms, last = layers(p, nn.Conv2d, nn.BatchNorm2d, nn.Linear)

    def forward(x):
        for conv, norm in zip(convs, norms, strict=True):
            x = lif(folded(norm, folded(conv, x)))
        return li(last(x.flatten(2)))

    x = dense_input(p)
    if p.double:
        x = x.double()
        for layer in (*convs, *norms, last):
            layer.double()
    return work_of(p, forward, parameters_of(convs, norms, last), x, torch.__version__)


def snntorch(p):
    import snntorch as snn
    import torch
    from snntorch import surrogate
    from torch import nn

    convs, norms, last = layers(p, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    atan = surrogate.atan(alpha=2.0)
    neurons = [snn.Leaky(BETA, spike_grad=atan, reset_mechanism="zero") for _ in convs]
    output = snn.Leaky(OUT_BETA, spike_grad=atan, reset_mechanism="none")

    def over(neuron, current):
        mem = neuron.reset_mem()
        for c in current:
            yield (pair := neuron(c, mem))
            mem = pair[1]

    def forward(x):
        for conv, norm, neuron in zip(convs, norms, neurons, strict=True):
            x = torch.stack([spk for spk, _ in over(neuron, folded(norm, folded(conv, x)))])
        return sum(mem for _, mem in over(output, last(x.flatten(2))))

    return work_of(p, forward, parameters_of(convs, norms, last), dense_input(p), version("snntorch"))


def spikingjelly(p):
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def several(kind):
        return lambda *args, **options: kind(*args, **options, step_mode="m")

    convs, norms, last = layers(p, several(layer.Conv2d), several(layer.BatchNorm2d), several(layer.Linear))

    def lif(beta, v_threshold, store=False):
        return neuron.LIFNode(
            tau=1 / (1 - beta), decay_input=False, v_threshold=v_threshold, v_reset=0.0, detach_reset=True,
            surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m", store_v_seq=store,
        )  # fmt: skip

    neurons = [lif(BETA, 1.0) for _ in convs]
    output = lif(OUT_BETA, 1e9, store=True)  # its way to a leaky integrator

    def forward(x):
        for made in (*neurons, output):
            functional.reset_net(made)
        for conv, norm, made in zip(convs, norms, neurons, strict=True):
            x = made(norm(conv(x)))
        output(last(x.flatten(2)))
        return output.v_seq.sum(0)

    return work_of(p, forward, parameters_of(convs, norms, last), dense_input(p), version("spikingjelly"))


def floor(p):
    import torch
    from torch.nn import functional

    x, pieces = dense_input(p).flatten(0, 1), []
    for k, (i, o, size, stride, padding) in enumerate(CONVS):
        x = x if k == 0 else torch.rand(len(x), i, y.shape[2], y.shape[3])  # noqa: F821 - of the round before
        x = x.contiguous(memory_format=torch.channels_last)
        w = torch.rand(o, i, size, size).contiguous(memory_format=torch.channels_last)
        y = functional.conv2d(x, w, None, stride, padding)
        pieces.append((x, w, torch.rand_like(y), stride, padding, k > 0))

    def step():
        for x, w, g, stride, padding, wanted in pieces:
            functional.conv2d(x, w, None, stride, padding)
            torch.ops.aten.convolution_backward(
                g, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [wanted, True, False]
            )

    return Work(step, None, step, {"version": torch.__version__})


FRAMEWORKS = {f.__name__: f for f in (neuro, torch_loop, snntorch, spikingjelly, floor)}


def build(a):
    if a["framework"] == "neuro":
        import neuro  # noqa: F401 - before torch, whose idle threads it puts to sleep
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(a["threads"])
    work = FRAMEWORKS[a["framework"]](Problem(a))
    work.tiny = FRAMEWORKS[a["framework"]](Problem(a | {"steps": 4, "batch": 2})).step
    work.said["python"] = sys.version.split()[0]
    return work


if __name__ == "__main__":
    serve(build)
