"""Networks of one shape that hear the same, side by side in the layers of one network: their scores add up.

score(x) = sum_k score_k(x). Networks trained alike from other seeds make other mistakes, and the sum makes fewer
(Hansen and Salamon 1990, IEEE Transactions on Pattern Analysis and Machine Intelligence 12:993). Nothing is trained or
approximated: a layer has the channels of all members, one after the other, and weights of zero between members
(convolutions: groups). The result is one chain of layers as each of them is, so that whatever holds chains holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from neuro import ir
from neuro.errors import NetworkError
from neuro.ir import Network, Node, Shape

Rows = Sequence[Any]  # the nodes that stand at one place, one of each member


def join(networks: Sequence[Network]) -> Network:
    """One chain of layers whose scores are the sums of those of ``networks``, up to the rounding of a sum of floats.

    The networks are chains of the same layers, of the same sizes, that end with a Linear or Affine; readout "sum" or
    "last". Names are those of the first; metadata too.

    Raises:
        NetworkError: fewer than two; no such chains; they differ in more than weights, biases and the parameters of
            neurons. All problems that can be found.
    """
    bad = [] if len(networks) > 1 else [f"{len(networks)} networks given, two or more can be joined"]
    chains = [_chain(k, network, bad) for k, network in enumerate(networks)]
    if not bad:
        _compare(networks, chains, bad)
    if bad:
        raise NetworkError("these networks cannot be joined", bad)
    first = networks[0]
    nodes: dict[str, Node] = {}
    weighted = [n for n in chains[0] if type(first.nodes[n]) in _WEIGHTS]
    for place, name in enumerate(chains[0]):
        rows = [network.nodes[chain[place]] for network, chain in zip(networks, chains, strict=True)]
        if name in weighted:
            at = 0 if name == weighted[0] else -1 if name == weighted[-1] else 1
            nodes[name] = _WEIGHTS[type(rows[0])](rows, at)
        else:
            nodes[name] = _beside(rows, first.shapes[name])
    return Network(nodes, first.edges, first.dt, first.discretisation, first.metadata)


def _chain(k: int, network: Network, bad: list[str]) -> tuple[str, ...]:
    """Names from the input to the output."""
    many = [n for n in network.nodes if len(network.sources(n)) > 1 or len(network.targets(n)) > 1]
    ends = len(network.of(ir.Input)) == len(network.of(ir.Output)) == 1
    if many or not ends:
        bad.append(f"network {k} is no chain of layers" + (f": {', '.join(map(repr, many))} branch" if many else ""))
        return ()
    out = network.nodes[network.output]
    assert isinstance(out, ir.Output)
    if not isinstance(network.nodes[network.order[-2]], ir.Linear) or out.readout not in ("sum", "last"):
        bad.append(f"network {k}: scores that can be added are the 'sum' or 'last' of a Linear or Affine at the end")
    names = [n for n in network.order if type(network.nodes[n]) in (ir.Linear, ir.Affine, ir.Conv2d)]
    if len(names) < 2:
        bad.append(f"network {k} has {len(names)} layers of weights, two or more can stand side by side")
    first = network.nodes[names[0]] if names else None
    if isinstance(first, ir.Conv2d) and first.groups > 1:
        bad.append(f"network {k}: '{names[0]}' divides the input into {first.groups} groups, of which there is one")
    return network.order


def _compare(networks: Sequence[Network], chains: Sequence[tuple[str, ...]], bad: list[str]) -> None:
    """What differs and must not."""
    for k, (network, chain) in enumerate(zip(networks, chains, strict=True)):
        if (network.dt, network.discretisation) != (networks[0].dt, networks[0].discretisation):
            bad.append(f"network {k} has another dt or discretisation than network 0")
        mine, first = ([_kind(n.nodes[name], n.shapes[name]) for name in c] for n, c in
                       ((network, chain), (networks[0], chains[0])))  # fmt: skip
        bad += [
            f"network {k}: '{name}' is {a}, that of network 0 is {b}"
            for name, a, b in zip(chain, mine, first, strict=False)
            if a != b
        ]
        if len(mine) != len(first):
            bad.append(f"network {k} has {len(mine)} nodes, network 0 has {len(first)}")


def _kind(node: Node, shape: Shape) -> tuple[Any, ...]:
    """All of a node but its arrays, and which of them it has."""
    values = {f.name: getattr(node, f.name) for f in fields(node)}
    return type(node).__name__, shape, {n: "array" if isinstance(v, np.ndarray) else v for n, v in values.items()}


def _beside(rows: Rows, shape: Shape) -> Node:
    """A node that works channel by channel: each of its arrays for all channels."""
    arrays = {f.name: [getattr(r, f.name) for r in rows] for f in fields(rows[0])}
    wide = {
        name: np.concatenate([np.broadcast_to(v, shape) for v in values])
        for name, values in arrays.items()
        if isinstance(values[0], np.ndarray)
    }
    made: Node = replace(rows[0], **wide)
    return made


def _conv(rows: Rows, at: int) -> Node:
    """at: 0, all hear the same input; otherwise each the channels of its own."""
    groups = rows[0].groups if at == 0 else len(rows) * rows[0].groups
    weight, bias = (np.concatenate([getattr(r, n) for r in rows]) for n in ("weight", "bias"))
    made: Node = replace(rows[0], weight=weight, bias=bias, groups=groups)
    return made


def _linear(rows: Rows, at: int) -> Node:
    """at: 0 as `_conv`; -1, the outputs of all are the same; otherwise a block for each."""
    out, into = rows[0].weight.shape
    wide: dict[str, Any] = {}
    for name in ("weight", "delay_steps"):
        given = [getattr(r, name) for r in rows]
        if given[0] is None:
            continue
        if at <= 0:
            wide[name] = np.concatenate(given, axis=0 if at == 0 else 1)
            continue
        wide[name] = np.zeros((len(rows) * out, len(rows) * into), given[0].dtype)
        for k, block in enumerate(given):
            wide[name][k * out : (k + 1) * out, k * into : (k + 1) * into] = block
    if isinstance(rows[0], ir.Affine):
        biases = [r.bias for r in rows]
        wide["bias"] = np.sum(biases, axis=0) if at < 0 else np.concatenate(biases)
    made: Node = replace(rows[0], **wide)
    return made


_WEIGHTS: dict[type[Node], Callable[[Rows, int], Node]] = {ir.Conv2d: _conv, ir.Linear: _linear, ir.Affine: _linear}
