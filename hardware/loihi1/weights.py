"""From the weight a user writes to what one spike adds to the current u: where the accounts of Loihi 1 differ.

brian2loihi (Michaelis et al. 2022; brian2-loihi 0.5), p = 2^(8 - (bits - mixed))::

    w     = trunc(w / p) p
    w_act = clip(floor(w 2^(6 + w_exp) / 64) 64, +-(2^21 - 64))        floor: -1 at w_exp -8 gives -64, never 0

nengo (nengo-loihi 1.1, real weights in), s = 8 - bits + mixed, m = 2^(8 - s) - 1, s2 = s + w_exp::

    q = clip(rint(w / 2^s), -m, m);  if s2 < 0: q = int(clip(rint(q 2^s2) 2^-s2, -m, m))
    w_act = (q << s2 or q >> -s2) << 6                                 rint: half to even
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
MIXED = 1  # sign modes: 1 mixed, 2 excitatory, 3 inhibitory


def brian2loihi(weight_q: ArrayLike, weight_exp: int, num_weight_bits: int, sign_mode: int) -> IntArray:
    """int64: what one spike adds to the current. weight_q: integers as the user of brian2-loihi writes them."""
    lost = 8 - (num_weight_bits - (sign_mode == MIXED))
    weight = np.asarray(weight_q, dtype=np.int64)
    kept = np.sign(weight) * (np.abs(weight) >> lost << lost)
    exponent = 6 + weight_exp
    shifted = kept << exponent if exponent >= 0 else kept >> -exponent  # >> floors, as np.floor does
    most = (1 << 21) - 64
    actual: IntArray = np.clip((shifted >> 6) << 6, -most, most)
    return actual


def nengo(weight: ArrayLike, weight_exp: int, num_weight_bits: int, sign_mode: int) -> IntArray:
    """int64: what one spike adds to the current. weight: reals (or integers) in units of 2^weight_exp."""
    shift = 8 - num_weight_bits + (sign_mode == MIXED)
    most = (1 << (8 - shift)) - 1
    q = np.clip(np.rint(np.asarray(weight, dtype=np.float64) / (1 << shift)), -most, most).astype(np.int64)
    total = shift + weight_exp
    if total < 0:
        coarse = np.clip(np.rint(q * 2.0**total) * 2.0**-total, -most, most)
        q = np.trunc(coarse).astype(np.int64)
    actual: IntArray = (q << total if total >= 0 else q >> -total) << 6
    return actual
