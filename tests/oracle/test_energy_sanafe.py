"""Counters and event energy against SANA-FE 2.2.9: its recorded answers, and itself where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import axon_sanafe
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "sanafe" / "loihi.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=[f"{c['sizes']}-{c['cores']}" for c in CASES])
def test_counters_are_equal_and_energy_within_one_percent(case: dict) -> None:
    counters, apart, single = axon_sanafe.ours(*axon_sanafe.case(case))
    theirs = case["sanafe"]
    assert {n: counters[n] for n in axon_sanafe.BOTH} == {n: theirs[n] for n in axon_sanafe.BOTH}
    assert theirs["spikes"] > 0
    assert apart == pytest.approx(theirs["joules"], rel=1e-9)  # the same constants, hops told apart
    assert single == pytest.approx(theirs["joules"], rel=0.01)  # one price for all hops, as an estimate has


def test_recorded_answers_travel() -> None:
    """Messages cross links in both directions in some case, or hops would be untested."""
    assert any(c["sanafe"]["hops_east_west"] > 0 for c in CASES)
    assert any(c["sanafe"]["hops_north_south"] > 0 for c in CASES)


@pytest.mark.parametrize("case", CASES[:2], ids=[f"{c['sizes']}-{c['cores']}" for c in CASES[:2]])
def test_sanafe_still_answers_the_same(case: dict) -> None:
    try:
        version = axon_sanafe.sanafe_version()
    except ImportError:
        pytest.skip("needs sanafe 2.2.9 (pip install sanafe==2.2.9; GPL, runs beside this project, is no part of it)")
    if version != "2.2.9":
        pytest.skip(f"needs sanafe 2.2.9, found {version}")
    program, dense = axon_sanafe.case(case)
    counters, _, _ = axon_sanafe.ours(program, dense)
    live = axon_sanafe.run_sanafe(program, dense[:, 0], int(counters["steps"]))
    assert live == pytest.approx(case["sanafe"])
