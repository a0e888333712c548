"""Akida layers, compiled and plain, against quantizeml's functions and the published activation equation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from axon_akida import both
from axon_vectors import FOLDER, differences

from neuro.hardware.program import Population, Projection

NAMES = ("akida2_*.npz", "edge_akida2_*.npz", "edge_akida2lut_*.npz", "edge_akida2add_*.npz", "akida1_doceq_*.npz")


def files(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in (FOLDER / "akida").glob(pattern)})


def identity(path: Path) -> str:
    return path.stem


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def layer_of(z: dict[str, np.ndarray]) -> tuple[Population, tuple[Projection, ...], tuple[Population, ...]]:
    """A vector of quantizeml as population and projections of the contract."""
    kind = str(z["kind"])
    params: dict[str, np.ndarray] = {}
    model = "scaled" if z["scaled"] else "potential"
    if kind == "add":
        n = len(z["Xs"])
        source = Population("x", "x", "layer", z["x"].shape)
        other = Population("y", "y", "layer", z["x"].shape)
        params = {"m": np.array(1), "e": z["e"]} if z["scaled"] else {}
        geometry = {"stride": [1, 1], "pads": [0, 0, 0, 0], "groups": n}
        weights = (z["Xs"], z["Ys"])
        made = tuple(
            Projection(s.name, s.name, s.name, "l", "conv", w.reshape(n, 1, 1, 1), geometry)
            for s, w in zip((source, other), weights, strict=True)
        )
        return Population("l", "l", model, z["y"].shape, params), made, (source, other)
    if z["bias"].size:
        params["bias"] = z["bias"]
    if str(z["pool"]) == "max":
        params |= {"pool_kernel": z["pk"], "pool_stride": z["ps"]}
        params |= {"pool_pads": z["pool_pads"]} if "pool_pads" in z else {}
    act = str(z["act"])
    params |= {"relu": np.array(1)} if act.startswith("ReLU") else {}
    params |= {"max_value": z["maxv"]} if act == "ReLUClipped" else {}
    params |= {"lut": z["LUT"], "m_act": z["M_act"], "e_act": z["e_act"]} if act == "LUT" else {}
    params |= {"gap": np.array(1)} if str(z["pool"]) == "gap" else {}
    params |= {"m": z["M"], "e": z["e"]} if z["scaled"] else {}
    source = Population("x", "x", "layer", z["x"].shape)
    if kind == "dense":
        made = (Projection("p", "p", "x", "l", "dense", z["W"], {}),)
    else:
        groups = z["x"].shape[0] // z["W"].shape[1]
        geometry = {"stride": z["strides"], "pads": z["pads"], "groups": groups, "pad_value": z["xpad"]}
        made = (Projection("p", "p", "x", "l", "conv", z["W"], geometry),)
    return Population("l", "l", model, z["y"].shape, params), made, (source,)


@pytest.mark.parametrize("path", files(*NAMES[:4]), ids=identity)
def test_akida2_equals_quantizeml(path):
    z = load(path)
    inputs = (z["x"], z["y2"]) if str(z["kind"]) == "add" else (z["x"],)
    for p, s in both(*layer_of(z), inputs):
        assert not differences("acc", p.reshape(z["acc"].shape), z["acc"].astype(np.int64))
        assert not differences("y", s.reshape(z["y"].shape), z["y"].astype(np.int64))


def float32_parts(steps: np.ndarray) -> dict[str, np.ndarray]:
    """Mantissa and exponent of float32 numbers, exactly."""
    fraction, exponent = np.frexp(steps.astype(np.float64))
    return {"step_mantissa": (fraction * 2**24).astype(np.int64), "step_exponent": exponent.astype(np.int64) - 24}


@pytest.mark.parametrize("path", files(NAMES[4]), ids=identity)
def test_akida1_equals_the_published_equation(path):
    z = load(path)
    params = {"threshold": z["threshold"], "act_bits": z["act_bits"], **float32_parts(z["act_step"])}
    population = Population("l", "l", "code", (z["W"].shape[1],), params)
    projection = Projection("p", "p", "x", "l", "dense", z["W"].T, {})
    source = Population("x", "x", "layer", (z["W"].shape[0],))
    for k, x in enumerate(z["x"]):
        for p, s in both(population, (projection,), (source,), (x,)):
            assert not differences("potential", p, z["potential"][k])
            assert not differences("code", s, z["code"][k])


def test_vectors_are_there():
    if not files(*NAMES):
        pytest.skip(f"no akida vectors in {FOLDER}")
    if "NEURO_VECTORS" not in os.environ:
        assert len(files(*NAMES[:4])) == 188
        assert len(files(NAMES[4])) == 110
