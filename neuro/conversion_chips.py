"""`certify_on_chip`: a lowered network in a chip's integers, held against the quantised graph, value by value.

Every population's values in the step in which it answers, every score and every decision are compared; accuracy, cores,
energy and latency come from the same run. Nothing is assumed: a network that was lowered wrongly, compiled wrongly, or
that the chip's numbers cannot hold, has values that differ.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered, to_network
from neuro.convert.ops import MaxPool
from neuro.errors import ConversionError

if TYPE_CHECKING:
    from neuro.hardware.program import Program, QuantisationError
    from neuro.hardware.trace import Trace

ROUNDING = 1e-9  # of the largest: what real factors behind whole numbers may differ by
BATCH = 200

# how each chip is reached, where nothing else is asked for: arguments of `to_network`
WAYS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        "loihi1": {"form": "thermometer", "bias": "decode", "neuron": "IF"},  # a leak would want thresholds on its grid
        "loihi2": {"form": "thermometer", "bias": "decode", "neuron": "IF"},
        "spinnaker1": {"form": "thermometer", "bias": "decode"},
        "spinnaker2": {"form": "thermometer", "bias": "decode"},
        "truenorth": {"form": "thermometer", "bias": "decode", "neuron": "IF", "readout": "spikes"},
        "akida1": {"form": "levels", "bias": "decode"},
        "akida2": {"form": "levels"},
    }
)


@dataclass(frozen=True)
class Compared:
    """Of one population: values, how many differ, the largest difference."""

    values: int
    differ: int
    largest: float


@dataclass(frozen=True)
class ChipCertificate:
    """What a chip's simulator answered, beside the quantised graph.

    expected: equality was claimed (the lowering is exact, and no number of the chip was rounded). values, differ: of
    all populations. decisions: that differ. scores: largest difference of a score. off_whole: how far a membrane
    that is read was from a whole number, at most. accuracy, quantised_accuracy: with labels, else None. energy_j,
    latency_s: per sample, as `neuro.hardware.estimate`. rounded: largest relative error of the chip's numbers.
    """

    chip: str
    form: str
    claim: str
    expected: bool
    samples: int
    values: int
    differ: int
    decisions: int
    scores: float
    layers: Mapping[str, Compared]
    accuracy: float | None
    quantised_accuracy: float | None
    cores: int
    neurons: int
    weight_bits: int
    energy_j: Mapping[str, Any]
    latency_s: Mapping[str, Any]
    substitutions: tuple[str, ...] = ()
    rounded: str = ""
    off_whole: float = 0.0

    @property
    def equal(self) -> bool:
        """Every value, score (up to the rounding of reals) and decision is that of the quantised graph."""
        return self.values > 0 and self.differ == 0 and self.decisions == 0 and self.scores == 0

    @property
    def holds(self) -> bool:
        """What was claimed is so."""
        return self.equal or not self.expected

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "equal": self.equal, "holds": self.holds}

    def __str__(self) -> str:
        word = "equal" if self.equal else "DIFFERS" if self.expected else "differs, as expected"
        said = f"{self.chip} ({self.form}): {word}; {self.differ} of {self.values} values, {self.decisions} of "
        said += f"{self.samples} decisions differ"
        return said if self.accuracy is None else f"{said}; accuracy {100 * self.accuracy:.2f} %"


@dataclass
class _Sums:
    values: int = 0
    differ: int = 0
    largest: float = 0.0

    def add(self, found: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
        """Compare as far as real factors round."""
        off = np.abs(found - wanted)
        self.values += off.size
        self.differ += int((off > ROUNDING * max(1e-30, float(np.abs(wanted).max(initial=0.0)))).sum())
        self.largest = max(self.largest, float(off.max(initial=0.0)))


@dataclass
class _Tally:
    layers: dict[str, _Sums] = field(default_factory=dict)
    scores: _Sums = field(default_factory=_Sums)
    decisions: int = 0
    right: int = 0
    right_quantised: int = 0
    off_whole: float = 0.0


def lower_for(graph: Graph, chip: str, **options: Any) -> Lowered:
    """`neuro.convert.lower.to_network` in the form that suits a chip (`WAYS`), options replace its own.

    Raises:
        ConversionError: as `to_network`; UnknownChip: no such chip.
    """
    from neuro.hardware.target import load_target

    load_target(chip)
    return to_network(graph, **{**WAYS.get(chip, {"form": "thermometer", "bias": "decode"}), **options})


def certify_on_chip(
    lowered: Lowered,
    chip: str,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor | None = None,
    *,
    graph: Graph | None = None,
    **options: Any,
) -> ChipCertificate:
    """Compiles, simulates all of x [batch, *shape], compares and estimates.

    Args:
        y: labels [batch]. graph: what scores are held against, None: the graph that was lowered.
        options: of `neuro.hardware.compile`.

    Raises:
        DoesNotFit, UnsupportedNode, PrecisionLoss, UnknownChip: as `neuro.hardware.compile`.
        ConversionError: no samples, or labels of another length.
    """
    from neuro.hardware import compile as compile_network
    from neuro.hardware import estimate, simulate
    from neuro.hardware.estimate import merge

    samples = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    labels = None if y is None else np.asarray(y).reshape(-1)
    if len(samples) == 0 or (labels is not None and len(labels) != len(samples)):
        raise ConversionError(f"{len(samples)} samples and {'no' if labels is None else len(labels)} labels")
    program = compile_network(lowered.network, chip, max_steps=lowered.steps, **options)
    reference = (graph or lowered.graph).to(torch.float64)
    tally, estimates = _Tally(), []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        trace = simulate(program, lowered.encode(part))
        estimates.append(estimate(trace, program))
        with torch.no_grad():
            values, wanted = lowered.graph.values(part), reference.run(part).numpy()
        _compare(lowered, program, trace, values, tally)
        unit = program.scale[program.output] if program.readout != "count" else 1.0
        raw = trace.scores * unit
        if lowered.form in ("thermometer", "graded"):
            tally.off_whole = max(tally.off_whole, float(np.abs(raw - np.rint(raw)).max()))
        found = lowered.decode(trace.scores, unit).reshape(len(part), -1)
        flat = wanted.reshape(len(part), -1)
        tally.scores.add(found, flat)
        tally.decisions += int((found.argmax(1) != flat.argmax(1)).sum())
        if labels is not None:
            here = labels[start : start + BATCH]
            tally.right += int((found.argmax(1) == here).sum())
            tally.right_quantised += int((flat.argmax(1) == here).sum())
    rows = [row for row in program.budget if not _between(row, lowered.form)]
    worst = max(rows, key=lambda row: row.max_error, default=None)
    rounded = "" if worst is None or worst.max_error < ROUNDING else (
        f"{worst.quantity} of '{worst.node}' by {worst.max_error:.2g} of the largest"
    )  # fmt: skip
    table = merge(estimates).to_json()
    layers = {name: Compared(s.values, s.differ, s.largest) for name, s in tally.layers.items()}
    return ChipCertificate(
        chip=chip,
        form=lowered.form,
        claim=lowered.claim,
        expected=lowered.exact and (lowered.form != "levels" or not rounded),
        samples=len(samples),
        values=sum(s.values for s in tally.layers.values()) + tally.scores.values,
        differ=sum(s.differ for s in tally.layers.values()) + tally.scores.differ,
        decisions=tally.decisions,
        scores=tally.scores.largest if tally.scores.differ else 0.0,
        layers=layers,
        accuracy=None if labels is None else tally.right / len(samples),
        quantised_accuracy=None if labels is None else tally.right_quantised / len(samples),
        cores=program.placement.cores,
        neurons=program.neurons,
        weight_bits=lowered.weight_bits,
        energy_j=table["energy_j"],
        latency_s=table["latency_s"],
        substitutions=program.substitutions,
        rounded=rounded,
        off_whole=tally.off_whole,
    )


def _compare(lowered: Lowered, program: Program, trace: Trace, values: Mapping[str, Tensor], tally: _Tally) -> None:
    """What each population sent, as values of the graph."""
    for name, node in lowered.node.items():
        if name == lowered.source or node not in trace.spikes or node not in program.populations:
            continue
        first = program.skew.get(node, 0)
        sent = np.asarray(trace.spikes[node], dtype=np.float64)
        if lowered.form == "graded":
            answered = sent[: first + 1].sum(0) * program.scale[node]
        elif lowered.form == "unfold":
            answered = sent.sum(0)  # it is silent outside of its window
        elif lowered.form == "rate":
            answered = sent[first : first + lowered.steps].sum(0) / lowered.steps
        else:
            answered = sent[first]
        code, layer = lowered.codes[name], name
        if answered.shape[1] != code.channel.size * int(np.prod(code.shape[1:])):
            layer = _pooled(lowered.graph, name)  # the chip's layer pools before it sends
            code = lowered.codes[layer]
        found = code.value(answered).numpy()
        if lowered.form == "levels":
            found = found * _step(lowered.graph, layer)
        tally.layers.setdefault(layer, _Sums()).add(found, values[layer].numpy())


def _between(row: QuantisationError, form: str) -> bool:
    """Whether a whole threshold was put elsewhere between the same two sums, which changes nothing: Akida 1 says so by
    having no note on how many are off."""
    return form == "levels" and row.quantity == "threshold" and not row.note


def _pooled(graph: Graph, name: str) -> str:
    users = [n for n in graph.order if name in graph.takes[n] and isinstance(graph.ops[n], MaxPool)]
    if len(users) != 1:
        raise ConversionError(f"'{name}' sends another number of values than the graph's, and no max-pool says why")
    return users[0]


def _step(graph: Graph, name: str) -> NDArray[np.float64]:
    """Reals per level of a population, or of the one that a pool stands behind."""
    while not hasattr(graph.ops[name], "step"):
        name = graph.takes[name][0]
    step: NDArray[np.float64] = graph.ops[name].step.numpy()  # type: ignore[attr-defined]
    return step


__all__ = ["WAYS", "ChipCertificate", "Compared", "certify_on_chip", "lower_for"]
