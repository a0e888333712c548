"""Bad NIR files: damaged, foreign, hostile, or with content that means nothing."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from axon_bad import Attempt, category, pick
from axon_bad_core import some_network

from neuro import ir
from neuro.errors import FormatError, NetworkError
from neuro.nir import load, save
from neuro.nir_file import SEAL_SIZE, read_tree, write_tree

Rng = np.random.Generator


def good_file(rng: Rng, folder: Path) -> Path:
    path = folder / "net.nir"
    save(some_network(rng), path)
    load(path)
    return path


@category("nir: truncated")
def truncated(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    whole = path.read_bytes()
    length = int(rng.integers(0, len(whole)))
    path.write_bytes(whole[:length])
    assert path.stat().st_size < len(whole)
    return Attempt(f"first {length} of {len(whole)} bytes", lambda: load(path), (str(path),), FormatError)


@category("nir: damaged anywhere")
def damaged(rng: Rng, folder: Path) -> Attempt:
    """Some bytes of a file of ours: its seal must notice."""
    path = good_file(rng, folder)
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    for place in rng.integers(0, len(content) - SEAL_SIZE, int(rng.integers(1, 9))):
        content[int(place)] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))
    assert path.read_bytes() != whole
    return Attempt("bytes", lambda: load(path), (str(path),), FormatError)


@category("nir: damaged weights without a seal")
def damaged_weights(rng: Rng, folder: Path) -> Attempt:
    """One bit of stored weights: the checksum of the array must notice."""
    path = good_file(rng, folder)
    with h5py.File(path) as file:
        info = file["node/nodes/fc1/weight"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes()[:-SEAL_SIZE])
    place = info.byte_offset + int(rng.integers(info.size))
    content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(content))
    return Attempt("one bit", lambda: load(path), (str(path),), FormatError)


@category("nir: foreign files")
def foreign(rng: Rng, folder: Path) -> Attempt:
    path = folder / "net.nir"
    npz, archive = io.BytesIO(), io.BytesIO()
    np.savez(npz, a=np.ones(3))
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("a", "b")
    other = folder / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.ones(3)
    what, content = pick(
        rng,
        {
            "nothing": b"",
            "signature alone": b"\x89HDF\r\n\x1a\n",
            "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
            "zip": archive.getvalue(),
            "npz": npz.getvalue(),
            "pickle": pickle.dumps({"type": "NIRGraph"}),
            "json": b'{"type": "NIRGraph"}',
            "zeros": bytes(int(rng.integers(1, 5000))),
            "noise": rng.bytes(int(rng.integers(1, 5000))),
            "another hdf5": other.read_bytes(),
            "text": "Netzwerk \u2026".encode("utf-16"),
        },
    )
    path.write_bytes(content)
    return Attempt(what, lambda: load(path), (str(path),), FormatError)


@category("nir: no file there")
def no_file(rng: Rng, folder: Path) -> Attempt:
    pipe = folder / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe)
    what, path = pick(
        rng,
        {
            "missing": folder / "missing.nir",
            "folder": folder,
            "pipe": pipe,
            "device": Path("/dev/zero"),
            "below a file": Path(__file__) / "net.nir",
            "long name": folder / ("x" * 5000),
            "nul": Path("a\0b"),
            "empty": Path(),
        },
    )
    return Attempt(what, lambda: load(path), ("no such file", "name too long"), FormatError)


@category("nir: fields")
def wrong_fields(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    tree = read_tree(path)
    nodes = tree["nodes"]
    name = ["fc1", "lif1", "fc2", "lif2"][int(rng.integers(4))]
    node = nodes[name]
    numbers = [k for k, v in node.items() if isinstance(v, np.ndarray)]
    field = numbers[int(rng.integers(len(numbers)))]
    while field in ("v_reset", "w_in"):  # NIR has defaults for these: without them the file is fine
        field = numbers[int(rng.integers(len(numbers)))]
    spoiled = node[field].astype(float)
    spoiled.flat[int(rng.integers(spoiled.size))] = np.nan
    what, value = pick(
        rng,
        {
            "missing": None,
            "NaN": spoiled,
            "text": "1.0",
            "group": {"a": np.ones(2)},
            "empty": np.zeros(0),
            "more axes": np.ones((2, 2, 2, 2, 2)),
        },
    )
    if value is None:
        del node[field]
    else:
        node[field] = value
    write_tree(path, tree)
    return Attempt(
        f"{name}.{field}: {what}", lambda: load(path), (field, "tau_mem", "shape"), (FormatError, NetworkError)
    )  # type: ignore[arg-type]


@category("nir: types and graph")
def wrong_graph(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    tree = read_tree(path)
    nodes, edges = tree["nodes"], tree["edges"]
    n = int(rng.integers(2, 9))
    what, (change, names) = pick(
        rng,
        {
            "unknown type": (lambda: nodes["lif1"].update(type="LIFE"), ("LIFE",)),
            "Conv1d": (lambda: nodes["fc1"].update(type="Conv1d"), ("Conv1d",)),
            "Threshold": (lambda: nodes["lif1"].update(type="Threshold"), ("Threshold",)),
            "no type": (lambda: nodes["lif1"].pop("type"), ("lif1",)),
            "number as type": (lambda: nodes["lif1"].update(type=np.array(n)), ("lif1",)),
            "dataset as node": (lambda: nodes.update(lif1=np.ones(n)), ("lif1",)),
            "not a graph": (lambda: tree.update(type="LIF"), ("NIRGraph",)),
            "no edges": (lambda: tree.pop("edges"), ("NIRGraph",)),
            "no nodes": (lambda: tree.pop("nodes"), ("NIRGraph",)),
            "edge to nowhere": (lambda: edges.append(["lif1", f"n{n}"]), (f"n{n}",)),
            "edge twice": (lambda: edges.append(edges[0]), (edges[0][0],)),
            "edge of three": (lambda: tree.update(edges=[["in", "lif1", "out"]]), ("pair",)),
            "edges of numbers": (lambda: tree.update(edges=np.ones((n, 2))), ("pair",)),
            "input shape": (lambda: nodes["in"].update(shape=np.array([n, 7, 7, 7])), ("shapes", "wants", "input")),
            "input shape zero": (lambda: nodes["in"].update(shape=np.array([0])), ("shape",)),
            "input shape huge": (lambda: nodes["in"].update(shape=np.array([2**62])), ("at most",)),
            "output shape": (lambda: nodes["out"].update(shape=np.array([97])), ("97",)),
            "unknown field": (lambda: nodes["lif1"].update(colour=np.ones(n)), ("colour",)),
            "subgraph without output": (lambda: nodes.update(lif1=_half()), ("lif1",)),
        },
    )
    change()
    write_tree(path, tree)
    return Attempt(what, lambda: load(path), names, (FormatError, NetworkError))  # type: ignore[arg-type]


def _half() -> dict[str, Any]:
    inner = {"i": {"type": "Input", "shape": np.array([2])}}
    return {"type": "NIRGraph", "nodes": inner, "edges": []}


@category("nir: our metadata")
def wrong_metadata(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    tree = read_tree(path)
    said = tree["metadata"]
    what, (change, names) = pick(
        rng,
        {
            **{
                f"dt {dt}": (lambda dt=dt: said.update({"axonport.dt": np.array(dt)}), ("dt",))
                for dt in (0.0, -1.0, np.nan, np.inf)
            },
            "dt text": (lambda: said.update({"axonport.dt": "1e-3"}), ("dt",)),
            "dt vector": (lambda: said.update({"axonport.dt": np.ones(3)}), ("dt",)),
            "format": (lambda: said.update({"axonport.format": np.array(99)}), ("format",)),
            "rule": (lambda: said.update({"axonport.discretisation": "best"}), ("discretisation",)),
            "order": (lambda: said.update({"axonport.order": "[["}), ("JSON",)),
            "deep order": (lambda: said.update({"axonport.order": "[" * 100_000}), ("JSON",)),
            "notes": (lambda: said.update({"axonport.notes": "[]"}), ("notes",)),
            "keys": (lambda: said.update({"axonport.keys": "[[1]]"}), ("keys",)),
            "reset": (lambda: tree["nodes"]["lif1"]["metadata"].update({"axonport.reset": "soft"}), ("reset",)),
            "readout": (lambda: tree["nodes"]["out"]["metadata"].update({"axonport.readout": "?"}), ("readout",)),
            "delays": (
                lambda: tree["nodes"]["fc1"].update(metadata={"axonport.delay_steps": np.array([[-1]])}),
                ("delay_steps",),
            ),
            "metadata": (lambda: tree.update(metadata="none"), ("metadata",)),
        },
    )
    change()
    write_tree(path, tree)
    return Attempt(what, lambda: load(path), names, (FormatError, NetworkError))  # type: ignore[arg-type]


@category("nir: hostile HDF5")
def hostile(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    weight = "node/nodes/fc1/weight"
    kinds = ("soft link", "external link", "virtual", "external data", "empty", "compound", "reference", "complex")
    more = ("named type", "ring", "deep", "huge", "huge chunk", "link to node", "many")
    what = (*kinds, *more)[int(rng.integers(len(kinds) + len(more)))]
    with h5py.File(path, "a") as file:
        if what in kinds or what.startswith("huge"):
            del file[weight]
        _make_hostile(file, what, weight, folder)
    names = (
        "link",
        "another file",
        "empty",
        "NIR holds",
        "neither a group",
        "nested",
        "max_bytes",
        "groups and datasets",
    )
    return Attempt(what, lambda: load(path), names, FormatError)


def _make_hostile(file: h5py.File, what: str, weight: str, folder: Path) -> None:
    if what == "soft link":
        file[weight] = h5py.SoftLink("/node/nodes/fc2/weight")
    elif what == "external link":
        file[weight] = h5py.ExternalLink(str(folder / "other.h5"), "/x")
    elif what == "virtual":
        layout = h5py.VirtualLayout(shape=(3, 3), dtype="f8")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", shape=(3, 3))
        file.create_virtual_dataset(weight, layout)
    elif what == "external data":
        file.create_dataset(weight, (3, 3), "f8", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])
    elif what == "empty":
        file.create_dataset(weight, data=h5py.Empty("f8"))
    elif what == "compound":
        file.create_dataset(weight, data=np.zeros((3, 3), [("a", "f8")]))
    elif what == "reference":
        file.create_dataset(weight, data=[file["node"].ref], dtype=h5py.ref_dtype)
    elif what == "complex":
        file.create_dataset(weight, data=np.ones((3, 3), complex))
    elif what == "named type":
        file["node/nodes/fc1/named"] = np.dtype("f8")
    elif what == "ring":
        file["node/nodes/fc1/ring"] = file["node"]
    elif what == "deep":
        file.create_group("node/" + "/".join("x" * 100))
    elif what == "huge":
        file.create_dataset(weight, (1 << 20, 1 << 20), "f8", chunks=(1, 1 << 10), compression="gzip")
    elif what == "huge chunk":
        file.create_dataset(weight, (3,), "f8", chunks=(1 << 28,), maxshape=(None,), compression="gzip")
    elif what == "link to node":
        file.move("node", "elsewhere")
        file["node"] = h5py.SoftLink("/elsewhere")
    elif what == "many":  # groups that name each other: 2^14 paths in a few kilobytes
        inner = file.create_group("node/bomb")
        for depth in range(14):
            outer = file.create_group(f"node/bomb{depth}")
            outer["a"], outer["b"] = inner, inner
            inner = outer
        file["node/nodes/fc1/again"] = inner


@category("nir: arguments")
def bad_arguments(rng: Rng, folder: Path) -> Attempt:
    path = good_file(rng, folder)
    what, given = pick(
        rng,
        {
            **{f"dt {dt!r:.12}": {"dt": dt} for dt in (0, -1.0, np.nan, np.inf, "1", [1e-3], 1j)},
            "rule": {"discretisation": "midpoint"},
            "reset": {"reset": np.array(["hard", "hard"])},
            "readout": {"readout": 3},
            "dt of another delay": {"dt": 0.77e-3},
        },
    )
    if what == "dt of another delay":
        net = ir.chain({"i": ir.Input((2,)), "d": ir.Delay(3), "n": ir.IF(1.0), "o": ir.Output()}, 1e-3)
        save(net, path)
        return Attempt(what, lambda: load(path, **given), ("whole number",), FormatError)
    return Attempt(what, lambda: load(path, **given), ("must be",), NetworkError)


@category("nir: saving")
def bad_save(rng: Rng, folder: Path) -> Attempt:
    (folder / "file").write_text("")
    (folder / "folder").mkdir(exist_ok=True)
    name = ("a/b", ".", "nul\0", "\ud800", "x" * 70_000)[int(rng.integers(5))]
    odd = ir.chain({"i": ir.Input((2,)), name: ir.IF(1.0), "o": ir.Output()}, 1e-3)
    good = some_network(rng)
    what, (net, path) = pick(
        rng,
        {
            f"name {name!r:.10}": (odd, folder / "net.nir"),
            "below a file": (good, folder / "file" / "net.nir"),
            "over a folder": (good, folder / "folder"),
            "long name": (good, folder / ("x" * 5000)),
            "nul": (good, Path("a\0b")),
        },
    )
    return Attempt(what, lambda: save(net, path), ("cannot be",), FormatError)
