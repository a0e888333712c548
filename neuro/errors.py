"""Every error that axonport raises on purpose, and the tree they form.

::

    NeuroError
      NetworkError(ValueError)       a network that means nothing; lists every violation
        ShapeMismatch                two nodes disagree on a shape
        UnknownNode                  an edge or a file names a node (type) that does not exist
        CyclicWithoutDelay           a loop that no neuron and no delay breaks
      ChipError
        UnsupportedNode              a chip has no lowering for a node
        DoesNotFit                   a chip's limits are exceeded; ``violations`` lists all
        PrecisionLoss                strict compilation refuses an approximation
        UnknownChip                  no chip of that name
      ConversionError(ValueError)
        UnsupportedLayer             a torch module that has no place in the IR
      FormatError(ValueError)        a file that is not what it says
        BadEventFile                 an event recording that cannot be read
        ChecksumMismatch             a file whose content changed
        BadChipFile                  a chip TOML without value, unit, source or grade
        BadConfig                    a training configuration that cannot be used
      RunError                       a run folder that is incomplete, foreign or in use
      SimulationError(ValueError)    input that a compiled program cannot take
      OracleError                    a foreign simulator failed, hung or is absent
      MissingExtra(ImportError)      an optional package is not installed

A message says what, where, the limit and the remedy. Errors that can have several causes
carry them all in ``violations``; the message has one line for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def _listed(title: str, violations: Iterable[object]) -> str:
    lines = [str(v) for v in violations]
    if not lines:
        return title
    if len(lines) == 1:
        return f"{title}: {lines[0]}" if title else lines[0]
    return f"{title} ({len(lines)} problems):" + "".join(f"\n  - {line}" for line in lines)


class NeuroError(Exception):
    """Base of every error raised on purpose. ``violations`` holds one entry per problem."""

    def __init__(self, title: str = "", violations: Iterable[object] = ()) -> None:
        self.title = title
        self.violations: tuple[object, ...] = tuple(violations)
        super().__init__(_listed(title, self.violations))


class NetworkError(NeuroError, ValueError):
    """A network that has no meaning. ``violations`` holds one string per problem."""


class ShapeMismatch(NetworkError):
    """Two connected nodes disagree on a shape."""


class UnknownNode(NetworkError):
    """An edge or a file names a node, or a node type, that does not exist."""


class CyclicWithoutDelay(NetworkError):
    """A loop without a neuron or delay in it: its value would depend on itself at once."""


class ChipError(NeuroError):
    """Base of everything a chip cannot do."""


class UnknownChip(ChipError):
    """No chip of that name is registered."""


class UnsupportedNode(ChipError):
    """A chip has no lowering for these nodes; ``violations`` names all of them."""


@dataclass(frozen=True)
class Violation:
    """One limit that a network exceeds on a chip."""

    node: str
    limit: str
    wanted: int | float | str
    allowed: int | float | str
    remedy: str

    def __str__(self) -> str:
        return f"'{self.node}': {self.limit} is {self.wanted}, allowed {self.allowed}. {self.remedy}"


class DoesNotFit(ChipError):
    """The network exceeds limits of the chip. ``violations`` is a tuple of `Violation`."""


class PrecisionLoss(ChipError):
    """Strict compilation refuses what only an approximation would allow."""


class ConversionError(NeuroError, ValueError):
    """A model cannot become a network."""


class UnsupportedLayer(ConversionError):
    """A torch module has no counterpart in the IR; ``violations`` names all of them."""


class FormatError(NeuroError, ValueError):
    """A file that is not what it says."""


class BadEventFile(FormatError):
    """An event recording that cannot be read."""


class ChecksumMismatch(FormatError):
    """A file whose content is not the one that was written or published."""


class BadChipFile(FormatError):
    """A chip file with a constant that lacks its value, unit, source or grade."""


class BadConfig(FormatError):
    """A training configuration that cannot be used; ``violations`` lists every bad field."""


class RunError(NeuroError):
    """A run folder that is incomplete, foreign, or in use by another process."""


class SimulationError(NeuroError, ValueError):
    """Input that a compiled program cannot take."""


class OracleError(NeuroError):
    """A foreign simulator failed, hung or returned something that cannot be read."""


class MissingExtra(NeuroError, ImportError):
    """An optional package is not installed; the message has the pip command."""
