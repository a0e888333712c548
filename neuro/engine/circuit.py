"""`Circuit`: a large sparse recurrent network as populations and rules, in SI units. `neuro.simulate` runs it.

Time, as in Brian 2: in step t neurons take what has arrived, integrate, and fire where v > v_threshold. A spike of
step t with a delay of d whole steps arrives in step t + d, after the thresholds of that step, so it is integrated in
step t + d + 1. A neuron that fires is set to v_reset and held there for ``refractory`` seconds (rounded to steps);
what jumps its membrane in that time is lost, synaptic currents go on.

Everything random (who is joined to whom, weights, delays, first membranes, Poisson spikes) is a function of ``seed``
and of what it is for; it depends neither on threads nor on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from neuro.errors import NetworkError
from neuro.extend import did_you_mean

MAX_DELAY_STEPS = 254
ARITHMETICS = ("float32", "loihi2")
METHODS = ("exact", "euler")


@dataclass(frozen=True)
class Uniform:
    """Numbers of [low, high)."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Normal numbers; those outside of [low, high] are set to the nearer bound."""

    mean: float
    sd: float
    low: float = -np.inf
    high: float = np.inf


Value = float | Uniform | Normal | ArrayLike


@dataclass(frozen=True)
class Delta:
    """A spike moves the membrane: v += weight (volts)."""


@dataclass(frozen=True)
class Exponential:
    """Current that decays: i += weight (amperes), tau di/dt = -i. tau in seconds."""

    tau: float


@dataclass(frozen=True)
class Alpha:
    """Current that rises and decays: a += weight, tau da/dt = -a, tau di/dt = e a - i; its peak, after tau, is the
    weight (amperes)."""

    tau: float


@dataclass(frozen=True)
class Conductance:
    """Conductance that decays: g += weight (siemens), tau dg/dt = -g; current g (reversal - v). Euler's method only."""

    tau: float
    reversal: float


Receptor = Delta | Exponential | Alpha | Conductance


@dataclass(frozen=True, eq=False)
class LIF:
    """Leaky integrate-and-fire: tau_mem dv/dt = -(v - v_rest) + r_mem (sum of currents + i_ext).

    Under "exact" the step is the solution of that equation (Rotter & Diesmann 1999); under "euler" explicit Euler's.
    Seconds, volts, ohms, amperes. i_ext: constant, for all or one per neuron. v_start: membranes before step 0, a
    number, one per neuron, or a distribution. receptors: name -> kind; a projection says which it ends in.
    """

    tau_mem: float
    v_threshold: float
    v_reset: float = 0.0
    v_rest: float = 0.0
    refractory: float = 0.0
    r_mem: float = 1.0
    i_ext: ArrayLike = 0.0
    v_start: Value | None = None
    receptors: Mapping[str, Receptor] = field(default_factory=lambda: {"delta": Delta()})


@dataclass(frozen=True, eq=False)
class Loihi2LIF:
    """Loihi 2's neuron in its own integers, Lava's LIF (`neuro.hardware.loihi2.neurons`), a the sum of weights::

        u = once(tz(u (4095 - du) / 4096) + (a << 6));  v = clip(tz(v (4096 - dv) / 4096) + u + bias)
        fires where v > vth << 6; then v = 0

    Integers, for all or one per neuron. keep_u = 4095 - du and keep_v = 4096 - dv are what `neuro.hardware` holds.
    """

    du: ArrayLike
    dv: ArrayLike
    vth: ArrayLike
    bias: ArrayLike = 0
    receptors: Mapping[str, Receptor] = field(default_factory=lambda: {"delta": Delta()})


@dataclass(frozen=True)
class Poisson:
    """Sources without state: in each step one fires with probability rate dt. rate in hertz."""

    rate: float


@dataclass(frozen=True, eq=False)
class Given:
    """Sources whose spikes are given: int64[n] steps, ascending, and neurons."""

    steps: ArrayLike
    neurons: ArrayLike


@dataclass(frozen=True, eq=False)
class Population:
    """So many neurons of one model."""

    size: int
    model: LIF | Loihi2LIF | Poisson | Given


@dataclass(frozen=True)
class FixedProbability:
    """Each pair is joined with this probability; no pair twice."""

    probability: float
    self_connections: bool = True


@dataclass(frozen=True)
class FixedInDegree:
    """Each target has so many sources, drawn with replacement."""

    count: int
    self_connections: bool = True


@dataclass(frozen=True)
class FixedOutDegree:
    """Each source has so many targets, drawn with replacement."""

    count: int
    self_connections: bool = True


@dataclass(frozen=True)
class OneToOne:
    """Neuron i to neuron i."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """These synapses. sources, targets: integers [n]; weight and delay of the projection may be arrays [n]."""

    sources: ArrayLike
    targets: ArrayLike


Rule = FixedProbability | FixedInDegree | FixedOutDegree | OneToOne | Pairs


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another. weight in the unit of the receptor; delay in seconds, 0 to 254 steps."""

    source: str
    target: str
    rule: Rule
    weight: Value
    delay: Value = 0.0
    receptor: str = "delta"


@dataclass(frozen=True)
class Drive:
    """Spikes from outside, private to each neuron of ``target``: in each step Binomial(sources, rate dt) of them, each
    worth ``weight``; as that many independent sources. rate in hertz."""

    target: str
    rate: float
    weight: float
    sources: int = 1
    receptor: str = "delta"


@dataclass(frozen=True, eq=False)
class Circuit:
    """A network as rules.

    Args:
        populations: name -> `Population`. projections, drives: in any order; it is part of the meaning of the seed.
        dt: seconds of a step. method: "exact" or "euler". seed: of everything random, 0 to 2^64 - 1.
        arithmetic: "float32" or a chip's integers, "loihi2" (all neurons `Loihi2LIF`, integer weights, delays whole
            steps of dt).

    Raises:
        NetworkError: with every problem at once.
    """

    populations: Mapping[str, Population]
    projections: tuple[Projection, ...] = ()
    drives: tuple[Drive, ...] = ()
    dt: float = 1e-4
    method: str = "exact"
    seed: int = 0
    arithmetic: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "projections", tuple(self.projections))
        object.__setattr__(self, "drives", tuple(self.drives))
        from neuro.engine.check import problems  # here: it reads the types above

        bad = problems(self)
        if bad:
            raise NetworkError("circuit cannot be built", bad)

    @property
    def neurons(self) -> int:
        """Neurons and sources in all."""
        return sum(p.size for p in self.populations.values())

    def receptor(self, target: str, name: str) -> int:
        """Number of a receptor of a population."""
        return list(self.receptors(target)).index(name)

    def receptors(self, target: str) -> Mapping[str, Any]:
        """Receptors of a population; sources have none."""
        return getattr(self.populations[target].model, "receptors", {})


def unknown(name: str, known: Mapping[str, Any]) -> str:
    """What to say of a name that nothing has."""
    return f"no '{name}'. {did_you_mean(name, known)}"
