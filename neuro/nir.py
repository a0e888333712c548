"""`load` and `save`: a `Network` as a NIR file (Pedersen et al. 2024, Nature Communications 15:8122).

A saved file is plain NIR, which other tools read, and holds all of the network: values as float64, and
what NIR has no field for (dt, discretisation, readout, reset by subtraction, delays in steps and per
synapse, order of the nodes) as NIR metadata under names that begin with "axonport.". ``load(save(n))``
is n, bit for bit.

A file of another tool says less than a network needs. Where neither the caller nor the metadata says:

=================  ===================================================================================
dt                 1e-4 s where the file has time constants or delays: the step with which the tools of
                   the NIR paper wrote theirs; else 1e-3 s, which then changes nothing
discretisation     "euler", by which snnTorch, Norse, Lava and Rockpool turn a decay per step into tau
reset              "hard", to v_reset, as NIR defines it; sinabs and others mean "subtract"
readout            "count" behind spiking neurons, else "sum"
=================  ===================================================================================

Not in NIR, so written as nodes of our own: MaxPool2d (kernel_size, stride, padding), QuantisedReLU (step,
levels), TernaryLIF, Delta, SigmaDelta, ResonateAndFire and AdaptiveLIF (their own fields, flags as 0 and 1).
Other tools refuse a file that has one by its name. The largest value of an input channel is metadata.

Not in NIR, so refused by name: node names with "/" in them, and "." alone. In NIR, but not here:
Conv1d, Threshold. nir 1.0.8 itself derives a wrong shape for a convolution whose kernel has sides of
different parity; such a file is written all the same, and ``nir.read`` wants type_check=False for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuro import ir
from neuro.errors import FormatError, NetworkError, NeuroError, ShapeMismatch, UnknownNode
from neuro.extend import did_you_mean
from neuro.ir import Network, Node, Shape
from neuro.nir_file import read_tree, write_tree
from neuro.nir_graph import FlatGraph, flatten
from neuro.nir_hdf5 import MAX_BYTES, Tree
from neuro.nir_metadata import FORMAT, OURS, file_dt, from_json, is_name, metadata_of, put_notes, take_notes
from neuro.nir_nodes import ROWS, Reader
from neuro.shapes import input_shape, sends_spikes

DT_DYNAMIC, DT_STATIC = 1e-4, 1e-3
TIMED = ("LI", "LIF", "CubaLI", "CubaLIF", "AdaptiveLIF", "TernaryLIF", "ResonateAndFire", "Delay")


def save(network: Network, path: Path | str) -> None:
    """Write a network as a NIR file, whole or not at all; the same network gives the same bytes.

    Raises:
        FormatError: the path cannot be written; a node's name cannot be the name of an HDF5 group.
    """
    bad = [f"node {name!r:.100} cannot be a name in HDF5" for name in network.nodes if not is_name(name)]
    if bad:
        raise FormatError(f"{path}: not written", bad)
    nodes: Tree = {}
    for name, node in network.nodes.items():
        fields, extra = ROWS[type(node).__name__].write(node, input_shape(network, name), network.dt)
        nodes[name] = {"type": type(node).__name__, **fields, "metadata": extra}
    said: Tree = {
        OURS + "format": np.array(FORMAT, np.int64),
        OURS + "dt": np.array(network.dt),
        OURS + "discretisation": network.discretisation,
        OURS + "order": json.dumps(list(network.nodes)),
    }
    put_notes(network.metadata, nodes, said)
    edges = [list(edge) for edge in network.edges]
    write_tree(path, {"type": "NIRGraph", "nodes": nodes, "edges": edges, "metadata": said})


def load(
    path: Path | str,
    *,
    dt: float | None = None,
    discretisation: str | None = None,
    reset: str | None = None,
    readout: str | None = None,
    nearest_step: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Network:
    """Read a network from a NIR file. What is given here goes before what the file says.

    Args:
        dt: seconds per step. discretisation: "exact" or "euler". reset: of all neurons, "hard" or
            "subtract". readout: of all outputs. nearest_step: round delays to whole steps of dt.
        max_bytes: of all arrays in the file; checked before they are read.

    Raises:
        FormatError: not a NIR file, damaged, too large, a field that is missing or wrong.
        UnknownNode: an edge to nowhere, a node type that is not known here.
        ShapeMismatch: shapes that disagree with each other or with those the file gives.
        NetworkError: a graph that means nothing; an argument that is out of range.
    """
    _check_arguments(path, dt, discretisation=discretisation, reset=reset, readout=readout)
    tree = read_tree(path, max_bytes=max_bytes)
    try:
        said = metadata_of(tree)
        flat = flatten(tree)
        _check_types(flat)
        timed = any(node["type"] in TIMED for node in flat.nodes.values())
        step = float(dt or file_dt(said) or (DT_DYNAMIC if timed else DT_STATIC))
        about = {"dt": step, "file_dt": file_dt(said), "reset": reset, "readout": readout, "nearest_step": nearest_step}
        nodes, unread = _nodes(flat, about)
        rule = discretisation or said.get(OURS + "discretisation", "euler")
        network = _build(_in_order(nodes, said), flat, step, rule, take_notes(said, flat))
        counts = {n: ir.Output("count") for n in unread if all(sends_spikes(network, s) for s in network.sources(n))}
        return network.replace_nodes(counts) if counts else network
    except NeuroError as problem:
        raise type(problem)(": ".join(filter(None, (str(path), problem.title))), problem.violations) from problem


ALLOWED = {"discretisation": ir.RULES, "reset": ir.RESETS, "readout": ir.READOUTS}


def _check_arguments(path: Path | str, dt: Any, **given: Any) -> None:
    bad = []
    if dt is not None and not (isinstance(dt, (int, float, np.integer, np.floating)) and 0 < dt < math.inf):
        bad.append(f"dt must be positive seconds, got {dt!r:.100}")
    for name, value in given.items():
        if value is not None and not (isinstance(value, str) and value in ALLOWED[name]):
            bad.append(f"{name} must be one of {ALLOWED[name]}, got {value!r:.100}")
    if bad:
        raise NetworkError(f"{path}: cannot be loaded so", bad)


def _nodes(flat: FlatGraph, about: dict[str, Any]) -> tuple[dict[str, Node], list[str]]:
    """Nodes by name; and the outputs whose readout neither the file nor the caller has said."""
    nodes: dict[str, Node] = {}
    unread: list[str] = []
    bad = []
    for name, fields in flat.nodes.items():
        try:
            reader = Reader(fields, metadata_of(fields), **about)
            nodes[name] = ROWS[fields["type"]].read(reader)
            strange = sorted(set(fields) - reader.used - {"type", "metadata"})
            if strange:
                raise FormatError(f"fields {', '.join(strange)} are not known")
        except NeuroError as problem:
            bad.append(f"'{name}' ({fields['type']}): {problem}")
            continue
        if reader.claim is not None:
            flat.claims.append((name, [s for s, d in flat.edges if d == name], reader.claim))
        if fields["type"] == "Output" and about["readout"] is None and OURS + "readout" not in reader.metadata:
            unread.append(name)
    if bad:
        raise FormatError("", bad)
    added = _close_ends(nodes, flat, about["readout"])
    return nodes, unread + (added if about["readout"] is None else [])


def _check_types(flat: FlatGraph) -> None:
    unknown = [
        f"'{name}' is a {node['type']}. {did_you_mean(node['type'], ROWS)}"
        for name, node in flat.nodes.items()
        if node["type"] not in ROWS
    ]
    if unknown:
        raise UnknownNode("node types that are not known here", unknown)


def _build(nodes: Mapping[str, Node], flat: FlatGraph, dt: float, rule: str, notes: Mapping[str, str]) -> Network:
    """The network; once more without a leading axis of length 1 (a batch) where its inputs have one."""
    edges = tuple(flat.edges)
    try:
        return _claimed(Network(nodes, edges, dt, rule, notes), flat)
    except ShapeMismatch as problem:
        batched = {n: node for n, node in nodes.items() if isinstance(node, ir.Input) and node.shape[:1] == (1,)}
        if not batched or any(len(node.shape) < 2 for node in batched.values()):
            raise
        shorter = {n: ir.Input(node.shape[1:], node.high) for n, node in batched.items()}
        claims = [(where, names, shape[1:] if shape[0] == 1 else shape) for where, names, shape in flat.claims]
        try:
            network = Network({**nodes, **shorter}, edges, dt, rule, notes)
            return _claimed(network, FlatGraph(flat.nodes, flat.edges, claims))
        except ShapeMismatch:
            raise problem from None  # the shapes as the file has them are what a reader can look up


def _claimed(network: Network, flat: FlatGraph) -> Network:
    """The network, if it agrees with every shape that the file gives."""
    bad = [
        f"'{where}' is said to take {claim}, but '{source}' sends {network.shapes[source]}"
        for where, sources, claim in flat.claims
        for source in sources
        if network.shapes[source] != claim
    ]
    if bad:
        raise ShapeMismatch("shapes do not agree", bad)
    return network


def _close_ends(nodes: dict[str, Node], flat: FlatGraph, readout: str | None) -> list[str]:
    """Give an Input to what has no source and an Output to what has no target, as nir does; new outputs."""
    sources, targets = {s for s, _ in flat.edges}, {d for _, d in flat.edges}
    added = []
    for name, node in list(nodes.items()):
        if name not in targets and not isinstance(node, ir.Input):
            nodes[f"input_{name}"] = ir.Input(_entry(name, node, flat))
            flat.edges.insert(0, (f"input_{name}", name))
        if name not in sources and not isinstance(node, ir.Output):
            nodes[f"output_{name}"] = ir.Output(readout or "sum")
            flat.edges.append((name, f"output_{name}"))
            added.append(f"output_{name}")
    return added


def _entry(name: str, node: Node, flat: FlatGraph) -> Shape:
    """Shape of what a node takes, from the node alone."""
    known = [claim for where, _, claim in flat.claims if where == name]
    if isinstance(node, ir.Linear):
        known = [(node.weight.shape[1],)]
    elif isinstance(node, ir.Neuron):
        known = [node.shape]
    elif isinstance(node, (ir.Scale, ir.Delay)):
        known = [(node.scale if isinstance(node, ir.Scale) else node.steps).shape]
    if not known or not known[0]:
        raise NetworkError(f"'{name}' has no source, and nothing says what shape it takes; add an Input")
    return known[0]


def _in_order(nodes: dict[str, Node], said: Tree) -> dict[str, Node]:
    """Nodes in the order in which they were declared; HDF5 sorts names where a writer does not say."""
    order = from_json(said.get(OURS + "order", "[]"))
    place = {name: k for k, name in enumerate(order) if isinstance(name, str)} if isinstance(order, list) else {}
    return dict(sorted(nodes.items(), key=lambda item: place.get(item[0], len(place))))


__all__ = ["load", "save"]
