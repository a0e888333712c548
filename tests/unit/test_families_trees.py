"""Boosted trees as threshold logic: the same leaves, decisions and raw sums as scikit-learn, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuro.convert import file
from neuro.convert.families.build import settle
from neuro.convert.families.trees import as_double, decisions, from_sklearn, to_graph, to_integer_graph
from neuro.convert.grid import on_grid
from neuro.errors import ConversionError

ensemble = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn")
datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")


def data(name: str) -> tuple[Any, Any, Any, Any]:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x[::2], y[::2], np.ascontiguousarray(x[1::2]), y[1::2]


def raw_of(model: Any, x: Any) -> Any:
    raw = model.decision_function(x) if hasattr(model, "classes_") else model.predict(x)
    return raw.reshape(len(x), -1)


CASES = (
    ("digits", "HistGradientBoostingClassifier", {"max_iter": 4, "max_leaf_nodes": 8}),
    ("wine", "GradientBoostingClassifier", {"n_estimators": 8, "max_depth": 3}),
    ("breast_cancer", "HistGradientBoostingClassifier", {"max_iter": 12}),
    ("breast_cancer", "GradientBoostingClassifier", {"n_estimators": 12, "subsample": 0.5}),
    ("diabetes", "HistGradientBoostingRegressor", {"max_iter": 12}),
    ("diabetes", "GradientBoostingRegressor", {"n_estimators": 12, "max_depth": 4}),
)


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=[f"{k}-{n}" for n, k, _ in CASES])
def test_spikes_are_the_trees(name: str, kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    x, y, held_out, _ = data(name)
    model = getattr(ensemble, kind)(random_state=0, **options).fit(x, y)
    graph = to_graph(from_sklearn(model))
    file.save(graph, tmp_path / "trees.safetensors")
    graph = file.load(tmp_path / "trees.safetensors")
    settled = settle(graph, torch.as_tensor(held_out))
    raw = settled.outputs[1]
    np.testing.assert_array_equal(raw.numpy(), raw_of(model, held_out))
    if hasattr(model, "classes_"):
        np.testing.assert_array_equal(decisions(model, raw), model.predict(held_out))
    # one leaf of every tree fires, once
    assert settled.messages["leaves"] == from_sklearn(model).trees
    assert (settled.equal_from, settled.silent_at) == (1, 2)


@pytest.mark.parametrize("kind", ["GradientBoostingRegressor", "HistGradientBoostingRegressor"])
def test_on_the_threshold_and_beside_it(kind: str) -> None:
    """Inputs that are thresholds, and their neighbours in float64 and float32: comparisons are scikit-learn's."""
    x, y, _, _ = data("diabetes")
    options = {"max_iter": 5} if kind.startswith("Hist") else {"n_estimators": 5}
    model = getattr(ensemble, kind)(random_state=1, **options).fit(x, y)
    forest = from_sklearn(model)
    near = []
    for f, theta in zip(forest.feature, forest.theta, strict=True):
        single = np.float64(np.float32(theta))
        for value in (theta, np.nextafter(theta, 9), np.nextafter(theta, -9), single,
                      np.float64(np.nextafter(np.float32(theta), np.float32(9)))):  # fmt: skip
            row = x[f].copy()
            row[f] = value
            near.append(row)
    rows = np.array(near)
    np.testing.assert_array_equal(to_graph(forest).run(torch.as_tensor(rows)).numpy(), raw_of(model, rows))


def test_the_same_comparison_in_double_precision() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    for theta in (*rng.normal(size=300), 0.0, 1.0, float(np.float32(0.1)), 1e-40):
        t = as_double(theta)
        assert float(np.float32(t)) <= theta < float(np.float32(np.nextafter(t, np.inf)))


def test_whole_numbers_need_plain_neurons_only() -> None:
    x, y, held_out, _ = data("digits")
    model = ensemble.HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=8, random_state=0).fit(x, y)
    forest = from_sklearn(model)
    graph = to_integer_graph(forest, bits=16)
    settled = settle(graph, torch.as_tensor(held_out))
    assert settled.equal_from == 1
    np.testing.assert_array_equal(decisions(model, settled.reference), model.predict(held_out))
    exact = to_graph(forest).run(torch.as_tensor(held_out))
    assert (
        float((settled.reference - exact).abs().max()) <= (4 + 1) * 2.0**-17
    )  # a rounded leaf per tree, and the start
    assert on_grid(graph, torch.as_tensor(held_out))


def test_what_cannot_be_converted_is_named() -> None:
    with pytest.raises(ConversionError, match="no fitted model"):
        from_sklearn(ensemble.GradientBoostingClassifier())
    with pytest.raises(ConversionError, match="RandomForestClassifier"):
        from_sklearn(ensemble.RandomForestClassifier(n_estimators=1).fit([[0.0], [1.0]], [0, 1]))
    x = np.arange(40.0)[:, None] % 4
    grown = ensemble.HistGradientBoostingRegressor(categorical_features=[0], max_iter=1, min_samples_leaf=2)
    with pytest.raises(ConversionError, match="category"):
        from_sklearn(grown.fit(x, (x[:, 0] == 2) * 1.0))
