"""Gradient-boosted trees (scikit-learn) as threshold logic in two steps, exactly.

A tree with splits x_f <= theta (left) or x_f > theta (right) and leaf values v is three layers:

    s_n = [x_f(n) > theta_n]                                            one unit per split
    l   = [ sum over right turns of s_n + sum over left turns of (1 - s_n) > depth - 1/2 ]     one unit per leaf
    raw = start + sum over trees of v_leaf, in scikit-learn's order

Exact: leaves, decisions and raw sums equal scikit-learn's, bit for bit, for every input that is a number. Comparisons
are those of floats: what scikit-learn rounds to float32 before it compares becomes the equal comparison in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import Linear, Quantise, Reshape
from neuro.convert.ops_beyond import Accumulate, threshold
from neuro.convert.ops_shape import Take
from neuro.errors import ConversionError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forest:
    """Boosted trees as arrays.

    feature: int64[splits]; theta: float64[splits], right where x > theta; path: int8[leaves, splits], +1 for a right
    turn on the way to the leaf, -1 for a left one, 0 elsewhere; value: float64[leaves], what the leaf adds; tree:
    int64[leaves]; start: float64[outputs]. Tree number k adds to output k % outputs. features: of the input.
    """

    features: int
    feature: NDArray[np.int64]
    theta: Floats
    path: NDArray[np.int8]
    value: Floats
    tree: NDArray[np.int64]
    start: Floats

    @property
    def trees(self) -> int:
        return int(self.tree.max()) + 1


@dataclass
class _Walk:
    feature: list[int]
    theta: list[float]
    paths: list[dict[int, int]]
    value: list[float]
    tree: list[int]

    def add(self, number: int, left: Any, right: Any, feature: Any, theta: Any, value: Any) -> None:
        """One tree, nodes as arrays, -1 in ``left`` for leaves, the root first."""
        todo: list[tuple[int, dict[int, int]]] = [(0, {})]
        while todo:
            node, turns = todo.pop()
            if left[node] < 0:
                self.paths.append(turns)
                self.value.append(float(value[node]))
                self.tree.append(number)
                continue
            unit = len(self.feature)
            self.feature.append(int(feature[node]))
            self.theta.append(float(theta[node]))
            todo += [(int(right[node]), {**turns, unit: 1}), (int(left[node]), {**turns, unit: -1})]


def from_sklearn(model: Any) -> Forest:
    """A fitted GradientBoosting- or HistGradientBoosting- Classifier or Regressor.

    Raises:
        ConversionError: another model, not fitted, categorical splits, an ``init`` estimator that looks at the input.
    """
    kind = type(model).__name__
    walk = _Walk([], [], [], [], [])
    if kind in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor") and hasattr(model, "_predictors"):
        start = np.ravel(np.asarray(model._baseline_prediction, np.float64))
        for number, each in enumerate(p for stage in model._predictors for p in stage):
            n = each.nodes
            if n["is_categorical"].any():
                raise ConversionError(f"{kind}: tree {number} splits by category; encode categories as 0/1 features")
            left = np.where(n["is_leaf"].astype(bool), -1, n["left"].astype(np.int64))
            walk.add(number, left, n["right"], n["feature_idx"], n["num_threshold"], n["value"])
    elif kind in ("GradientBoostingClassifier", "GradientBoostingRegressor") and hasattr(model, "estimators_"):
        if model.init is not None and model.init != "zero":
            raise ConversionError(f"{kind}: init={model.init!r} may depend on the input; fit it with init=None")
        start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0], np.float64)
        for number, each in enumerate(model.estimators_.ravel()):
            t = each.tree_
            theta = [as_double(v) if k >= 0 else v for v, k in zip(t.threshold, t.children_left, strict=True)]
            value = model.learning_rate * t.value[:, 0, 0]
            walk.add(number, t.children_left, t.children_right, t.feature, theta, value)
    else:
        raise ConversionError(
            f"{kind} is no fitted model of a known kind. Known: GradientBoostingClassifier, "
            "GradientBoostingRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor"
        )
    path = np.zeros((len(walk.paths), len(walk.feature)), np.int8)
    for leaf, turns in enumerate(walk.paths):
        for unit, side in turns.items():
            path[leaf, unit] = side
    return Forest(int(model.n_features_in_), np.array(walk.feature, np.int64), np.array(walk.theta, np.float64), path,
                  np.array(walk.value, np.float64), np.array(walk.tree, np.int64), start)  # fmt: skip


def as_double(theta: float) -> float:
    """The float64 t for which float32(x) <= theta is the same as x <= t, for every float64 x.

    Rounding is monotone, so t is the largest x that rounds to f, the largest float32 <= theta: the middle between f
    and the next float32, which itself rounds to f where f's last digit is even, else the number before it.
    """
    f = np.float32(theta)
    if float(f) > theta:
        f = np.nextafter(f, np.float32(-np.inf))
    after = np.nextafter(f, np.float32(np.inf))
    middle = (float(f) + float(after)) / 2
    return middle if np.float32(middle) == f else float(np.nextafter(middle, -np.inf))


def to_graph(forest: Forest) -> Graph:
    """Input [features] -> splits -> leaves -> raw [outputs]; float64."""
    build, path = Build(), torch.as_tensor(forest.path.astype(np.float64))
    x = build("features", Take(1, tuple(forest.feature.tolist())), build.input("x", forest.features))
    splits = build("splits", threshold(torch.as_tensor(forest.theta)), x)
    turns = (path > 0).sum(1)
    leaves = build("leaves", threshold(turns - 0.5), build("turns", Linear(path), splits))
    values = torch.zeros(forest.trees, len(path), dtype=torch.float64)
    values[torch.as_tensor(forest.tree), torch.arange(len(path))] = torch.as_tensor(forest.value)
    chosen = build("values", Linear(values), leaves)
    rounds = build("rounds", Reshape((-1, len(forest.start))), chosen)
    return build.graph(build("raw", Accumulate(torch.as_tensor(forest.start)), rounds), bits=None)


def to_integer_graph(forest: Forest, step: float = 1.0, bits: int = 16) -> Graph:
    """The same for inputs that are whole multiples of ``step``, out of `Linear` and `Quantise` alone, which every chip
    takes: x > theta is x / step >= floor(theta / step) + 1 =: c, and [n >= c] = Quantise_{1, 0..1}(n - c + 1/2).

    Leaf values become multiples of 2^-bits: the raw sums are exact on this grid, in whatever order they are added.
    """
    build = Build()
    c = torch.as_tensor(np.floor(forest.theta / step) + 1)
    path, one = torch.as_tensor(forest.path.astype(np.float64)), torch.ones((), dtype=torch.float64)
    pick = torch.zeros(len(forest.feature), forest.features, dtype=torch.float64)
    pick[torch.arange(len(pick)), torch.as_tensor(forest.feature)] = 1.0 / step
    x = build("features", Linear(pick, 0.5 - c), build.input("x", forest.features))
    splits = build("splits", Quantise(one, 0, 1), x)
    turns = (path > 0).sum(1).to(torch.float64)
    leaves = build("leaves", Quantise(one, 0, 1), build("turns", Linear(path, 0.5 - turns), splits))
    grid = np.round(forest.value * 2.0**bits) / 2.0**bits
    values = torch.zeros(len(forest.start), len(path), dtype=torch.float64)
    values[torch.as_tensor(forest.tree % len(forest.start)), torch.arange(len(path))] = torch.as_tensor(grid)
    start = torch.as_tensor(np.round(forest.start * 2.0**bits) / 2.0**bits)
    return build.graph(build("raw", Linear(values, start), leaves), bits=None)


def decisions(model: Any, raw: Tensor) -> NDArray[Any]:
    """Classes of a classifier for raw sums [batch, outputs]: the largest one, or the sign of a single one."""
    best = (raw[:, 0] >= 0).long() if raw.shape[1] == 1 else raw.argmax(1)
    found: NDArray[Any] = model.classes_[best.numpy()]
    return found
