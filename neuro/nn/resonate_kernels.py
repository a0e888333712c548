"""Resonate-and-fire neurons over whole time: the compiled loops of `neuro.nn.resonate` (neuro.jit).

Rows of the batch are independent of each other, so the number of threads changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint

A = NDArray[Any]
U = np.uintp
ONE = np.uintp(1)

# fmt: off


@disjoint
def forward(
    first: int, last: int, x: A, v: A, im: A, v_out: A, im_out: A, sent: A, cosine: A, sine: A, theta: A,
    resets: bool, keep_v: bool, keep_im: bool,
) -> None:
    """Rows first..last - 1. x: [time, batch, n]. v, im: state [batch, n], read at the start and left behind.
    v_out, im_out: before the reset, where kept. sent: uint8[time, batch, n]. cosine, sine: times the decay."""
    n = U(v.shape[1])
    for row in range(U(first), U(last)):
        b = U(row)
        for step in range(U(x.shape[0])):
            t = U(step)
            for k in range(n):
                old = im[b, k]
                real = cosine[k] * v[b, k] - sine[k] * old + x[t, b, k]
                imag = sine[k] * v[b, k] + cosine[k] * old
                if keep_v:
                    v_out[t, b, k] = real
                if keep_im:
                    im_out[t, b, k] = imag
                v[b, k], im[b, k] = real, imag
                if resets:
                    fired = imag >= theta[k]
                    if fired:
                        v[b, k], im[b, k] = 0, theta[k]
                else:
                    fired = (real >= theta[k]) & (imag >= 0) & (old < 0)
                sent[t, b, k] = fired


@disjoint
def backward(
    first: int, last: int, g: A, g_v: A, h: A, h_im: A, h_start: A, v: A, im: A, v_0: A, im_0: A, dx: A, dv: A,
    dim: A, d_cosine: A, d_sine: A, d_theta: A, cosine: A, sine: A, theta: A, resets: bool, attached: float,
    has_g: bool, has_v: bool,
) -> None:
    """Rows first..last - 1. g, g_v: gradients of spikes and of v before the reset, where there are. v, im: before the
    reset. h: surrogate of what meets the threshold (v; im where it resets). h_im, h_start: of im and its start, where
    nothing resets. Left behind: dx [time, batch, n]; the others [batch, n], sums over time, zero at the start."""
    n = U(v_0.shape[1])
    zero = v_0.dtype.type(0)
    for row in range(U(first), U(last)):
        b = U(row)
        for back in range(U(dx.shape[0])):
            t = U(dx.shape[0]) - ONE - U(back)
            for k in range(n):
                if t == 0:
                    v_old, im_old = v_0[b, k], im_0[b, k]
                elif resets and im[t - ONE, b, k] >= theta[k]:
                    v_old, im_old = zero, theta[k]
                else:
                    v_old, im_old = v[t - ONE, b, k], im[t - ONE, b, k]
                ds = g[t, b, k] if has_g else zero
                du = g_v[t, b, k] if has_v else zero
                real, imag, later = v[t, b, k], im[t, b, k], zero
                if resets:
                    ds += attached * ((theta[k] - imag) * dim[b, k] - real * dv[b, k])
                    da, db = du, ds * h[t, b, k]
                    d_theta[b, k] -= ds * h[t, b, k]
                    if imag >= theta[k]:
                        d_theta[b, k] += dim[b, k]
                    else:
                        da += dv[b, k]
                        db += dim[b, k]
                else:
                    da, db = du + dv[b, k], dim[b, k]
                    high, up, down = real >= theta[k], imag >= 0, im_old < 0
                    if up and down:
                        da += ds * h[t, b, k]
                        d_theta[b, k] -= ds * h[t, b, k]
                    if high and down:
                        db += ds * h_im[t, b, k]
                    if high and up:
                        later = ds * (h_start[b, k] if t == 0 else h_im[t - ONE, b, k])
                dx[t, b, k] = da
                d_cosine[b, k] += da * v_old + db * im_old
                d_sine[b, k] += db * v_old - da * im_old
                dv[b, k] = cosine[k] * da + sine[k] * db
                dim[b, k] = cosine[k] * db - sine[k] * da - later
