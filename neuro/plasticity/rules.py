"""`PairSTDP`, `TripletSTDP`, `RewardSTDP`, `Homeostasis`: what synapses learn, in SI units. NumPy is not even needed.

Time goes in steps of dt. At a synapse of delay d (steps) a spike of the source in step s and one of the target in step
u arrive at::

    delays = "dendritic"   s       u + d     the delay lies behind the synapse; spikes of the target run back through it
             "axonal"      s + d   u         the delay lies before it
             "ignored"     s       u         it takes part in transmission only

and these arrival times are all that a rule knows. With t - t' the distance of two arrivals, and sums over what arrived
before t ("all") or over the latest such spike alone ("nearest"), the traces are::

    x1(t) = sum exp(-(t - t_pre) / tau_plus)     x2: the same with tau_x
    y1(t) = sum exp(-(t - t_post) / tau_minus)   y2: the same with tau_y

    a spike of the target arrives:   w up   by  f+(w) x1(t) (a_plus  + a3_plus  y2(t))
    a spike of the source arrives:   w down by  f-(w) y1(t) (a_minus + a3_minus x2(t))

    additive         f+ = f- = 1;                        a in the unit of the weight
    multiplicative   f+ = w_max - w,  f- = w - w_min;    a are plain numbers

and w is clipped to w_min..w_max after each. x2 and y2 never count the spike that arrives now (Pfister & Gerstner's
t - epsilon). Pairs have a3 = 0. Spikes of both sides that arrive in one step are ordered by ``simultaneous``::

    "post_first"   the target's raises w first; the source's then finds it: depression at distance 0   (SpiNNaker)
    "pre_first"    the source's lowers w first; the target's then finds it: potentiation at distance 0 (Brian 2)
    "both"         the source's, then the target's; each finds the other: both at distance 0           (Loihi 2, Lava)
    "neither"      the source's, then the target's; neither finds the other

A spike of the source goes on with the weight as all learning of the step of its arrival at the synapse leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from neuro.errors import NetworkError

PAIRINGS = ("all", "nearest")
DEPENDENCES = ("additive", "multiplicative")
SIMULTANEOUS = ("post_first", "pre_first", "both", "neither")
DELAYS = ("dendritic", "axonal", "ignored")
CHOICES = {
    "pairing": PAIRINGS,
    "weight_dependence": DEPENDENCES,
    "simultaneous": SIMULTANEOUS,
    "delays": DELAYS,
}


def _problems(rule: object) -> Iterator[str]:
    """Everything wrong with the numbers and words of a rule of spike times."""
    for f in fields(rule):  # type: ignore[arg-type]
        value = getattr(rule, f.name)
        if f.name in CHOICES:
            if value not in CHOICES[f.name]:
                yield f"{f.name} must be one of {CHOICES[f.name]}, got {value!r}"
        elif f.name.startswith("tau"):
            if not 0 < value < math.inf:
                yield f"{f.name} must be positive seconds, got {value!r}"
        elif f.name.startswith("a") and not math.isfinite(value):
            yield f"{f.name} must be finite, got {value!r}"
    yield from _bounds(rule)


def _bounds(rule: object) -> Iterator[str]:
    low, high = getattr(rule, "w_min"), getattr(rule, "w_max")  # noqa: B009  # of any of the rules
    if not low <= high:
        yield f"w_min <= w_max must hold, got {low!r} and {high!r}"
    bounded = getattr(rule, "weight_dependence", "additive") == "additive"
    if not bounded and not (math.isfinite(low) and math.isfinite(high)):
        yield f"a multiplicative rule needs finite bounds, got {low!r} and {high!r}"


def _refuse(rule: object, bad: list[str]) -> None:
    if bad:
        raise NetworkError(f"a {type(rule).__name__} cannot be built", bad)


@dataclass(frozen=True)
class PairSTDP:
    """Pairs of spikes (Song, Miller & Abbott 2000; traces as in Morrison, Diesmann & Gerstner 2008)::

        target after source, by T:   w += a_plus  f+(w) exp(-T / tau_plus)
        source after target, by T:   w -= a_minus f-(w) exp(-T / tau_minus)

    The head of this file has the rest. tau in seconds; a and w in the unit of the network's weights, a plain numbers
    if "multiplicative". A negative a turns its half round.

    Raises:
        NetworkError: every value that means nothing.
    """

    tau_plus: float = 20e-3
    tau_minus: float = 20e-3
    a_plus: float = 0.01
    a_minus: float = 0.012
    w_min: float = 0.0
    w_max: float = 1.0
    weight_dependence: str = "additive"
    pairing: str = "all"
    simultaneous: str = "post_first"
    delays: str = "dendritic"

    def __post_init__(self) -> None:
        _refuse(self, list(_problems(self)))


@dataclass(frozen=True)
class TripletSTDP:
    """Triplets of spikes (Pfister & Gerstner 2006, J. Neurosci. 26:9673, equations 2 to 4)::

        a spike of the target:   w += f+(w) x1 (a2_plus  + a3_plus  y2)
        a spike of the source:   w -= f-(w) y1 (a2_minus + a3_minus x2)

    The head of this file has the rest. The numbers given are those of their full model for visual cortex, all-to-all
    (table 3), where w is 1 before: 60 pairings at 10 to 50 Hz move it by tens of percent. Checked against two public
    implementations, not the article itself: all eight in russelljjarvis/SNNUtils, src/learning/stdp.jl
    (``TripletRule(5e-10, 6.2e-3, 7e-3, 2.3e-4, 101, 125, 16.8, 33.7)``, in ms), and in BlueBrain/neurox,
    misc/mechs/mod/StdpWATriplet.mod, whose amplitudes are a thousandth of these.

    Raises:
        NetworkError: every value that means nothing.
    """

    tau_plus: float = 16.8e-3
    tau_minus: float = 33.7e-3
    tau_x: float = 101e-3
    tau_y: float = 125e-3
    a2_plus: float = 5e-10
    a2_minus: float = 7e-3
    a3_plus: float = 6.2e-3
    a3_minus: float = 2.3e-4
    w_min: float = 0.0
    w_max: float = 2.0
    weight_dependence: str = "additive"
    pairing: str = "all"
    simultaneous: str = "post_first"
    delays: str = "dendritic"

    def __post_init__(self) -> None:
        _refuse(self, list(_problems(self)))


@dataclass(frozen=True)
class RewardSTDP:
    """What ``rule`` would do is only remembered; reward does it (Izhikevich 2007, Cereb. Cortex 17:2443)::

        c[t] = exp(-dt / tau_eligibility) c[t-1] + (what the rule adds in step t, f(w) with the w of that moment)
        d[t] = exp(-dt / tau_reward) d[t-1] + reward[t]      tau_reward = 0: d[t] = reward[t]
        w[t] = clip(w[t-1] + d[t] c[t])

    Once a step, after the spikes of the step. reward is given to the run, one number a step, negative for punishment;
    a in the rule is per unit of reward. tau in seconds.

    Raises:
        NetworkError: every value that means nothing.
    """

    rule: PairSTDP | TripletSTDP = PairSTDP()
    tau_eligibility: float = 1.0
    tau_reward: float = 0.0

    def __post_init__(self) -> None:
        bad = []
        if not isinstance(self.rule, (PairSTDP, TripletSTDP)):
            bad.append(f"reward wraps a PairSTDP or a TripletSTDP, got a {type(self.rule).__name__}")
        if not 0 < self.tau_eligibility < math.inf:
            bad.append(f"tau_eligibility must be positive seconds, got {self.tau_eligibility!r}")
        if not 0 <= self.tau_reward < math.inf:
            bad.append(f"tau_reward must be seconds, 0 or more, got {self.tau_reward!r}")
        _refuse(self, bad)


@dataclass(frozen=True)
class Homeostasis:
    """Synaptic scaling towards a rate (Turrigiano 1998; in the form of van Rossum, Bi & Turrigiano 2000)::

        r[t] = exp(-dt / tau_rate) r[t-1] + (1 / tau_rate where the target fires)      its rate, in hertz
        every ``interval`` seconds:  w = clip(w (1 + speed interval (rate - r) / rate))

    for all synapses onto a target alike, after the spikes and the reward of the step. r starts at ``rate``, so nothing
    moves before there is something to see. rate in hertz, speed in 1/s, the rest in seconds. rule: what else these
    synapses learn, or None.

    Raises:
        NetworkError: every value that means nothing.
    """

    rate: float
    rule: PairSTDP | TripletSTDP | RewardSTDP | None = None
    tau_rate: float = 1.0
    speed: float = 0.1
    interval: float = 0.1
    w_min: float = 0.0
    w_max: float = math.inf

    def __post_init__(self) -> None:
        bad = [
            f"{name} must be positive and finite, got {getattr(self, name)!r}"
            for name in ("rate", "tau_rate", "speed", "interval")
            if not 0 < getattr(self, name) < math.inf
        ]
        if self.rule is not None and not isinstance(self.rule, (PairSTDP, TripletSTDP, RewardSTDP)):
            bad.append(f"it goes with a PairSTDP, a TripletSTDP or a RewardSTDP, got a {type(self.rule).__name__}")
        _refuse(self, [*bad, *_bounds(self)])


Rule = PairSTDP | TripletSTDP | RewardSTDP | Homeostasis
SpikeRule = PairSTDP | TripletSTDP


def parts_of(rule: Rule) -> tuple[SpikeRule | None, RewardSTDP | None, Homeostasis | None]:
    """The spike times, the reward and the scaling in a rule.

    Raises:
        NetworkError: it is no rule.
    """
    scaling = rule if isinstance(rule, Homeostasis) else None
    inner = rule.rule if isinstance(rule, Homeostasis) else rule
    reward = inner if isinstance(inner, RewardSTDP) else None
    spikes = inner.rule if isinstance(inner, RewardSTDP) else inner
    if spikes is not None and not isinstance(spikes, (PairSTDP, TripletSTDP)):
        known = "PairSTDP, TripletSTDP, RewardSTDP, Homeostasis"
        raise NetworkError(f"no rule of plasticity: {type(rule).__name__}; there are {known}")
    return spikes, reward, scaling


def bounds_of(rule: Rule) -> tuple[float, float]:
    """Where weights stay: within the bounds of all its parts.

    Raises:
        NetworkError: there is nothing between them.
    """
    spikes, _, scaling = parts_of(rule)
    own = [part for part in (spikes, scaling) if part is not None]
    low, high = max(part.w_min for part in own), min(part.w_max for part in own)
    if low > high:
        raise NetworkError(f"the bounds of a {type(rule).__name__} leave nothing between {low!r} and {high!r}")
    return low, high


__all__ = ["Homeostasis", "PairSTDP", "RewardSTDP", "Rule", "SpikeRule", "TripletSTDP", "bounds_of", "parts_of"]
