"""From a lowered `Network` to groups: weights shaped, registers settled, delays in ticks.

What is rounded goes to the budget, what is replaced to ``substitutions``, what cannot be held to ``violations``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.discretise import coefficients
from neuro.errors import Violation
from neuro.hardware.lowering import Bias, Lowered
from neuro.hardware.program import QuantisationError
from neuro.hardware.quantise import error_of, grid_of
from neuro.hardware.truenorth.cores import BITS
from neuro.hardware.truenorth.logical import Group, Wires
from neuro.hardware.truenorth.registers import (
    ALPHA,
    BETA,
    CHIP,
    DISTINCT,
    LEAK,
    SUMS,
    V_HIGH,
    Fitted,
    Wanted,
    exact,
    nearest,
)
from neuro.hardware.truenorth.weights import HIGH, TYPES, Shaped, shape
from neuro.ir import Array, Network

IntArray = NDArray[np.int64]
DIGITS = 7  # of the largest weight of a neuron; what float32 leaves


@dataclass(frozen=True, eq=False)
class Notes:
    """What is said about a network on its way, filled by everybody. wide: too many inputs, unless they are split."""

    wide: list[Violation] = field(default_factory=list)
    substitutions: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    budget: list[QuantisationError] = field(default_factory=list)


class Reals(NamedTuple):
    """Synapses of one population in reals, sorted by row; node: index into ``names`` of the weights' nodes."""

    row: IntArray
    source: IntArray
    neuron: IntArray
    delay: IntArray
    value: Array
    node: IntArray
    names: tuple[str, ...]


def gather(network: Network, lowered: Lowered, name: str, skew: dict[str, int], gain: Array, notes: Notes) -> Reals:
    """All synapses into a population, delays in ticks; what shares target, source and delay is added up."""
    parts: list[tuple[NDArray[np.generic], ...]] = []
    names: dict[str, int] = {}
    for s in lowered.synapses:
        if s.target != name:
            continue
        c = s.map.coordinates()
        delay = c.delay + skew[name] - skew[s.source]
        used = c.value != 0
        late = 1 - int(delay[used].min(initial=1))
        if late > 0:
            notes.substitutions.append(
                f"'{s.source}' -> '{name}' closes a loop with fewer steps of delay than connections: its spikes arrive "
                f"up to {late} step(s) late; add a Delay of that many steps to the loop to make it exact"
            )
        source = np.full(c.row.size, lowered.populations.index(s.source))
        node = np.full(c.row.size, names.setdefault(s.node, len(names)))
        columns = (c.row, source, c.col, np.maximum(delay, 1), c.value * gain[c.row], node)
        parts.append(tuple(a[used] for a in columns))
    if not parts:
        none = np.zeros(0, np.int64)
        return Reals(none, none, none, none, np.zeros(0), none, ())
    row, source, neuron, delay, value, node = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((delay, neuron, source, row))
    row, source, neuron, delay, value, node = (a[order] for a in (row, source, neuron, delay, value, node))
    key = np.stack([row, source, neuron, delay])
    new = np.flatnonzero(np.r_[True, (key[:, 1:] != key[:, :-1]).any(axis=0)]) if row.size else np.zeros(0, np.int64)
    total = np.add.reduceat(value, new) if row.size else value
    keep = total != 0
    at = new[keep]
    return Reals(row[at], source[at], neuron[at], delay[at], total[keep], node[at], tuple(names))


@dataclass(frozen=True, eq=False)
class Wish:
    """What a population asks for, in reals, all [n]. bias: sum of all; early: sum of bias times the ticks that it
    acts before the sample has come so far; held: these ticks, where they are the same for all; late: they end after
    the first input may come."""

    threshold: Array
    reset: Array
    bias: Array
    early: Array
    gain: Array
    subtract: bool
    linear: bool
    held: int | None
    late: bool


class Starter(NamedTuple):
    """The packets that the host sends at the start of each sample, as lines: group of the input, its first channel
    that is none of the network's."""

    source: int
    channel: int


def wish_of(network: Network, name: str, biases: tuple[Bias, ...], skew: int, notes: Notes) -> Wish:
    node = network.nodes[name]
    assert isinstance(node, (ir.IF, ir.LIF))
    c = coefficients(node, network.dt, network.discretisation)
    n = node.v_threshold.size
    gain = (c.gain_mem * c.gain_syn).reshape(-1)
    threshold, reset = node.v_threshold.reshape(-1), node.v_reset.reshape(-1)
    bias, early = np.zeros(n), np.zeros(n)
    for b in biases:
        bias += gain * b.value
        early += gain * b.value * (skew + b.start)
    starts = {skew + b.start for b in biases}
    if len(starts) > 1:
        notes.substitutions.append(
            f"'{name}': biases that Delays hold back differently act from the first step; V starts lower instead"
        )
    linear = isinstance(node, ir.LIF)
    if linear:
        if (bias != 0).any() or (c.drive != 0).any() or (node.reset == "hard" and (reset != 0).any()):
            notes.violations.append(
                Violation(
                    name,
                    "uses of the leak register",
                    "a linear leak, and a bias, v_leak or v_reset",
                    "one",
                    "Set bias, v_leak and v_reset to 0, or use IF",
                )
            )
        bias = -(1 - c.beta.reshape(-1)) * threshold / 2
        early = np.zeros(n)
        notes.substitutions.append(
            f"'{name}': exponential leak replaced by a linear one, towards zero, as fast as the exponential is at half "
            "of the threshold"
        )
    held = None if len(starts) > 1 or linear else starts.pop() if starts else 0
    return Wish(
        threshold, reset, bias, early, gain, node.reset == "subtract", linear, held, held is not None and held > skew
    )


def group_of(
    network: Network, name: str, reals: Reals, wish: Wish, ticks: int | None, starter: Starter | None, notes: Notes
) -> tuple[Group, Array]:
    """A population in integers, and reals per integer of each neuron. Neurons with more inputs than a core has axons
    are noted in ``notes.wide``."""
    n = wish.threshold.size
    fitted, whole = _fit(reals, wish)
    shaped, whole = _shape(name, reals, wish, fitted, whole, notes)
    unit = np.array([f.unit for f in fitted])
    registers = {
        "alpha": np.array([f.alpha for f in fitted]),
        "leak": np.array([f.leak for f in fitted]),
        "gamma": np.full(n, int(wish.subtract)),
        "epsilon": np.full(n, int(wish.linear)),
    }
    kept = whole != 0
    wires = Wires(*(a[kept] for a in (reals.row, reals.source, reals.neuron, reals.delay, whole, shaped.subset)))
    start = np.array([f.start for f in fitted])
    early = np.rint(wish.early / unit).astype(np.int64) if wish.held is None else registers["leak"] * wish.held
    registers["v0"] = start - early
    _ranges(name, registers, notes)
    registers["kappa"] = _bounds(name, registers, wires, wish, ticks, notes)
    _book(name, reals, wish, fitted, whole * unit[reals.row], unit, notes)
    group = Group(name, name, network.shapes[name], wires, shaped.values, registers)
    return _hold_back(group, start, wish, starter, notes), unit


def _rounded(values: Array, row: IntArray, n: int) -> Array:
    """Values without what the last digits of float32 add: equal where they were meant equal."""
    size = np.zeros(n)
    np.maximum.at(size, row, np.abs(values))
    size = 2.0 ** np.ceil(np.log2(np.where(size > 0, size, 1.0)))
    return np.round(values / size[row], DIGITS) * size[row]


def _fit(reals: Reals, wish: Wish) -> tuple[list[Fitted], IntArray]:
    n = wish.threshold.size
    tidy = _rounded(reals.value, reals.row, n)
    pointer = np.searchsorted(reals.row, np.arange(n + 1))
    distinct = [np.unique(tidy[a:b]) for a, b in itertools.pairwise(pointer)]
    shared = None
    if all(d.size <= DISTINCT for d in distinct) and tidy.size:
        shared = grid_of(np.unique(tidy), SUMS)
    fitted: list[Fitted] = []
    whole = np.zeros(reals.row.size, np.int64)
    for j in range(n):
        own = slice(pointer[j], pointer[j + 1])
        wanted = _wanted(wish, j, distinct[j])
        one = exact(wanted, shared) or exact(wanted, None)
        if one is None:
            one = nearest(wanted, tidy[own], _room(pointer[j + 1] - pointer[j]))
        fitted.append(one)
        whole[own] = [one.whole[x] for x in tidy[own].tolist()]
    return fitted, whole


def _wanted(wish: Wish, j: int, distinct: Array) -> Wanted:
    threshold, bias, reset = (float(a[j]) for a in (wish.threshold, wish.bias, wish.reset))
    return Wanted(tuple(distinct.tolist()), threshold, bias, reset, wish.subtract, wish.linear)


def _room(lines: int) -> int:
    """Axons per input that a neuron with so many inputs has room for; at least 2, of which {-1, 0, 1} uses one."""
    return int(min(TYPES, max(2, CHIP.limit("axons_per_core") // max(1, lines))))


def _shape(
    name: str, reals: Reals, wish: Wish, fitted: list[Fitted], whole: IntArray, notes: Notes
) -> tuple[Shaped, IntArray]:
    """Values and subsets; neurons that would need more axons than a core has are rounded to what it has room for."""
    n, most = wish.threshold.size, CHIP.limit("axons_per_core")
    keys = np.stack([reals.source, reals.neuron, reals.delay])
    line = np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1) if reals.row.size else reals.row
    tidy = _rounded(reals.value, reals.row, n)
    for _ in range(2):
        used = whole != 0
        shaped, hard = shape(reals.row[used], line[used], whole[used], n)
        subset = np.zeros(reals.row.size, np.int64)
        subset[used] = shaped.subset
        axons = np.bincount(reals.row, BITS[subset], n)
        inputs = np.bincount(reals.row, minlength=n)
        again = np.union1d(hard, np.flatnonzero((axons > most) & (inputs <= most)))
        if again.size == 0:
            break
        for j in again.tolist():
            own = np.flatnonzero(reals.row == j)
            fitted[j] = nearest(_wanted(wish, j, np.unique(tidy[own])), tidy[own], _room(own.size))
            whole[own] = [fitted[j].whole[x] for x in tidy[own].tolist()]
    wide = np.flatnonzero(axons > most)
    if wide.size:
        notes.wide.append(
            Violation(
                name,
                "axons that one neuron needs for its inputs",
                int(axons.max()),
                most,
                f"{wide.size} neuron(s) read up to {int(inputs.max())} inputs: use convolutions, groups or pruning for "
                f"at most {most} inputs with one weight each, {most // 2} with trinary ones, or compile with "
                "split_fan_in=True",
            )
        )
    return Shaped(shaped.values, subset), whole


def _ranges(name: str, registers: dict[str, IntArray], notes: Notes) -> None:
    alpha, leak = registers["alpha"], registers["leak"]
    firing = "v_threshold may be neither negative nor below v_reset, nor too far above the weights"
    driven = "Use smaller biases, or larger weights and thresholds"
    checks = (("threshold", alpha, 0, ALPHA, firing), ("leak, its bias,", leak, LEAK.low, LEAK.high, driven))
    for what, values, low, high, remedy in checks:
        bad = values[(values < low) | (values > high)]
        if bad.size:
            worst = int(bad[np.abs(bad).argmax()])
            notes.violations.append(Violation(name, f"{what} in steps of its weights", worst, f"{low}..{high}", remedy))


def _hold_back(group: Group, start: IntArray, wish: Wish, starter: Starter | None, notes: Notes) -> Group:
    """A leak acts from tick 0, the sample comes later: V starts lower, or higher where it falls, and is then right.

    Where V would start so high that the neuron fired, or a bias must wait longer than the first input, the host takes
    the leak back, tick by tick, by packets to an axon of a type that nobody uses.
    """
    leak, registers = group.registers["leak"], group.registers
    if wish.linear or wish.held is None:
        return group
    over = (registers["v0"] > start) & (registers["v0"] + leak >= registers["alpha"]) | (wish.late & (leak != 0))
    if not over.any():
        return group
    wires, n = group.wires, group.size
    free = [k for k in range(TYPES) if not (wires.subset >> k & 1).any()]
    axons = np.bincount(wires.row, BITS[wires.subset], n)
    if starter is None or not free or (axons >= CHIP.limit("axons_per_core")).any() or (leak < -HIGH).any():
        notes.substitutions.append(
            f"'{group.name}': the bias of {int(over.sum())} neuron(s) acts before its time, and no axon is free to "
            "hold it back; V starts lower instead"
        )
        lower = np.minimum(registers["v0"], registers["alpha"] - 1 - np.minimum(leak, 0))
        return replace(group, registers=registers | {"v0": lower})
    rows = np.flatnonzero(leak)
    columns = (rows, starter.source, starter.channel, wish.held, -leak[rows], 1 << free[0])
    more = Wires(*(np.broadcast_to(np.asarray(c, np.int64), rows.shape) for c in columns))
    order = np.argsort(np.concatenate([wires.row, rows]), kind="stable")
    both = Wires(*(np.concatenate(pair)[order] for pair in zip(vars(wires).values(), vars(more).values(), strict=True)))
    values = group.values.copy()
    values[:, free[0]] = -leak
    return replace(group, wires=both, values=values, registers=registers | {"v0": start})


def _bounds(
    name: str, registers: dict[str, IntArray], wires: Wires, wish: Wish, ticks: int | None, notes: Notes
) -> IntArray:
    """1 for neurons whose V may leave its range in so many ticks of the strongest input: held at -beta, not bounced."""
    n = wish.threshold.size
    up = np.bincount(wires.row, np.maximum(wires.weight, 0), n) + np.maximum(registers["leak"], 0)
    down = np.bincount(wires.row, np.minimum(wires.weight, 0), n) + np.minimum(registers["leak"], 0)
    span = np.inf if ticks is None else float(ticks)
    with np.errstate(invalid="ignore"):
        lowest = np.minimum(registers["v0"], 0) + np.where(down < 0, down * span, 0)
        rising = np.maximum(up - registers["alpha"], 0) if wish.subtract else np.zeros(n)
        highest = np.maximum(registers["alpha"], registers["v0"]) + up + np.where(rising > 0, rising * span, 0)
    low, high = lowest < -BETA, highest > V_HIGH
    for reached, end, pull in ((low, -BETA, "inhibition"), (high, V_HIGH, "excitation")):
        if reached.any():
            notes.substitutions.append(
                f"'{name}': V of {int(reached.sum())} neuron(s) stops at {end} steps of its weights, where the "
                f"strongest {pull} may take it"
                + (" in time; give max_steps if samples are short" if ticks is None else "")
            )
    return (low | high).astype(np.int64)


def _book(name: str, reals: Reals, wish: Wish, fitted: list[Fitted], weights: Array, unit: Array, notes: Notes) -> None:
    size = float(np.median(unit))
    for k, node in enumerate(reals.names):
        of = reals.node == k
        notes.budget.append(error_of(node, "weight", reals.value[of], weights[of], size))
    kept = np.array([f.kept for f in fitted]).reshape(-1, 3)
    notes.budget.append(error_of(name, "threshold", wish.threshold, kept[:, 0], size))
    notes.budget.append(error_of(name, "leak" if wish.linear else "bias", wish.bias, kept[:, 1], size))
    if not wish.subtract:
        notes.budget.append(error_of(name, "v_reset", wish.reset, kept[:, 2], size))
