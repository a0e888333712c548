"""A rule of `neuro.plasticity` in the integers of SpiNNaker 1: `to_spinnaker`, what that holds, and how far it is off.

The machine's meaning (sPyNNaker 7.4.1, `stdp_kernels.py`) is the one of `neuro.plasticity.rules` with all pairs,
"post_first", and delays "dendritic" or "ignored"; a weight is brought up to date when its source fires, in the order of
arrivals, so later, not otherwise. What is rounded: w_min, w_max and a to 2^-15 nA, exp(-t/tau) down to 2^-11, every
product down, and a weight down to the unit of its ring buffer whenever its source fires.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from neuro.errors import PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware.spinnaker1 import fixed, stdp
from neuro.plasticity.rules import PairSTDP, Rule, parts_of

MOST_ENTRIES = (1 << 16) - 1  # of a table of decays: its size is a 16-bit number
TRACE_BIT = 2.0**-11
WEIGHT_BIT = 2.0**-15


@dataclass(frozen=True)
class Converted:
    """A rule on SpiNNaker 1.

    rule: for `neuro.hardware.spinnaker1.circuit.Projection`. held: the same numbers, and the same order within a step,
    as a rule for floats. remarks: what the machine does otherwise than it was asked to. per_unit: nA of one unit of
    the rule's weights. time_step: seconds.
    """

    rule: stdp.PairSTDP
    held: PairSTDP
    remarks: tuple[str, ...]
    per_unit: float
    time_step: float

    def off_by(self, changes: int, visits: int, shift: int, interval: float) -> float:
        """A bound on |weight on the machine - weight of ``held``|, in the unit of the rule, while weights stay clear
        of w_min and w_max (there the error can only shrink, if the rule is additive).

        Args:
            changes: of the weight, up and down. visits: spikes of its source. shift: of the ring buffers
                (`Session.loaded.cores.shift`). interval: least seconds between two spikes of one neuron.

        With q = exp(-interval / tau), traces are at most 1 / (1 - q). One update of a trace is off by a table entry
        and a product, each less than 2^-11 of it; reading it once more.
        """
        r, worst = self.held, 0.0
        span = (r.w_max - r.w_min) * self.per_unit
        for tau, a in ((r.tau_plus, r.a_plus), (r.tau_minus, r.a_minus)):
            most = 1 / (1 - math.exp(-interval / tau))
            trace = (most + 1) * TRACE_BIT * (most + 1)
            size = abs(a) * (self.per_unit if r.weight_dependence == "additive" else span)
            worst = max(worst, size * trace + 2 * WEIGHT_BIT * (1 + most))
        return (changes * worst + (visits + 1) * 2.0 ** (shift - 15)) / self.per_unit


def to_spinnaker(rule: Rule, time_step: float = 1e-3, *, per_unit: float = 1.0, strict: bool = False) -> Converted:
    """The pair rule of SpiNNaker 1 that means the same.

    Args:
        time_step: of the machine, in seconds.
        per_unit: nA that one unit of the rule's weights is: 1e9 where the network counts in amperes.
        strict: refuse what the machine does in another order within a step, instead of remarking on it.

    Raises:
        UnsupportedNode: what the machine has no code for, everything at once.
        PrecisionLoss: with ``strict``, a remark.
        NetworkError: numbers that s16.15 does not hold (`neuro.hardware.spinnaker1.stdp.PairSTDP`).
        SimulationError: per_unit or time_step that is not positive.
    """
    if not (0 < per_unit < math.inf and 0 < time_step < math.inf):
        raise SimulationError(f"per_unit and time_step must be positive, got {per_unit!r} and {time_step!r}")
    spikes, reward, scaling = parts_of(rule)
    bad = []
    if reward is not None:
        bad.append("RewardSTDP: its kernels have no eligibility traces here; learn in floats, or between runs")
    if scaling is not None:
        bad.append("Homeostasis: its neurons keep no rate; scale the weights between runs")
    if spikes is not None and not isinstance(spikes, PairSTDP):
        bad.append(f"{type(spikes).__name__}: its synapses keep traces for pairs only; give a PairSTDP")
    if isinstance(spikes, PairSTDP):
        bad += _unsupported(spikes, time_step)
    if bad or not isinstance(spikes, PairSTDP):
        raise UnsupportedNode("SpiNNaker 1 cannot learn this", bad)
    remarks: list[str] = []
    if spikes.simultaneous != "post_first":
        remarks.append(
            f"spikes that arrive in one step: 'post_first' on the machine, '{spikes.simultaneous}' in the rule"
        )
    if strict and remarks:
        raise PrecisionLoss("SpiNNaker 1 holds this rule only nearly", remarks)
    additive = spikes.weight_dependence == "additive"
    factor = per_unit if additive else 1.0
    made = stdp.PairSTDP(
        tau_plus=_ms(spikes.tau_plus),
        tau_minus=_ms(spikes.tau_minus),
        a_plus=spikes.a_plus * factor,
        a_minus=spikes.a_minus * factor,
        w_min=spikes.w_min * per_unit,
        w_max=spikes.w_max * per_unit,
        weight_dependence=spikes.weight_dependence,
        backprop_delay=spikes.delays == "dendritic",
    )
    real = [int(x) / fixed.ONE for x in fixed.raw([made.a_plus, made.a_minus, made.w_min, made.w_max])]
    held = replace(
        spikes,
        a_plus=real[0] / factor,
        a_minus=real[1] / factor,
        w_min=real[2] / per_unit,
        w_max=real[3] / per_unit,
        simultaneous="post_first",
    )
    for name in ("a_plus", "a_minus", "w_min", "w_max"):
        wanted, found = getattr(spikes, name), getattr(held, name)
        if abs(found - wanted) > 1e-12 * abs(wanted):
            relative = f" ({abs(found - wanted) / abs(wanted):.2%})" if wanted else ""
            remarks.append(f"{name} is {found:.6g} instead of {wanted:.6g}{relative}")
    return Converted(made, held, tuple(remarks), per_unit, time_step)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 12)  # 0.0168 s is 16.8 ms, not 16.799999999999997


def _unsupported(rule: PairSTDP, time_step: float) -> list[str]:
    bad = []
    if rule.pairing != "all":
        bad.append(f"pairing '{rule.pairing}': its traces add up all spikes; use 'all'")
    if rule.delays == "axonal":
        bad.append("delays 'axonal': a delay lies behind the synapse there; use 'dendritic' or 'ignored'")
    if rule.w_min < 0:
        bad.append(f"w_min {rule.w_min:g}: weights are unsigned; use an inhibitory projection")
    if not math.isfinite(rule.w_max):
        bad.append(f"w_max {rule.w_max}: a ring buffer needs a bound")
    for name in ("tau_plus", "tau_minus"):
        entries = math.log(stdp.TRACE_ONE) * getattr(rule, name) / time_step
        if entries > MOST_ENTRIES:
            bad.append(f"{name} {getattr(rule, name):g} s: a table of {entries:.0f} decays, {MOST_ENTRIES} at most")
    return bad


__all__ = ["Converted", "to_spinnaker"]
