"""netx files of lava-dl: the networks that Loihi's CUBA neuron describes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import neuro
from neuro import reference
from neuro.errors import FormatError, UnsupportedLayer

h5py = pytest.importorskip("h5py")


def layer(kind: str, n: int, **fields: Any) -> dict[str, Any]:
    neuron = {"type": b"CUBA", "iDecay": 4096, "vDecay": 0, "vThMant": 5, "refDelay": 1, "gradedSpike": False}
    neuron |= fields.pop("neuron", {})
    return {"type": kind, "shape": [n], "neuron": neuron, **fields}


def write(path: Path, layers: list[dict[str, Any]]) -> Path:
    with h5py.File(path, "w") as file:
        for k, fields in enumerate(layers):
            group = file.create_group(f"layer/{k}")
            group["type"] = np.array([fields["type"].encode()], "S10")
            for name, value in fields.items():
                if name == "neuron":
                    for key, number in value.items():
                        group[f"neuron/{key}"] = np.bytes_(number) if key == "type" else number
                elif name != "type":
                    group[name] = value
    return path


def integers(weight: Any, x: NDArray[np.uint8], threshold: int, back: Any = None, delay: Any = None) -> Any:
    """An IF neuron in Python's integers, spike by spike."""
    steps, n = len(x), len(weight)
    v, out = [0] * n, [[0] * n for _ in range(steps)]
    for t in range(steps):
        for o in range(n):
            for i in range(len(weight[o])):
                d = 0 if delay is None else int(delay[o][i])
                v[o] += int(weight[o][i]) * int(x[t - d][i]) if t >= d else 0
            if back is not None and t:
                v[o] += sum(int(back[o][j]) * out[t - 1][j] for j in range(n))
        for o in range(n):
            if v[o] > threshold:
                out[t][o], v[o] = 1, 0
    return np.array(out)


@pytest.mark.parametrize("more", ["dense", "delay", "dense_rec"])
def test_integrators_are_those_of_python_integers(tmp_path: Path, more: str) -> None:
    rng = np.random.default_rng(0)
    weight, back = rng.integers(-3, 6, (4, 6)), rng.integers(-3, 4, (4, 4))
    delay = rng.integers(0, 5, (4, 6)) if more == "delay" else None
    fields: dict[str, Any] = {"weight": weight.astype(np.float32), "inFeatures": 6, "outFeatures": 4}
    if more == "dense_rec":
        fields["weight_rec"] = back.astype(np.float32)
    if delay is not None:
        fields["delay"] = delay.astype(np.float32)
    path = write(tmp_path / "n.net", [layer("dense_rec" if more == "dense_rec" else "dense", 4, **fields)])
    x = (rng.random((50, 6)) < 0.4).astype(np.uint8)
    network = neuro.from_lavadl(path)
    spikes = reference.run(network, x[:, None]).spikes["neuron_0"][:, 0]
    wanted = integers(weight, x, 5, back if more == "dense_rec" else None, delay)
    assert wanted.any()
    assert np.array_equal(spikes, wanted)


def test_decays_are_parts_of_4096_and_images_flatten(tmp_path: Path) -> None:
    kernel = np.arange(8.0).reshape(2, 1, 2, 2)
    layers = [
        {"type": "input", "shape": [1, 4, 4]},
        {**layer("conv", 0, weight=kernel, bias=np.array([1.0, 2.0]), stride=[2, 2], padding=[0, 0], dilation=[1, 1],
                 groups=1, neuron={"iDecay": 1024, "vDecay": 512}), "shape": [2, 2, 2]},
        {"type": "flatten"},
        layer("dense", 3, weight=np.ones((3, 8)), inFeatures=8, outFeatures=3, neuron={"vDecay": 4096}),
    ]  # fmt: skip
    network = neuro.from_lavadl(write(tmp_path / "n.net", layers), dt=1e-4)
    assert network.shapes["input"] == (1, 4, 4)
    assert network.shapes["neuron_1"] == (2, 2, 2)
    assert network.shapes["output"] == (3,)
    from neuro.discretise import coefficients

    c = coefficients(network.nodes["neuron_1"], 1e-4, "euler")  # type: ignore[arg-type]
    assert (c.alpha.flat[0], c.beta.flat[0]) == pytest.approx((0.75, 0.875))
    assert (c.gain_syn * c.gain_mem).flat[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"neuron": {"type": b"SDNN"}}, "neuron type 'SDNN'; known: CUBA"),
        ({"neuron": {"gradedSpike": True}}, "graded spikes"),
        ({"neuron": {"refDelay": 3}}, "refDelay"),
        ({"neuron": {"vDecay": 5000}}, "decays must lie in"),
        ({"neuron": {"iDecay": 0}}, "never decays"),
        ({"type": "average"}, "type 'average'; known"),
    ],
)
def test_other_layers_are_refused_by_name(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"weight": np.ones((4, 6)), "inFeatures": 6, "outFeatures": 4}
    kind = changed.pop("type", "dense")
    path = write(tmp_path / "n.net", [layer(kind, 4, **good, **changed)])
    with pytest.raises(UnsupportedLayer, match=said):
        neuro.from_lavadl(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no HDF5")
    with h5py.File(tmp_path / "other", "w") as file:
        file["data"] = [1]
    with pytest.raises(FormatError, match="not a whole HDF5 file"):
        neuro.from_lavadl(tmp_path / "text")
    with pytest.raises(FormatError, match="/layer is missing, so this is not a netx file"):
        neuro.from_lavadl(tmp_path / "other")
    path = write(tmp_path / "n.net", [layer("dense", 4, weight=np.ones((4, 600)), inFeatures=600)])
    with pytest.raises(FormatError, match="max_bytes"):
        neuro.from_lavadl(path, max_bytes=1000)


def test_a_graph_in_memory_is_a_nir_file(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    path = Path(__file__).parents[1] / "golden" / "nir" / "lif_norse.nir"
    graph, same = neuro.from_nir(nir.read(path)), neuro.from_nir(path)
    assert [type(n).__name__ for n in graph.nodes.values()] == [type(n).__name__ for n in same.nodes.values()]
    assert neuro.from_nir(str(path), reset="subtract").nodes["1"].reset == "subtract"  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match=r"needs a path or a nir.NIRGraph, got int"):
        neuro.from_nir(3)


@pytest.mark.parametrize(("fields", "said"), [({}, "'inFeatures' is missing"), ({"inFeatures": 10**12}, "at most")])
def test_a_first_layer_without_a_size_names_the_file(tmp_path: Path, fields: dict[str, int], said: str) -> None:
    with h5py.File(tmp_path / "bad.net", "w") as file:
        group = file.create_group("layer/0")
        group["type"] = np.array([b"dense"])
        for key, value in fields.items():
            group[key] = np.array(value)
    with pytest.raises(FormatError, match=rf"bad\.net: .*{said}"):
        neuro.from_lavadl(tmp_path / "bad.net")
