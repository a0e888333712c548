"""Forward and backward of a layer with a learnt delay per synapse, by one implementation.

    PYTHON peer_delays.py '{"framework": "dcls_gauss", "steps": 100, "batch": 32, "rate": 0.03, "delays": 25,
                            "input_gradient": false, "threads": 2}'

700 -> 256, one delay and one weight per synapse, delays uniform in 0..delays - 1; loss: the output times fixed random
numbers; gradients of weights and delays, and with input_gradient of the input.

- neuro: `neuro.nn.DelayLinear`; the input is uint8 and becomes bits within the clock, unless its gradient is wanted.
- dcls_v1, dcls_gauss: `DCLS.construct.modules.Dcls1d` as github.com/Thvnvtos/SNN-delays has it: kernel_count 1, the
  input padded on the left, sigma at its start for gauss. v1 interpolates between two steps, which is what ours does.
- torch: the same with one matrix product per step of delay (`neuro.nn.delay_events.by_steps`).
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from axon_peers import Work, serve

IN, OUT = 700, 256


class Problem:
    def __init__(self, a):
        rng = np.random.default_rng(1)
        self.longest = a["delays"] - 1
        shape = (a["steps"], a["batch"], IN)
        self.x = (rng.random(shape, np.float32) < a["rate"]).astype(np.uint8)
        self.weight = (rng.standard_normal((OUT, IN)) / 5).astype(np.float32)
        self.delay = (rng.random((OUT, IN), np.float32) * self.longest).astype(np.float32)
        self.r = rng.standard_normal((a["steps"], a["batch"], OUT)).astype(np.float32)
        self.input_gradient = a["input_gradient"]


def work_of(p, forward, weight, delay, x, signed=1.0):
    """forward() -> [time, batch, out]; signed: what the sign of a delay is over there."""
    import torch

    r = torch.from_numpy(p.r)
    leaves = [weight, delay, *([x] if p.input_gradient else [])]

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = (forward() * r).sum()
        loss.backward()
        return loss

    def check():
        loss = step()
        found = [weight.grad.reshape(OUT, IN), delay.grad.reshape(OUT, IN) * signed]
        found += [x.grad] if p.input_gradient else []
        rows = [{"norm": float(g.norm()), "values": g.flatten()[:: max(1, g.numel() // 499)].tolist()} for g in found]
        return {"loss": float(loss), "gradients": rows}

    return Work(step, check, step, {"torch": torch.__version__})


def neuro(p):
    import torch

    from neuro.nn import DelayLinear
    from neuro.nn.spikes import Spikes

    layer = DelayLinear(IN, OUT, p.longest)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(p.weight))
        layer.delay.copy_(torch.from_numpy(p.delay))
    x = torch.from_numpy(p.x)
    if p.input_gradient:
        bits = Spikes.pack(x, torch.float32).requires_grad_()
        return work_of(p, lambda: layer(bits), layer.weight, layer.delay, bits)
    return work_of(p, lambda: layer(Spikes.pack(x, torch.float32)), layer.weight, layer.delay, x)


def torch_steps(p):
    import torch

    from neuro.nn.delay_events import by_steps

    weight, delay = (torch.from_numpy(a).requires_grad_() for a in (p.weight, p.delay))
    x = torch.from_numpy(p.x.astype(np.float32)).requires_grad_(p.input_gradient)
    return work_of(p, lambda: by_steps(x, weight, delay), weight, delay, x)


def dcls(p, version):
    import torch
    from DCLS.construct.modules import Dcls1d
    from torch.nn import functional

    size = p.longest + 1
    layer = Dcls1d(IN, OUT, kernel_count=1, dilated_kernel_size=size, bias=False, version=version)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(p.weight)[..., None])
        layer.P.copy_((size // 2 - torch.from_numpy(p.delay))[None, ..., None])
        if version == "gauss":
            layer.SIG.fill_(size // 2)
            layer.SIG.requires_grad_(False)
    x = torch.from_numpy(p.x.astype(np.float32)).requires_grad_(p.input_gradient)

    def forward():
        padded = functional.pad(x.permute(1, 2, 0), (size - 1, 0))
        return layer(padded).permute(2, 0, 1)

    return work_of(p, forward, layer.weight, layer.P, x, -1.0)


MADE = {"neuro": neuro, "torch": torch_steps}
MADE |= {f"dcls_{version}": lambda p, v=version: dcls(p, v) for version in ("v1", "gauss")}


def build(a):
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(a["threads"])
    work = MADE[a["framework"]](Problem(a))
    tiny = MADE[a["framework"]](Problem(a | {"steps": a["delays"] + 1, "batch": 1}))
    work.tiny = tiny.step
    work.said["python"] = sys.version.split()[0]
    return work


if __name__ == "__main__":
    serve(build)
