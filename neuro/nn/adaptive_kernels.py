"""Adaptive neurons over whole time, listening to themselves or not: the compiled loops of `neuro.nn.adaptive_run`.

The equations are those of `neuro.nn.adaptive`, the layout is that of `neuro.nn.recurrent_kernels` (neuro.jit).
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from neuro.jit import disjoint
from neuro.nn.kernels import PRECOMPUTED
from neuro.nn.recurrent_kernels import ONE, TALL, U, above, add_rows, listed, slope, unpack
from neuro.nn.tile import ROWS, tile

A = NDArray[Any]

# fmt: off


@disjoint
def forward(
    first: int, last: int, x: A, entering: A, table_in: A, bias: A, table: A, before: A, v: A, w: A, s: A, u_out: A,
    w_out: A, words: A, room: A, index: A, beta: A, rho: A, a: A, b_: A, gain: A, drive: A, theta: A, v_reset: A,
    pull: float, lift: float, late: bool, subtract: bool, listens: bool, keep_u: bool, keep_w: bool,
) -> None:
    """Rows first..last - 1 of the batch. Left behind: bits words [time, batch, *]; where kept u (before the reset) and
    w before each step, [time, batch, n]; the state v, w, s [batch, n], which is read at the start.

    x, entering, table_in, bias, table, before, index: as in `recurrent_kernels.forward`; table only where it listens.
    pull, lift: 1 or 0, whether w is taken from the membrane or raises the threshold. late: w follows v and s of the
    step before. room: [batch, 2, n].
    """
    n, inputs = U(v.shape[1]), U(table_in.shape[0] - 1)
    given = x.shape[0] > 0
    for row in range(U(first), U(last)):
        b = U(row)
        current, over, names = room[b, 0], room[b, 1], index[b]
        for step in range(U(words.shape[0])):
            t = U(step)
            if given:
                for k in range(n):
                    current[k] = x[t, b, k]
            else:
                for k in range(n):
                    current[k] = bias[k]
                add_rows(names, listed(entering[t, b], names, inputs), table_in, current)
            if listens:
                add_rows(names, listed(before[b] if t == 0 else words[t - ONE, b], names, n), table, current)
            for k in range(n):
                u = beta[k] * v[b, k] + gain[k] * current[k] + drive[k] - pull * w[b, k]
                current[k] = u
                over[k] = u - lift * w[b, k]
            above(over, theta, words[t, b])
            if keep_u:
                for k in range(n):
                    u_out[t, b, k] = current[k]
            if keep_w:
                for k in range(n):
                    w_out[t, b, k] = w[b, k]
            if late:
                for k in range(n):
                    w[b, k] = rho[k] * w[b, k] + a[k] * v[b, k] + b_[k] * s[b, k]
            for k in range(n):
                fired = over[k] > theta[k]
                after = current[k] - theta[k] if subtract else v_reset[k]
                v[b, k] = after if fired else current[k]
                s[b, k] = s.dtype.type(fired)
            if not late:
                for k in range(n):
                    w[b, k] = rho[k] * w[b, k] + a[k] * v[b, k] + b_[k] * s[b, k]


@disjoint
def backward(
    first: int, last: int, kind: int, steep: float, g: A, g_u: A, h: A, u: A, w_seq: A, words: A, v_0: A, s_0: A,
    dx: A, du: A, dw: A, dw_next: A, e: A, s: A, v: A, s_old: A, v_old: A, grads: A, beta: A, rho: A, a: A, b_: A,
    gain: A, theta: A, v_reset: A, pull: float, lift: float, late: bool, subtract: bool, attached: float, has_g: bool,
    has_u: bool, learn: bool, panels: A, ds: A, later: A,
) -> None:
    """Gradients to the currents (dx) and, where learn, grads [5, batch, n] to beta, rho, a, b, v_threshold.

    As `recurrent_kernels.backward`; without panels nobody listens. w_seq: w before each step where lift or learn.
    v_0, s_0: the state before step 0. Room [batch, n]: du, dw, dw_next (0 at the start), e, s, v, s_old, v_old.

    With D* the gradient to *, W[t] the w that step t sees, P = DW, Dv and Ds those to v and s of step t, and
    q = P[t+1], or P[t+2] where w is late:
      Dv = beta Du[t+1] + a q;  Ds = g + W^T Dx[t+1] + b q;  e = (Ds + attached Dv dreset/ds) h
      Du = g_u + e + Dv (1 - s, or 1);  P[t] = rho P[t+1] - pull Du - lift e;  Dx = gain Du
    """
    steps, batch, n = U(u.shape[0]), u.shape[1], U(u.shape[2])
    wide = panels.shape[2]
    zero, one = ds.dtype.type(0), ds.dtype.type(1)
    c_s = zero if subtract else one
    c_uh = zero if subtract else -attached
    for block in range(first * ROWS, last * ROWS, TALL):
        end = min(block + TALL, last * ROWS)
        for back in range(steps):
            t = steps - ONE - U(back)
            for row in range(U(block), U(min(end, batch))):
                b = U(row)
                if has_g:
                    for k in range(n):
                        ds[b, k] = g[t, b, k]
                else:
                    for k in range(n):
                        ds[b, k] = zero
            if back > 0:
                for p in range(panels.shape[0]):
                    for high in range(block, end, ROWS):
                        tile(ds, later, panels[U(p)], high, p * wide)
            for row in range(U(block), U(min(end, batch))):
                b = U(row)
                bent = h[t if kind == PRECOMPUTED else U(0), b]
                if kind > PRECOMPUTED:
                    for k in range(n):
                        e[b, k] = u[t, b, k]
                    if lift != zero:
                        for k in range(n):
                            e[b, k] -= w_seq[t, b, k]
                    slope(kind, steep, e[b], theta, bent)
                unpack(words[t, b], s[b])
                for k in range(n):
                    q = dw_next[b, k] if late else dw[b, k]
                    dv = beta[k] * du[b, k] + a[k] * q
                    c_h = -attached * theta[k] if subtract else attached * v_reset[k]
                    e[b, k] = (ds[b, k] + b_[k] * q + dv * (c_h + c_uh * u[t, b, k])) * bent[k]
                    du[b, k] = e[b, k] + dv * (one - c_s * s[b, k])
                    ds[b, k] = dv
                if has_u:
                    for k in range(n):
                        du[b, k] += g_u[t, b, k]
                if learn:
                    for k in range(n):
                        after = u[t, b, k] - theta[k] if subtract else v_reset[k]
                        v[b, k] = after if s[b, k] != zero else u[t, b, k]
                    if t > 0:
                        unpack(words[t - ONE, b], s_old[b])
                        for k in range(n):
                            before = u[t - ONE, b, k]
                            after = before - theta[k] if subtract else v_reset[k]
                            v_old[b, k] = after if s_old[b, k] != zero else before
                    else:
                        for k in range(n):
                            s_old[b, k] = s_0[b, k]
                            v_old[b, k] = v_0[b, k]
                    for k in range(n):
                        grads[0, b, k] += du[b, k] * v_old[b, k]
                        grads[1, b, k] += dw[b, k] * w_seq[t, b, k]
                        grads[2, b, k] += dw[b, k] * (v_old[b, k] if late else v[b, k])
                        grads[3, b, k] += dw[b, k] * (s_old[b, k] if late else s[b, k])
                        grads[4, b, k] -= e[b, k]
                    if subtract:
                        for k in range(n):
                            grads[4, b, k] -= ds[b, k] * s[b, k]
                for k in range(n):
                    dw_next[b, k] = dw[b, k]
                    dw[b, k] = rho[k] * dw[b, k] - pull * du[b, k] - lift * e[b, k]
                    later[b, k] = gain[k] * du[b, k]
                for k in range(n):
                    dx[t, b, k] = later[b, k]
