"""`Network`: the one object that every part of axonport reads or writes.

A network is a frozen graph of nodes in plain NumPy and SI units, with an explicit time step
``dt`` (seconds) and an explicit discretisation rule. Its meaning is `neuro.reference.run`;
the update equations are written once, in the docstrings below.

Time. At step t every node is evaluated in topological order, so a feed-forward path costs no
step. An edge that closes a loop (found by a depth-first walk from the inputs, edges in declared
order) delivers what its source sent one step earlier; `Network.feedback` lists these edges.

Spikes are 0 or 1, held for one step; an input may count (``Input.high``), a `QuantisedReLU` sends levels.
A neuron fires when v > v_threshold, strictly, after the update; then ``reset`` says what happens:
``"hard"`` sets v = v_reset, ``"subtract"`` takes v_threshold off v.

State starts at zero: v = i = 0, and before step 0 every input, neuron and delay has sent zero. What a
node without state has sent then follows from that (an Affine its bias), so it does not matter which
edge of a loop is the late one.

``a`` and ``b`` below are the decays of synapse and membrane over one step, made in one place,
`neuro.discretise.decay`: exp(-dt/tau) under the rule "exact" (Rotter & Diesmann 1999, exact for
input held constant over a step), 1 - dt/tau under "euler" (explicit Euler).

The node types mirror NIR (Pedersen et al. 2024, Nature Communications 15:8122).
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuro.errors import NetworkError, UnknownNode
from neuro.graded import ACTIVATIONS, Delta, I, ResonateAndFire, SigmaDelta, TernaryLIF
from neuro.neuron import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF, Neuron
from neuro.node import (
    ADAPTATIONS,
    MAX_CHANNELS,
    MAX_DELAY_STEPS,
    MAX_WINDOW,
    RESETS,
    RULES,
    Array,
    Edge,
    IntArray,
    Node,
    Shape,
    expand,
    one_of,
    too_large,
)
from neuro.stateless import (
    MAX_HIGH,
    READOUTS,
    Affine,
    AvgPool2d,
    Conv2d,
    Delay,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Output,
    QuantisedReLU,
    Scale,
    SumPool2d,
)

NODE_TYPES: Mapping[str, type[Node]] = types.MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
            *(Input, Output, Linear, Affine, Conv2d, SumPool2d, AvgPool2d, MaxPool2d, Flatten, Scale, Delay),
            QuantisedReLU,
            *(IF, LI, LIF, CubaLI, CubaLIF, AdaptiveLIF),
            *(TernaryLIF, I, Delta, SigmaDelta, ResonateAndFire),
        )
    }
)


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen graph of nodes.

    Args:
        nodes: name -> node, in declared order.
        edges: (source, destination) pairs; several edges into one node add up.
        dt: length of a step in seconds.
        discretisation: "exact" or "euler", see the module docstring.
        metadata: strings that travel with the network and its files, e.g. class names. A key
            "node/key" belongs to that node.

    Raises:
        NetworkError: with every violation at once (`ShapeMismatch`, `UnknownNode`,
            `CyclicWithoutDelay` where all violations are of that kind). Among them: "euler" with a
            time constant shorter than dt, where the step would overshoot.

    Attributes set on construction: ``shapes`` (name -> shape of what the node sends in one step),
    ``order`` (names in the order of evaluation), ``feedback`` (edges one step late).
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    dt: float
    discretisation: str = "exact"
    metadata: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(init=False)
    order: tuple[str, ...] = field(init=False)
    feedback: frozenset[Edge] = field(init=False)
    _into: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)
    _out_of: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from neuro import discretise as _discretise  # here: both need the node types above
        from neuro import shapes as _shapes

        bad: list[str] = []
        if isinstance(self.dt, bool) or not isinstance(self.dt, (int, float, np.floating, np.integer)):
            bad.append(f"dt must be a number of seconds, got {self.dt!r}")
        elif not 0 < self.dt < sys.float_info.max:
            bad.append(f"dt must be positive and finite, got {self.dt!r} s")
        if not one_of(self.discretisation, RULES):
            bad.append(f"discretisation must be one of {RULES}, got {self.discretisation!r}")
        if not isinstance(self.nodes, Mapping) or not self.nodes:
            raise NetworkError("network has no nodes", bad)
        for name, node in self.nodes.items():
            if not isinstance(name, str) or not name:
                bad.append(f"a node's name must be a non-empty string, got {name!r}")
            if NODE_TYPES.get(type(node).__name__) is not type(node):
                bad.append(f"'{name}' is a {type(node).__name__}, not one of {', '.join(NODE_TYPES)}")
        if not isinstance(self.metadata, Mapping) or not all(
            isinstance(text, str) for pair in self.metadata.items() for text in pair
        ):
            bad.append(f"metadata must map strings to strings, got {self.metadata!r:.200}")
        edges = self._pairs(bad)
        if bad:
            raise NetworkError("network cannot be built", bad)
        missing = [
            f"edge {edge} names '{end}', which is not a node" for edge in edges for end in edge if end not in self.nodes
        ]
        if missing:
            raise UnknownNode("network cannot be built", missing)
        object.__setattr__(self, "dt", float(self.dt))
        object.__setattr__(self, "edges", edges)
        for end, table in ((1, "_into"), (0, "_out_of")):
            found: dict[str, list[str]] = {name: [] for name in self.nodes}
            for edge in edges:
                found[edge[end]].append(edge[1 - end])
            object.__setattr__(self, table, {name: tuple(others) for name, others in found.items()})
        object.__setattr__(self, "metadata", types.MappingProxyType(dict(self.metadata)))
        _shapes.settle(self)
        _discretise.check(self)

    def _pairs(self, bad: list[str]) -> tuple[Edge, ...]:
        edges: list[Edge] = []
        try:
            for edge in self.edges:
                source, target = edge
                if isinstance(edge, str) or not (isinstance(source, str) and isinstance(target, str)):
                    raise TypeError(f"not a pair of names: {edge!r}")
                edges.append((source, target))
        except (TypeError, ValueError) as cause:
            bad.append(f"edges must be (source, target) pairs of node names ({cause})")
        twice = sorted({e for e in edges if edges.count(e) > 1}) if len(set(edges)) < len(edges) else []
        bad += [f"edge {edge} is listed twice; put the factor into the weights" for edge in twice]
        return tuple(edges)

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes with an edge into ``name``, in declared order."""
        return self._into[name]

    def targets(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` has an edge into, in declared order."""
        return self._out_of[name]

    def of(self, *kinds: type[Node]) -> tuple[str, ...]:
        """Names of all nodes of the given types, in order of evaluation."""
        return tuple(n for n in self.order if isinstance(self.nodes[n], kinds))

    @property
    def input(self) -> str:
        """Name of the only input.

        Raises:
            NetworkError: there is not exactly one.
        """
        return self._only(Input)

    @property
    def output(self) -> str:
        """Name of the only output.

        Raises:
            NetworkError: there is not exactly one.
        """
        return self._only(Output)

    def _only(self, kind: type[Node]) -> str:
        names = self.of(kind)
        if len(names) != 1:
            raise NetworkError(f"needs exactly one {kind.__name__}, this network has {len(names)}: {names}")
        return names[0]

    def replace_nodes(self, changed: Mapping[str, Node]) -> Network:
        """A network with some nodes exchanged, validated anew."""
        return Network({**self.nodes, **changed}, self.edges, self.dt, self.discretisation, self.metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (dict(self.nodes), self.edges, self.dt, self.discretisation, dict(self.metadata))

    def _repr_html_(self) -> str:
        from neuro.html_tables import network

        return network(self)

    def __repr__(self) -> str:
        lines = [f"Network({len(self.nodes)} nodes, dt={self.dt:g} s, {self.discretisation})"]
        for name in self.order:
            node = self.nodes[name]
            into = ", ".join(s + (" (z^-1)" if (s, name) in self.feedback else "") for s in self.sources(name))
            lines.append(f"  {name}: {type(node).__name__} {self.shapes[name]}" + (f" <- {into}" if into else ""))
        return "\n".join(lines)


def chain(nodes: Mapping[str, Node] | Iterable[tuple[str, Node]], dt: float, **options: Any) -> Network:
    """A feed-forward `Network` whose nodes follow each other in the given order.

    Raises:
        NetworkError: as `Network`; a name that is given twice.
    """
    try:
        pairs = list(nodes.items()) if isinstance(nodes, Mapping) else [(name, node) for name, node in nodes]
        table = dict(pairs)
    except (TypeError, ValueError) as cause:
        raise NetworkError("a chain is a mapping, or pairs, of names and nodes", [str(cause)]) from cause
    names = [name for name, _ in pairs]
    if len(table) < len(names):
        raise NetworkError(f"names must differ, got {names}")
    return Network(table, tuple(itertools.pairwise(names)), dt, **options)


__all__ = [
    "ACTIVATIONS",
    "ADAPTATIONS",
    "IF",
    "LI",
    "LIF",
    "MAX_CHANNELS",
    "MAX_DELAY_STEPS",
    "MAX_HIGH",
    "MAX_WINDOW",
    "NODE_TYPES",
    "READOUTS",
    "RESETS",
    "RULES",
    "AdaptiveLIF",
    "Affine",
    "Array",
    "AvgPool2d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "Delta",
    "Edge",
    "Flatten",
    "I",
    "Input",
    "IntArray",
    "Linear",
    "MaxPool2d",
    "Network",
    "Neuron",
    "Node",
    "Output",
    "QuantisedReLU",
    "ResonateAndFire",
    "Scale",
    "Shape",
    "SigmaDelta",
    "SumPool2d",
    "TernaryLIF",
    "chain",
    "expand",
    "too_large",
]
