"""A TrueNorth program by its populations and projections alone: no cores, no axons, no copies, no crossbars.

Whole-number IF neurons with effective weights and delays in ticks; what the image of the same program must compute.
"""

from __future__ import annotations

import numpy as np


def simulate(program, dense):
    """dense [steps, batch, inputs]. Returns spikes and V, population -> [steps + depth, batch, n]."""
    steps, batch = dense.shape[0] + program.depth, dense.shape[1]
    names = [n for n in program.populations if n != program.input]
    sizes = {n: p.size for n, p in program.populations.items()}
    sent = {n: np.zeros((steps, batch, sizes[n]), np.int64) for n in program.populations}
    sent[program.input][: len(dense)] = dense
    registers = {n: {k: np.broadcast_to(v, sizes[n]) for k, v in program.populations[n].params.items()} for n in names}
    v = {n: np.tile(registers[n]["v0"], (batch, 1)) for n in names}
    seen = {n: np.zeros((steps, batch, sizes[n]), np.int64) for n in names}
    for t in range(steps):
        for n in names:
            r, x = registers[n], v[n]
            for p in program.into(n):
                row, col, delay = (p.params[k] for k in ("row", "col", "delay_steps"))
                for b in range(batch):
                    arrived = np.where(t >= delay, sent[p.source][t - delay, b, col], 0)
                    x[b] += np.bincount(row, arrived * p.weight_q, sizes[n]).astype(np.int64)
            x += np.where(r["epsilon"] == 1, np.sign(x), 1) * np.where(t >= r["held"], r["leak"], 0)
            fired = x >= r["alpha"]
            low = ~fired & (x < -r["beta"])
            x[...] = np.where(fired, np.where(r["gamma"] == 1, x - r["alpha"], 0), x)
            x[...] = np.where(low, np.where(r["kappa"] == 1, -r["beta"], x), x)
            assert (low <= (r["kappa"] == 1)).all(), "a neuron that was to stay in range has left it"
            x[...] = np.minimum(x, (1 << 19) - 1)
            sent[n][t], seen[n][t] = fired, x
    return sent, seen
