"""`certify`: how far spikes are from the network that they stand for, layer by layer, and from when on not at all.

Four graphs are compared, value by value, on the whole data. Of a layer (a population, or the answer) let

    a   its value in the original                       w  with the quantised graph's weights, without levels
    c   as w, cut at the largest and smallest level      q  in the quantised graph
    s   its estimate after T steps of spikes

Then s - a = (w - a) + (c - w) + (q - c) + (s - q): **weights**, **clipping**, **quantisation**, **unevenness** (all
that spikes add: the order of their arrival, and whatever a recipe or a mistake changes). These are values inside the
whole network, so a layer's parts contain what the layers before it have handed on. They add up exactly, which is
checked on every layer. Which layer loses the accuracy is measured otherwise: one population alone is quantised, or
alone spikes, and all others are left ideal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuro.convert.dynamics import Ideal
from neuro.convert.engine import Dynamics, moments
from neuro.convert.fs import count_spikes
from neuro.convert.graph import Graph
from neuro.convert.ops import Op, Quantise
from neuro.convert.recipes import Spiking, decisions
from neuro.errors import ConversionError
from neuro.files import atomic_path

AT = (1, 2, 4, 8, 16, 32)
PARTS = ("weights", "clipping", "quantisation", "unevenness")
ROUNDING = 1e-9  # of a layer's largest value: what two orders of adding real numbers may differ by


@dataclass(frozen=True)
class Distance:
    """Of a layer at one T, |quantised - spiking|: the largest, the mean, and how many values differ (by more than
    rounding). parts: name -> (mean with its sign, mean of sizes, largest size) of `PARTS`, then of "total" = s - a.
    messages: per sample, up to T."""

    max: float
    mean: float
    different: int
    parts: Mapping[str, tuple[float, float, float]]
    messages: float


@dataclass(frozen=True)
class Certificate:
    """What `certify` found.

    samples: of data. recipe, why: of the spiking graph. labels: whether scores are accuracies (else: agreement with
    the original's decisions). original, quantised: their scores. scores: T -> the spiking graph's.
    layers: name -> T -> distance; the last is the answer. equal_decisions: first T from which on no decision differs
    from the quantised graph's, on all samples and up to the last step run; equal_values: so of all values of all
    layers; None: never. neither is a statement about steps that were not run (``steps``). alone: population ->
    ("quantised": score of the original with it alone quantised, "spiking": of the quantised graph with it alone
    spiking, at T = ``alone_at``). messages: T -> per sample, all populations. rest: largest |total - sum of parts|.
    """

    samples: int
    steps: int
    recipe: str
    why: str
    labels: bool
    original: float
    quantised: float
    scores: Mapping[int, float]
    layers: Mapping[str, Mapping[int, Distance]]
    equal_decisions: int | None
    equal_values: int | None
    mismatches: Mapping[int, int]
    alone: Mapping[str, Mapping[str, float]]
    alone_at: int
    messages: Mapping[int, float]
    rest: float

    @property
    def exact(self) -> bool:
        """Spikes become equal to the quantised graph, in every value."""
        return self.equal_values is not None

    def table(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """As JSON; the file appears whole or not at all."""
        with atomic_path(Path(path)) as part:
            part.write_text(json.dumps(self.table(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        what = "accuracy" if self.labels else "agreement"
        lines = [f"{self.recipe}: {what} on {self.samples} samples; original {100 * self.original:.2f} %, quantised "
                 f"{100 * self.quantised:.2f} %"]  # fmt: skip
        for t, score in self.scores.items():
            lines.append(f"  T = {t:3d}: {100 * score:6.2f} %, {self.mismatches[t]} decisions differ, "
                         f"{self.messages[t]:.0f} messages a sample")  # fmt: skip
        for word, first in (("decisions", self.equal_decisions), ("values", self.equal_values)):
            when = f"not by T = {self.steps}" if first is None else f"from T = {first} to {self.steps}"
            lines.append(f"  all {word} equal: {when}")
        last = max(self.scores)
        for name, found in self.layers.items():
            parts = ", ".join(f"{part} {found[last].parts[part][1]:.3g}" for part in PARTS)
            lines.append(f"  {name}: max |q - s| {found[last].max:.3g} at T = {last}; {parts}")
        if self.alone:
            worst = min(self.alone, key=lambda n: self.alone[n]["spiking"])
            lost = 100 * (self.quantised - self.alone[worst]["spiking"])
            lines.append(f"  most is lost in {worst}: {lost:.2f} points where it alone spikes, T = {self.alone_at}")
        return "\n".join(lines)


def certify(
    original: Graph,
    spiking: Spiking,
    *x: Tensor,
    quantised: Graph | None = None,
    y: Tensor | None = None,
    at: Sequence[int] = AT,
    alone_at: int = 4,
    batch: int = 250,
) -> Certificate:
    """Compares on all of x, in float64 (the graphs and data are converted).

    Args:
        original: of the front end, without neurons. Populations are compared with its values of the same name, those
            without one with what they take.
        quantised: what the spikes are to equal; None: ``spiking.reference``. Give your own where the reference is
            not to be trusted either.
        y: labels [samples], or of each place where decisions are [samples, places]; None: scores are agreements with
            the original. A decision is the place of the largest value of the last axis, or the sign of a single one.
        at: steps to report; the largest is how many are run. alone_at: the T of "alone"; 0: leave that out.

    Raises:
        ConversionError: lengths that differ, no steps, neurons that the quantised graph does not have, values that are
            not finite.
    """
    reference = (quantised or spiking.reference).to(torch.float64)
    run, original = spiking.graph.to(torch.float64), original.to(torch.float64)
    bad = [] if at and min(at) >= 1 else [f"at must name steps from 1 on, got {list(at)}"]
    bad += [] if y is None or len(y) == len(x[0]) else [f"{len(x[0])} samples and {len(y)} labels"]
    bad += [f"the quantised graph has no neurons '{n}'" for n in run.neurons if n not in reference.ops]
    if bad:
        raise ConversionError("cannot certify", bad)
    inputs = tuple(each.to(torch.float64) for each in x)
    tally = _Tally(original, reference, run, spiking, tuple(sorted(set(at))))
    with torch.no_grad():
        chunks = list(zip(*(torch.split(each, batch) for each in inputs), strict=True))
        for k, chunk in enumerate(chunks):
            tally.add(chunk, None if y is None else y[k * batch : (k + 1) * batch])
        alone = _alone(tally, chunks, alone_at, y, batch) if alone_at else {}
    return tally.certificate(alone, alone_at, y is not None)


def _counterpart(original: Graph, graph: Graph, name: str) -> str:
    """Whose value in the original a layer stands for."""
    while name not in original.ops:
        name = graph.takes[name][0]
    return name


@dataclass(frozen=True, eq=False)
class _Unlimited(Quantise):
    """The same neurons without levels: cut at both ends, or rectifiers, or nothing at all."""

    cut: bool = True

    def value(self, *x: Tensor) -> Tensor:
        if self.cut:
            return torch.minimum(torch.maximum(x[0], self.step * self.low), self.step * self.high)
        return x[0] if self.low else x[0].clamp_min(0)


def _without_levels(graph: Graph, cut: bool, but: str | None = None) -> Graph:
    changed: dict[str, Op] = {}
    for name in graph.neurons:
        old = graph.ops[name]
        assert isinstance(old, Quantise)
        if name != but:
            changed[name] = _Unlimited(old.step, old.low, old.high, cut)
    return graph.replace(changed)


class _Tally:
    """Sums over batches."""

    def __init__(self, original: Graph, reference: Graph, run: Graph, spiking: Spiking, at: tuple[int, ...]) -> None:
        self.original, self.reference, self.run, self.spiking, self.at = original, reference, run, spiking, at
        self.free, self.cut = _without_levels(reference, False), _without_levels(reference, True)
        self.layers = (*run.neurons, run.output) if run.output not in run.neurons else run.neurons
        self.samples, self.right, self.rest = 0, {"original": 0, "quantised": 0}, 0.0
        self.scores, self.mismatches = dict.fromkeys(range(1, max(at) + 1), 0), dict.fromkeys(range(1, max(at) + 1), 0)
        self.values = dict.fromkeys(range(1, max(at) + 1), 0)
        self.sums: dict[tuple[str, int], Any] = {}
        self.decided, self.few = 0, 0.0  # few: spikes of FS neurons, which have no population of their own

    def add(self, x: tuple[Tensor, ...], y: Tensor | None) -> None:
        a, w, c, q = (g.values(*x) for g in (self.original, self.free, self.cut, self.reference))
        answers = a[self.original.output], q[self.reference.output]
        wanted = decisions(answers[0]) if y is None else y
        self.samples, self.decided = self.samples + len(x[0]), self.decided + wanted.numel()
        for name, answer in zip(("original", "quantised"), answers, strict=True):
            self.right[name] += int((decisions(answer) == wanted).sum())
        self.few += count_spikes(self.run, x)
        sent = dict.fromkeys(self.run.neurons, 0.0)
        for moment in moments(self.run, x, max(self.at), self.spiking.dynamics):
            t = moment.t
            decided = decisions(moment.estimates[self.run.output])
            self.scores[t] += int((decided == wanted).sum())
            self.mismatches[t] += int((decided != decisions(answers[1])).sum())
            for name in self.run.neurons:
                sent[name] += float(moment.messages[name].sum())
            for name in self.layers:
                s = moment.estimates[name]
                is_output = name == self.run.output
                qn = self.reference.output if is_output else name
                off = (s - q[qn]).abs()
                if not bool(torch.isfinite(off).all()):
                    raise ConversionError(f"'{name}' has values that are not finite, at T = {t}")
                limit = ROUNDING * float(q[qn].abs().max().clamp_min(1e-30))
                self.values[t] += int((off > limit).sum())
                if t in self.at:
                    an = self.original.output if is_output else _counterpart(self.original, self.reference, name)
                    parts = (w[qn] - a[an], c[qn] - w[qn], q[qn] - c[qn], s - q[qn], s - a[an])
                    self._layer(name, t, off, int((off > limit).sum()), parts, sent.get(name, 0.0))

    def _layer(self, name: str, t: int, off: Tensor, different: int, parts: tuple[Tensor, ...], sent: float) -> None:
        self.rest = max(self.rest, float((sum(parts[:-1]) - parts[-1]).abs().max()))
        row = self.sums.setdefault(
            (name, t), {"max": 0.0, "sum": 0.0, "n": 0, "different": 0, "sent": 0.0, "parts": {}}
        )
        row["max"], row["sum"] = max(row["max"], float(off.max())), row["sum"] + float(off.sum())
        row["n"], row["different"], row["sent"] = (
            row["n"] + off.numel(),
            row["different"] + different,
            row["sent"] + sent,
        )
        for part, value in zip((*PARTS, "total"), parts, strict=True):
            old = row["parts"].get(part, (0.0, 0.0, 0.0))
            size = value.abs()
            row["parts"][part] = (
                old[0] + float(value.sum()),
                old[1] + float(size.sum()),
                max(old[2], float(size.max())),
            )

    def certificate(self, alone: Mapping[str, Mapping[str, float]], alone_at: int, labels: bool) -> Certificate:
        layers: dict[str, dict[int, Distance]] = {}
        for (name, t), row in self.sums.items():
            parts = {p: (v[0] / row["n"], v[1] / row["n"], v[2]) for p, v in row["parts"].items()}
            layers.setdefault(name, {})[t] = Distance(
                row["max"], row["sum"] / row["n"], row["different"], parts, row["sent"] / self.samples
            )
        n = self.decided
        return Certificate(
            self.samples, max(self.at), self.spiking.recipe, self.spiking.why, labels,
            self.right["original"] / n, self.right["quantised"] / n,
            {t: self.scores[t] / n for t in self.at}, layers,
            _first(self.mismatches), _first(self.values), {t: self.mismatches[t] for t in self.at}, alone, alone_at,
            {t: self.few / self.samples + sum(layers[name][t].messages for name in layers) for t in self.at}, self.rest,
        )  # fmt: skip


def _first(wrong: Mapping[int, int]) -> int | None:
    """First step from which on nothing is wrong."""
    last = max((t for t, n in wrong.items() if n), default=0)
    return last + 1 if last < max(wrong) else None


def _alone(
    tally: _Tally, chunks: Sequence[tuple[Tensor, ...]], t: int, y: Tensor | None, batch: int
) -> dict[str, dict[str, float]]:
    """Each population alone quantised, and alone spiking."""
    found: dict[str, dict[str, float]] = {}
    given = tally.spiking.dynamics
    of: dict[str, Dynamics] = dict(given) if isinstance(given, Mapping) else dict.fromkeys(tally.run.neurons, given)
    for name in tally.run.neurons:
        one = _without_levels(tally.reference, False, but=name)
        others: dict[str, Dynamics] = {n: Ideal(d.code) for n, d in of.items()}
        others[name] = of[name]
        right = {"quantised": 0, "spiking": 0}
        for k, chunk in enumerate(chunks):
            wanted = decisions(tally.original.run(*chunk)) if y is None else y[k * batch : (k + 1) * batch]
            *_, last = moments(tally.run, chunk, t, others)
            for kind, answer in (("quantised", one.run(*chunk)), ("spiking", last.estimates[tally.run.output])):
                right[kind] += int((decisions(answer) == wanted).sum())
        found[name] = {kind: n / tally.decided for kind, n in right.items()}
    return found
