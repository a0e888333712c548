"""Time constants as the words whose decays come nearest, once the machine's own arithmetic has been at them.

The machine computes exp(-step / tau) itself, in tables and fixed point, from two words. So the words are searched:
all quotients step / tau near the wanted one, and the tau next to the exact one, through the integer model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spinnaker1.plain import membrane_decay, quotient, synapse_factors
from neuro.ir import Array

Int64 = NDArray[np.int64]
ONE = 1 << 15
HIGHEST = (1 << 31) - 1
LONGEST = 340695  # step / tau beyond which the machine's exponential is 0


def _candidates(step: int, decay: float) -> Iterable[int]:
    exact = -math.log(decay) * ONE if decay > 0 else math.inf
    least = max(1, -(-step * ONE // HIGHEST))  # smaller quotients ask for a tau beyond the register
    n = round(min(max(exact, least), float(LONGEST)))
    near = [step * ONE // k for k in range(max(n - 2, least), n + 3)]
    at = step * ONE // n
    return sorted({t for t in (*near, at - 1, at, at + 1) if 1 <= t <= HIGHEST and 0 < quotient(step, t) <= LONGEST})


def _nearest(step: int, wanted: Array, result: Callable[[int], int], unit: float) -> tuple[Int64, Int64]:
    """(tau, result) per value of ``wanted``."""
    values, place = np.unique(wanted, return_inverse=True)
    taus, found = np.zeros(values.size, np.int64), np.zeros(values.size, np.int64)
    for k, decay in enumerate(values.tolist()):
        taus[k], found[k] = min(
            ((tau, result(tau)) for tau in _candidates(step, decay)), key=lambda pair: abs(pair[1] * unit - decay)
        )
    return taus[place.reshape(-1)], found[place.reshape(-1)]


def membrane(step: int, beta: Array) -> tuple[Int64, Int64]:
    """tau_m words and the decays that the machine makes of them, s16.15, for decays beta per step in 0..1.

    A neuron without leak (beta = 1) gets the longest tau, for a step of 1 ms a decay of 1 - 2^-14. At 1.0, which no
    quotient but 0 gives, its input would do nothing."""
    return _nearest(step, beta, lambda tau: membrane_decay(step, tau), 1 / ONE)


def synapse(step: int, alpha: Array) -> tuple[Int64, Int64, Int64]:
    """tau_syn words, decays and factors of what arrives, both u0.32, for decays alpha per step in 0..1."""
    taus, decays = _nearest(step, alpha, lambda tau: synapse_factors(step, tau)[0], 2.0**-32)
    values, place = np.unique(taus, return_inverse=True)
    factors = np.array([synapse_factors(step, int(tau))[1] for tau in values.tolist()], np.int64)
    return taus, decays, factors[place.reshape(-1)]
