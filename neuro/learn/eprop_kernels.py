"""Eligibility traces of every synapse, forwards in time: the compiled loop of `neuro.learn.eprop` (neuro.jit)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint

A = NDArray[Any]
U = np.uint64

# fmt: off


@disjoint
def eligibility(
    first: int, last: int, x: A, h: A, keep: A, r: A, signal: A, direct: A, dv: A, dw: A, de: A, filtered: A, total: A,
    beta: A, rho: A, a: A, b_: A, gain: A, pull: float, lift: float, late: bool, kappa: float,
) -> None:
    """Targets first..last - 1: adds to total [n, inputs]. x [time, batch, inputs]: what enters.

    h, keep, r, signal, direct [time, batch, n]: the surrogate's derivative, dv/du and dv/ds of the reset, the learning
    signal, which sees filtered eligibility, and what the loss says to the spike itself.
    dv, dw, de, filtered [batch, n, inputs]: derivatives of v, w and s after the last step and the filtered
    eligibility, read and left behind.
    """
    for target in range(U(first), U(last)):
        j = U(target)
        sums = total[j]
        for row in range(U(x.shape[1])):
            b = U(row)
            ev, ew, es, f = dv[b, j], dw[b, j], de[b, j], filtered[b, j]
            for step in range(U(x.shape[0])):
                t = U(step)
                now = x[t, b]
                psi, held, jump, error = h[t, b, j], keep[t, b, j], r[t, b, j], signal[t, b, j]
                own = direct[t, b, j]
                for k in range(U(now.size)):
                    u = beta[j] * ev[k] + gain[j] * now[k] - pull * ew[k]
                    e = psi * (u - lift * ew[k])
                    v = held * u + jump * e
                    ew[k] = rho[j] * ew[k] + a[j] * (ev[k] if late else v) + b_[j] * (es[k] if late else e)
                    ev[k] = v
                    es[k] = e
                    f[k] = kappa * f[k] + e
                    sums[k] += error * f[k] + own * e
