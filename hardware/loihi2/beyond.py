"""Sigma-delta neurons, integrators and resonators on their way to Loihi 2: registers, and how large numbers get.

One number ties a population to reals, ``unit``, the real value of one integer of its state; a message of a source
stands for ``Message.unit``. A weight integer is then unit 2^exponent / Message.unit. Weights that lie on a grid are
met exactly; else the unit is the finest that the largest weight allows, halved (by weight exponents) while threshold
and bias need it. What is sent is out >> state_exp: the smallest shift whose messages the next population can add up
in 24 bits, for any input; where no shift suffices, the layer's own weights lose bits. Lava's models hold 32 bits; the
chip's registers hold 24, so that is the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro import ir
from neuro.errors import Violation
from neuro.hardware.chip import Chip
from neuro.hardware.loihi2.registers import HOPELESS, SIGN_MODE, Choice, Fitted, Registers, Weights, WeightSearch
from neuro.hardware.program import QuantisationError
from neuro.hardware.quantise import error_of, geometric, smallest_unit, to_format
from neuro.ir import Array

IntArray = NDArray[np.int64]

FULL = (1 << 23) - 1
FINE = 64  # steps that a threshold or bias should have, where it is not met exactly
HIGHEST_STATE = 7  # state_exp has 3 bits
COARSEST = 3  # bits of its weights that a layer may lose so that its messages fit
DECAY_BITS = 12
MESSAGE_BITS = (8, 16, 24, 32)


@dataclass(frozen=True)
class Message:
    """What a population sends: integers low..high, each standing for ``unit``. total: bound on the magnitude of the
    sum of all messages of a sample, in integers."""

    unit: float = 1.0
    low: int = 0
    high: int = 1
    total: float = math.inf

    @property
    def bits(self) -> int:
        """num_message_bits of the synapses that read it; 0: spikes."""
        if (self.low, self.high) == (0, 1):
            return 0
        needed = max(self.high, -self.low - 1).bit_length() + 1
        return next((b for b in MESSAGE_BITS if b >= needed), MESSAGE_BITS[-1])


@dataclass(frozen=True, eq=False)
class Sized:
    """A population in integers, and what it sends. unit: reals per integer of its membrane."""

    model: str
    registers: Registers
    message: Message


@dataclass(frozen=True, eq=False)
class Synaptic:
    """The incoming projections of a population: choices of format and exponent, at one unit."""

    unit: float
    searches: tuple[WeightSearch, ...]
    choices: tuple[Choice, ...]

    def integers(self) -> tuple[IntArray, ...]:
        return tuple(
            to_format(p.weights.value, self.unit * 2.0**c.exponent, p.formats[c.format])
            for p, c in zip(self.searches, self.choices, strict=True)
        )

    def sums(self) -> tuple[Array, ...]:
        """Per projection: sum of |weight| << exponent of each neuron."""
        return tuple(
            p.weights.row_sums(np.abs(q)) * 2.0**c.exponent
            for p, q, c in zip(self.searches, self.integers(), self.choices, strict=True)
        )

    def arrives(self, size: int) -> Array:
        """The most that can arrive in a step, per neuron."""
        most: Array = np.zeros(size)
        for c in self.choices:
            most = most + np.maximum(c.high, -c.low)
        return most


def size_of(search: WeightSearch) -> tuple[float, bool]:
    """Reals per weight integer, and whether every weight is then exact."""
    exact = max(search.grids(), default=0.0)
    if exact > 0:
        return exact, True
    return min((smallest_unit(search.weights.value, f) for f in search.formats.values()), default=1.0) or 1.0, False


def synaptic(weights: tuple[Weights, ...], wanted: Array, chip: Chip, coarser: int = 0) -> Synaptic:
    """One unit for all projections. wanted: thresholds and biases, which should have `FINE` steps at least. coarser:
    bits of the weights that are given up for range."""
    searches = tuple(WeightSearch(w, chip) for w in weights)
    for p in searches:
        p.lowest = max(p.lowest, 0)  # a right shift rounds each step's sum down, which a sum over time never forgets
    live = [p for p in searches if p.mean_square > 0]
    fixed = [size_of(p)[0] for p in live if p.highest == 0]
    unit = max(fixed) if fixed else min((size_of(p)[0] for p in live), default=1.0)
    levels = np.abs(wanted[wanted != 0])
    spare = 0 if fixed else chip.limit("weight_exponent_high") - max((p.best(unit).exponent for p in live), default=0)
    for _ in range(spare):
        steps = levels / unit
        if not levels.size or (np.abs(steps - np.rint(steps)) < 1e-9 * steps).all() or steps.min() >= FINE:
            break
        unit /= 2
    unit *= 2.0**coarser
    return Synaptic(unit, searches, tuple(p.best(unit) for p in searches))


def fit_beyond(
    name: str,
    node: ir.Neuron,
    weights: tuple[Weights, ...],
    messages: tuple[Message, ...],
    dt: float,
    beta: Array,
    reads: float,
    chip: Chip,
    max_steps: int | None,
    headroom: float,
    substitutions: list[str],
    coarser: int = 0,
) -> Sized:
    """Registers of a population of `I`, `Delta`, `SigmaDelta` or `ResonateAndFire`.

    weights: of each incoming projection, times the unit of its source's messages. beta: decay of a resonator's
    amplitude. reads: the most weight integers that a target adds up for one unit of message. coarser: as in
    `synaptic`, tried from 0 on.
    """
    size = int(np.prod(node.shape))
    if isinstance(node, ir.ResonateAndFire):
        return _resonator(name, node, synaptic(weights, np.zeros(1), chip), dt, beta, chip, max_steps, headroom)
    levels = [np.asarray(getattr(node, n)).reshape(-1) for n in ("v_threshold", "bias") if hasattr(node, n)]
    made = synaptic(weights, np.concatenate([*levels, np.zeros(1)]), chip, coarser)
    unit, bad = made.unit, list(_hopeless(name, made))
    if isinstance(node, ir.Delta):
        most = made.arrives(size) * headroom
    else:
        totals = [_total(m, max_steps) for m in messages]
        most = np.zeros(size)
        for rows, total in zip(made.sums(), totals, strict=True):
            most = most + np.where(rows > 0, rows * (total if np.isfinite(total) else np.inf), 0) * headroom
    params: dict[str, IntArray] = {}
    budget = _weight_budget(made)
    if isinstance(node, ir.I):
        bad += _range(name, most, "sum of its input")
        top = _whole(most)
        message = Message(unit, -top, top, math.inf)
        return Sized("sigma", _registers(params, made, unit, budget, bad), message)
    assert isinstance(node, (ir.Delta, ir.SigmaDelta))
    theta = np.rint(np.asarray(node.v_threshold).reshape(-1) / unit)
    budget.append(error_of(name, "threshold", node.v_threshold.reshape(-1), theta * unit, unit))
    params |= {"cum_error": np.array(int(node.cumulative)), "spike_exp": np.array(0)}
    if isinstance(node, ir.SigmaDelta):
        bias = np.rint(np.asarray(node.bias).reshape(-1) / unit)
        if bias.any():
            budget.append(error_of(name, "bias", node.bias.reshape(-1), bias * unit, unit))
        most = most + np.abs(bias)
        params |= {"bias": _integers(bias), "relu": np.array(int(node.activation == "relu"))}
    bad += _range(name, np.maximum(most, theta), "sigma, activation or threshold")
    swing = most + theta if getattr(node, "activation", "identity") == "relu" else 2 * most + theta
    state = 0
    if isinstance(node, ir.SigmaDelta) and np.isfinite(swing).all():
        state = max(0, math.ceil(math.log2(max(float(swing.max()) * reads * headroom, 1.0) / FULL)))
        if state > HIGHEST_STATE and coarser < COARSEST:
            given = name, node, weights, messages, dt, beta, reads, chip, max_steps, headroom, substitutions
            return fit_beyond(*given, coarser + 1)
        if state > HIGHEST_STATE:
            remedy = "Lower readout_headroom, use smaller weights behind it, or fewer inputs"
            bad.append(Violation(name, "state_exp, the shift of its messages", state, HIGHEST_STATE, remedy))
        elif state:
            substitutions.append(
                f"'{name}' sends whole multiples of 2^{state} of its state, rounded down, as its readers can add up no "
                f"more in 24 bits: up to {unit * 2**state:.3g} is lost with each message"
            )
            lost = unit * 2**state / max(float(most.max()) * unit, 1e-300)
            step = unit * 2**state
            budget.append(QuantisationError(name, "message", step, lost, lost / math.sqrt(3), "rounded down"))
    params |= {"vth": _integers(theta), "state_exp": np.array(min(state, HIGHEST_STATE))}
    top = _whole(swing / 2**state)
    message = Message(unit * 2.0**state, -top, top, float((most + theta).max() / 2**state))
    model = "delta" if isinstance(node, ir.Delta) else "sigma_delta"
    return Sized(model, _registers(params, made, unit, budget, bad), message)


def _resonator(
    name: str,
    node: ir.ResonateAndFire,
    made: Synaptic,
    dt: float,
    beta: Array,
    chip: Chip,
    max_steps: int | None,
    headroom: float,
) -> Sized:
    """state_exp as large as the bound allows: states then have the most bits behind the point."""
    turn, one = 2 * np.pi * dt / np.asarray(node.period).reshape(-1), 1 << DECAY_BITS
    decays = {n: f(turn) * beta for n, f in (("sin_decay", np.sin), ("cos_decay", np.cos))}
    params = {n: np.clip(np.rint(d * one), 1 - one, one - 1).astype(np.int64) for n, d in decays.items()}
    kept = np.hypot(params["sin_decay"], params["cos_decay"]) / one
    most = made.arrives(beta.size) * geometric(kept, max_steps) * headroom
    theta = np.asarray(node.v_threshold).reshape(-1)
    largest = max(float(most.max()), float(np.abs(theta).max() / made.unit))
    state, bad = 0, list(_hopeless(name, made))
    while state < HIGHEST_STATE and largest * 2 ** (state + 1) <= FULL:
        state += 1
    bad += _range(name, np.array([largest * 2**state]), "real or imaginary part")
    unit = made.unit / 2**state
    vth = np.rint(theta / unit)
    if (vth < 1).any():
        bad.append(Violation(name, "v_threshold on the chip", f"{vth.min():g}", "at least 1", "Raise v_threshold"))
    budget = _weight_budget(made) + [error_of(name, n, d, params[n] / one, 1 / one) for n, d in decays.items()]
    budget.append(error_of(name, "threshold", theta, vth * unit, unit))
    params |= {"decay_bits": np.array(DECAY_BITS), "state_exp": np.array(state), "vth": _integers(vth)}
    return Sized("rf_iz" if node.resets else "rf", _registers(params, made, unit, budget, bad), Message())


def reads_of(weights: Mapping[str, list[Weights]], chip: Chip) -> float:
    """The most weight integers that any target adds up for messages of one source; by target, as for `synaptic`."""
    most = 0.0
    for into in weights.values():
        total = 0.0
        for w in into:
            search = WeightSearch(w, chip)
            if search.mean_square > 0:
                total += float((w.row_sums(np.abs(w.value)) / size_of(search)[0]).max())
        most = max(most, total)
    return most


def _total(message: Message, max_steps: int | None) -> float:
    if np.isfinite(message.total):
        return message.total
    return math.inf if max_steps is None else float(max_steps * max(message.high, -message.low))


def _registers(
    params: dict[str, IntArray], made: Synaptic, unit: float, budget: list[QuantisationError], bad: list[Violation]
) -> Registers:
    fitted = tuple(
        Fitted(q, c.exponent, SIGN_MODE.get(c.format, 1)) for q, c in zip(made.integers(), made.choices, strict=True)
    )
    return Registers({n: _shared(a) for n, a in params.items()}, fitted, unit, tuple(budget), tuple(bad))


def _weight_budget(made: Synaptic) -> list[QuantisationError]:
    found = []
    for p, q, c in zip(made.searches, made.integers(), made.choices, strict=True):
        size = made.unit * 2.0**c.exponent
        note = "exact: the weights lie on the chip's grid" if c.square == 0 and p.mean_square > 0 else ""
        found.append(error_of(p.weights.node, "weight", p.weights.value, q * size, size, note))
    return found


def _hopeless(name: str, made: Synaptic) -> list[Violation]:
    power = sum(p.mean_square for p in made.searches)
    error = sum(c.square for c in made.choices) / (power or 1.0)
    if error <= HOPELESS:
        return []
    remedy = "Its weights differ too much in size for one scale: bring them closer together, or split the population"
    return [Violation(name, "relative mean square error of its weights", f"{error:.2g}", HOPELESS, remedy)]


def _range(name: str, most: Array, what: str) -> list[Violation]:
    largest = float(most.max(initial=0.0))
    if largest <= FULL:
        return []
    wanted = f"{largest:.3g}" if np.isfinite(largest) else "unbounded"
    remedy = "Pass max_steps, the longest sample, put a Delta in front, use fewer inputs, or lower readout_headroom"
    return [Violation(name, f"range of {what}", wanted, FULL, remedy)]


def _whole(values: Array) -> int:
    largest = float(values.max(initial=0.0))
    return int(min(math.ceil(largest), (1 << 31) - 1)) if np.isfinite(largest) else (1 << 31) - 1


def _integers(values: Array) -> IntArray:
    return np.asarray(np.clip(values, -(2.0**31), 2.0**31 - 1), np.int64)


def _shared(values: IntArray) -> IntArray:
    flat = np.asarray(values).reshape(-1)
    return flat[:1].reshape(()) if flat.size and (flat == flat[0]).all() else flat
