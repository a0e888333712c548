"""NeuroBench's metrics: ours equal what the neurobench package computed (tests/golden/metrics)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuro import from_snntorch, ir
from neuro.metrics import neurobench

pytest.importorskip("snntorch", reason="needs snntorch (pip install snntorch)")
GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"


def _make() -> Any:
    spec = importlib.util.spec_from_file_location("make_metrics", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["dense", "image"])
def test_equal_to_neurobench(name: str) -> None:
    module, x = _make().nets()[name]
    golden = json.loads((GOLDEN / "neurobench.json").read_text(encoding="utf-8"))[name]
    found = neurobench(from_snntorch(module, x[0], axes="B"), x)
    assert found["ActivationSparsity"] == pytest.approx(golden["ActivationSparsity"], rel=1e-12)
    assert 0.1 < found["ActivationSparsity"] < 0.99
    assert {k: v for k, v in found.items() if k != "ActivationSparsity"} == {
        k: v for k, v in golden.items() if k != "ActivationSparsity"
    }


def test_operations_by_hand() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    nodes = {"i": ir.Input((3,), high=3), "w": ir.Linear(weight), "n": ir.IF(100.0), "o": ir.Output()}
    x = np.array([[[1, 1, 0]], [[0, 0, 1]], [[3, 0, 1]]])
    found = neurobench(ir.chain(nodes, 1e-3), x)
    assert found["SynapticOperations"] == {"Effective_ACs": 3.0, "Effective_MACs": 3.0, "Dense": 18.0}
    assert found["ConnectionSparsity"] == 0.5
    assert found["ActivationSparsity"] == 1.0
