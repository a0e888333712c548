"""Delta and sigma-delta neurons over whole time: the compiled loop of `neuro.nn.sigma_delta` (neuro.jit)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint

A = NDArray[Any]
U = np.uintp

# fmt: off


@disjoint
def forward(
    first: int, last: int, x: A, sigma: A, v: A, residue: A, error: A, v_out: A, sent: A, bias: A, theta: A,
    adds: bool, rectifies: bool, cumulative: bool, keep: bool,
) -> None:
    """Rows first..last - 1. x: [time, batch, n]. sigma, v, residue, error: state [batch, n], read at the start and
    left behind. v_out (where kept), sent: [time, batch, n]. adds: messages add up (sigma-delta)."""
    n = U(v.shape[1])
    zero = v.dtype.type(0)
    for row in range(U(first), U(last)):
        b = U(row)
        for step in range(U(x.shape[0])):
            t = U(step)
            for k in range(n):
                active = x[t, b, k]
                if adds:
                    sigma[b, k] += active
                    active = sigma[b, k] + bias[k]
                if rectifies:
                    active = max(active, zero)
                delta = active - v[b, k] + residue[b, k]
                judged = error[b, k] + delta if cumulative else delta
                message = delta if abs(judged) >= theta[k] else zero
                residue[b, k] = delta - message
                error[b, k] = zero if message != 0 else judged
                v[b, k] = active
                if keep:
                    v_out[t, b, k] = active
                sent[t, b, k] = message
