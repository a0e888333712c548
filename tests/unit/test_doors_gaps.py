"""What users of exchange formats report as broken (scalar parameters, missing shapes, pools, IF with a leak), here."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest

import neuro
from neuro import ir, reference
from neuro.errors import FormatError

nir = pytest.importorskip("nir")
RNG = np.random.default_rng(0)


def graph(nodes: dict[str, object]) -> object:
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)), type_check=False)


def test_an_if_does_not_leak_and_scalars_serve_all_neurons() -> None:
    """snnTorch gave an imported IF a beta of its own; several readers refuse scalar parameters."""
    weight = RNG.normal(0.3, 1, (5, 4))
    neuron = nir.IF(r=np.array([1.0]), v_threshold=np.array([1.0]), v_reset=np.array([0.0]))
    network = neuro.from_nir(
        graph(
            {
                "input": nir.Input({"input": np.array([4])}),
                "w": nir.Linear(weight),
                "if": neuron,
                "output": nir.Output({"output": np.array([5])}),
            }
        )
    )
    x = (RNG.random((30, 1, 4)) < 0.5).astype(np.uint8)
    v, spikes = np.zeros(5), []
    for step in x[:, 0]:
        v = v + weight @ step
        spikes.append(v > 1)
        v = np.where(v > 1, 0, v)
    assert np.array_equal(reference.run(network, x).spikes["if"][:, 0], spikes)
    assert network.nodes["if"].v_threshold.shape == (5,)  # type: ignore[attr-defined]


def test_convolutions_without_shapes_pools_and_a_shared_threshold(tmp_path: Path) -> None:
    """A file that says no shape but the input's. In memory, nir itself cannot hold that."""
    ones, size = np.ones(1), np.array([2, 2])
    nodes = {
        "input": nir.Input({"input": np.array([2, 8, 8])}),
        "conv": nir.Conv2d((8, 8), RNG.normal(size=(3, 2, 3, 3)), 1, 1, 1, 1, np.zeros(3)),
        "lif": nir.LIF(tau=2e-3 * ones, r=ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones),
        "pool": nir.AvgPool2d(size, size, np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([3, 4, 4])}, 0, -1),
        "out": nir.Linear(RNG.normal(size=(5, 48))),
        "output": nir.Output({"output": np.array([5])}),
    }
    nir.write(tmp_path / "n.nir", graph(nodes))
    with h5py.File(tmp_path / "n.nir", "a") as file:
        del file["node/nodes/conv/input_shape"]
        del file["node/nodes/flat/input_type"]
    network = neuro.from_nir(tmp_path / "n.nir", dt=1e-3)
    assert network.shapes["lif"] == (3, 8, 8)
    assert network.shapes["pool"] == (3, 4, 4)
    assert reference.run(network, np.ones((4, 1, 2, 8, 8))).answers["output"].shape == (4, 1, 5)
    nodes["conv"] = nir.Conv2d(None, RNG.normal(size=(3, 2, 3, 3)), 1, 1, 1, 1, np.zeros(3))
    with pytest.raises(FormatError, match="the nir package cannot write this graph"):
        neuro.from_nir(graph(nodes))


def test_recurrent_networks_come_back_from_their_file(tmp_path: Path) -> None:
    nodes = {"i": ir.Input((3,)), "w": ir.Linear(RNG.normal(1, 1, (4, 3))), "n": ir.LIF(5e-3, 1.0),
             "r": ir.Linear(RNG.normal(0, 1, (4, 4))), "o": ir.Output()}  # fmt: skip
    edges = (("i", "w"), ("w", "n"), ("n", "r"), ("r", "n"), ("n", "o"))
    network = neuro.Network(nodes, edges, 1e-3)
    path = tmp_path / "n.nir"
    neuro.save(network, path)
    again = neuro.from_nir(nir.read(path), dt=1e-3, discretisation="exact")
    x = (RNG.random((40, 2, 3)) < 0.5).astype(np.uint8)
    runs = [reference.run(n, x).spikes["n"] for n in (network, again)]
    assert runs[0].any()
    assert np.array_equal(*runs)
