"""Tables say what the report says, and never more."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from neuro import report


def shown(item: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 J"), (1.5, "1.5 J"), (0.00123, "1.23 mJ"), (9.9999e-7, "1 µJ"), (23.6e-12, "23.6 pJ"), (None, "-")],
)
def test_si(value: float | None, text: str) -> None:
    assert report.si(value, "J") == text


def test_a_range_without_a_number_gives_its_reason() -> None:
    absent = {"low": None, "nominal": None, "high": None, "reason": "host-bound, not predicted"}
    assert report.spread(absent, "s") == "host-bound, not predicted"
    assert report.spread({"low": 1e-3, "nominal": 2e-3, "high": 4e-3}, "s") == "2 ms (1 ms .. 4 ms)"


def test_what_was_not_run_is_never_called_passed() -> None:
    text = report.verdict({"status": "not run", "reason": "lava-nc missing"})
    assert "not run" in text
    assert "passed" not in text
    assert "mismatches" not in text
    assert "not run" in report.verdict({})


def chip(**changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "fits": True, "accuracy": 0.75, "agrees_with_float": 1.0, "substitutions": ["'a' is replaced"], "warnings": [],
        "violations": [], "matches": {"status": "passed", "mismatches": 0, "compared": 1234, "oracle": "lava"},
        "energy_j": {"low": 1e-6, "nominal": 2e-6, "high": 3e-6},
        "latency_s": {"low": 1e-3, "nominal": 1e-3, "high": 2e-3},
        "estimate": {"rests_on": ["energy.synop"]}, "counters": {"synops": 1000.0},
        "utilisation": {"cores": 1, "neurons": 2, "synapses": 3},
    }  # fmt: skip
    return {**table, **changes}


def whole(**chips: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": "toy", "samples": 4, "steps": 10, "dt": 1e-3, "float_accuracy": 1.0, "chips": chips}


def test_deployment_table() -> None:
    text = shown(report.deployment(whole(loihi2=chip())))
    for part in (
        "75.00 %",
        "100.00 %",
        "mismatches: 0 of 1,234",
        "2 µJ (1 µJ .. 3 µJ)",
        "'a' is replaced",
        "energy.synop",
    ):
        assert part in " ".join(text.split())


def test_three_energies_stand_side_by_side() -> None:
    def row(*joules: float | None) -> dict[str, Any]:
        names = ("naive_j", "memory_j", "chip_j")
        return {n: {"nominal": j} for n, j in zip(names, joules, strict=True)}

    rows = [row(1e-9, 2e-9, 3e-9), row(4e-9, 5e-9, 6e-9), row(7e-9, 8e-9, None)]
    text = " ".join(shown(report.deployment(whole(one=chip(baseline={"rows": rows})))).split())
    assert "the literature's 1 nJ 4 nJ 7 nJ" in text
    assert "with memory 2 nJ 5 nJ 8 nJ" in text
    assert "table of one 3 nJ 6 nJ -" in text
    assert "the literature's" not in shown(report.deployment(whole(one=chip())))


def test_a_chip_that_does_not_fit_lists_why() -> None:
    violation = {"node": "h", "limit": "fan-in", "wanted": 5000, "allowed": 4096, "remedy": "Split it."}
    refused = chip(
        fits=False, accuracy=None, agrees_with_float=None, violations=[violation], matches={}, energy_j={},
        latency_s={}, estimate={}, counters={}, utilisation={}, substitutions=[],
    )  # fmt: skip
    text = " ".join(shown(report.deployment(whole(loihi2=refused))).split())
    assert "'h': fan-in is 5000, allowed 4096. Split it." in text


def test_what_is_said_of_several_chips_stands_once() -> None:
    said = {"oracle": "plain", "title": "a model", "version": "7"}
    matches = {"status": "passed", "mismatches": 0, "compared": 5, **said}
    text = " ".join(shown(report.deployment(whole(one=chip(), two=chip(), three=chip(matches=matches)))).split())
    assert text.count("'a' is replaced") == 1
    assert "one, two, three: 'a' is replaced" in text
    assert "three: compared with: a model 7" in text
    assert text.count("not the energy of an inference") == 1


def test_quantisation_table() -> None:
    row = {"node": "h", "quantity": "weight", "scale": 0.01, "max_error": 0.5, "rms_error": 0.1, "note": "clipped"}
    text = shown(report.quantisation([row]))
    assert "5.00e-01" in text
    assert "clipped" in text


def test_a_constant_below_one_is_not_rounded_away() -> None:
    q = {"value": 0.386, "low": 0.347, "high": 0.425, "unit": "clock", "grade": "measured", "source": "somebody"}
    limit = {"value": 1048576, "low": 1048576, "high": 1048576, "unit": "B", "grade": "published", "source": "somebody"}
    text = shown(report.chip("toy", "Toy", {"time": {"work": q}, "limits": {"memory": limit}}, ["nothing"]))
    assert "0.386 clock" in text
    assert "0.347 clock .. 0.425 clock" in " ".join(text.split())
    assert "1,048,576 B" in text
