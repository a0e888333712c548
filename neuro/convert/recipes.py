"""Recipes: what stands for a rectifier, and what is measured to choose it. `RECIPES` names them; docs/recipes.md.

spiking = spike(graph, x, recipe="st_bif", levels=8)     # graph: of a front end, or quantised and tuned already
spiking.run(x, steps=16).outputs[-1]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuro.convert import calibrate, engine
from neuro.convert.dynamics import Burst, Offset, Residual, Signed
from neuro.convert.engine import Dynamics
from neuro.convert.fs import count_spikes, few_spikes
from neuro.convert.graph import Graph
from neuro.convert.neurons import Firing, Settling
from neuro.convert.quantise import quantise
from neuro.convert.tune import tune
from neuro.errors import ConversionError
from neuro.extend import did_you_mean

GRADED = 1 << 30  # any level in one message


@dataclass(frozen=True, eq=False)
class Spiking:
    """A graph, and what its neurons do.

    Args:
        graph: what runs. dynamics: of all its neurons, or by population.
        reference: the quantised graph that this one is to equal; the same one where nothing is calibrated.
        recipe: its name. steps: how many it was made for. why: how it was chosen, or what it is.
    """

    graph: Graph
    dynamics: Dynamics | Mapping[str, Dynamics]
    reference: Graph
    recipe: str
    steps: int
    why: str = ""

    def run(self, *x: Tensor, steps: int | None = None) -> engine.Run:
        """`neuro.convert.engine.run` for so many steps, default those that it was made for."""
        return engine.run(self.graph, x, steps or self.steps, self.dynamics)


@dataclass(frozen=True)
class Can:
    """What a target's neurons can do: plain data, so that no chip need be known here.

    signed: messages of both signs. graded: messages with a size. levels: largest size of a graded message, None: any.
    bursts: several spikes in a step. reset: a membrane may be set anew, or read, during a run (`srp`, `offset`).
    programmable: thresholds may follow a program in time (`fs`).
    """

    signed: bool = True
    graded: bool = True
    levels: int | None = None
    bursts: bool = True
    reset: bool = True
    programmable: bool = False


@dataclass(frozen=True)
class Options:
    """What recipes are given. levels: of each population; None: as many as steps, at least 4. y: labels, for training
    and for the choice of "auto"; without, decisions are compared with those of the graph. epochs: of training."""

    steps: int = 8
    levels: int | None = None
    y: Tensor | None = None
    epochs: int = 5
    seed: int = 0
    quantise: Mapping[str, Any] = field(default_factory=dict)
    tune: Mapping[str, Any] = field(default_factory=dict)


Build = Callable[[Graph, tuple[Tensor, ...], Options], tuple[Graph, Dynamics | Mapping[str, Dynamics], Graph]]


@dataclass(frozen=True)
class Recipe:
    """doc: one line. code: of `neuro.convert.engine`. needs: of `Can`, and "labels". exact: when it equals the
    quantised graph. source: where it is from. build: (graph, data, options) -> (graph, dynamics, reference)."""

    name: str
    doc: str
    code: str
    needs: frozenset[str]
    exact: str
    source: str
    build: Build = field(repr=False)


RECIPES: dict[str, Recipe] = {}


def recipe(name: str, code: str, needs: str, exact: str, source: str) -> Callable[[Build], Build]:
    """Registers a builder; its docstring is the recipe's line."""

    def register(build: Build) -> Build:
        doc = " ".join((build.__doc__ or "").split())
        RECIPES[name] = Recipe(name, doc, code, frozenset(needs.split()), exact, source, build)
        return build

    return register


def spike(
    graph: Graph,
    *x: Tensor,
    recipe: str = "auto",
    steps: int = 8,
    levels: int | None = None,
    y: Tensor | None = None,
    can: Can | None = None,
    epochs: int = 5,
    seed: int = 0,
    quantise: Mapping[str, Any] | None = None,
    tune: Mapping[str, Any] | None = None,
) -> Spiking:
    """A spiking graph by a recipe's name, or by "auto" (`choose`).

    Args:
        x: calibration data (with y: training data of "qcfs"). steps: T that it is made for.
        levels, quantise: for `neuro.convert.quantise`, of graphs that have no neurons yet; others stay as they are.
        tune: more arguments of `neuro.convert.tune`, of "qcfs".

    Raises:
        ConversionError: an unknown recipe, labels that it needs, or what its parts refuse.
    """
    options = Options(steps, levels, y, epochs, seed, dict(quantise or {}), dict(tune or {}))
    if recipe == "auto":
        return choose(graph, x, options, can or Can())
    if recipe not in RECIPES:
        raise ConversionError(f"recipe '{recipe}' is unknown. {did_you_mean(recipe, [*RECIPES, 'auto'])}")
    row = RECIPES[recipe]
    if "labels" in row.needs and y is None:
        raise ConversionError(f"recipe '{recipe}' trains: give y, the labels of x")
    built, dynamics, reference = row.build(graph, x, options)
    return Spiking(built, dynamics, reference, recipe, steps, row.doc)


def decisions(answer: Tensor) -> Tensor:
    """Place of the largest on the last axis; of one number a sample, whether it is above 0."""
    return answer.argmax(-1) if answer.ndim > 1 and answer.shape[-1] > 1 else answer.reshape(len(answer)) > 0


def choose(graph: Graph, x: tuple[Tensor, ...], options: Options, can: Can, among: tuple[str, ...] = ()) -> Spiking:
    """The recipe of best accuracy after ``options.steps`` steps on x, among those that the target can run; of equal
    ones that with the fewest messages. Not tried: "qcfs", which trains (tune the graph first, and give that), and
    "sigma_delta", which for single inputs is "graded".

    x: a small calibration set; half of it calibrates, the other half is what recipes are compared on.
    """
    half = max(1, len(x[0]) // 2)
    fit, see = tuple(each[:half] for each in x), tuple(each[half:] if len(each) > 1 else each for each in x)
    with torch.no_grad():
        wanted = decisions(graph.run(*see)) if options.y is None else options.y[half : half + len(see[0])]
    able = {n for n in ("signed", "graded", "bursts", "reset", "programmable") if getattr(can, n)}
    rows, left = [], []
    for name in among or [n for n in RECIPES if n not in ("qcfs", "sigma_delta")]:
        row = RECIPES[name]
        lacks = row.needs - able
        if lacks:
            left.append(f"{name} (needs {', '.join(sorted(lacks))})")
            continue
        try:
            built, dynamics, reference = row.build(graph, fit, options)
        except ConversionError as cause:
            left.append(f"{name} ({cause})")
            continue
        largest = max((_largest(built, n) for n in built.neurons), default=0)
        if "graded" in row.needs and can.levels is not None and largest > can.levels:
            left.append(f"{name} (messages up to {largest}, the target's end at {can.levels})")
            continue
        found = engine.run(built, see, options.steps, dynamics)
        right = float((decisions(found.outputs[-1]) == wanted).to(torch.float64).mean())
        sent = (sum(float(each.sum()) for each in found.messages.values()) + count_spikes(built, see)) / len(see[0])
        rows.append((right, -sent, name, built, dynamics, reference))
    if not rows:
        raise ConversionError("no recipe fits the target", left)
    rows.sort(key=lambda each: (-each[0], -each[1]))
    right, sent, name, built, dynamics, reference = rows[0]
    against = "decisions of the original" if options.y is None else "labels"
    lines = [
        f"'{name}': {100 * right:.2f} % of {len(see[0])} {against} after {options.steps} steps, {-sent:.0f} messages"
    ]
    lines += [f"behind it: {n} {100 * r:.2f} % ({-s:.0f} messages)" for r, s, n, *_ in rows[1:]]
    lines += [f"left out: {each}" for each in left]
    return Spiking(built, dynamics, reference, name, options.steps, "\n".join(lines))


def _largest(graph: Graph, name: str) -> int:
    neurons: Any = graph.ops[name]
    return int(neurons.high - neurons.low)


def _quantised(graph: Graph, x: tuple[Tensor, ...], options: Options, **more: Any) -> Graph:
    if graph.neurons:
        return graph
    levels = options.levels or max(4, options.steps)
    with torch.no_grad():
        return quantise(graph, *x, **{"levels": levels, **more, **options.quantise})


@recipe("st_bif", "sum", "signed", "always, once settled", "You et al. 2024, ICML, arXiv:2406.03470")
def _st_bif(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Bipolar neurons with a tracer: spikes of both signs until the sum is the quantised value."""
    graph = _quantised(graph, x, options)
    return graph, Settling(), graph


@recipe("graded", "sum", "signed graded", "always, from the first step on", "LM-HT, Hao et al. 2024, NeurIPS")
def _graded(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Graded spikes, any number of thresholds crossed in one message: settled in one step."""
    graph = _quantised(graph, x, options)
    return graph, Settling(at_once=GRADED), graph


@recipe(
    "rate", "rate", "", "at T = levels for even input; in the mean at any T", "Bu et al. 2022, AAAI (v0 = theta / 2)"
)
def _rate(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Integrate-and-fire, reset by subtraction, v0 = theta / 2, theta of least squared error."""
    graph = _quantised(graph, x, options)
    return graph, Firing(), graph


@recipe("balance_max", "rate", "", "in the limit of large T", "Diehl et al. 2015, IJCNN")
def _balance_max(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Threshold balancing: theta = the largest activation on data, v0 = 0."""
    graph = _quantised(graph, x, options, method="max")
    return graph, Firing(0.0), graph


@recipe(
    "balance_percentile",
    "rate",
    "",
    "in the limit of large T, up to clipping",
    "Rueckauer et al. 2017, Front. Neurosci.",
)
def _balance_percentile(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Threshold balancing: theta = the 99.9th percentile of activations, v0 = 0."""
    graph = _quantised(graph, x, options, method="percentile")
    return graph, Firing(0.0), graph


@recipe("qcfs", "rate", "labels", "at T = levels for even input; in the mean at any T", "Bu et al. 2022, ICLR")
def _qcfs(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """The quantised graph is trained first, its steps too; then as "rate"."""
    assert options.y is not None
    graph = _quantised(graph, x, options, levels=options.levels or 4)
    graph = tune(graph, x, options.y, epochs=options.epochs, seed=options.seed, **options.tune)
    return graph, Firing(), graph


@recipe("light", "rate", "", "closer on the mean of each channel; never claimed", "Li et al. 2021, ICML")
def _light(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """As "rate", and biases corrected by each channel's mean difference from the original."""
    built = _quantised(graph, x, options)
    return calibrate.light(graph, built, x, options.steps, Firing()), Firing(), built


@recipe("advanced", "rate", "", "closer on the mean of each neuron; never claimed", "Li et al. 2021, ICML")
def _advanced(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """As "rate", theta by a grid, and v0 of each neuron corrected by its mean difference from the original."""
    built = _quantised(graph, x, options)
    return (*calibrate.advanced(graph, built, x, options.steps), built)


@recipe("srp", "rate", "reset", "never claimed; latency is 4 + T", "Hao et al. 2023, AAAI")
def _srp(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """4 steps to see which neurons end below 0: those stay silent in the steps that count."""
    graph = _quantised(graph, x, options)
    return graph, Residual(_waits(options, 4)), graph


@recipe("signed", "rate", "signed", "when the mean input is even at the end, at T = levels", "Wang et al. 2022, IJCAI")
def _signed(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """As "rate", and a spike sent too early is taken back by a negative one."""
    graph = _quantised(graph, x, options)
    return graph, Signed(), graph


@recipe("offset", "rate", "reset", "never claimed; latency is 4 + T", "Hao et al. 2023, ICLR")
def _offset(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """4 steps to see which neurons fired too often or too rarely: their v0 is moved by theta for those that count."""
    graph = _quantised(graph, x, options)
    return graph, Offset(_waits(options, 4)), graph


@recipe("burst", "rate", "bursts", "in the limit of large T", "Li and Zeng 2022, IJCAI")
def _burst(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """As "rate", and up to 5 spikes in a step."""
    graph = _quantised(graph, x, options)
    return graph, Burst(), graph


@recipe("fs", "sum", "programmable", "of the graph of FS neurons, always", "Stoeckl and Maass 2021, Nat. Mach. Intell.")
def _fs(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """Every function of one number by few spikes with weights, K steps per layer (K = steps, at least 4): rectifiers by
    binary expansion, others fitted."""
    built = few_spikes(graph, x, k=max(4, options.steps), seed=options.seed)
    return built, {}, built


@recipe(
    "sigma_delta", "sum", "signed graded", "always, from the first step on, frame by frame", "O'Connor, Welling 2017"
)
def _sigma_delta(graph: Graph, x: tuple[Tensor, ...], options: Options) -> Any:
    """As "graded", of frames that follow one another (`neuro.convert.stream`): only changes are sent."""
    graph = _quantised(graph, x, options)
    return graph, Settling(at_once=GRADED), graph


def _waits(options: Options, most: int) -> int:
    """Steps before those that count: within T, so that recipes are compared at equal latency."""
    return max(1, min(most, options.steps // 2))
