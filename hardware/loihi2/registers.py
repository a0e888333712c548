"""Choose the registers of one Loihi 2 population so that the integers stay closest to the reals.

On the chip (Lava 0.10.0, PyLifModelBitAcc; tz rounds toward zero, a is the sum of weights that arrive)::

    u = tz(u (4095 - du) / 4096) + 64 a          a = sum of (weight << exponent), per projection
    v = tz(v (4096 - dv) / 4096) + u + bias      bias = mantissa << exponent
    spike if v > 64 vth

One number ties it to reals: ``unit``, the real value of one threshold mantissa. Then one integer of v is
unit / 64, a weight integer is unit * 2**exponent, vth = threshold / unit. `fit` tries many units, scores each
with the mean square error of a step's input, and keeps the best that breaks no bound:

- |u| < 2**23 for any input whatever (u would wrap): worst row sum of weights times 1 + alpha + alpha**2 + ...
- a readout never reaches its threshold of 131071 (it would reset): the same for v with beta.

Errors below `NEGLIGIBLE` are not worth range: among equally good units the coarsest wins, which keeps vth small and
so leaves v, which saturates at -2**23, far to fall below zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuro.errors import Violation
from neuro.hardware.chip import Chip, NumberFormat
from neuro.hardware.program import QuantisationError
from neuro.hardware.quantise import (
    decay_register,
    error_of,
    geometric,
    grid_of,
    mantissa_exponent,
    smallest_unit,
    to_format,
)
from neuro.ir import Array

IntArray = NDArray[np.int64]

ACTIVITY = 0.05  # share of a neuron's inputs assumed to fire in a step, to weigh per-synapse against per-step errors
SATURATION = np.linspace(1.0, 0.52, 13)  # shares of the largest weight that may set the unit; the rest saturates
GRIDS = 8  # sizes of a weight integer tried on every grid: its largest and what divides that by 2 to GRIDS
NEGLIGIBLE = 1e-6  # relative mean square error of a step's input: a thousandth of it
SIGN_MODE = {"weight_mixed": 1, "weight_excitatory": 2, "weight_inhibitory": 3}
HOPELESS = 0.1  # relative mean square error of the weights beyond which the result is no longer the network


@dataclass(frozen=True, eq=False)
class Weights:
    """One projection in reals, gains folded in. kind: "dense" [out, in], "conv" [out, in, kh, kw], "sparse" [n].

    row: target of each synapse ("sparse"). size: number of target neurons. low, high: of a message, 0 and 1 for
    spikes.
    """

    name: str
    node: str
    kind: str
    value: Array
    size: int
    row: IntArray | None = None
    low: int = 0
    high: int = 1

    def row_sums(self, per_synapse: Array | IntArray) -> Array:
        """Sum over the synapses of each target neuron (a convolution's inner neurons): [size]."""
        if self.kind == "dense":
            return np.asarray(per_synapse.sum(axis=1), dtype=np.float64)
        if self.kind == "conv":
            per_channel = per_synapse.sum(axis=(1, 2, 3)).astype(np.float64)
            return np.repeat(per_channel, self.size // len(per_channel))
        assert self.row is not None
        return np.bincount(self.row, per_synapse, self.size).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Wanted:
    """A population in reals: i = alpha i + W s;  v = beta v + i + bias;  spike if v > threshold. All [n]."""

    name: str
    alpha: Array
    beta: Array
    threshold: Array | None  # None: a readout, which never fires
    bias: Array
    weights: tuple[Weights, ...]
    given: Array  # bound on what else may enter the current in a step, see `start`


@dataclass(frozen=True, eq=False)
class Fitted:
    """One projection in integers: weight = unit * 2**weight_exp * weight_q."""

    weight_q: IntArray
    weight_exp: int
    sign_mode: int


@dataclass(frozen=True, eq=False)
class Registers:
    """A population in integers. params: du, dv, vth, bias_mant, bias_exp. unit: reals per threshold mantissa."""

    params: dict[str, IntArray]
    fitted: tuple[Fitted, ...]
    unit: float
    budget: tuple[QuantisationError, ...]
    violations: tuple[Violation, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Choice:
    """A format and exponent for one projection at one unit."""

    format: str
    exponent: int
    square: float  # mean square error of a synapse, in reals
    high: Array  # most that can arrive in a step at each neuron, in weight integers << exponent
    low: Array


@dataclass(frozen=True, eq=False)
class _Trial:
    unit: float
    error: float
    weight_error: float
    excess: float  # > 1: a bound is broken by this factor
    exact: bool  # weights, threshold and bias are met to the last bit
    choices: tuple[Choice, ...]


class WeightSearch:
    """The formats of one projection, its candidates of a unit, and the cost of each, remembered."""

    def __init__(self, weights: Weights, chip: Chip) -> None:
        self.weights = weights
        value = weights.value
        names = ["weight_conv"] if weights.kind == "conv" else ["weight_mixed"]
        if weights.kind != "conv" and value.size:
            names += ["weight_excitatory"] * bool((value >= 0).all()) + ["weight_inhibitory"] * bool((value <= 0).all())
        self.formats: dict[str, NumberFormat] = {n: chip.formats[n] for n in names}
        conv = weights.kind == "conv"
        self.lowest = 0 if conv else chip.limit("weight_exponent_low")
        self.highest = 0 if conv else chip.limit("weight_exponent_high")
        self.mean_square = float((value**2).mean()) if value.size else 0.0
        fan_in = weights.row_sums(np.ones(value.shape)).mean() if value.size else 0.0
        self.active = max(1.0, ACTIVITY * float(fan_in))
        self._known: dict[tuple[str, float], tuple[float, Array, Array]] = {}

    def grids(self) -> Iterator[float]:
        """Sizes of a weight integer on which every weight is met exactly, the largest first."""
        for fmt in self.formats.values():
            step = grid_of(self.weights.value, fmt)
            if step is None:
                continue
            least = smallest_unit(self.weights.value, fmt)
            for finer in range(1, GRIDS + 1):
                if step / fmt.step / finer >= least * (1 - 1e-6):
                    yield step / fmt.step / finer

    def grids_with(self, bias: Array) -> Iterator[float]:
        """The largest sizes beyond those of `grids` on which biases are whole numbers of weights too."""
        for fmt in self.formats.values():
            step = grid_of(self.weights.value, fmt)
            least = smallest_unit(self.weights.value, fmt)
            if step is None or not 0 < least < np.inf:
                continue
            for finer in range(GRIDS + 1, math.floor(step / fmt.step / least * (1 + 1e-6)) + 1):
                share = bias * (finer * fmt.step / step)
                if (np.abs(share - np.rint(share)) < 1e-6).all():
                    yield step / fmt.step / finer
                    break

    def sizes(self) -> Iterator[float]:
        """Sizes of a weight integer worth trying when there is no grid."""
        for fmt in self.formats.values():
            least = smallest_unit(self.weights.value, fmt)
            if 0 < least < np.inf:
                yield from (least * share for share in SATURATION)

    def cost(self, name: str, size: float) -> tuple[float, Array, Array]:
        """(mean square error, most and least that a step can bring to each neuron) at a size of the integer."""
        key = (name, float(f"{size:.12g}"))
        if key not in self._known:
            q = to_format(self.weights.value, size, self.formats[name])
            square = float(((q * size - self.weights.value) ** 2).mean()) if q.size else 0.0
            if square <= 1e-14 * self.mean_square:
                square = 0.0  # float noise: the grid is met
            up, down = (self.weights.row_sums(part) for part in (np.maximum(q, 0), np.minimum(q, 0)))
            least, most = self.weights.low, self.weights.high
            self._known[key] = (square, up * most + down * least, down * most + up * least)
        return self._known[key]

    def best(self, unit: float) -> Choice:
        """The format and exponent with the least error of a step's input at this unit."""
        options = []
        for name, fmt in self.formats.items():
            least = smallest_unit(self.weights.value, fmt)
            enough = math.ceil(math.log2(least / unit) - 1e-9) if least > 0 else 0
            for exponent in {min(max(e, self.lowest), self.highest) for e in range(enough - 1, max(enough, 0) + 1)}:
                square, high, low = self.cost(name, unit * 2.0**exponent)
                options.append(
                    (self.active * square + _floor_square(unit, exponent), exponent, name, square, high, low)
                )
        _, exponent, name, square, high, low = min(options, key=lambda o: (o[0], abs(o[1])))
        lost = 1.0 if exponent < 0 else 0.0  # a right shift rounds the sum down by less than one
        factor = 2.0**exponent
        return Choice(name, exponent, square, high * factor, low * factor - lost)


def _floor_square(unit: float, exponent: int) -> float:
    """Square of the mean error when a sum is shifted right: (1 - 2**exponent) / 2 units."""
    return (0.5 * unit * (1.0 - 2.0**exponent)) ** 2 if exponent < 0 else 0.0


def fit(wanted: Wanted, chip: Chip, *, max_steps: int | None = None, readout_headroom: float = 1.0) -> Registers:
    """Registers for a population.

    Args:
        max_steps: longest run, to bound sums that do not leak; None for any.
        readout_headroom: share of the worst case that a readout must hold, in (0, 1].
    """
    search = _Search(wanted, chip, max_steps, readout_headroom)
    best = search.best()
    return search.registers(best)


class _Search:
    """One search: the constants that every trial shares."""

    def __init__(self, wanted: Wanted, chip: Chip, max_steps: int | None, headroom: float) -> None:
        self.wanted, self.chip = wanted, chip
        self.projections = [WeightSearch(w, chip) for w in wanted.weights]
        self.shift = 1 << chip.limit("membrane_shift")
        self.full = 1 << (chip.limit("state_bits") - 1)
        self.top = chip.formats["threshold"].high
        self.du, self.alpha = decay_register(wanted.alpha, chip.formats["decay"], chip.limit("decay_offset_u"))
        self.dv, self.beta = decay_register(wanted.beta, chip.formats["decay"], 0)
        self.sum_u = geometric(self.alpha, max_steps)
        self.sum_v = geometric(self.beta, max_steps) * headroom
        self.leaks = bool((self.dv > 0).any() or (self.alpha > 0).any())
        self.power = sum(p.active * p.mean_square for p in self.projections)
        same = wanted.threshold is not None and wanted.threshold.min() == wanted.threshold.max()
        self.one_threshold = float(wanted.threshold.flat[0]) if same and wanted.threshold is not None else None

    def best(self) -> _Trial:
        """The unit with the smallest error among those that break no bound."""
        trials = [self.judge(unit) for unit in self.on_grid()]
        good = [t for t in trials if t.excess <= 1]
        if not any(t.exact for t in good):
            trials += [self.judge(unit) for unit in self.near_grid()]
            good = [t for t in trials if t.excess <= 1]
        if not good:  # every bound shrinks as the unit grows: go just as far as needed
            far = {float(f"{t.unit * t.excess:.2g}") for t in trials if np.isfinite(t.excess)}
            rescue = [self.judge(self.dividing(unit * more)) for unit in far for more in (1.02, 1.1, 1.3, 1.7, 2.2)]
            good = [t for t in rescue if t.excess <= 1] or trials
        return min(good, key=lambda t: (not t.exact, float(f"{max(t.error, NEGLIGIBLE):.2g}"), -t.unit))

    def on_grid(self) -> list[float]:
        """Units at which the weights of every projection are met exactly; none if one has no grid."""
        weighted = [p for p in self.projections if p.mean_square > 0]
        grids = [list(p.grids()) for p in weighted]
        if not grids or not all(grids):
            return []
        if self.wanted.bias.any():
            grids += [list(p.grids_with(self.wanted.bias)) for p in weighted]
        return self.halved({size for sizes in grids for size in sizes})

    def near_grid(self) -> list[float]:
        """Units at which the largest weights of some projection just fit, or saturate a little."""
        sizes = {size for p in self.projections for size in p.sizes()}
        if not sizes:
            top = self.wanted.threshold.max() if self.wanted.threshold is not None else 0.0
            sizes = {max(float(top), float(np.abs(self.wanted.bias).max()), 1e-300) / 1024}
        return sorted({self.dividing(unit) for unit in self.halved(sizes)})

    def dividing(self, unit: float) -> float:
        """The next larger unit that divides the threshold, where there is one: the threshold is then exact."""
        theta = self.one_threshold
        return theta / math.floor(theta / unit) if theta and theta > unit else unit

    def halved(self, sizes: set[float]) -> list[float]:
        """Each size of a weight integer as a unit, and its halves down to the highest exponent."""
        highest = max((p.highest for p in self.projections), default=0)
        return sorted({size / 2**e for size in sizes for e in range(highest + 1)})

    def lattice(self, unit: float) -> bool:
        """Whether only whole weights ever arrive in v: no leak, and biases of whole weights."""
        share = self.wanted.bias / unit
        return not self.leaks and bool((np.abs(share - np.rint(share)) < 1e-6).all())

    def threshold(self, unit: float) -> IntArray:
        """vth per neuron. Where only whole weights arrive, v > threshold is exact with the mantissa rounded down."""
        if self.wanted.threshold is None:
            return np.full(self.wanted.bias.shape, self.top)
        exact = self.wanted.threshold / unit
        with np.errstate(over="ignore", invalid="ignore"):
            whole = np.floor(exact + 1e-6) if self.lattice(unit) else np.rint(exact)
            return np.minimum(whole, 2.0**40).astype(np.int64)

    def judge(self, unit: float) -> _Trial:
        """Error and bounds at one unit."""
        w, membrane = self.wanted, unit / self.shift
        choices = tuple(p.best(unit) for p in self.projections)
        high = sum((c.high for c in choices), np.zeros(w.bias.shape))
        low = sum((c.low for c in choices), np.zeros(w.bias.shape))
        most_u, once = self.shift * np.maximum(high, -low) * self.sum_u, w.given / membrane
        excess = [float((most_u + once).max(initial=0.0)) / (self.full - 1)]
        vth = self.threshold(unit)
        excess.append(float(vth.max()) / self.top)
        bias_q = np.abs(w.bias) / membrane
        highest = self.chip.formats["bias"].high << self.chip.limit("bias_exponent")
        excess.append(float(bias_q.max(initial=0.0)) / highest)
        if w.threshold is None:
            excess.append(float(((most_u + bias_q) * self.sum_v + once).max(initial=0.0)) / (self.top * self.shift))
        weights = sum((p.active * c.square for p, c in zip(self.projections, choices, strict=True)), 0.0)
        floor = sum((_floor_square(unit, c.exponent) for c in choices), 0.0)
        mantissa, exponent = self.bias(unit)
        bias = float(((mantissa * 2.0**exponent * membrane - w.bias) ** 2).mean())
        rounding = (0.5 * membrane) ** 2 if self.leaks else 0.0  # tz takes off half an integer in the mean
        error, level = (weights + floor + bias + rounding) / (self.power or 1.0), 0.0
        if w.threshold is not None and not self.lattice(unit):
            level = float((((vth * unit - w.threshold) / np.maximum(w.threshold, unit)) ** 2).mean())
        return _Trial(
            unit,
            error + level,
            weights / (self.power or 1.0),
            max(excess),
            weights + floor == 0 and bias <= 1e-14 * self.power and level <= 1e-13,
            choices,
        )

    def bias(self, unit: float) -> tuple[IntArray, int]:
        """Mantissas and exponent; the largest exponent where none suffices."""
        fmt, highest = self.chip.formats["bias"], self.chip.limit("bias_exponent")
        if not self.wanted.bias.any():
            return np.zeros(self.wanted.bias.shape, np.int64), 0
        found = mantissa_exponent(self.wanted.bias, unit / self.shift, fmt, highest)
        return found or (to_format(self.wanted.bias, unit / self.shift * 2**highest, fmt), highest)

    def registers(self, trial: _Trial) -> Registers:
        """Integers, error budget and violations of the chosen unit."""
        w, unit = self.wanted, trial.unit
        membrane = unit / self.shift
        fitted, budget = [], []
        for p, c in zip(self.projections, trial.choices, strict=True):
            size = unit * 2.0**c.exponent
            q = to_format(p.weights.value, size, p.formats[c.format])
            fitted.append(Fitted(q, c.exponent, SIGN_MODE.get(c.format, 1)))
            note = "exact: the weights lie on the chip's grid" if c.square == 0 and p.mean_square > 0 else ""
            budget.append(error_of(p.weights.node, "weight", p.weights.value, q * size, size, note))
        vth = self.threshold(unit)
        if w.threshold is not None:
            note = "rounded down, which changes no decision: only whole weights arrive" if self.lattice(unit) else ""
            kept = w.threshold if self.lattice(unit) else vth * unit
            budget.append(error_of(w.name, "threshold", w.threshold, kept, unit, note))
        mantissa, exponent = self.bias(unit)
        if w.bias.any():
            budget.append(error_of(w.name, "bias", w.bias, mantissa * 2.0**exponent * membrane, membrane * 2**exponent))
        if (w.alpha > 0).any():
            budget.append(error_of(w.name, "alpha", w.alpha, self.alpha, 2.0**-12))
        if (w.beta < 1).any():
            budget.append(error_of(w.name, "beta", w.beta, self.beta, 2.0**-12))
        params = {"du": self.du, "dv": self.dv, "vth": vth, "bias_mant": mantissa, "bias_exp": np.array(exponent)}
        return Registers(
            {n: _shared(a) for n, a in params.items()},
            tuple(fitted),
            unit,
            tuple(budget),
            tuple(self.violations(trial)),
        )

    def violations(self, trial: _Trial) -> Iterator[Violation]:
        if not np.isfinite(trial.excess):
            yield Violation(
                self.wanted.name,
                "worst-case membrane of a readout that leaks nothing in 12 bits",
                "unbounded",
                self.top * self.shift,
                "Pass max_steps, the longest sample, or use a shorter tau_mem",
            )
        elif trial.excess > 1:
            yield Violation(
                self.wanted.name,
                "range of u, v, threshold or bias at the coarsest weights",
                f"{trial.excess:.3g} times too large",
                1,
                "Bring weights, bias and threshold closer together, pass max_steps, or lower readout_headroom",
            )
        elif trial.weight_error > HOPELESS:
            yield Violation(
                self.wanted.name,
                "relative mean square error of its weights",
                f"{trial.weight_error:.2g}",
                HOPELESS,
                "Its weights are too small against its threshold, or differ too much in size for one scale: raise them "
                "(gain r, w_in), bring them closer together, or split the population",
            )


def _shared(values: IntArray) -> IntArray:
    """A scalar where all neurons share the value."""
    flat = np.asarray(values)
    return flat.reshape(-1)[:1].reshape(()) if flat.size and (flat == flat.flat[0]).all() else flat
