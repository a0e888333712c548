"""A rule of `neuro.plasticity` in the learning engine of Loihi 2 as Lava models it: `to_loihi2`, and what it holds.

One step of the engine is one step of the rule (t_epoch 1). With S the value of one unit of a weight on the chip,

    x1 = round-at-random(exp(-dt / tau_plus) x1) + I at a spike of the source,    0..127, so x1 / I is the rule's trace
    w += post 2^e x1 at a spike of the target,    w -= pre 2^e y1 at one of the source

so a_plus = S post 2^e I: the impulse I takes what a mantissa of four bits leaves. "nearest" is an impulse of 127: the
trace cannot go beyond, so each spike sets it. The meaning is the one of `neuro.plasticity.rules` with "both", no
delays, additive, and the bounds 0..255 S or -256 S..255 S; but a spike brings the weight of the step before.

What is rounded: tau to a thousandth of a step, I to a 256th; traces and weights in every step, at random, to whole
numbers. The means are those of the rule while no trace exceeds 127 and no weight its bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware.loihi2.learning import FRACTION, RANGES, STDP, THOUSANDTHS, TRACES
from neuro.plasticity.rules import PairSTDP, Rule, parts_of

TOP = TRACES - 1
HIGHEST = 255  # of a weight
SIGNED, UNSIGNED = 1, 2  # sign_mode
CLOSE = 1e-3  # an amplitude that is off by less is as good as another


@dataclass(frozen=True)
class Converted:
    """A rule on Loihi 2.

    rule: for `neuro.hardware.loihi2.learning.plastic`. sign_mode: of the projection, 1 or 2. per_step: value of one
    unit of a weight, in the unit of the rule. held: the numbers of the chip, and its order within a step, as a rule for
    floats. remarks: what the chip does otherwise than it was asked to. dt: seconds.
    """

    rule: STDP
    held: PairSTDP
    sign_mode: int
    per_step: float
    remarks: tuple[str, ...]
    dt: float

    def weights(self, w: ArrayLike) -> NDArray[np.int64]:
        """Weights to start from, in the chip's units, to the nearest that synapses of this sign hold (signed ones are
        even)."""
        step = 2 if self.sign_mode == SIGNED else 1
        low, high = (-256, 254) if self.sign_mode == SIGNED else (0, HIGHEST)
        q = np.rint(np.asarray(w, np.float64) / self.per_step / step) * step
        held: NDArray[np.int64] = np.clip(q, low, high).astype(np.int64)
        return held

    def off_by(self, changes: int) -> float:
        """Four standard deviations, at most, of (weight on the chip - weight of ``held``), in the unit of the rule,
        while no trace and no weight is clipped. changes: of the weight, up and down.

        A trace is rounded in each step, by Bernoulli of variance 1/4 at most, which decays as the trace does:
        variance 1/4 / (1 - exp(-2 dt / tau)), and 1/4 of the impulse's fraction. Rounding the weight adds 1/4 a change.
        One draw serves all traces, so the deviations of a weight's changes are added, not their squares.
        """
        worst = 0.0
        halves = (self.held.tau_plus, self.rule.post), (self.held.tau_minus, self.rule.pre)
        for tau, (mantissa, exponent) in halves:
            trace = math.sqrt((0.25 + 0.25) / (1 - math.exp(-2 * self.dt / tau)))
            worst = max(worst, abs(mantissa) * 2.0**exponent * trace)
        return 4 * self.per_step * (changes * worst + 0.5 * math.sqrt(changes))


def to_loihi2(
    rule: Rule, dt: float = 1e-3, *, most_trace: float = 4.0, seed: int = 0, strict: bool = False
) -> Converted:
    """The two-factor rule of Loihi 2 that means the same.

    Args:
        dt: seconds of a step of the chip.
        most_trace: how far traces add up, in spikes; the impulse leaves room for it. Not used with "nearest".
        seed: of the rounding of traces, as Lava draws it.
        strict: refuse what the chip does in another order within a step, instead of remarking on it.

    Raises:
        UnsupportedNode: what the learning engine, as modelled here, has no products for; everything at once.
        PrecisionLoss: with ``strict``, a remark.
        SimulationError: a number that no register holds.
    """
    if not (0 < dt < math.inf and 1 <= most_trace < math.inf):
        raise SimulationError(f"dt must be positive and most_trace 1 or more, got {dt!r} and {most_trace!r}")
    spikes, reward, scaling = parts_of(rule)
    bad = []
    if reward is not None:
        bad.append("RewardSTDP: a rule of three factors; only two-factor rules are modelled. Learn it in floats")
    if scaling is not None:
        bad.append("Homeostasis: no rule here reads a rate; scale the weights between runs")
    if spikes is not None and not isinstance(spikes, PairSTDP):
        bad.append(f"{type(spikes).__name__}: products of three traces are not modelled; give a PairSTDP")
    if isinstance(spikes, PairSTDP):
        bad += _unsupported(spikes)
    if bad or not isinstance(spikes, PairSTDP):
        raise UnsupportedNode("Loihi 2 cannot learn this", bad)
    remarks: list[str] = []
    if spikes.simultaneous != "both":
        remarks.append(f"spikes that arrive in one step: 'both' on the chip, '{spikes.simultaneous}' in the rule")
    if strict and remarks:
        raise PrecisionLoss("Loihi 2 holds this rule only nearly", remarks)
    sign_mode = UNSIGNED if spikes.w_min == 0 else SIGNED
    step = spikes.w_max / HIGHEST
    room = None if spikes.pairing == "nearest" else TOP / most_trace
    post, impulse_x = _factor(spikes.a_plus / step, RANGES["post_mantissa"], room, "a_plus")
    pre, impulse_y = _factor(-spikes.a_minus / step, RANGES["pre_mantissa"], room, "a_minus")
    made = STDP(
        tau_pre=_thousandths(spikes.tau_plus / dt),
        tau_post=_thousandths(spikes.tau_minus / dt),
        impulse_pre=impulse_x,
        impulse_post=impulse_y,
        pre=pre,
        post=post,
        t_epoch=1,
        seed=seed,
    )
    held = replace(
        spikes,
        tau_plus=made.tau_pre * dt,
        tau_minus=made.tau_post * dt,
        a_plus=step * post[0] * 2.0 ** post[1] * impulse_x,
        a_minus=-step * pre[0] * 2.0 ** pre[1] * impulse_y,
        w_min=0.0 if sign_mode == UNSIGNED else -256 * step,
        simultaneous="both",
        delays="ignored",
    )
    for name in ("tau_plus", "tau_minus", "a_plus", "a_minus", "w_min"):
        wanted, found = getattr(spikes, name), getattr(held, name)
        if abs(found - wanted) > 1e-9 * abs(wanted):
            relative = f" ({abs(found - wanted) / abs(wanted):.2%})" if wanted else ""
            remarks.append(f"{name} is {found:.6g} instead of {wanted:.6g}{relative}")
    return Converted(made, held, sign_mode, step, tuple(remarks), dt)


def _unsupported(rule: PairSTDP) -> list[str]:
    bad = []
    if rule.weight_dependence != "additive":
        bad.append(f"weight dependence '{rule.weight_dependence}': no product with the weight is modelled; 'additive'")
    if not 0 < rule.w_max < math.inf:
        bad.append(f"w_max {rule.w_max:g}: the largest weight of the chip stands for it; it must be positive, finite")
    elif rule.w_min != 0 and not math.isclose(rule.w_min, -rule.w_max, rel_tol=1 / 128):
        bad.append(f"bounds {rule.w_min:g}..{rule.w_max:g}: weights end at 0..255 or -256..255; use 0 or -w_max")
    return bad


def _factor(a: float, mantissas: tuple[int, int], room: float | None, name: str) -> tuple[tuple[int, int], float]:
    """(mantissa, exponent) and impulse whose product is a; of those close enough the largest impulse, which rounding
    hurts least, with the least mantissa; else the closest. room: of the impulse; None: it is 127."""
    if a == 0:
        return (0, 0), TOP if room is None else math.floor(room)
    low, high = RANGES["pre_exponent"]
    best: tuple[float, float, int, tuple[int, int], float] | None = None
    for m in range(1, (mantissas[1] if a > 0 else -mantissas[0]) + 1):
        for e in range(low, high + 1):
            exact = abs(a) / (m * 2.0**e)
            impulse = float(TOP) if room is None else round(exact * FRACTION) / FRACTION
            if not 0 < impulse <= (TOP if room is None else room):
                continue
            off = abs(impulse * m * 2.0**e / abs(a) - 1)
            found = (off if off > CLOSE else 0.0, -impulse, m, (m if a > 0 else -m, e), impulse)
            best = found if best is None or found < best else best
    if best is None or best[0] > 0.5:
        raise SimulationError(f"{name} is {abs(a):.3g} units of a weight for one pair, more or less than the learning "
                              "engine holds; change w_max or the amplitude")  # fmt: skip
    return best[3], best[4]


def _thousandths(steps: float) -> float:
    return round(steps * THOUSANDTHS) / THOUSANDTHS


__all__ = ["Converted", "to_loihi2"]
