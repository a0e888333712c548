"""Every example is under 80 lines, says what to expect, and does it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))


def module(stem: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{stem}", FOLDER / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("path", EXAMPLES, ids=[p.stem for p in EXAMPLES])
def test_short_and_says_what_to_expect(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert "Expect:" in text.split('"""')[1]


def test_train_deploy_certify(tmp_path: Path) -> None:
    example = module("01_train_deploy_certify")
    example.OUT = tmp_path
    found = example.main()
    assert found["float"] > 0.90
    assert abs(found["float"] - found["loihi2"]) <= 0.02
    assert found["mismatches"] == 0
    assert (tmp_path / "deploy" / "report.json").is_file()


def test_every_chip(tmp_path: Path) -> None:
    example = module("04_every_chip")
    example.OUT = tmp_path
    found = example.main()
    assert {"loihi1", "loihi2", "spinnaker1", "truenorth", "akida1", "akida2"} <= set(found)
    held = {name: value for name, value in found.items() if value is not None}
    assert {"float", "loihi1", "loihi2", "spinnaker1"} <= set(held)
    assert all(found["float"] - value <= 0.02 for value in held.values())
    assert found["truenorth"] is None


def test_delays_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert module("02_delays_by_hand").main() == [7]
    assert "8 steps after the first input" in capsys.readouterr().out


def test_bring_a_network() -> None:
    found = module("03_bring_a_network").main()
    assert found["float"] > 0.9
    assert found["loihi2"] > 0.9
    assert found["substitutions"] == 5


def test_balanced_network() -> None:
    found = module("08_balanced_network").main()
    assert 36 <= found["rate_hz"] <= 38
    assert 0.35 < found["cv"] < 0.5
    assert found["bytes_per_synapse"] < 2.1
    assert found["repeated"] == 1


def test_plasticity() -> None:
    found = module("09_plasticity").main()
    assert found["spinnaker1"] < 0.001 < found["loihi2"] < 0.05
    assert found["group"] > 0.9
    assert found["alone"] < 0.15


def test_convert_cnn() -> None:
    found = module("10_convert_cnn").main(epochs=1, test=60)
    assert found["original"] > 0.8
    assert found["loihi2"] > 0.8
    assert found["different"] == 0
    assert 0 < found["equal_from"] <= 8
