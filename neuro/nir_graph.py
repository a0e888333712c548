"""Nested NIR graphs made flat: one table of nodes, one list of edges, and the shapes the file claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuro.errors import FormatError, NeuroError, UnknownNode
from neuro.nir_hdf5 import Tree

MAX_EDGES = 1 << 20
PORTS = ("Input", "Output")


@dataclass
class FlatGraph:
    """nodes: name -> fields as in the file, subgraphs' as "subgraph.node". edges: in the file's order.

    claims: (where, names, shape), a shape that the file gives for the sum of what these nodes send.
    """

    nodes: dict[str, Tree] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    claims: list[tuple[str, list[str], tuple[int, ...]]] = field(default_factory=list)


def shape_of(value: Any) -> tuple[int, ...]:
    """A shape as files hold it: a vector of positive integers, or one.

    Raises:
        FormatError: it is something else.
    """
    array = np.atleast_1d(value) if isinstance(value, np.ndarray) else np.zeros(0)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or array.min() < 1:
        raise FormatError(f"a shape must be a vector of positive integers, got {value!r:.200}")
    return tuple(int(n) for n in array)


def flatten(tree: Tree) -> FlatGraph:
    """Dissolve subgraphs: their nodes move up as "subgraph.node", their Input and Output disappear.

    Raises:
        UnknownNode: edges that name no node, in this graph or below; all of them at once.
        FormatError: something that is no graph; a subgraph without exactly one Input and Output.
    """
    flat = FlatGraph()
    bad: list[NeuroError] = []
    ports: dict[str, tuple[int, ...]] = {}
    _collect(tree, "", flat, ports, bad)
    if bad:
        kind = UnknownNode if all(isinstance(problem, UnknownNode) for problem in bad) else FormatError
        raise kind("", [str(problem) for problem in bad])
    for port, shape in ports.items():
        _dissolve(port, shape, flat)
    if len(set(flat.edges)) < len(flat.edges):
        twice = sorted({edge for edge in flat.edges if flat.edges.count(edge) > 1})
        raise FormatError("these edges are there twice, and would count twice", twice)
    return flat


def _collect(
    tree: Tree, prefix: str, flat: FlatGraph, ports: dict[str, tuple[int, ...]], bad: list[NeuroError]
) -> None:
    """Add the nodes and edges of one graph; ``ports`` collects the Inputs and Outputs of subgraphs."""
    here = f"subgraph '{prefix[:-1]}'" if prefix else "the graph"
    nodes, edges = tree.get("nodes"), tree.get("edges")
    if tree.get("type") != "NIRGraph" or not isinstance(nodes, dict) or not isinstance(edges, (list, np.ndarray)):
        bad.append(FormatError(f"{here} must be a NIRGraph with nodes and edges, it is {tree.get('type')!r:.100}"))
        return
    first: dict[str, str] = {}  # subgraph -> where edges into it end
    last: dict[str, str] = {}  # subgraph -> where edges out of it begin
    for name, node in nodes.items():
        full = prefix + name
        kind = node.get("type") if isinstance(node, dict) else None
        if not isinstance(node, dict) or not isinstance(kind, str):
            bad.append(FormatError(f"'{full}' has no type"))
        elif full in flat.nodes or full in ports:
            bad.append(FormatError(f"two nodes would be called '{full}' once subgraphs are dissolved"))
        elif kind == "NIRGraph":
            _collect(node, full + ".", flat, ports, bad)
            found = [[full + "." + n for n in _named(node, port)] for port in PORTS]
            if len(found[0]) != 1 or len(found[1]) != 1:
                bad.append(
                    FormatError(
                        f"subgraph '{full}' has {len(found[0])} Input and {len(found[1])} Output nodes; "
                        "an edge can only mean one of each"
                    )
                )
            else:
                (first[name],), (last[name],) = found
        elif prefix and kind in PORTS:
            try:
                ports[full] = shape_of(node.get("shape"))
            except FormatError as problem:
                bad.append(FormatError(f"'{full}' ({kind}): {problem}"))
        else:
            flat.nodes[full] = node
    for edge in edges:
        if not isinstance(edge, list) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
            bad.append(FormatError(f"an edge of {here} is no pair of names: {edge!r:.100}"))
            continue
        missing = [end for end in edge if end not in nodes]
        if missing:
            bad.append(
                UnknownNode(
                    f"edge ({edge[0]} -> {edge[1]}) of {here} names {', '.join(map(repr, missing))}, which is "
                    f"not one of its nodes ({', '.join(list(nodes)[:20])})"
                )
            )
            continue
        source, target = edge
        flat.edges.append((last.get(source, prefix + source), first.get(target, prefix + target)))


def _named(graph: Tree, kind: str) -> list[str]:
    nodes = graph.get("nodes")
    table = nodes if isinstance(nodes, Mapping) else {}
    return [name for name, node in table.items() if isinstance(node, dict) and node.get("type") == kind]


def _dissolve(port: str, shape: tuple[int, ...], flat: FlatGraph) -> None:
    """Join what comes before a subgraph's Input or Output to what comes after."""
    before = [s for s, d in flat.edges if d == port]
    after = [d for s, d in flat.edges if s == port]
    if port in before:
        raise FormatError(f"'{port}' feeds itself")
    if len(flat.edges) + len(before) * len(after) > MAX_EDGES:
        raise FormatError(f"more than {MAX_EDGES} edges once '{port}' is dissolved")
    edges: list[tuple[str, str]] = []
    joined = False
    for edge in flat.edges:
        if port not in edge:
            edges.append(edge)
        elif not joined:  # where the first of them stood, so that the file's order stays
            edges += [(s, d) for s in before for d in after]
            joined = True
    flat.edges = edges
    flat.claims = [(w, _without(names, port, before), claimed) for w, names, claimed in flat.claims]
    flat.claims.append((port, before, shape))


def _without(names: list[str], port: str, before: list[str]) -> list[str]:
    return [other for name in names for other in (before if name == port else [name])]
