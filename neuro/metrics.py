"""NeuroBench's metrics of a `Network` (Yik et al. 2025, Nature Communications 16:1545), computed here.

Footprint            bytes of the parameters and buffers of the network as a torch module in float32
ConnectionSparsity   share of weights of Linear, Affine and Conv2d that are zero, rounded to 4 decimals
ActivationSparsity   share of zeros among what all spiking neurons send, over steps and samples
SynapticOperations   per sample: a nonzero input at a nonzero weight is an operation, an accumulation (Effective_ACs)
                     where a layer's inputs in a step are all 0, 1 or -1, else a multiplication (Effective_MACs); Dense
                     counts all inputs and all weights. Biases, pools and padding are none.

The definitions are those of the neurobench package 2.3.0; tests/golden/metrics holds what it computed itself. A step
is judged for the whole batch at once, as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro import ir, reference
from neuro.ir import Array, Network

WEIGHTS = (ir.Linear, ir.Conv2d)


def neurobench(network: Network, dense: ArrayLike) -> dict[str, Any]:
    """All four, under NeuroBench's names.

    Args:
        dense: [time, sample, *input shape], as `neuro.reference.run`.

    Raises:
        SimulationError: the input does not suit the network. UnsupportedLayer: it cannot be a torch module.
    """
    run = reference.run(network, dense, record=("spikes", "sent"))
    return {
        "Footprint": footprint(network),
        "ConnectionSparsity": connection_sparsity(network),
        "ActivationSparsity": _activation_sparsity(run.spikes),
        "SynapticOperations": _operations(network, run),
    }


def footprint(network: Network) -> int:
    """Bytes of parameters and buffers."""
    from neuro.nn.bridge import to_module

    module = to_module(network)
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def connection_sparsity(network: Network) -> float:
    """Share of weights that are zero; 0 without weights."""
    weights = [network.nodes[n].weight for n in network.of(*WEIGHTS)]  # type: ignore[attr-defined]
    total = sum(w.size for w in weights)
    return round(sum(int((w == 0).sum()) for w in weights) / total, 4) if total else 0.0


def _activation_sparsity(spikes: Any) -> float:
    total = sum(s.size for s in spikes.values())
    return (total - sum(int(np.count_nonzero(s)) for s in spikes.values())) / total if total else 0.0


def _operations(network: Network, run: reference.Record) -> dict[str, float]:
    macs = acs = every = 0
    samples = next(iter(run.sent.values())).shape[1]
    for name in network.of(*WEIGHTS):
        x = _entering(network, name, run)
        node: Any = network.nodes[name]
        effective = _counted(node, x != 0, node.weight != 0)
        spiking = np.isin(x, (-1.0, 0.0, 1.0)).reshape(len(x), -1).all(axis=1)
        acs += int(effective[spiking].sum())
        macs += int(effective[~spiking].sum())
        every += int(_counted(node, np.ones(x.shape, bool), np.ones(node.weight.shape, bool)).sum())
    return {"Effective_MACs": macs / samples, "Effective_ACs": acs / samples, "Dense": every / samples}


def _entering(network: Network, name: str, run: reference.Record) -> Array:
    """[time, sample, ...] that a node takes."""
    total: Any = 0.0
    for source in network.sources(name):
        sent = run.sent[source]
        if (source, name) in network.feedback:
            late = np.zeros_like(sent)
            late[1:] = sent[:-1]
            sent = late
        total = total + sent
    return np.asarray(total, np.float64)


def _counted(node: Any, x: NDArray[np.bool_], weight: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[time]: pairs of an input and a weight that meet, both true."""
    plain: ir.Node
    if isinstance(node, ir.Conv2d):
        plain = ir.Conv2d(weight.astype(float), node.stride, node.padding, node.dilation, node.groups)
    else:
        plain = ir.Linear(weight.astype(float))
    pairs = ir.chain({"x": ir.Input(x.shape[2:]), "w": plain, "y": ir.Output("sum")}, 1.0)
    answers = reference.run(pairs, x.astype(np.uint8), record=()).answers["y"]
    return np.asarray(answers.reshape(len(answers), -1).sum(axis=1))
