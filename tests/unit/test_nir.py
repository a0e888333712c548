"""NIR files: what other tools wrote, what other tools can read, and everything that is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from axon_strategies import assert_same_network

from neuro import ir
from neuro.errors import FormatError, NetworkError, NeuroError, ShapeMismatch, UnknownNode
from neuro.nir import load, save
from neuro.nir_file import SEAL_SIZE, read_tree, write_tree
from neuro.nir_hdf5 import MAX_DEPTH

GOLDEN = Path(__file__).parents[1] / "golden" / "nir"
VALUES = {"tau_syn": 2e-3, "tau_mem": 5e-3, "v_threshold": 1.5, "r": 3.0, "v_leak": 0.25, "v_reset": -0.5, "w_in": 0.7}


def neuron(cls: type[ir.Neuron], **more: Any) -> ir.Neuron:
    return cls(**{name: VALUES[name] for name in cls._parameters()}, **more)


def around(node: ir.Node, shape: tuple[int, ...] = (2, 6, 5), **options: Any) -> ir.Network:
    return ir.chain({"in": ir.Input(shape), "n": node, "out": ir.Output("sum")}, 1e-3, **options)


EVERY_NODE = {
    "Linear": around(ir.Linear([[1.0, -0.0], [5e-324, 1e308]]), (2,)),
    "delays": around(ir.Affine([[1.0, 2.0]], [[0, 7]], bias=[0.1]), (2,)),
    "Affine": around(ir.Affine(np.eye(3) / 3, bias=[1.0, 2.0, 3.0]), (3,)),
    "Conv2d": around(ir.Conv2d(np.arange(36.0).reshape(2, 2, 3, 3) / 7, 2, (0, 1), 1, bias=[1.0, 2.0])),
    "groups": around(ir.Conv2d(np.arange(36.0).reshape(4, 1, 3, 3) / 7, groups=2)),
    "oblong": around(ir.Conv2d(np.arange(30.0).reshape(1, 2, 5, 3), 1, 1, (1, 2))),
    "oblong groups": around(ir.Conv2d(np.arange(12.0).reshape(4, 1, 3, 1), groups=2)),
    "mixed": around(ir.Conv2d(np.arange(12.0).reshape(1, 2, 2, 3))),
    "SumPool2d": around(ir.SumPool2d((2, 3), (1, 2), (1, 0))),
    "AvgPool2d": around(ir.AvgPool2d(2, 2)),
    "Flatten": around(ir.Flatten()),
    "Scale": around(ir.Scale(1 / 3)),
    "Delay": around(ir.Delay(np.arange(60).reshape(2, 6, 5))),
    "euler": around(ir.LI(2e-3), discretisation="euler"),
    "notes": around(ir.LI(2e-3), metadata={"classes": "a b", "n/bits": "8", "odd/name": "x", "nul": "\0", "": "e"}),
    **{cls.__name__: around(neuron(cls)) for cls in (ir.IF, ir.LI, ir.LIF, ir.CubaLI, ir.CubaLIF)},
    **{f"{cls.__name__} soft": around(neuron(cls, reset="subtract")) for cls in (ir.IF, ir.LIF, ir.CubaLIF)},
}


def loop() -> ir.Network:
    nodes = {
        "z": ir.Input((2,)),  # not in the order of the alphabet, in which HDF5 would have it
        "fc": ir.Linear(np.ones((3, 2))),
        "a.lif": neuron(ir.CubaLIF, reset="subtract"),
        "b.rec": ir.Affine(np.ones((3, 3)), np.full((3, 3), 2), bias=np.zeros(3)),
        "out": ir.Output("max"),
    }
    edges = (("b.rec", "a.lif"), ("z", "fc"), ("fc", "a.lif"), ("a.lif", "out"), ("a.lif", "b.rec"))
    return ir.Network(nodes, edges, 1e-4, "euler", {"classes": "one two"})


@pytest.mark.parametrize("net", [*EVERY_NODE.values(), loop()], ids=[*EVERY_NODE, "loop"])
def test_round_trip_is_the_same_network(net: ir.Network, tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    save(net, path)
    assert_same_network(net, load(path))


@pytest.mark.parametrize("net", [*EVERY_NODE.values(), loop()], ids=[*EVERY_NODE, "loop"])
def test_plain_nir_reads_what_we_write(net: ir.Network, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    nir = pytest.importorskip("nir", reason="needs nir")
    path = tmp_path / "net.nir"
    save(net, path)
    if "mixed" in request.node.name:  # nir derives a wrong shape for such kernels, whoever wrote them
        with pytest.raises(ValueError, match="type mismatch"):
            nir.read(path)
    graph = nir.read(path, type_check="mixed" not in request.node.name)
    assert list(graph.nodes) == list(net.nodes)
    assert [tuple(edge) for edge in graph.edges] == list(net.edges)
    for name, node in graph.nodes.items():
        assert type(node).__name__ == type(net.nodes[name]).__name__
    first = net.of(ir.Input)[0]
    assert tuple(graph.nodes[first].input_type["input"]) == net.shapes[first]
    # and writes it again without losing what is ours
    nir.write(tmp_path / "again.nir", graph)
    again = load(tmp_path / "again.nir")
    assert_same_network(net, again)


def test_values_reach_nir_unchanged(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir", reason="needs nir")
    save(EVERY_NODE["CubaLIF"], tmp_path / "n.nir")
    node = nir.read(tmp_path / "n.nir").nodes["n"]
    for name, value in VALUES.items():
        np.testing.assert_array_equal(getattr(node, name), np.full((2, 6, 5), value))
    save(EVERY_NODE["Delay"], tmp_path / "d.nir")
    np.testing.assert_array_equal(
        nir.read(tmp_path / "d.nir").nodes["n"].delay, np.arange(60).reshape(2, 6, 5) * 1e-3
    )
    save(around(ir.LI(2e-3)), tmp_path / "l.nir")
    assert nir.read(tmp_path / "l.nir").nodes["n"].tau[0, 0, 0] == 2e-3


@pytest.mark.parametrize("name", ["groups", "oblong", "oblong groups"])
def test_packed_convolution_means_the_same_to_other_tools(name: str, tmp_path: Path) -> None:
    """Without our metadata it is another Conv2d, with the same outputs."""
    from neuro import reference

    net = EVERY_NODE[name]
    save(net, tmp_path / "n.nir")
    with h5py.File(tmp_path / "n.nir", "a") as file:
        del file["node/nodes/n/metadata"]
    other = load(tmp_path / "n.nir")
    packed, own = other.nodes["n"], net.nodes["n"]
    assert isinstance(packed, ir.Conv2d)
    assert isinstance(own, ir.Conv2d)
    assert packed.groups == 1
    assert packed.weight.shape != own.weight.shape
    x = np.random.default_rng(0).integers(0, 2, (2, 1, 2, 6, 5))
    a, b = (reference.run(n, x).answers["out"] for n in (net, other))
    np.testing.assert_array_equal(a, b)


def test_same_network_same_bytes(tmp_path: Path) -> None:
    import time

    save(loop(), tmp_path / "a.nir")
    time.sleep(1.1)  # HDF5 can keep times in whole seconds
    save(loop(), tmp_path / "b.nir")
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n.nir"
    save(loop(), path)
    before = path.read_bytes()
    monkeypatch.setattr("neuro.nir_file.write_group", _broken)
    with pytest.raises(FormatError, match=r"cannot be written .disk full"):
        save(EVERY_NODE["Linear"], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _broken(group: Any, tree: Any) -> None:
    group.create_group("half")
    raise OSError("disk full")


def test_saving_to_an_impossible_place_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="cannot be written"):
        save(loop(), tmp_path / "file" / "n.nir")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FormatError, match="cannot be written"):
        save(loop(), tmp_path / "folder")


@pytest.mark.parametrize("name", ["a/b", ".", "nul\0", "\ud800", "x" * 70_000])
def test_names_that_hdf5_cannot_hold_are_refused(name: str, tmp_path: Path) -> None:
    net = ir.chain({"in": ir.Input((1,)), name: ir.IF(1.0), "out": ir.Output()}, 1e-3)
    with pytest.raises(FormatError, match="cannot be a name in HDF5"):
        save(net, tmp_path / "n.nir")
    assert not list(tmp_path.iterdir())


# --- files of other tools ---------------------------------------------------------------------------------


def test_cnn_of_sinabs() -> None:
    net = load(GOLDEN / "cnn_sinabs.nir", reset="subtract")
    assert net.shapes[net.input] == (2, 34, 34)
    assert net.shapes[net.output] == (10,)
    kinds = "Input Conv2d IF Conv2d IF SumPool2d Conv2d IF SumPool2d Flatten Affine IF Affine IF Output"
    assert [type(net.nodes[n]).__name__ for n in net.order] == kinds.split()
    assert net.dt == 1e-3
    output = net.nodes[net.output]
    assert isinstance(output, ir.Output)
    assert output.readout == "count"
    assert all(net.nodes[n].reset == "subtract" for n in net.of(ir.IF))  # type: ignore[attr-defined]


def test_values_of_float32_files_are_kept() -> None:
    net = load(GOLDEN / "cnn_sinabs.nir")
    with h5py.File(GOLDEN / "cnn_sinabs.nir") as file:
        stored = file["node/nodes/0/weight"][()]
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(net.nodes["0"].weight, stored.astype(np.float64))  # type: ignore[attr-defined]


def test_recurrent_braille_of_snntorch() -> None:
    """tau 1 ms and r = 10 were made with dt 0.1 ms and explicit Euler: one step has gain 1."""
    from neuro.discretise import coefficients

    net = load(GOLDEN / "braille_noDelay_bias_zero.nir")
    assert net.feedback == {("lif1.w_rec", "lif1.lif")}
    assert (net.dt, net.discretisation) == (1e-4, "euler")
    node = net.nodes["lif1.lif"]
    assert isinstance(node, ir.CubaLIF)
    c = coefficients(node, net.dt, net.discretisation)
    for got, wanted in zip(c, (0.55, 1.0, 0.9, 1.0, 0.0), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_two_lif_neurons() -> None:
    assert load(GOLDEN / "two_lif_neurons.nir").nodes["lif1"].v_leak.item() == 1.2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (
            "braille_noDelay_bias_zero_subgraph.nir",
            UnknownNode,
            "edge (input -> lif) of subgraph 'lif1' names 'lif', which is not one of its nodes",
        ),
        ("lif_rockpool.nir", ShapeMismatch, "'output' is said to take (1, 1, 1), but '1_LIFNeuronTorch' sends (1,)"),
    ],
)
def test_files_that_nir_refuses_are_refused_with_file_node_and_reason(
    name: str, error: type[NeuroError], says: str
) -> None:
    nir = pytest.importorskip("nir", reason="needs nir")
    with pytest.raises(ValueError, match=r"does not exist|mismatch"):
        nir.read(GOLDEN / name)
    with pytest.raises(error) as caught:
        load(GOLDEN / name)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_arguments_go_before_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "n.nir"
    save(loop(), path)
    net = load(path, dt=5e-5, discretisation="exact", reset="hard", readout="count")
    assert (net.dt, net.discretisation) == (5e-5, "exact")
    assert net.nodes["a.lif"].reset == "hard"  # type: ignore[attr-defined]
    assert net.nodes["out"].readout == "count"  # type: ignore[attr-defined]
    rec = net.nodes["b.rec"]
    assert isinstance(rec, ir.Affine)
    assert rec.delay_steps is not None
    assert (rec.delay_steps == 4).all()  # two steps of 0.1 ms


@pytest.mark.parametrize(
    "given",
    [
        {"dt": 0.0}, {"dt": -1}, {"dt": float("nan")}, {"dt": "1"}, {"discretisation": "x"}, {"reset": ["hard"]},
        {"readout": "mean"}, {"readout": np.array(["sum", "sum"])},
    ],
)  # fmt: skip
def test_arguments_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match=r"cannot be loaded so.*must be"):
        load(GOLDEN / "cnn_sinabs.nir", **given)


# --- files made wrong on purpose --------------------------------------------------------------------------

GRAPH: dict[str, Any] = {
    "type": "NIRGraph",
    "nodes": {
        "in": {"type": "Input", "shape": np.array([2])},
        "fc": {"type": "Affine", "weight": np.ones((3, 2)), "bias": np.zeros(3)},
        "lif": {
            "type": "LIF",
            **{k: np.full(3, v) for k, v in {"tau": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0}.items()},
        },
        "out": {"type": "Output", "shape": np.array([3])},
    },
    "edges": [["in", "fc"], ["fc", "lif"], ["lif", "out"]],
}


def edited(path: Path, changes: dict[str, Any], base: dict[str, Any] = GRAPH) -> Path:
    """A NIR file like ``base`` with some fields set ("nodes/lif/tau": value) or removed (None)."""
    import copy

    tree = copy.deepcopy(base)
    for where, value in changes.items():
        *above, last = where.split("/")
        table = tree
        for name in above:
            table = table.setdefault(name, {})
        if value is None:
            del table[last]
        else:
            table[last] = value
    write_tree(path, tree)
    return path


def test_the_base_of_the_wrong_files_is_right(tmp_path: Path) -> None:
    net = load(edited(tmp_path / "n.nir", {}))
    assert net.nodes["lif"].v_reset.tolist() == [0, 0, 0]  # type: ignore[attr-defined]
    assert net.nodes["out"].readout == "count"  # type: ignore[attr-defined]
    assert net.dt == 1e-4


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"nodes/lif/tau": np.array([np.nan, 1, 1])}, FormatError, "'lif' (LIF): LIF cannot be built: tau_mem holds"),
        ({"nodes/lif/tau": np.zeros(3)}, FormatError, "must be positive"),
        ({"nodes/lif/tau": None}, FormatError, "'lif' (LIF): field 'tau' is missing"),
        ({"nodes/lif/tau": "fast"}, FormatError, "field 'tau' must hold numbers"),
        ({"nodes/lif/tau": np.ones(2)}, FormatError, "do not broadcast"),
        ({"nodes/lif/colour": np.ones(3)}, FormatError, "fields colour are not known"),
        ({"nodes/lif/type": "LIFF"}, UnknownNode, "'lif' is a LIFF. Did you mean 'LIF'?"),
        ({"nodes/lif/type": "Threshold"}, UnknownNode, "'lif' is a Threshold"),
        ({"nodes/lif/type": np.array(3)}, FormatError, "'lif' has no type"),
        ({"nodes/lif/type": None}, FormatError, "'lif' has no type"),
        ({"nodes/lif/metadata": np.array(3)}, FormatError, "metadata must be a group"),
        ({"nodes/lif": np.array(3)}, FormatError, "'lif' has no type"),
        ({"nodes/in/shape": np.array([2.0])}, FormatError, "vector of positive integers"),
        ({"nodes/in/shape": np.array([0])}, FormatError, "vector of positive integers"),
        ({"nodes/in/shape": np.array([[2]])}, FormatError, "vector of positive integers"),
        ({"nodes/in/shape": "2"}, FormatError, "vector of positive integers"),
        ({"nodes/in/shape": np.array([4])}, ShapeMismatch, "wants input (2,), got (4,)"),
        ({"nodes/in/shape": np.array([2**40])}, FormatError, "channels, at most"),
        ({"nodes/out/shape": np.array([4])}, ShapeMismatch, "'out' is said to take (4,), but 'lif' sends (3,)"),
        ({"nodes/fc/weight": np.ones((3, 2, 2))}, FormatError, "weight must be [out, in]"),
        ({"nodes/fc/weight": np.ones((3, 3))}, ShapeMismatch, "wants input (3,)"),
        ({"edges": [["in", "fc"], ["fc", "lif"], ["lif", "nowhere"]]}, UnknownNode, "names 'nowhere'"),
        ({"edges": [["in", "fc", "lif"]]}, FormatError, "no pair of names"),
        ({"edges": ["in"]}, FormatError, "no pair of names"),
        ({"edges": np.ones((2, 2))}, FormatError, "no pair of names"),
        ({"edges": "in"}, FormatError, "must be a NIRGraph with nodes and edges"),
        ({"edges": None}, FormatError, "must be a NIRGraph"),
        ({"edges": [["in", "fc"], ["in", "fc"], ["fc", "lif"], ["lif", "out"]]}, FormatError, "edges are there twice"),
        ({"type": "LIF"}, FormatError, "must be a NIRGraph"),
        ({"nodes": np.ones(2)}, FormatError, "must be a NIRGraph"),
        ({"metadata": "x"}, FormatError, "metadata must be a group"),
        ({"metadata/axonport.dt": np.array(-1.0)}, FormatError, "'axonport.dt' must be positive"),
        ({"metadata/axonport.dt": "1"}, FormatError, "'axonport.dt' must be positive"),
        ({"metadata/axonport.format": np.array(2)}, FormatError, "this version of axonport reads 1"),
        ({"metadata/axonport.discretisation": "x"}, NetworkError, "discretisation must be one of"),
        ({"metadata/axonport.discretisation": np.array(3)}, NetworkError, "discretisation must be one of"),
        ({"metadata/axonport.order": "["}, FormatError, "broken JSON"),
        ({"metadata/axonport.order": np.array(1)}, FormatError, "broken JSON"),
        ({"metadata/axonport.notes": "[1]"}, FormatError, "must map strings"),
        ({"metadata/axonport.notes": '{"a": 1}'}, FormatError, "must map strings"),
        ({"metadata/axonport.keys": "{}"}, FormatError, "must be a list"),
        ({"nodes/lif/metadata/axonport.reset": "soft"}, FormatError, "reset must be one of"),
        ({"nodes/lif/metadata/axonport.reset": np.array(1)}, FormatError, "must be a string"),
        ({"nodes/out/metadata/axonport.readout": "mean"}, FormatError, "readout must be one of"),
        ({"nodes/fc/metadata/axonport.delay_steps": np.ones((3, 2), int)}, FormatError, "does not say of what length"),
        ({"nodes/fc/metadata/axonport.delay_steps": np.ones((3, 2))}, FormatError, "must hold integers"),
    ],
)
def test_wrong_files(changes: dict[str, Any], error: type[NeuroError], says: str, tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", changes)
    with pytest.raises(error) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_wrong_nodes_are_named_at_once(tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", {"nodes/lif/tau": np.zeros(3), "nodes/fc/bias": None, "nodes/out/shape": "x"})
    with pytest.raises(FormatError) as caught:
        load(path)
    assert len(caught.value.violations) == 3


IMAGE: dict[str, Any] = {
    "type": "NIRGraph",
    "nodes": {
        "in": {"type": "Input", "shape": np.array([2, 6, 5])},
        "conv": {
            "type": "Conv2d",
            "weight": np.ones((4, 2, 3, 3)),
            "bias": np.zeros(4),
            "stride": np.array([1, 1]),
            "padding": np.array([0, 0]),
            "dilation": np.array(1),
            "groups": np.array(1),
            "input_shape": np.array([6, 5]),
        },
        "flat": {
            "type": "Flatten",
            "start_dim": np.array(0),
            "end_dim": np.array(-1),
            "input_type": np.array([4, 4, 3]),
        },
        "out": {"type": "Output", "shape": np.array([48])},
    },
    "edges": [["in", "conv"], ["conv", "flat"], ["flat", "out"]],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nodes/conv/padding": "valid"},
        {"nodes/conv/input_shape": None},
        {"nodes/flat/input_type": None},
        {"nodes/flat/end_dim": np.array(2)},
        {"nodes/flat/start_dim": np.array(1)},  # the batch is counted
        {"nodes/flat/start_dim": np.array(1), "nodes/flat/end_dim": np.array(3)},
        {"nodes/conv/padding": "same", "nodes/flat/input_type": None, "nodes/out/shape": np.array([120])},
        {"nodes/in/shape": np.array([1, 2, 6, 5]), "nodes/out/shape": np.array([1, 48])},  # with a batch of one
    ],
)
def test_ways_to_say_it_that_are_read(changes: dict[str, Any], tmp_path: Path) -> None:
    net = load(edited(tmp_path / "n.nir", changes, IMAGE))
    assert net.shapes["in"] == (2, 6, 5)
    assert net.nodes["out"].readout == "sum"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"nodes/conv/padding": "same", "nodes/conv/stride": np.array([2, 2])}, FormatError, "padding 'same'"),
        ({"nodes/conv/padding": "same", "nodes/conv/weight": np.ones((4, 2, 2, 3))}, FormatError, "padding 'same'"),
        ({"nodes/conv/padding": "odd"}, FormatError, "padding 'odd'"),
        ({"nodes/conv/padding": np.array([-1, 0])}, FormatError, "padding must be"),
        ({"nodes/conv/stride": np.array([1, 1, 1])}, FormatError, "stride must be"),
        ({"nodes/conv/groups": np.array([1, 1])}, FormatError, "'groups' must be one integer"),
        ({"nodes/conv/groups": np.array(3)}, FormatError, "divisor"),
        ({"nodes/conv/weight": np.ones((4, 2, 3))}, FormatError, "weight must be"),
        ({"nodes/conv/input_shape": np.array([5, 6])}, ShapeMismatch, "'conv' is said to take (2, 5, 6)"),
        ({"nodes/conv/input_shape": np.array(6)}, ShapeMismatch, "'conv' is said to take (2, 6, 6)"),
        ({"nodes/flat/input_type": np.array([4, 3, 4])}, ShapeMismatch, "'flat' is said to take (4, 3, 4)"),
        ({"nodes/flat/start_dim": np.array(2)}, FormatError, "a Flatten here takes all"),
        ({"nodes/flat/end_dim": np.array(1)}, FormatError, "a Flatten here takes all"),
        ({"nodes/conv/metadata/axonport.kernel_size": np.array([3, 3])}, FormatError, "beside it"),
        (
            {f"nodes/conv/metadata/axonport.{k}": np.array(v) for k, v in
             {"kernel_size": [3, 1], "padding": [0, 0], "groups": 1}.items()},
            FormatError,
            "changed by another tool",
        ),
        (
            {f"nodes/conv/metadata/axonport.{k}": np.array(v) for k, v in
             {"kernel_size": [3, 3], "padding": [0, 0], "groups": 2}.items()},
            FormatError,
            "changed by another tool",
        ),
        (
            {f"nodes/conv/metadata/axonport.{k}": np.array(v) for k, v in
             {"kernel_size": [9, 3], "padding": [0, 0], "groups": 1}.items()},
            FormatError,
            "cannot hold",
        ),
        # a batch axis that does not help: the error names the shapes of the file
        ({"nodes/in/shape": np.array([1, 3, 6, 5])}, ShapeMismatch, "got (1, 3, 6, 5)"),
    ],
)  # fmt: skip
def test_wrong_image_files(changes: dict[str, Any], error: type[NeuroError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        load(edited(tmp_path / "n.nir", changes, IMAGE))
    assert says in str(caught.value)


def delayed(path: Path, seconds: Any, **said: Any) -> Path:
    node = {"type": "Delay", "delay": np.asarray(seconds)}
    nodes = {"in": GRAPH["nodes"]["in"], "d": node, "out": {"type": "Output", "shape": np.array([2])}}
    edges = [["in", "d"], ["d", "out"]]
    return edited(path, said, {"type": "NIRGraph", "nodes": nodes, "edges": edges})


def test_delays_are_seconds(tmp_path: Path) -> None:
    path = delayed(tmp_path / "d.nir", np.array([0.003, 0.1], np.float32))  # float32 errs by 1e-8
    for dt, steps in ((None, [30, 1000]), (1e-3, [3, 100])):
        assert load(path, dt=dt).nodes["d"].steps.tolist() == steps  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match=r"is 1\.5\d* steps of 0\.002 s, not a whole number"):
        load(path, dt=2e-3)
    rounded = load(path, dt=2e-3, nearest_step=True)
    assert rounded.nodes["d"].steps.tolist() == [2, 50]  # type: ignore[attr-defined]


@pytest.mark.parametrize("seconds", [[-1e-3, 0], [np.nan, 0], [np.inf, 0], [1e300, 0], [1e3, 0]])
def test_impossible_delays_are_refused(seconds: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'d' .Delay.: "):
        load(delayed(tmp_path / "d.nir", seconds))


def test_delay_that_left_its_metadata_is_refused(tmp_path: Path) -> None:
    said = {"metadata/axonport.dt": np.array(1e-3), "nodes/d/metadata/axonport.steps": np.array([1, 2])}
    assert load(delayed(tmp_path / "d.nir", [1e-3, 2e-3], **said))
    with pytest.raises(FormatError, match="changed by another tool"):
        load(delayed(tmp_path / "d.nir", [1e-3, 3e-3], **said))


def sub() -> dict[str, Any]:
    """`GRAPH` with its neurons in a recurrent subgraph."""
    inner = {
        "type": "NIRGraph",
        "nodes": {
            "input": {"type": "Input", "shape": np.array([3])},
            "lif": GRAPH["nodes"]["lif"],
            "rec": {"type": "Linear", "weight": np.eye(3)},
            "output": {"type": "Output", "shape": np.array([3])},
        },
        "edges": [["input", "lif"], ["lif", "rec"], ["rec", "lif"], ["lif", "output"]],
    }
    return {**GRAPH, "nodes": {**GRAPH["nodes"], "lif": inner}}


def test_subgraphs_are_dissolved(tmp_path: Path) -> None:
    net = load(edited(tmp_path / "n.nir", {}, sub()))
    assert set(net.nodes) == {"in", "fc", "lif.lif", "lif.rec", "out"}
    assert set(net.edges) == {
        ("in", "fc"),
        ("fc", "lif.lif"),
        ("lif.lif", "lif.rec"),
        ("lif.rec", "lif.lif"),
        ("lif.lif", "out"),
    }
    assert net.feedback == {("lif.rec", "lif.lif")}


def test_subgraphs_in_subgraphs_and_straight_through(tmp_path: Path) -> None:
    ports = {name: {"type": kind, "shape": np.array([3])} for name, kind in (("i", "Input"), ("o", "Output"))}
    through = {"type": "NIRGraph", "nodes": ports, "edges": [["i", "o"]]}
    edges = [*GRAPH["edges"][:-1], ["lif", "p"], ["p", "out"]]
    nested = {"type": "NIRGraph", "nodes": {**sub()["nodes"], "p": through}, "edges": edges}
    outer = {
        "type": "NIRGraph",
        "nodes": {"in": GRAPH["nodes"]["in"], "g": nested, "out": GRAPH["nodes"]["out"]},
        "edges": [["in", "g"], ["g", "out"]],
    }
    net = load(edited(tmp_path / "n.nir", {}, outer))
    assert set(net.edges) == {
        ("in", "g.fc"),
        ("g.fc", "g.lif.lif"),
        ("g.lif.lif", "g.lif.rec"),
        ("g.lif.rec", "g.lif.lif"),
        ("g.lif.lif", "out"),
    }


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"nodes/lif/nodes/input/shape": np.array([12])}, ShapeMismatch, "'lif.input' is said to take (12,), but 'fc'"),
        ({"nodes/lif/nodes/output/shape": np.array([12])}, ShapeMismatch, "'lif.output' is said to take (12,)"),
        ({"nodes/lif/nodes/input/shape": "x"}, FormatError, "'lif.input' (Input): a shape must be"),
        ({"nodes/lif/nodes/more": {"type": "Input", "shape": np.array([3])}}, FormatError, "has 2 Input and 1 Output"),
        ({"nodes/lif/nodes/output": {"type": "Linear", "weight": np.eye(3)}}, FormatError, "1 Input and 0 Output"),
        ({"nodes/lif/edges": [["input", "gone"]]}, UnknownNode, "of subgraph 'lif' names 'gone'"),
        ({"nodes/lif.lif": GRAPH["nodes"]["lif"]}, FormatError, "two nodes would be called 'lif.lif'"),
        ({"nodes/lif/nodes": np.ones(1)}, FormatError, "subgraph 'lif' must be a NIRGraph"),
        ({"nodes/lif/edges": [["input", "input"], ["input", "lif"], ["lif", "output"]]}, FormatError, "feeds itself"),
        ({"edges": [*GRAPH["edges"], ["in", "lif"]]}, ShapeMismatch, "different shapes"),
    ],
)
def test_wrong_subgraphs(changes: dict[str, Any], error: type[NeuroError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        load(edited(tmp_path / "n.nir", changes, sub()))
    assert says in str(caught.value)


def test_ends_are_closed_as_nir_closes_them(tmp_path: Path) -> None:
    nodes = {k: GRAPH["nodes"][k] for k in ("fc", "lif")}
    net = load(edited(tmp_path / "n.nir", {}, {"type": "NIRGraph", "nodes": nodes, "edges": [["fc", "lif"]]}))
    assert net.edges == (("input_fc", "fc"), ("fc", "lif"), ("lif", "output_lif"))
    assert net.shapes["input_fc"] == (2,)
    assert net.nodes["output_lif"].readout == "count"  # type: ignore[attr-defined]
    conv = {k: IMAGE["nodes"][k] for k in ("conv", "flat")}
    path = edited(tmp_path / "c.nir", {}, {"type": "NIRGraph", "nodes": conv, "edges": [["conv", "flat"]]})
    assert load(path, readout="max").shapes["input_conv"] == (2, 6, 5)
    for lone, shape in (({"type": "Scale", "scale": np.ones(4)}, (4,)), (GRAPH["nodes"]["lif"], (3,))):
        path = edited(tmp_path / "s.nir", {}, {"type": "NIRGraph", "nodes": {"d": lone}, "edges": []})
        assert load(path).shapes["input_d"] == shape
    sizes = {"kernel_size": np.array([1, 1]), "stride": np.array([1, 1]), "padding": np.array(0)}
    pool = {"p": {"type": "SumPool2d", **sizes}}
    path = edited(tmp_path / "p.nir", {}, {"type": "NIRGraph", "nodes": pool, "edges": []})
    with pytest.raises(NetworkError, match="nothing says what shape it takes"):
        load(path)


def test_metadata_of_others_is_kept(tmp_path: Path) -> None:
    changes = {
        "metadata/author": "somebody",
        "metadata/numbers": np.array([1, 2]),
        "nodes/lif/metadata/unit": "mV",
        "nodes/lif/metadata/deep/er": "x",
    }
    net = load(edited(tmp_path / "n.nir", changes))
    wanted = {"author": "somebody", "numbers": "[1, 2]", "lif/unit": "mV", "lif/deep": '{"er": "x"}'}
    assert dict(net.metadata) == wanted
    save(net, tmp_path / "again.nir")
    assert_same_network(net, load(tmp_path / "again.nir"))
    tree = read_tree(tmp_path / "again.nir")
    assert tree["nodes"]["lif"]["metadata"]["unit"] == "mV"  # where other tools look for it
    assert tree["metadata"]["author"] == "somebody"


# --- HDF5 files that are no NIR files, or not to be trusted -----------------------------------------------


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing.nir", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FormatError, match="no such file"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"not a network" * 100, b"\0" * 4096])
def test_foreign_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "n.nir").write_bytes(content)
    with pytest.raises(FormatError, match="not a whole HDF5 file"):
        load(tmp_path / "n.nir")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(share: float, tmp_path: Path) -> None:
    whole = (GOLDEN / "lif_norse.nir").read_bytes()
    (tmp_path / "n.nir").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match="not a whole HDF5 file"):
        load(tmp_path / "n.nir")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("n", [1, 20])  # HDF5 does not pack what would not shrink, and then only fletcher32 guards it
def test_damaged_weights_are_noticed(n: int, sealed: bool, tmp_path: Path) -> None:
    """Our files carry checksums: no byte of a weight can change unseen, by us or by any reader of HDF5."""
    path = tmp_path / "n.nir"
    rng = np.random.default_rng(0)
    save(around(ir.Linear(rng.normal(size=(n, n))), (n,)), path)
    with h5py.File(path) as file:
        info = file["node/nodes/n/weight"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + info.size // 2] ^= 1
    path.write_bytes(bytes(content if sealed else content[:-SEAL_SIZE]))
    with pytest.raises(FormatError, match="SHA-256 differs" if sealed else "not a whole HDF5 file"):
        load(path)


def test_every_byte_of_our_files_is_guarded(tmp_path: Path) -> None:
    """Any byte but those of the seal's own words, where the file becomes one that nobody vouches for."""
    path = tmp_path / "n.nir"
    save(loop(), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 2, *rng.integers(0, len(content) - SEAL_SIZE, 50).tolist()]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(FormatError, match="SHA-256 differs"):
            load(path)


def test_a_file_that_other_tools_changed_is_read(tmp_path: Path) -> None:
    """HDF5 drops the seal when it changes a file, so an edited network is not taken for a damaged one."""
    path = tmp_path / "n.nir"
    save(loop(), path)
    assert path.read_bytes()[-SEAL_SIZE:].startswith(b"\naxonport sha256 ")
    with h5py.File(path, "r+") as file:
        file["node/nodes/fc/weight"][0, 0] = 7.0
    assert load(path).nodes["fc"].weight[0, 0] == 7.0  # type: ignore[attr-defined]


def endless(path: Path) -> Path:
    """A damaged heap of strings, in which HDF5 2.0.0 walks on for ever."""
    content = bytearray((GOLDEN / "lif_norse.nir").read_bytes())
    assert content[2352] == 5
    content[2352] = 14  # size of the last string: the walk ends in the zeros behind it
    path.write_bytes(bytes(content))
    return path


def test_a_file_on_which_hdf5_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.nir_file.PATIENCE_S", 3.0)
    with pytest.raises(FormatError, match=r"does not end within 3 s|ended with signal"):
        load(endless(tmp_path / "n.nir"))


def test_a_reader_whose_parent_died_ends_by_itself(tmp_path: Path) -> None:
    from neuro.nir_file import WORKER

    command = [sys.executable, "-I", "-c", WORKER, *filter(None, sys.path), "", str(endless(tmp_path / "n.nir"))]
    done = subprocess.run([*command, str(1 << 20), "1"], capture_output=True, timeout=60, check=False)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_a_reader_that_crashes_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.nir_file.WORKER", "import os; os.abort()")
    with pytest.raises(FormatError, match="ended with signal 6"):
        load(GOLDEN / "lif_norse.nir")
    monkeypatch.setattr("neuro.nir_file.WORKER", "raise OSError('no such thing')")
    with pytest.raises(FormatError, match=r"ended with status 1.*no such thing"):
        load(GOLDEN / "lif_norse.nir")
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
    with pytest.raises(FormatError, match="no process could be started"):
        load(GOLDEN / "lif_norse.nir")


def test_the_current_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "h5py.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert load(GOLDEN / "lif_norse.nir")


def test_what_a_reader_hands_over_is_the_tree() -> None:
    from neuro.nir_worker import answer, pack, unpack

    tree = {"a": np.array(3), "b": {"c": "text", "d": [["x", "y"]], "e": {}}, "f": np.ones((2, 0), ">f4")}
    again = unpack(pack(tree))
    assert again["b"] == tree["b"]
    assert again["a"].shape == ()
    assert again["f"].shape == (2, 0)
    own = unpack(answer(GOLDEN / "lif_norse.nir", 1 << 20))
    assert own["nodes"]["1"]["type"] == "LIF"
    with pytest.raises(FormatError, match="not a whole HDF5 file"):
        unpack(answer(Path(__file__), 1 << 20))


def unusual(file: h5py.File, kind: str, tmp_path: Path) -> None:
    tau = "node/nodes/lif/tau"
    if kind in ("soft", "external", "virtual", "raw", "empty", "compound", "object", "enum", "lzf", "complex", "long"):
        del file[tau]
    if kind == "soft":
        file[tau] = h5py.SoftLink("/node/nodes/lif/r")
    elif kind == "external":
        shutil.copy(GOLDEN / "lif_norse.nir", tmp_path / "other.h5")
        file[tau] = h5py.ExternalLink("other.h5", "/node/nodes/1/tau")
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3,))
        file.create_virtual_dataset(tau, layout)
    elif kind == "raw":
        file.create_dataset(tau, (3,), "f8", external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)])
    elif kind == "empty":
        file.create_dataset(tau, data=h5py.Empty("f8"))
    elif kind == "compound":
        file.create_dataset(tau, data=np.zeros(3, [("a", "f8")]))
    elif kind == "object":
        file.create_dataset(tau, data=[file["node"].ref], dtype=h5py.ref_dtype)
    elif kind == "complex":
        file.create_dataset(tau, data=np.ones(3, complex))
    elif kind == "long":
        file.create_dataset(tau, data=np.ones(3, np.longdouble))
    elif kind == "type":
        file["node/nodes/lif/named"] = np.dtype("f8")
    elif kind == "no node":
        del file["node"]
    elif kind == "node is data":
        del file["node"]
        file["node"] = 3
    elif kind == "node is a link":
        file.move("node", "elsewhere")
        file["node"] = h5py.SoftLink("/elsewhere")
    elif kind == "ring":
        file["node/nodes/lif/ring"] = file["node"]
    elif kind == "deep":
        file.create_group("node/" + "/".join("x" * (MAX_DEPTH + 2)))
    elif kind == "chunk":
        del file[tau]
        file.create_dataset(tau, (3,), "f8", chunks=(1 << 27,), maxshape=(None,), compression="gzip")
    elif kind == "huge":
        del file["node/nodes/fc/weight"]
        file.create_dataset("node/nodes/fc/weight", (1 << 20, 1 << 20), "f8", chunks=(1, 1 << 10), compression="gzip")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("soft", "tau is a SoftLink; links are not followed"),
        ("external", "tau is a ExternalLink; links are not followed"),
        ("virtual", "data in another file"),
        ("raw", "data in another file"),
        ("empty", "tau is empty"),
        ("compound", "NIR holds real numbers"),
        ("object", "NIR holds real numbers"),
        ("complex", "NIR holds real numbers"),
        ("long", "NIR holds real numbers"),
        ("type", "neither a group nor a dataset"),
        ("no node", "/node is missing"),
        ("node is data", "/node is not a group"),
        ("node is a link", "links are not followed"),
        ("ring", "nested more than"),
        ("deep", "nested more than"),
        ("chunk", "beyond the"),
        ("huge", "raise it if the file is trusted"),
    ],
)
def test_unusual_hdf5(kind: str, says: str, tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", {})
    with h5py.File(path, "a") as file:
        unusual(file, kind, tmp_path)
    with pytest.raises(FormatError, match=says):
        load(path)


def test_a_cap_on_size_is_an_argument(tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", {})
    with pytest.raises(FormatError, match="max_bytes"):
        load(path, max_bytes=64)
    assert load(path, max_bytes=4096)


def test_many_objects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.nir_hdf5.MAX_OBJECTS", 10)
    with pytest.raises(FormatError, match="more than 10 groups"):
        load(edited(tmp_path / "n.nir", {}))


def test_many_edges_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.nir_graph.MAX_EDGES", 2)
    with pytest.raises(FormatError, match="more than 2 edges"):
        load(edited(tmp_path / "n.nir", {}, sub()))


def test_strings_count_too(tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", {"metadata/long": [["x" * 1000] * 100] * 100})
    with pytest.raises(FormatError, match="strings take more than"):
        load(path, max_bytes=200_000)


def test_other_byte_orders_strings_and_filters_are_read(tmp_path: Path) -> None:
    path = edited(tmp_path / "n.nir", {})
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif/tau"], file["node/nodes/lif/type"], file["node/nodes/lif/r"]
        file["node/nodes/lif"].create_dataset("tau", data=np.full(3, 2e-3, ">f4"))
        file["node/nodes/lif"].create_dataset("r", data=np.ones(3), compression="lzf", shuffle=True)
        file["node/nodes/lif"].create_dataset("type", data=np.bytes_("LIF"))
    assert load(path).nodes["lif"].tau_mem.tolist() == [float(np.float32(2e-3))] * 3  # type: ignore[attr-defined]


def test_no_filter_from_outside_is_loaded(tmp_path: Path) -> None:
    """HDF5 would look for a shared library to unpack an unknown filter."""
    path = edited(tmp_path / "n.nir", {})
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif/tau"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((3,))
        creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file["node/nodes/lif"].id, b"tau", h5py.h5t.IEEE_F64LE, space, creation)
    with pytest.raises(FormatError, match=r"filter .32015."):
        load(path)
