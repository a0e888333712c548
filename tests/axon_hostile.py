"""Small sound files of every format that we read, to be damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

EVENTS = [(10, 1, 2, 1), (30, 3, 4, 0), (1000, 5, 6, 1), (2000, 7, 0, 0)]


def seeds(name: str, folder: Path) -> list[bytes]:
    """Bytes of sound files; ``folder`` is for formats that only write files."""
    return {
        "dat": _dat, "aedat2": _aedat2, "bin": _bin, "csv": _csv, "hdf5": _hdf5, "npz": _npz,
        "nir": _nir, "netx": _netx, "graph": _graph, "onnx": _onnx,
    }[name](folder)  # fmt: skip


def _dat(folder: Path) -> list[bytes]:
    body = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in EVENTS)
    return [
        b"% Data file\n% Version 2\n\x00\x08" + body,
        b"% Data file\n% Version 2\n% Width 304\n% Height 240\n\x0c\x08" + body,
    ]


def _aedat2(folder: Path) -> list[bytes]:
    body = b"".join(struct.pack(">II", y << 22 | x << 12 | p << 11, t) for t, x, y, p in EVENTS)
    small = b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in EVENTS)
    return [b"#!AER-DAT2.0\r\n# AEChip: DAVIS240C\r\n" + body, b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n" + small]


def _bin(folder: Path) -> list[bytes]:
    return [b"".join(bytes([x, y, p << 7, t >> 8 & 255, t & 255]) for t, x, y, p in EVENTS) + bytes([0, 240, 0, 0, 0])]


def _csv(folder: Path) -> list[bytes]:
    rows = "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in EVENTS)
    return [b"t,x,y,p\n" + rows.encode(), b"# a comment\n" + rows.replace(",", " ").encode(), b"0.000001 1 2 1\n"]


def _hdf5(folder: Path) -> list[bytes]:
    import h5py

    path = folder / "seed.h5"
    found = []
    for libver in ("earliest", "latest"):
        with h5py.File(path, "w", libver=libver) as file:
            group = file.create_group("events")
            group.attrs["sensor"] = (8, 8)
            for k, key in enumerate("txyp"):
                group.create_dataset(key, data=np.array([e[k] for e in EVENTS]), maxshape=(None,), chunks=(4,))
        found.append(path.read_bytes())
    path.unlink()
    return found


def _npz(folder: Path) -> list[bytes]:
    path = folder / "seed.npz"
    found = []
    for save in (np.savez, np.savez_compressed):
        save(path, **{key: np.array([e[k] for e in EVENTS]) for k, key in enumerate("txyp")})
        found.append(path.read_bytes())
    path.unlink()
    return found


def _nir(folder: Path) -> list[bytes]:
    from neuro import ir
    from neuro.nir import save
    from neuro.nir_file import SEAL_SIZE

    path = folder / "seed.nir"
    nodes = {
        "in": ir.Input((2,)),
        "w": ir.Affine(np.ones((3, 2)), bias=np.zeros(3)),
        "n": ir.CubaLIF(tau_syn=np.full(3, 1e-3), tau_mem=1e-2, v_threshold=1.0),
        "out": ir.Output("count"),
    }
    save(ir.chain(nodes, dt=1e-3), path)
    data = path.read_bytes()
    path.unlink()
    return [data[:-SEAL_SIZE], data]  # as other tools write it; with our seal, which any change breaks


def _netx(folder: Path) -> list[bytes]:
    import h5py

    path = folder / "seed.net"
    with h5py.File(path, "w") as file:
        for k, kind in enumerate(("input", "dense")):
            layer = file.create_group(f"layer/{k}")
            layer["type"] = np.array([kind], "S10")
            layer["shape"] = np.array([2 + k])
            if kind == "dense":
                layer["weight"] = np.ones((3, 2))
                neuron = layer.create_group("neuron")
                neuron["type"] = np.array(["CUBA"], "S10")
                for key, value in (
                    ("iDecay", 1024),
                    ("vDecay", 128),
                    ("vThMant", 80),
                    ("refDelay", 1),
                    ("gradedSpike", 0),
                ):
                    neuron[key] = np.array(value)
                for key in ("vMinExp", "wgtExp"):
                    neuron[key] = np.array(0)
        file.create_group("simulation")["Ts"] = np.array(1)
    data = path.read_bytes()
    path.unlink()
    return [data]


def _graph(folder: Path) -> list[bytes]:
    import torch

    from neuro.convert.file import save
    from neuro.convert.graph import Graph
    from neuro.convert.ops import Input, Linear, Quantise

    path = folder / "seed.safetensors"
    ops = {"x": Input((2,)), "w": Linear(torch.ones(3, 2), torch.zeros(3)), "q": Quantise(torch.tensor(0.5), 0, 4)}
    save(Graph(ops, {"w": ("x",), "q": ("w",)}, "q"), path)
    data = path.read_bytes()
    path.unlink()
    return [data]


def _onnx(folder: Path) -> list[bytes]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s]) for n, s in (("x", 2), ("y", 3))]
    model = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], [weight]))
    return [bytes(onnx.ModelProto.SerializeToString(model))]
