"""Bad nodes and networks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from axon_bad import Attempt, category, pick

from neuro import ir
from neuro.errors import CyclicWithoutDelay, NetworkError, ShapeMismatch, UnknownNode

Rng = np.random.Generator
NAN_OR_INF = (math.nan, math.inf, -math.inf)
NEURONS: tuple[type[ir.Neuron], ...] = (ir.IF, ir.LI, ir.LIF, ir.CubaLI, ir.CubaLIF)


def good_fields(kind: type[ir.Node], rng: Rng) -> dict[str, Any]:
    """Fields with which a node of this type is fine."""
    n, m = (int(k) for k in rng.integers(1, 5, 2))
    if issubclass(kind, ir.Neuron):
        return {name: rng.uniform(1e-3, 1.0, n) for name in kind._parameters()}
    table: dict[type[ir.Node], dict[str, Any]] = {
        ir.Linear: {"weight": rng.normal(size=(n, m)), "delay_steps": rng.integers(0, 5, (n, m))},
        ir.Affine: {"weight": rng.normal(size=(n, m)), "bias": rng.normal(size=n)},
        ir.Conv2d: {"weight": rng.normal(size=(n, m, 2, 3)), "bias": rng.normal(size=n), "stride": 1},
        ir.Scale: {"scale": rng.normal(size=n)},
        ir.Delay: {"steps": rng.integers(0, 5, n)},
        ir.SumPool2d: {"kernel_size": 2, "stride": 2, "padding": 0},
        ir.AvgPool2d: {"kernel_size": 2, "stride": 2, "padding": 0},
    }
    return table[kind]


def some_kind(rng: Rng, *kinds: type[ir.Node]) -> type[ir.Node]:
    return kinds[int(rng.integers(len(kinds)))]


def real_field(rng: Rng) -> tuple[type[ir.Node], dict[str, Any], str]:
    """A node type, good fields of it, and the name of one that holds real numbers."""
    kind = some_kind(rng, *NEURONS, ir.Linear, ir.Affine, ir.Conv2d, ir.Scale)
    fields = good_fields(kind, rng)
    kind(**fields)  # they are good
    names = [n for n, v in fields.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    return kind, fields, names[int(rng.integers(len(names)))]


@category("nodes: NaN or infinite")
def nan_in_node(rng: Rng, folder: Path) -> Attempt:
    kind, fields, name = real_field(rng)
    spoiled = fields[name].copy()
    spoiled.flat[int(rng.integers(spoiled.size))] = NAN_OR_INF[int(rng.integers(3))]
    assert not np.isfinite(spoiled).all()
    return Attempt(f"{kind.__name__}.{name}", lambda: kind(**{**fields, name: spoiled}), ("NaN",), NetworkError)


@category("nodes: empty")
def empty_in_node(rng: Rng, folder: Path) -> Attempt:
    kind, fields, name = real_field(rng)
    shape = list(fields[name].shape)
    shape[int(rng.integers(len(shape)))] = 0
    assert math.prod(shape) == 0
    return Attempt(
        f"{kind.__name__}.{name}", lambda: kind(**{**fields, name: np.zeros(shape)}), ("empty",), NetworkError
    )


class Unreadable:
    """An array-like that fails when it is read, as a tensor that needs a gradient does."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("no array here")


@category("nodes: wrong type")
def wrong_type_in_node(rng: Rng, folder: Path) -> Attempt:
    kind, fields, name = real_field(rng)
    what, value = pick(
        rng,
        {
            "None": None,
            "text": "0.5",
            "texts": np.full(fields[name].shape, "1.0"),
            "objects": np.full(fields[name].shape, None),
            "complex": fields[name] * 1j,
            "ragged": [[1.0], [1.0, 2.0]],
            "mapping": {"a": 1.0},
            "set": {1.0},
            "huge integer": 10**400,
            "dates": np.full(fields[name].shape, np.datetime64("2020-01-01")),
            "unreadable": Unreadable(),
            "function": len,
            "bytes": b"\x00\x01",
        },
    )
    return Attempt(f"{kind.__name__}.{name} = {what}", lambda: kind(**{**fields, name: value}), (name,), NetworkError)


@category("nodes: wrong shape")
def wrong_shape_in_node(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(2, 5))
    what, call = pick(
        rng,
        {
            "Linear.weight 1-D": lambda: ir.Linear(np.ones(n)),
            "Linear.weight 3-D": lambda: ir.Linear(np.ones((n, n, n))),
            "Linear.delay_steps": lambda: ir.Linear(np.ones((n, 2)), np.ones((2, n + 1))),
            "Affine.bias": lambda: ir.Affine(np.ones((n, 2)), bias=np.ones(n + 1)),
            "Conv2d.weight": lambda: ir.Conv2d(np.ones((n, n))),
            "Conv2d.bias": lambda: ir.Conv2d(np.ones((n, 1, 2, 2)), bias=np.ones(n + 1)),
            "Conv2d.groups": lambda: ir.Conv2d(np.ones((n, 1, 2, 2)), groups=n + 1),
            "Conv2d.stride": lambda: ir.Conv2d(np.ones((n, 1, 2, 2)), stride=(1, 2, 3)),
            "Conv2d.padding": lambda: ir.Conv2d(np.ones((n, 1, 2, 2)), padding=-n),
            "Conv2d.dilation": lambda: ir.Conv2d(np.ones((n, 1, 2, 2)), dilation=0),
            "SumPool2d.kernel_size": lambda: ir.SumPool2d(-n, 1),
            "AvgPool2d.stride": lambda: ir.AvgPool2d(n, 0.5),
            "LIF parameters": lambda: ir.LIF(np.ones(n), np.ones(n + 1)),
            "Input.shape": lambda: ir.Input((n, -n)),
            "Input.shape float": lambda: ir.Input((n, 2.5)),
            "Input.shape empty": lambda: ir.Input(()),
        },
    )
    field = what.split(".")[-1].split()[-1]
    return Attempt(what, call, (field, "shape", "weight"), NetworkError)


@category("nodes: delays")
def bad_delay(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(1, 5))
    steps = rng.integers(0, 5, n).astype(np.float64)
    what, value = pick(
        rng,
        {
            "negative": -1.0 - float(rng.integers(9)),
            "fraction": float(rng.uniform(0.01, 0.99)),
            "NaN": math.nan,
            "infinite": math.inf,
            "long": float(ir.MAX_DELAY_STEPS + 1 + rng.integers(10**9)),
            "beyond int64": 1e300,
        },
    )
    steps[int(rng.integers(n))] = value
    assert not (0 <= value <= ir.MAX_DELAY_STEPS and value == round(value))
    _, call = pick(
        rng, {"axonal": lambda: ir.Delay(steps), "synaptic": lambda: ir.Linear(np.ones((n, 1)), steps[:, None])}
    )
    return Attempt(f"{what} delay", call, ("steps",), NetworkError)


@category("nodes: time constants")
def bad_tau(rng: Rng, folder: Path) -> Attempt:
    kind = some_kind(rng, ir.LI, ir.LIF, ir.CubaLI, ir.CubaLIF)
    fields = good_fields(kind, rng)
    names = [n for n in fields if n.startswith("tau")]
    name = names[int(rng.integers(len(names)))]
    value = (0.0, -0.0, -1e-3, -5e-324)[int(rng.integers(4))]
    fields[name].flat[0] = value
    assert not value > 0
    return Attempt(f"{kind.__name__}.{name} = {value}", lambda: kind(**fields), (name,), NetworkError)


@category("nodes: names of modes")
def bad_mode(rng: Rng, folder: Path) -> Attempt:
    value = ("", "HARD", "soft", None, 3, ["hard"], np.array(["hard", "hard"]), b"hard", ("count",), math.nan)[
        int(rng.integers(10))
    ]
    what, call = pick(
        rng,
        {
            "reset": lambda: ir.IF(1.0, reset=value),  # type: ignore[arg-type]
            "readout": lambda: ir.Output(value),  # type: ignore[arg-type]
            "discretisation": lambda: some_network(rng, discretisation=value),
        },
    )
    return Attempt(f"{what} = {value!r}", call, (what,), NetworkError)


@category("nodes: huge shapes")
def huge_shape(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(5_000, 10**6))
    assert n * n > ir.MAX_CHANNELS
    what, call = pick(
        rng,
        {
            "Input": lambda: ir.Input((n, n)),
            "Input int64": lambda: ir.Input((np.int64(2**62), np.int64(8 + n))),
            "broadcast": lambda: ir.LIF(np.ones((8192, 1)), np.ones((1, 8192))),
            "padding": lambda: around(ir.Conv2d(np.ones((1, 1, 1, 1)), padding=4096), (1, 4, 4)),
            "window": lambda: ir.SumPool2d(n, 1),
            "stride": lambda: ir.Conv2d(np.ones((1, 1, 1, 1)), stride=n * n),
        },
    )
    return Attempt(what, call, ("at most", "4096"), NetworkError)


def around(node: ir.Node, shape: tuple[int, ...]) -> ir.Network:
    return ir.chain({"i": ir.Input(shape), "n": node, "o": ir.Output("sum")}, 1e-3)


def parts(rng: Rng) -> tuple[dict[str, ir.Node], list[tuple[str, str]]]:
    """Nodes and edges of a random network that is fine."""
    sizes = [int(n) for n in rng.integers(2, 6, 3)]
    nodes: dict[str, ir.Node] = {"in": ir.Input((sizes[0],))}
    if rng.random() < 0.4:
        conv = ir.Conv2d(rng.normal(size=(2, 1, 2, 2)), padding=1)
        nodes = {
            "in": ir.Input((1, 4, 4)),
            "conv": conv,
            "if": ir.IF(1.0),
            "pool": ir.SumPool2d(2, 2),
            "flat": ir.Flatten(),
        }
        sizes[0] = 8
    for k in (1, 2):
        nodes[f"fc{k}"] = ir.Linear(rng.normal(size=(sizes[k], sizes[k - 1])))
        kind = some_kind(rng, ir.IF, ir.LIF, ir.CubaLIF)
        nodes[f"lif{k}"] = kind(**{n: 2e-3 if n.startswith("tau") else 1.0 for n in kind._parameters()})
    nodes["out"] = ir.Output()
    edges = list(itertools.pairwise(nodes))
    if rng.random() < 0.5:
        nodes["rec"] = ir.Linear(rng.normal(size=(sizes[1], sizes[1])))
        edges += [("lif1", "rec"), ("rec", "lif1")]
    return nodes, edges


def some_network(rng: Rng, **changed: Any) -> ir.Network:
    """A random network that is fine unless what is given makes it otherwise."""
    nodes, edges = parts(rng)
    return ir.Network(**{"nodes": nodes, "edges": tuple(edges), "dt": 1e-3, **changed})


@category("graphs: shapes")
def mismatched(rng: Rng, folder: Path) -> Attempt:
    nodes, edges = parts(rng)
    ir.Network(nodes, tuple(edges), 1e-3)  # it is fine
    name = [n for n in nodes if n.startswith(("fc", "rec"))][int(rng.integers(2))]
    node = nodes[name]
    assert isinstance(node, ir.Linear)
    out, ins = node.weight.shape
    what, wrong = pick(
        rng,
        {
            "columns": ir.Linear(np.ones((out, ins + 1))),
            "rows": ir.Linear(np.ones((out + 1, ins))) if name != "fc2" else ir.Linear(np.ones((out, ins + 2))),
            "scale": ir.Scale(np.ones(max(out, ins) + 1)),
            "neuron": ir.IF(np.ones((2, 2, 2))),
            "pool": ir.SumPool2d(2, 2),
            "delay": ir.Delay(np.zeros(ins + 1)),
        },
    )
    names = (name, "fc2", "rec", "lif1", "lif2")  # where it shows
    return Attempt(
        f"{what} of {name}", lambda: ir.Network({**nodes, name: wrong}, tuple(edges), 1e-3), names, ShapeMismatch
    )


@category("graphs: edges")
def bad_edges(rng: Rng, folder: Path) -> Attempt:
    nodes, edges = parts(rng)
    one = edges[int(rng.integers(len(edges)))]
    what, (changed, error, names) = pick(
        rng,
        {
            "to nowhere": ([*edges, ("lif1", "nowhere")], UnknownNode, ("nowhere",)),
            "from nowhere": ([*edges, ("nobody", "lif1")], UnknownNode, ("nobody",)),
            "twice": ([*edges, one], NetworkError, (one[0],)),
            "into input": ([*edges, ("lif1", "in")], NetworkError, ("'in'",)),
            "out of output": ([*edges, ("out", "fc2")], NetworkError, ("'out'",)),
            "missing": ([e for e in edges if e != edges[0]], NetworkError, ("reaches",)),
            "triple": ([*edges, ("a", "b", "c")], NetworkError, ("pairs",)),
            "numbers": ([*edges, (1, 2)], NetworkError, ("pairs",)),
            "text": ("in out", NetworkError, ("pairs",)),
            "None": (None, NetworkError, ("pairs",)),
            "number": (7, NetworkError, ("pairs",)),
        },
    )
    return Attempt(f"edge {what}", lambda: ir.Network(nodes, changed, 1e-3), names, error)


@category("graphs: loops without state")
def stateless_loop(rng: Rng, folder: Path) -> Attempt:
    nodes, edges = parts(rng)
    length = int(rng.integers(1, 4))
    ring = [f"s{k}" for k in range(length)]
    extra = {name: ir.Scale(float(rng.uniform(0.1, 1))) for name in ring}
    loop = [("lif1", ring[0]), *itertools.pairwise(ring), (ring[-1], ring[0]), (ring[-1], "lif1")]
    assert not any(isinstance(node, (ir.Neuron, ir.Delay)) for node in extra.values())
    return Attempt(
        f"loop of {length} Scale",
        lambda: ir.Network({**nodes, **extra}, (*edges, *loop), 1e-3),
        tuple(ring),
        CyclicWithoutDelay,
    )


@category("graphs: nodes")
def bad_nodes(rng: Rng, folder: Path) -> Attempt:
    nodes, edges = parts(rng)
    foreign = type("LIF", (ir.Node,), {})()
    what, (changed, names) = pick(
        rng,
        {
            "foreign class": ({**nodes, "lif1": foreign}, ("lif1",)),
            "text": ({**nodes, "lif1": "LIF"}, ("lif1",)),
            "None": ({**nodes, "lif1": None}, ("lif1",)),
            "class": ({**nodes, "lif1": ir.LIF}, ("lif1",)),
            "base class": ({**nodes, "lif1": ir.Neuron()}, ("lif1",)),
            "unreached": ({**nodes, "island": ir.IF(1.0)}, ("island",)),
            "no input": ({k: v for k, v in nodes.items() if k != "in"}, ("in",)),
            "no output": ({k: v for k, v in nodes.items() if k != "out"}, ("out",)),
            "none at all": ({}, ("no nodes",)),
            "a list": (list(nodes.values()), ("nodes",)),
            "number as name": ({**nodes, 3: ir.IF(1.0)}, ("name",)),
            "empty name": ({**nodes, "": ir.IF(1.0)}, ("name",)),
        },
    )
    return Attempt(what, lambda: ir.Network(changed, tuple(edges), 1e-3), names, NetworkError)


@category("graphs: dt, rule and metadata")
def bad_settings(rng: Rng, folder: Path) -> Attempt:
    what, (changed, names) = pick(
        rng,
        {
            **{
                f"dt {dt!r:.20}": ({"dt": dt}, ("dt",))
                for dt in (
                    0,
                    -1e-3,
                    math.nan,
                    math.inf,
                    "1 ms",
                    None,
                    True,
                    [1e-3],
                    10**400,
                    1j,
                    np.array([1e-3, 1e-3]),
                )
            },
            "rule": ({"discretisation": "midpoint"}, ("discretisation",)),
            "overshoot": ({"discretisation": "euler", "dt": 1.0, "nodes": None}, ("overshoots",)),
            "metadata number": ({"metadata": {"classes": 3}}, ("metadata",)),
            "metadata list": ({"metadata": ["classes"]}, ("metadata",)),
            "metadata None": ({"metadata": None}, ("metadata",)),
            "metadata key": ({"metadata": {1: "a"}}, ("metadata",)),
        },
    )
    if what == "overshoot":
        nodes = {"i": ir.Input((2,)), "n": ir.LI(float(rng.uniform(1e-4, 0.9))), "o": ir.Output("sum")}
        return Attempt(what, lambda: ir.chain(nodes, 1.0, discretisation="euler"), names, NetworkError)
    return Attempt(what, lambda: some_network(rng, **changed), names, NetworkError)


@category("graphs: chains")
def bad_chain(rng: Rng, folder: Path) -> Attempt:
    n = int(rng.integers(1, 5))
    what, nodes = pick(
        rng,
        {
            "None": None,
            "number": n,
            "names only": ["in", "out"],
            "twice": [("i", ir.Input((n,))), ("i", ir.IF(1.0)), ("o", ir.Output())],
            "list as name": [(["i"], ir.Input((n,)))],
            "empty": {},
        },
    )
    return Attempt(what, lambda: ir.chain(nodes, 1e-3), ("name", "nodes"), NetworkError)
