"""`Target`: one chip as the compiler, simulator and exporters meet it. Extension point ``neuro.chips``.

A chip module builds one `Target`, registers a lowering for each node type it can hold, and names the
function that runs its programs. Everything else reads `Chip`, `Program` and `Trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neuro.errors import UnknownChip
from neuro.extend import load_plugin, plugins
from neuro.hardware.chip import Chip
from neuro.hardware.program import Program
from neuro.hardware.trace import Trace
from neuro.ir import Network, Node


class Run(Protocol):
    """Simulate a batch: dense uint8[steps, batch, n_inputs] -> Trace, probing (population, variable)."""

    def __call__(
        self,
        program: Program,
        dense: NDArray[np.uint8],
        probes: tuple[tuple[str, str], ...] = (),
        record_spikes: bool = True,
    ) -> Trace: ...


@dataclass(frozen=True, eq=False)
class Target:
    """A chip's data (`chip`), its compiler (`compile`), its simulator (`run`), and what it can hold.

    supports: node type -> one line on how the chip holds it; what is missing here is refused by name.
    """

    chip: Chip
    compile: Callable[..., Program]
    run: Run
    supports: Mapping[type[Node], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.chip.name


def load_target(name: str) -> Target:
    """A registered target by name.

    Raises:
        UnknownChip: with the nearest known name.
    """
    target = load_plugin("neuro.chips", name, UnknownChip)
    assert isinstance(target, Target)
    return target


def targets() -> tuple[str, ...]:
    """Names of all registered targets."""
    return tuple(sorted(plugins("neuro.chips")))


__all__ = ["Network", "Run", "Target", "load_target", "targets"]
