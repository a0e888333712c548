"""Two-factor STDP: `STDP`, `plastic`, and what a plastic projection's parameters mean.

Lava's own label for the model behind this is "bit approximate": it uses the widths of Loihi's learning engine but
does not claim its bits, and neither does axonport. What is exact is Lava's model, with its seed (lava.proc.dense.
PyLearningDenseModelBitApproximate with a Loihi2FLearningRule, 0.10.0).

Traces x1 (of sources) and y1 (of targets) are integers 0..127. Every t_epoch steps, with r drawn anew:

    for q = 1..t_epoch:  trace = floor(f) + (r < frac f),  f = exp(-1 / tau) trace
                         where the last spike of the epoch was in step q: trace = clip(trace + impulse) to 0..127, a
                         fraction of the impulse rounded up with its probability
    weight (7 bits behind the point):
        += [x0] y1(q of the source's last spike) pre_mantissa  2^(7 + pre_exponent)      x0: the source has spiked
        += [y0] x1(q of the target's last spike) post_mantissa 2^(7 + post_exponent)     y0: the target has spiked
        each product and each sum clipped to -2^15 - 1 .. 2^15 - 1, then rounded to a whole weight by r, then clipped

An earlier spike in the same epoch adds its impulse at once. Weights act from the step after the epoch's end. Random
numbers: PCG64 seeded with seed (decay of x1), seed + 1 (impulses of x1), + 2, + 3 (of y1), and 2 for the weights,
whatever the seed, as Lava has it; one number for all traces or weights of a kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program, Projection

IntArray = NDArray[np.int64]

THOUSANDTHS = 1000  # of a step, in which time constants are held
FRACTION = 256  # parts in which impulses are held, as on the chip
TRACES = 128  # values of a trace, compiled into kernels (neuro.jit)
# parameters of a plastic projection and their ranges; exponents as in the rule's formula
RANGES = {
    "t_epoch": (1, 63),
    "rng_seed": (0, (1 << 31) - 8),
    "x1_tau": (1, 1 << 30),
    "y1_tau": (1, 1 << 30),
    "x1_impulse": (0, 127 * FRACTION),
    "y1_impulse": (0, 127 * FRACTION),
    "pre_mantissa": (-8, 7),
    "pre_exponent": (-7, 8),
    "post_mantissa": (-8, 7),
    "post_exponent": (-7, 8),
}
WEIGHTS = {1: (-256, 255), 2: (0, 255), 3: (-255, 0)}  # by sign_mode
VARIABLES = ("weights", "x1", "y1")


@dataclass(frozen=True)
class STDP:
    """Pair rule: dw = pre x0 y1 + post y0 x1, applied every t_epoch steps.

    tau_pre, tau_post: time constants of x1 and y1, in steps, to a thousandth. impulse_pre, impulse_post: what a spike
    adds to its trace, 0..127, to a 256th. pre, post: (mantissa, exponent) of the weight change per unit of trace,
    mantissa 2^exponent; pre is usually negative. seed: of the traces' rounding.

    Raises:
        SimulationError: a number that the registers do not hold, all of them.
    """

    tau_pre: float = 10.0
    tau_post: float = 10.0
    impulse_pre: float = 16.0
    impulse_post: float = 16.0
    pre: tuple[int, int] = (-1, -2)
    post: tuple[int, int] = (1, -2)
    t_epoch: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        bad = list(_outside({n: np.array(v) for n, v in self.params().items()}))
        bad += [
            f"{name} must be a whole number of {unit}, got {value!r}"
            for name, value, unit, parts in (
                ("tau_pre", self.tau_pre, "thousandths of a step", THOUSANDTHS),
                ("tau_post", self.tau_post, "thousandths of a step", THOUSANDTHS),
                ("impulse_pre", self.impulse_pre, "256ths", FRACTION),
                ("impulse_post", self.impulse_post, "256ths", FRACTION),
            )
            if abs(value * parts - round(value * parts)) > 1e-6
        ]
        if bad:
            raise SimulationError("these are no parameters of STDP on Loihi 2", bad)

    def params(self) -> dict[str, int]:
        """As a `Projection` holds them."""
        return {
            "t_epoch": self.t_epoch,
            "rng_seed": self.seed,
            "x1_tau": round(self.tau_pre * THOUSANDTHS),
            "y1_tau": round(self.tau_post * THOUSANDTHS),
            "x1_impulse": round(self.impulse_pre * FRACTION),
            "y1_impulse": round(self.impulse_post * FRACTION),
            "pre_mantissa": self.pre[0],
            "pre_exponent": self.pre[1],
            "post_mantissa": self.post[0],
            "post_exponent": self.post[1],
        }


def plastic(program: Program, projection: str, rule: STDP) -> Program:
    """The same program with one "dense" projection learning by ``rule``.

    Probe (projection, "weights" | "x1" | "y1") for weights [out, in] flattened and traces after each step; each sample
    starts from the program's weights.

    Raises:
        SimulationError: no such projection, or one that cannot learn.
    """
    names = [p.name for p in program.projections]
    if projection not in names:
        raise SimulationError(f"no projection '{projection}'. {did_you_mean(projection, names)}")
    made = tuple(
        replace(p, params={**p.params, **{n: np.array(v) for n, v in rule.params().items()}})
        if p.name == projection
        else p
        for p in program.projections
    )
    bad = [line for p in made if p.name == projection for line in problems(p)]
    if bad:
        raise SimulationError(f"projection '{projection}' cannot learn", bad)
    return replace(program, projections=made)


def learns(projection: Projection) -> bool:
    """Whether a projection is plastic."""
    return "t_epoch" in projection.params


def problems(projection: Projection) -> Iterator[str]:
    """Everything wrong with a plastic projection."""
    if projection.kind != "dense":
        yield f"only a 'dense' projection learns, this is '{projection.kind}'"
        return
    if "delay_steps" in projection.params:
        yield "a projection that learns has no delays"
    if projection.params.get("num_message_bits", np.array(0)).any():
        yield "a projection that learns takes spikes, no graded messages"
    if projection.params.get("port", np.array(0)).any():
        yield "a projection that learns ends at port 0"
    yield from _outside(projection.params)
    mode = int(projection.params.get("sign_mode", np.array(0)))
    if mode not in WEIGHTS:
        yield f"sign_mode must be given, 1, 2 or 3, got {mode}"
    elif projection.weight_q.size:
        low, high = WEIGHTS[mode]
        if projection.weight_q.min() < low or projection.weight_q.max() > high:
            yield f"weights must lie in {low}..{high}, found {projection.weight_q.min()}..{projection.weight_q.max()}"


def _outside(params: object) -> Iterator[str]:
    assert hasattr(params, "get")
    for name, (low, high) in RANGES.items():
        value = params.get(name)
        if value is None or np.shape(value) != ():
            yield f"{name} must be one number"
        elif not low <= int(value) <= high:
            yield f"{name} must lie in {low}..{high}, got {int(value)}"


def decay_table(tau: int) -> tuple[IntArray, IntArray]:
    """(floor, chance) of a trace 0..127 after one step: chance 2^-53 that it is one more. tau in thousandths."""
    # as an array, as Lava does it: NumPy's exp of a scalar need not be that of an array
    real = np.exp(-1 / np.array([[tau / THOUSANDTHS]])) * np.arange(TRACES)
    whole = np.floor(real[0])
    return whole.astype(np.int64), np.ceil((real[0] % 1) * 2.0**53).astype(np.int64)


def draws(projection: Projection, steps: int) -> IntArray:
    """[5, 2 steps + 1]: what Lava's generators give: decay and impulse of x1, of y1 (one for the start, two a step),
    and the weights' (one for the start, one an epoch). Reals in 2^-53, impulses 0..127."""
    seed, count = int(projection.params["rng_seed"]), 2 * steps + 1
    found = np.zeros((5, count), np.int64)
    for row, k in ((0, seed), (2, seed + 2), (4, 2)):
        found[row] = (np.random.default_rng(k).random(count) * 2.0**53).astype(np.int64)
    for row, k in ((1, seed + 1), (3, seed + 3)):
        found[row] = np.random.default_rng(k).integers(0, TRACES, size=count, dtype=np.int64)
    return found
