"""The proof of training speed says so when something is short, missing or not the same computation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROOF = Path(__file__).parents[1] / "proofs" / "speed_training.py"


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_training_proof", PROOF)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def content(proof: ModuleType) -> dict[str, Any]:
    """Results that meet every target exactly."""
    made: dict[str, Any] = {
        f"time: {name}": {"ratio": target, "fastest_peer": "spyx", "unequal": [], "differences": {}, "left_out": {}}
        for name, target in proof.RATIOS.items()
    }
    for name in proof.SMALL:
        made[f"memory: {name}"] = {
            "kept_bytes_per_neuron_step": 1.0,
            "of_spikingjelly": 0.25,
            "gradients_of_spikingjelly": 0.1,
            "rest_of_spikingjelly": 0.2,
        }
    return made | {name: {"content": True, "said": ""} for name in proof.ELSEWHERE}


def test_meeting_every_target_is_enough(proof: ModuleType) -> None:
    assert proof.verdict(content(proof)) == []


def test_what_nobody_measured_is_short(proof: ModuleType) -> None:
    found = content(proof)
    assert len(proof.verdict({})) == len(found)
    for name in found:
        assert len(proof.verdict({n: part for n, part in found.items() if n != name})) == 1


def test_each_target_is_judged(proof: ModuleType) -> None:
    for name, part in content(proof).items():
        worse: dict[str, Any] = {"ratio": part.get("ratio", 0) * 0.99, "unequal": ["norse"]}
        worse |= {"kept_bytes_per_neuron_step": 1.01, "of_spikingjelly": 0.26, "content": False}
        for key in worse.keys() & part.keys():
            spoilt = part | {key: worse[key]} | ({"differences": {"norse": {}}} if key == "unequal" else {})
            assert len(proof.verdict(content(proof) | {name: spoilt})) == 1, (name, key)


def test_memory_besides_the_gradients_counts_where_they_are_most_of_it(proof: ModuleType) -> None:
    key = f"memory: {proof.SMALL[0]}"
    large = content(proof)[key] | {"of_spikingjelly": 0.6, "gradients_of_spikingjelly": 0.5}
    assert proof.verdict(content(proof) | {key: large}) == []
    assert len(proof.verdict(content(proof) | {key: large | {"rest_of_spikingjelly": 0.26}})) == 1


def test_a_row_without_a_peer_proves_nothing(proof: ModuleType) -> None:
    key = f"time: {next(iter(proof.RATIOS))}"
    alone = {"unequal": [], "left_out": {"spyx": "NEURO_TORCH_PEERS is not set"}}
    assert "no peer" in proof.verdict(content(proof) | {key: alone})[0]
