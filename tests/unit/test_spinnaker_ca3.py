"""The CA3 memory: the quick form of its proof, and that the proof can fail."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuro.errors import SimulationError
from neuro.hardware.spinnaker1 import ca3
from neuro.hardware.spinnaker1.ca3 import Memory, ca3_circuit


def proof() -> ModuleType:
    path = Path(__file__).parents[1] / "proofs" / "ca3_memory.py"
    spec = importlib.util.spec_from_file_location("proof_ca3_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quick_proof_holds() -> None:
    parts = proof().measure(quick=True)
    assert [line for row in parts.values() for line in row["failures"]] == []
    assert sum(row.get("memories", 0) for row in parts.values()) == 100
    assert sum(row.get("spurious_spikes", 0) for row in parts.values()) == 0


@pytest.mark.parametrize("broken", ["no learning", "no forgetting", "slow output"])
def test_the_proof_can_fail(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"no learning": replace(ca3.RULE, a_plus=0.0), "no forgetting": replace(ca3.RULE, a_minus=0.0)}
    monkeypatch.setattr(ca3, "RULE", rule.get(broken, ca3.RULE))
    if broken == "slow output":
        monkeypatch.setattr(ca3, "OUTPUT", replace(ca3.OUTPUT, v_thresh=-40.0))
    module = proof()
    assert module.part("overlapping", module.PAUSE, 1, module.EVERYTHING)["failures"]


def test_the_experiments_of_the_package() -> None:
    """Learn and recall; learn again and recall; contents one bit at a time: the inputs of sPyMem's own tests."""
    memory = Memory(5, 10)
    first, second = np.zeros(10, np.uint8), np.zeros(10, np.uint8)
    first[[0, 1, 2, 9]], second[[2, 3, 8]] = 1, 1
    memory.learn(0, first)
    assert memory.content_of(0).tolist() == first.tolist()
    memory.wait(3)
    memory.learn(0, second)
    assert memory.content_of(0).tolist() == second.tolist()
    memory.wait(24)
    assert memory.cues_of(np.eye(10, dtype=np.uint8)[3]) == [0]
    assert memory.time == 10 + 7 + 3 + 10 + 7 + 24 + 7


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "07_ca3_memory.py"
    spec = importlib.util.spec_from_file_location("example_ca3_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 5
    assert "5 of 5 answers are right" in capsys.readouterr().out


def test_operations_are_checked() -> None:
    memory = Memory(2, 3)
    for cue, content in ((2, [0, 1, 0]), (0, [0, 1]), (0, [0, 2, 0])):
        with pytest.raises(SimulationError):
            memory.learn(cue, content)


def test_sizes() -> None:
    circuit = ca3_circuit(10, 20)
    assert sum(p.size for p in circuit.populations.values() if p.cell is not None) == 3 * 10 + 4 * 20 + 1 + 30
