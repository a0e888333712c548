"""`Target`: one chip as the compiler, simulator and exporters meet it. Extension point ``neuro.chips``.

A chip module builds one `Target`, registers a lowering for each node type it can hold, and names the
function that runs its programs. Everything else reads `Chip`, `Program` and `Trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neuro.errors import UnknownChip
from neuro.extend import load_plugin, plugins
from neuro.hardware.chip import Chip
from neuro.hardware.program import IntArray, Program
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


Sample = Mapping[tuple[str, str], NDArray[np.int32]]  # (population, variable or "s") -> [steps, n] of one sample
Visit = Callable[[int, Sample], None]


@dataclass(frozen=True)
class Oracle:
    """Somebody else's simulator of the same program.

    title: who is asked, in one line; a certificate quotes it. run(program, dense, visit, timeout_s, folder): calls
    visit(sample, values) for each sample of dense uint8[steps, batch, n_inputs] in turn, with the spikes "s" of
    every population that has a state, and whichever variables it knows; returns another title where something else
    was asked than usual. folder: an export to run as it is, or None.
    version(): name and version of what runs; raises MissingExtra where it is not installed.
    """

    title: str
    run: Callable[[Program, NDArray[np.uint8], Visit, float, Path | None], str | None]
    version: Callable[[], str]


@dataclass(frozen=True, eq=False)
class Target:
    """A chip's data (`chip`), its compiler (`compile`), its simulator (`run`), and what it can hold.

    supports: node type -> one line on how the chip holds it; what is missing here is refused by name.
    oracles: name -> `Oracle`; the first is asked where none is named. exporters: formats that `deploy` writes for
    this chip. membrane: the variable that is drawn beside the float network's membrane, or "" for none.
    high: the largest value of an input channel in a step that it takes, 1 where only spikes enter.
    refuses: node type -> why, and the nearest that would run, where more can be said than that it is not supported.
    messages: where a spike of each neuron goes, population -> (neuron, target core), for chips whose projections do
    not say it (`neuro.hardware.traffic.messages`).
    """

    chip: Chip
    compile: Callable[..., Program]
    run: Run
    supports: Mapping[type[Node], str] = field(default_factory=dict)
    oracles: Mapping[str, Oracle] = field(default_factory=dict)
    exporters: tuple[str, ...] = ()
    membrane: str = "v"
    high: int = 1
    refuses: Mapping[type[Node], str] = field(default_factory=dict)
    messages: Callable[[Program], Mapping[str, tuple[IntArray, IntArray]]] | None = None

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


__all__ = ["Network", "Oracle", "Run", "Sample", "Target", "Visit", "load_target", "targets"]
