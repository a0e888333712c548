"""`certify`: run a program in a foreign simulator as well and compare every value of every step.

A certificate never says more than was done: "passed" means that the oracle ran, that at least one value was
compared, and that none differs. An oracle that is missing, hangs or refuses gives "not run" and the reason.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError, MissingExtra, OracleError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program
from neuro.hardware.simulate import check_dense, simulate
from neuro.hardware.target import Sample, load_target

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
TIMEOUT_S = 600.0
SPIKES = "s"


@dataclass(frozen=True)
class Mismatch:
    """Where two simulators first disagree. variable: "u", "v" (after reset) or "s" (spike)."""

    population: str
    variable: str
    sample: int
    step: int
    neuron: int
    ours: int
    theirs: int

    def __str__(self) -> str:
        return (
            f"{self.variable} of '{self.population}' neuron {self.neuron}, sample {self.sample}, step {self.step}: "
            f"ours {self.ours}, theirs {self.theirs}"
        )


@dataclass(frozen=True)
class Certificate:
    """What a comparison found.

    status: "passed", "failed" or "not run". oracle, title, version: who was asked. compared, mismatches: values,
    spikes and the variables that the oracle knows, of every neuron of every population in every step of every
    sample. reason: why it was not run.
    seconds: all of it; oracle_seconds: the oracle's part.
    """

    status: str
    oracle: str
    title: str = ""
    version: str = ""
    compared: int = 0
    mismatches: int = 0
    samples: int = 0
    steps: int = 0
    populations: tuple[str, ...] = ()
    first: Mismatch | None = None
    reason: str = ""
    seconds: float = 0.0
    oracle_seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    def _repr_html_(self) -> str:
        from neuro.html_tables import certificate

        return certificate(self)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        table = asdict(self)
        table["populations"] = list(self.populations)
        return table

    def __str__(self) -> str:
        if self.status == NOT_RUN:
            return f"not run: {self.reason}"
        said = f"{self.status}: {self.mismatches} of {self.compared} values differ from {self.oracle} {self.version}"
        return f"{said}; first: {self.first}" if self.first else said


class _Comparison:
    """Our simulation of each sample beside the oracle's, one sample in memory at a time."""

    def __init__(self, program: Program, dense: NDArray[np.uint8]) -> None:
        self.program, self.dense = program, dense
        self.populations = tuple(p.name for p in program.populations.values() if p.model != "input")
        self.compared = self.mismatches = self.samples = self.steps = 0
        self.first: Mismatch | None = None

    def add(self, k: int, theirs: Sample) -> None:
        silent = [p for p in self.populations if (p, SPIKES) not in theirs]
        if silent:
            raise OracleError(f"the oracle says nothing of the spikes of {silent}")
        probes = tuple(key for key in theirs if key[1] != SPIKES)
        trace = simulate(self.program, self.dense[:, k : k + 1], probes=probes)
        ours = {key: trace.probes[key][:, 0] for key in probes}
        ours |= {(p, SPIKES): trace.spikes[p][:, 0].astype(np.int32) for p in self.populations}
        where: list[tuple[int, int, Mismatch]] = []
        order = {name: k for k, name in enumerate(self.populations)}  # what projections say comes last
        ranked = sorted(theirs, key=lambda k: (order.get(k[0], len(order)), k[0], k[1] == SPIKES, k[1]))
        for rank, key in enumerate(ranked):
            mine, other = ours[key], theirs[key]
            if mine.shape != other.shape:
                raise OracleError(f"{key[1]} of '{key[0]}' has shape {mine.shape} here and {other.shape} there")
            differ = mine != other
            self.compared += differ.size
            self.mismatches += int(differ.sum())
            if differ.any():
                t, n = (int(i) for i in np.argwhere(differ)[0])
                where.append((t, rank, Mismatch(*key, k, t, n, int(mine[t, n]), int(other[t, n]))))
        if where and self.first is None:
            self.first = min(where, key=lambda entry: entry[:2])[2]
        self.samples += 1
        self.steps = trace.steps


def certify(
    program: Program,
    dense: NDArray[np.uint8],
    *,
    oracle: str | None = None,
    timeout_s: float = TIMEOUT_S,
    folder: Path | str | None = None,
) -> Certificate:
    """Compare our simulation of dense uint8[steps, batch, n_inputs] with an oracle's, value by value.

    oracle: one of those of the program's chip (`neuro.hardware.target.Target.oracles`), by default its first.
    folder: an export of this program to be run as it is, for an oracle that runs exports; without it the program
    is exported to a temporary place.

    Raises:
        OracleError: no oracle of that name. SimulationError: ``dense`` does not suit the program.
    """
    target = load_target(program.chip)
    if not target.oracles:
        return Certificate(NOT_RUN, oracle or "", reason=f"nothing to compare {program.chip} with is known")
    name = next(iter(target.oracles)) if oracle is None else oracle
    if name not in target.oracles:
        raise OracleError(f"{program.chip} has no oracle '{name}'. {did_you_mean(name, target.oracles)}")
    asked = target.oracles[name]
    check_dense(program, dense)
    began = time.perf_counter()
    comparison = _Comparison(program, np.asarray(dense))
    spent = [0.0]

    def visit(k: int, theirs: Sample) -> None:
        started = time.perf_counter()
        comparison.add(k, theirs)
        spent[0] += time.perf_counter() - started

    version = title = ""
    try:
        version = asked.version()
        other = asked.run(program, comparison.dense, visit, timeout_s, None if folder is None else Path(folder))
        title = other or asked.title
    except (MissingExtra, ChipError, OracleError) as refusal:
        return Certificate(NOT_RUN, name, version, reason=str(refusal), seconds=time.perf_counter() - began)
    total = time.perf_counter() - began
    return Certificate(
        status=PASSED if comparison.compared and not comparison.mismatches else FAILED,
        oracle=name,
        title=title,
        version=version,
        compared=comparison.compared,
        mismatches=comparison.mismatches,
        samples=comparison.samples,
        steps=comparison.steps,
        populations=comparison.populations,
        first=comparison.first,
        seconds=total,
        oracle_seconds=total - spent[0],
    )


__all__ = ["Certificate", "Mismatch", "certify"]
