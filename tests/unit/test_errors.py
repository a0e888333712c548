"""The error tree: one base, all problems in one message."""

from __future__ import annotations

import pytest

from neuro import errors


def test_every_error_is_a_neuro_error_and_fits_where_python_expects_it() -> None:
    assert issubclass(errors.ShapeMismatch, (errors.NetworkError, ValueError))
    assert issubclass(errors.MissingExtra, ImportError)
    assert issubclass(errors.SimulationError, ValueError)
    assert not issubclass(errors.ChipError, ValueError)


@pytest.mark.parametrize(
    ("title", "violations", "text"),
    [
        ("broken", (), "broken"),
        ("broken", ("a",), "broken: a"),
        ("", ("a",), "a"),
        ("broken", ("a", "b"), "broken (2 problems):\n  - a\n  - b"),
    ],
)
def test_message_lists_every_violation(title: str, violations: tuple[str, ...], text: str) -> None:
    error = errors.NetworkError(title, violations)
    assert str(error) == text
    assert error.violations == violations
    assert error.title == title


def test_violation_says_what_limit_and_remedy() -> None:
    line = errors.Violation("hidden", "synapses per core", 5120, 4096, "Split it.")
    assert str(errors.DoesNotFit("loihi2", [line])) == (
        "loihi2: 'hidden': synapses per core is 5120, allowed 4096. Split it."
    )
