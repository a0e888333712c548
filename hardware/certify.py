"""`certify`: run a program in a foreign simulator as well and compare every value of every step.

A certificate never says more than was done: "passed" means that the oracle ran, that at least one value was
compared, and that none differs. An oracle that is missing, hangs or refuses gives "not run" and the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError, MissingExtra, NeuroError, OracleError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
TIMEOUT_S = 600.0
Sample = Mapping[tuple[str, str], NDArray[np.int32]]  # (population, "u" | "v" | "s") -> [steps, n] of one sample


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

    status: "passed", "failed" or "not run". oracle, version: who was asked. compared, mismatches: values, u, v
    and spikes of every neuron of every population in every step of every sample. reason: why it was not run.
    seconds: all of it; oracle_seconds: the oracle's part.
    """

    status: str
    oracle: str
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
        from neuro.hardware.simulate import simulate

        probes = tuple((p, v) for p in self.populations for v in ("u", "v"))
        trace = simulate(self.program, self.dense[:, k : k + 1], probes=probes)
        ours = {key: trace.probes[key][:, 0] for key in probes}
        ours |= {(p, "s"): trace.spikes[p][:, 0].astype(np.int32) for p in self.populations}
        where: list[tuple[int, int, Mismatch]] = []
        for rank, key in enumerate((p, v) for p in self.populations for v in ("u", "v", "s")):
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


Visit = Callable[[int, Sample], None]


def _lava(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    from neuro.hardware.export.lava_runtime import run_lava

    run_lava(folder or program, dense, timeout_s, visit)


def _lava_inprocess(
    program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None
) -> None:
    from neuro.hardware.export.lava_inprocess import prepare

    graph = prepare(folder or program)
    for k in range(dense.shape[1]):
        visit(k, {key: values[:, 0] for key, values in graph.run(dense[:, k : k + 1]).items()})


def _netx(program: Program, dense: NDArray[np.uint8], visit: Visit, timeout_s: float, folder: Path | None) -> None:
    import tempfile

    from neuro.hardware.export.netx import layers_of, write
    from neuro.hardware.export.netx_lava import build_netx

    names = [layer.population.name for layer in layers_of(program)]
    with tempfile.TemporaryDirectory(prefix="axonport-netx-") as temporary:
        graph = build_netx(folder or write(program, Path(temporary) / "program.net"))
        for k in range(dense.shape[1]):
            values = graph.run(dense[:, k : k + 1], program.depth)
            visit(k, {(names[int(layer)], v): a[:, 0] for (layer, v), a in values.items()})


ORACLES: dict[str, tuple[str, Callable[[Program, NDArray[np.uint8], Visit, float, Path | None], None]]] = {
    "lava": ("the exported graph in Lava's runtime", _lava),
    "lava-inprocess": ("the exported graph in Lava's process models, one process", _lava_inprocess),
    "netx": ("the netx file, built from Lava's processes, one process", _netx),
}


def certify(
    program: Program,
    dense: NDArray[np.uint8],
    *,
    oracle: str = "lava",
    timeout_s: float = TIMEOUT_S,
    folder: Path | str | None = None,
) -> Certificate:
    """Compare our simulation of dense uint8[steps, batch, n_inputs] with an oracle's, value by value.

    oracle: "lava" (its runtime, one operating-system process per Lava process), "lava-inprocess" (the same graph
    and models, without the runtime) or "netx" (the netx file). A graph of more processes than the runtime can be
    asked for is run in-process, and the certificate's ``oracle`` says so. folder: an export of this program (for
    "netx" the file) to be run as it is; without it the program is exported to a temporary place.

    Raises:
        OracleError: no oracle of that name. SimulationError: ``dense`` does not suit the program.
    """
    if oracle not in ORACLES:
        raise OracleError(f"unknown oracle '{oracle}'. {did_you_mean(oracle, ORACLES)}")
    from neuro.hardware.export.lava_folder import padded
    from neuro.hardware.export.lava_shim import MISSING, import_lava, lava_version

    padded(dense, program.populations[program.input].size, 0)
    began = time.perf_counter()
    version = lava_version() or ""
    if program.chip != "loihi2":
        reason = f"oracle '{oracle}' simulates loihi2, this program is for {program.chip}"
        return Certificate(NOT_RUN, oracle, version, reason=reason)
    comparison = _Comparison(program, np.asarray(dense))
    spent = [0.0]

    def visit(k: int, theirs: Sample) -> None:
        started = time.perf_counter()
        comparison.add(k, theirs)
        spent[0] += time.perf_counter() - started

    try:
        import_lava()
        if oracle == "lava" and _too_many(program):
            oracle = "lava-inprocess"
        ORACLES[oracle][1](program, comparison.dense, visit, timeout_s, None if folder is None else Path(folder))
    except MissingExtra:
        return Certificate(NOT_RUN, oracle, version, reason=MISSING)
    except (ChipError, OracleError) as refusal:
        return _not_run(oracle, version, refusal, began)
    total = time.perf_counter() - began
    return Certificate(
        status=PASSED if comparison.compared and not comparison.mismatches else FAILED,
        oracle=oracle,
        version=f"lava-nc {version}",
        compared=comparison.compared,
        mismatches=comparison.mismatches,
        samples=comparison.samples,
        steps=comparison.steps,
        populations=comparison.populations,
        first=comparison.first,
        seconds=total,
        oracle_seconds=total - spent[0],
    )


def _too_many(program: Program) -> bool:
    from neuro.hardware.export.lava_graph import lower
    from neuro.hardware.export.lava_runtime import MAX_PROCESSES

    graph = lower(program)
    return len(graph.parts) + len(graph.synapses) > MAX_PROCESSES


def _not_run(oracle: str, version: str, refusal: NeuroError, began: float) -> Certificate:
    return Certificate(
        NOT_RUN, oracle, f"lava-nc {version}", reason=str(refusal), seconds=time.perf_counter() - began
    )


__all__ = ["ORACLES", "Certificate", "Mismatch", "certify"]
