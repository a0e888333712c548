"""One sample through a network, inference only, by one framework; run by the interpreter that has the framework.

    PYTHON peer_latency.py '{"framework": "spikingjelly", "steps": 100, "rate": 0.03, "threads": 2}'

The network and the input of peer_training.py's task "net", batch 1, and each framework as it is written there, in
torch.inference_mode. neuro and neuro_float32: `neuro.simulate` of the same network, the input uint8; one call is all
that is timed, Python included.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import peer_training  # noqa: E402
from axon_peers import Work, serve  # noqa: E402


def torch_work(p, forward, parameters, x, said, scale=1.0):
    """In the place of `peer_training.torch_work`: the forward pass alone."""
    import torch

    def step():
        with torch.inference_mode():
            return forward(x)

    return Work(step, lambda: {"sums": step().numpy().astype(float).ravel().tolist()}, step, {"version": said})


def neuro(p, dtype):
    import numpy as np

    import neuro
    from neuro import ir
    from neuro.discretise import tau

    constant = tau(peer_training.BETA, 1e-3)
    gain = 1 / (1 - peer_training.BETA)
    nodes = {"input": ir.Input((p.sizes[0],))}
    for k, w in enumerate(p.weights):
        nodes[f"w{k}"] = ir.Linear(w)
        options = {"tau_mem": np.full(len(w), constant), "r": gain}
        nodes[f"n{k}"] = ir.LI(**options) if k == len(p.weights) - 1 else ir.LIF(v_threshold=1.0, **options)
    network = ir.chain(nodes | {"output": ir.Output("sum")}, 1e-3)
    x = p.x

    def step():
        return neuro.simulate(network, x, dtype=dtype, record=())

    def check():
        spikes = neuro.simulate(network, x, dtype=dtype).spikes
        rates = {name: float(s.mean()) for name, s in spikes.items()}
        return {"sums": step().answers["output"].sum(0).astype(float).ravel().tolist(), "rates": rates}

    return Work(step, check, step, {"version": neuro.__version__})


def build(a):
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(a["threads"])
    problem = peer_training.Problem(a | {"task": "net", "batch": 1, "input_gradient": False})
    if a["framework"].startswith("neuro"):
        work = neuro(problem, "float32" if a["framework"].endswith("32") else "float64")
    else:
        peer_training.torch_work = torch_work
        work = peer_training.FRAMEWORKS[a["framework"]](problem, a)
    work.said["python"] = sys.version.split()[0]
    return work


if __name__ == "__main__":
    serve(build)
