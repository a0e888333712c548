"""What a Loihi 2 population must be given once, when a sample reaches it.

A bias register works from the chip's first step, but a sample reaches a population only ``skew`` steps later: by
then v has moved. A neuron that fires once, in the chip's first step (`START`), sends each population the difference,
through synapses with the right delay, in whole weights (64 units of v):

- v must be where the Network starts: at 0, which is -v_reset where the membrane counts from v_reset;
- a bias in front of a synapse rises as 1 - alpha**(t+1), while the register holds its final value: a single
  negative pulse at t = 0 decays just so;
- a bias that a Delay holds back is taken off until its time has come.

With the current i = u of the chip, what u must carry besides the spikes is c[t]; the pulses are
c[t] - alpha c[t-1]. They are rounded to whole weights once, an error that the leak forgets; it is in the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.lowering import Bias
from neuro.hardware.program import Population, Projection, QuantisationError
from neuro.hardware.quantise import geometric
from neuro.ir import Array

IntArray = NDArray[np.int64]

START = "start_up"
UNIT = 64  # units of v in one weight
EXCITATORY, INHIBITORY, MIXED = 2, 3, 1
MOST, HIGHEST_EXPONENT = 255, 7  # of a weight of one sign


@dataclass(frozen=True, eq=False)
class Silent:
    """A population before anything reaches it. All [n]; reset and the values of biases in units of v.

    alpha: the chip's own. bias: integers of the register. full: final current of a bias in front of the synapse.
    """

    name: str
    skew: int
    alpha: Array
    keep: IntArray  # 4096 - dv
    bias: IntArray
    vth: IntArray
    reset: Array
    biases: tuple[Bias, ...]


def most_injected(skew: int, beta: Array, register: Array, reset: Array, full: Array) -> Array:
    """Bound on the magnitude of all pulses of a population together, in its reals."""
    bound: Array = np.abs(register) * (geometric(beta, skew + 1) + 1) + np.abs(reset) + 2 * np.abs(full)
    return bound


def pulses(s: Silent) -> tuple[dict[int, IntArray], IntArray, QuantisationError]:
    """Chip step -> whole weights per neuron; neurons that fire before their sample; the rounding."""
    held = _fires(s, np.zeros(s.bias.shape, bool)) & (s.bias <= s.vth * UNIT) & (s.alpha == 0)
    early, v, fired = _before(s, held)
    wanted = _corrections(s)
    missing = -s.reset * s.keep / 4096 - np.trunc(v * s.keep / 4096)
    for step, amount in ((0, missing), (1, -s.alpha * missing)):
        wanted[step] = wanted.get(step, np.zeros(s.bias.shape)) + amount
    found, off = dict(early), np.zeros(s.bias.shape)
    for t, amount in wanted.items():
        found[s.skew + t] = np.rint(amount / UNIT).astype(np.int64)
        off = np.maximum(off, np.abs(found[s.skew + t] * UNIT - amount))
    size = np.maximum(np.where(s.vth > 0, s.vth * UNIT, 1), 1)
    error = QuantisationError(
        s.name,
        "start",
        UNIT,
        float((off / size).max()),
        float(np.sqrt(((off / size) ** 2).mean())),
        "rounding of what it is given once, in thresholds",
    )
    return {t: p for t, p in sorted(found.items()) if p.any()}, fired, error


def _fires(s: Silent, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return _before(s, held)[2] > 0


def _before(s: Silent, held: NDArray[np.bool_]) -> tuple[dict[int, IntArray], Array, IntArray]:
    """The chip's steps before the sample: pulses that hold some neurons down, v at the end, spikes."""
    v, fired = np.zeros(s.bias.shape, np.int64), np.zeros(s.bias.shape, np.int64)
    early: dict[int, IntArray] = {}
    for step in range(s.skew):
        v = np.trunc(v * s.keep / 4096).astype(np.int64) + s.bias
        if step > 0 and held.any():  # nothing can arrive in the first step
            early[step] = np.where(held, -np.rint(v / UNIT), 0).astype(np.int64)
            v = v + UNIT * early[step]
        over = v > s.vth * UNIT
        fired += over
        v = np.where(over, 0, v)
    return early, v.astype(np.float64), fired


def _corrections(s: Silent) -> dict[int, Array]:
    """Pulses that shape biases in time: sample step -> units of v."""
    last = max((b.start for b in s.biases), default=-1)
    if last < 0 or not (last > 0 or (s.alpha > 0).any()):
        return {}
    carried = np.zeros(s.bias.shape)
    found = {}
    for t in range(last + 1):
        wanted = np.zeros(s.bias.shape)
        for b in s.biases:
            wanted -= b.value * (s.alpha ** (t - b.start + 1) if t >= b.start else 1.0)
        found[t] = wanted - s.alpha * carried
        carried = wanted
    return found


def population() -> Population:
    """v = 1 > 0 in the first step; then its own synapse pulls v 2 million steps below."""
    params = {"du": 4095, "dv": 0, "vth": 0, "bias_mant": 1, "bias_exp": 0}
    return Population(START, START, "lif", (1,), {n: np.array(v) for n, v in params.items()})


def own_projection(bits: int) -> Projection:
    """What stops the neuron after its first spike: -256 * 2**7 weights."""
    params = {"weight_exp": HIGHEST_EXPONENT, "num_weight_bits": bits, "sign_mode": MIXED}
    return Projection(
        f"{START}->{START}",
        START,
        START,
        START,
        "dense",
        np.array([[-256]]),
        {n: np.array(v) for n, v in params.items()},
    )


def projections(name: str, given: dict[int, IntArray], bits: int) -> list[Projection]:
    """Synapses that deliver pulses exactly: per step and sign, weights and exponent, then what they leave over."""
    found: list[Projection] = []
    for step, amounts in given.items():
        for sign, mode in ((1, EXCITATORY), (-1, INHIBITORY)):
            rest = np.maximum(sign * amounts, 0)
            while rest.any():
                exponent = min(max(int(rest.max()).bit_length() - 8, 0), HIGHEST_EXPONENT)
                weight = np.minimum(rest >> exponent, MOST)
                row = np.flatnonzero(weight)
                params = {
                    "weight_exp": np.array(exponent),
                    "num_weight_bits": np.array(bits),
                    "sign_mode": np.array(mode),
                    "row": row,
                    "col": np.zeros(row.size, np.int64),
                }
                if step > 1:
                    params["delay_steps"] = np.full(row.size, step - 1)
                title = f"{START}->{name}" + (f"#{len(found) + 1}" if found else "")
                found.append(Projection(title, name, START, name, "sparse", sign * weight[row], params))
                rest = rest - (weight << exponent)
    return found
