"""From a `Network` to populations joined by single linear maps. Knows no chip.

Between two populations (Input or Neuron nodes) lie stateless nodes: Flatten, Scale, Delay, pools, Linear,
Affine, Conv2d. Each path through them is folded, exactly, into one `Map`::

    x_target[t, o] = sum over synapses s of  weight[s] * spike[t - delay[s], source[s]]

Biases on the way become a constant input of the target, `Bias`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from neuro import ir
from neuro.errors import UnsupportedNode
from neuro.hardware.maps import MAPS, Map, compose, identity, single_delay_per_pair
from neuro.ir import Array, Network


@dataclass(frozen=True, eq=False)
class Synapses:
    """One folded path. node: its last node with weights, else the target. feedback: it closes a loop."""

    name: str
    node: str
    source: str
    target: str
    map: Map
    feedback: bool


class Bias(NamedTuple):
    """A constant input: value [n] in every step from ``start`` on."""

    value: Array
    start: int


@dataclass(frozen=True, eq=False)
class Lowered:
    """Populations in order of evaluation (the input first), paths between them, constant inputs."""

    populations: tuple[str, ...]
    synapses: tuple[Synapses, ...]
    biases: dict[str, tuple[Bias, ...]]
    output: str  # the population that the Output node reads


def lower(network: Network) -> Lowered:
    """Fold every path between populations.

    Raises:
        UnsupportedNode: nodes that no path can hold, all at once.
        NetworkError: not exactly one input and one output.
    """
    bad: list[str] = []
    output = _read_by_output(network, bad)
    names = network.of(ir.Input, ir.Neuron)
    synapses: list[Synapses] = []
    biases: dict[str, tuple[Bias, ...]] = {}
    for target in names:
        paths, biased = _paths_into(network, target, bad)
        folded: list[Synapses] = []
        for source, nodes, late in paths:
            total = fold(network, source, nodes)
            total = replace(total, delay=total.delay + sum(late))
            weighted = [n for n in nodes if isinstance(network.nodes[n], (ir.Linear, ir.Conv2d))]
            node = weighted[-1] if weighted else target
            folded += [Synapses("", node, source, target, part, any(late)) for part in single_delay_per_pair(total)]
        synapses += _named(folded)
        biases[target] = _sum_biases(network, biased)
    if bad:
        raise UnsupportedNode("these parts of the network cannot be lowered", list(dict.fromkeys(bad)))
    return Lowered(names, tuple(synapses), biases, output)


def _read_by_output(network: Network, bad: list[str]) -> str:
    _ = network.input  # raises where there is not exactly one
    name, passed = network.output, []
    sources = network.sources(name)
    while len(sources) == 1 and isinstance(network.nodes[sources[0]], ir.Flatten):
        passed.append(sources[0])
        sources = network.sources(sources[0])
    if len(sources) != 1:
        bad.append(
            f"'{name}' reads {len(sources)} sources ({', '.join(sources)}); one population can be read out: "
            "feed them into one LI and read that"
        )
    elif not isinstance(network.nodes[sources[0]], ir.Neuron):
        kind = type(network.nodes[sources[0]]).__name__
        bad.append(f"'{name}' reads '{sources[0]}' ({kind}), which holds no membrane; put an LI in front of the output")
    return sources[0] if sources else name


class _Path(NamedTuple):
    """late: of each edge on the way, the last into the target, whether it is a feedback edge."""

    source: str
    nodes: tuple[str, ...]
    late: tuple[bool, ...]


def _paths_into(network: Network, target: str, bad: list[str]) -> tuple[list[_Path], list[_Path]]:
    """All paths of stateless nodes into a population from others, and from nodes with a bias."""
    paths: list[_Path] = []
    biased: list[_Path] = []
    todo = [_Path(target, (), ())]
    while todo:
        name, after, later = todo.pop()
        for source in reversed(network.sources(name)):
            late = ((source, name) in network.feedback, *later)
            node = network.nodes[source]
            if isinstance(node, (ir.Input, ir.Neuron)):
                paths.append(_Path(source, after, late))
            elif source in after:
                loop = " -> ".join((source, *after[: after.index(source) + 1]))
                bad.append(
                    f"'{source}' ({type(node).__name__}) feeds back on itself with no neuron in the loop ({loop}); "
                    "put one into it"
                )
            elif type(node) not in MAPS:
                bad.append(f"'{source}' ({type(node).__name__}) cannot stand between two populations")
            else:
                if _bias_of(node) is not None:
                    biased.append(_Path(source, after, late))
                todo.append(_Path(source, (source, *after), late))
    return paths, biased


def _bias_of(node: ir.Node) -> Array | None:
    bias: Array | None = getattr(node, "bias", None)
    return bias if bias is not None and bias.any() else None


def fold(network: Network, source: str, nodes: tuple[str, ...]) -> Map:
    """The map from what ``source`` sends, through stateless nodes in order. Biases are left out.

    Raises:
        UnsupportedNode: more than `MAX_SYNAPSES` synapses.
    """
    total, given = identity(network.shapes[source]), network.shapes[source]
    for name in nodes:
        node, sent = network.nodes[name], network.shapes[name]
        total = compose(total, MAPS[type(node)](node, given, sent))
        given = sent
    return total


def _named(synapses: list[Synapses]) -> list[Synapses]:
    """Unique names: source->target, numbered where there are several."""
    seen: dict[str, int] = {}
    named = []
    for s in synapses:
        base = f"{s.source}->{s.target}"
        seen[base] = seen.get(base, 0) + 1
        named.append(replace(s, name=base if seen[base] == 1 else f"{base}#{seen[base]}"))
    return named


def _sum_biases(network: Network, biased: list[_Path]) -> tuple[Bias, ...]:
    """One `Bias` per starting step, summed over all the ways a bias takes."""
    total: dict[int, Array] = {}
    for path in biased:
        node, shape = network.nodes[path.source], network.shapes[path.source]
        bias = _bias_of(node)
        assert bias is not None
        value = np.broadcast_to(bias.reshape(-1, *(1,) * (len(shape) - 1)), shape).reshape(-1)  # per channel
        s = fold(network, path.source, path.nodes).coordinates()
        size = math.prod(network.shapes[path.nodes[-1]] if path.nodes else shape)
        for delay in np.unique(s.delay):
            of, start = s.delay == delay, int(delay) + _steps_late(network, path)
            part = np.bincount(s.row[of], s.value[of] * value[s.col[of]], size)
            total[start] = total.get(start, np.zeros(size)) + part
    return tuple(Bias(value, start) for start, value in sorted(total.items()) if value.any())


def _steps_late(network: Network, path: _Path) -> int:
    """Feedback edges that hold a bias back. Before step 0 a node without state has sent its bias already, so only
    an edge behind a delay does, as delays have sent zero."""
    held, behind_delay = 0, False
    for late, name in zip(path.late, (*path.nodes, None), strict=True):
        held += late and behind_delay
        if name is not None:
            node = network.nodes[name]
            behind_delay |= isinstance(node, ir.Delay) or getattr(node, "delay_steps", None) is not None
    return held
