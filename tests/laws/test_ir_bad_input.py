"""A small round of tests/proofs/bad_input.py in every test run, and that its judge can say no."""

from __future__ import annotations

import time
from pathlib import Path

import axon_bad
import pytest
from axon_bad import Attempt, judge
from proofs.bad_input import load_categories, run, summary

from neuro.errors import FormatError, NetworkError

CASES = 3


@pytest.mark.parametrize("name", load_categories())
def test_bad_input_is_refused_by_name(name: str, tmp_path: Path) -> None:
    for number in range(CASES):
        place = tmp_path / str(number)
        place.mkdir()
        verdict = judge(name, number, place)
        assert not verdict.failure, f"{verdict.what}: {verdict.failure}"


def refuse() -> None:
    raise NetworkError("tau must be positive")


def fail() -> None:
    raise TypeError("unsupported operand")


@pytest.mark.parametrize(
    ("attempt", "failure"),
    [
        (Attempt("", refuse, ("tau",)), ""),
        (Attempt("", refuse, ("weight",)), "names none of"),
        (Attempt("", refuse, ("tau",), FormatError), "NetworkError instead of FormatError"),
        (Attempt("", fail, ("operand",)), "TypeError"),
        (Attempt("", lambda: 3, ("",)), "accepted: 3"),
        (Attempt("", lambda: time.sleep(5), ("",)), "still busy"),
        (Attempt("", lambda: exec("raise SystemExit(0)"), ("",)), "SystemExit"),
    ],
)
def test_the_judge_can_say_no(attempt: Attempt, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axon_bad, "LIMIT_S", 0.2)
    monkeypatch.setitem(axon_bad.CATEGORIES, "test", lambda rng, folder: attempt)
    verdict = judge("test", 0, tmp_path)
    assert verdict.failure.startswith(failure) if not failure else failure in verdict.failure
    assert bool(verdict.failure) == bool(failure)


def test_cases_are_spread_and_counted() -> None:
    names = load_categories()[:3]
    verdicts = run(names, 7)
    assert [v.category for v in verdicts] == [names[k % 3] for k in range(7)]
    found = summary(verdicts, 1.0)
    assert found["cases"] == found["refused"] == 7
    assert found["categories"][names[0]]["cases"] == 3
    assert not found["failures"]
    verdicts[0] = axon_bad.Verdict(names[0], 0, "x", "", 0.0, "accepted")
    assert summary(verdicts, 1.0)["refused"] == 6
