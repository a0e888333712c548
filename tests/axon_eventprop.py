"""EventProp on a grid in plain loops over steps, neurons and synapses: the equations of `neuro.learn.eventprop` as its
docstring has them, sharing no code with it. One layer at a time, nothing event-driven, nothing in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

A = NDArray[np.float64]


@dataclass
class Layer:
    """weight, delay [out, in] (steps); loop [out, out] or None; coefficients are numbers."""

    weight: A
    delay: A
    loop: A | None
    bias: A
    alpha: float = 0.0
    gain_syn: float = 1.0
    beta: float = 0.9
    gain: float = 1.0
    drive: float = 0.0
    theta: float = 1.0
    v_reset: float = 0.0
    subtract: bool = False
    spiking: bool = True
    memory: dict[str, A] = field(default_factory=dict)


def late(x: A, d: float, t: int) -> A:
    """x(t - d) on the line between two steps; 0 before the start. x: [time, *]."""
    k = int(np.floor(d))
    f = d - k
    near: A = x[t - k] if t - k >= 0 else np.zeros_like(x[0])
    far: A = x[t - k - 1] if t - k - 1 >= 0 else np.zeros_like(x[0])
    return np.asarray((1 - f) * near + f * far)


def forward(layer: Layer, x: A) -> tuple[A, A]:
    """(spikes or v, u) of one sample. x: [time, in]."""
    steps, (n, inputs) = len(x), layer.weight.shape
    i, v, s = np.zeros(n), np.zeros(n), np.zeros(n)
    out, u_all, rise = np.zeros((steps, n)), np.zeros((steps, n)), np.zeros((steps, n))
    for t in range(steps):
        current = layer.bias.copy()
        for o in range(n):
            for k in range(inputs):
                current[o] += layer.weight[o, k] * late(x[:, k], layer.delay[o, k], t)
        if layer.loop is not None:
            current += layer.loop @ s
        i = layer.alpha * i + layer.gain_syn * current
        rise[t] = layer.gain * i + layer.drive
        u = layer.beta * v + rise[t]
        s = (u > layer.theta).astype(float) if layer.spiking else np.zeros(n)
        v = np.where(s > 0, u - layer.theta if layer.subtract else layer.v_reset, u)
        out[t], u_all[t] = s if layer.spiking else u, u
    layer.memory = {"x": x, "s": out, "u": u_all, "rise": rise}
    return out, u_all


def backward(layer: Layer, g_v: A | None, shift: A, count: A, least: float) -> dict[str, A]:
    """g_v [time, n]: gradient to v of a readout. shift [time, n]: dL/dt of a spike at t. count [n]: to its number."""
    x, s, u, rise = (layer.memory[n] for n in ("x", "s", "u", "rise"))
    (steps, n), span = u.shape, layer.theta - layer.v_reset
    reach = steps + int(layer.delay.max()) + 3
    g = np.zeros((reach, n))
    mu, extra, j = np.zeros(n), np.zeros(n), np.zeros(n)
    for t in range(steps - 1, -1, -1):
        for k in range(n):
            mu[k] *= layer.beta
            extra[k] *= layer.beta
            if g_v is not None:
                mu[k] += g_v[t, k]
            if layer.spiking and s[t, k]:
                q = shift[t, k]
                if layer.loop is not None:
                    q += sum(layer.loop[m, k] * (g[t + 2, m] - g[t + 1, m]) for m in range(n))
                up = max(rise[t, k] - (1 - layer.beta) * layer.theta, least * span)
                after = rise[t, k] - (1 - layer.beta) * layer.v_reset
                mu[k] = (mu[k] * after - q) / up
                extra[k] = count[k] / span
            elif layer.spiking and not s[:, k].any() and t == int(np.argmax(u[:, k])):
                extra[k] += count[k] / span
            j[k] = layer.alpha * j[k] + layer.gain * (mu[k] + extra[k])
            g[t, k] = layer.gain_syn * j[k]
    inputs = x.shape[1]
    found = {"weight": np.zeros((n, inputs)), "delay": np.zeros((n, inputs)), "bias": g[:steps].sum(0)}
    back = np.zeros((steps, inputs))
    for t in range(steps):
        for k in range(inputs):
            if x[t, k]:
                for o in range(n):
                    d = int(np.floor(layer.delay[o, k]))
                    f = layer.delay[o, k] - d
                    near, far = g[t + d, o], g[t + d + 1, o]
                    found["weight"][o, k] += (1 - f) * near + f * far
                    found["delay"][o, k] += layer.weight[o, k] * (far - near)
                    back[t, k] += layer.weight[o, k] * (far - near)
    found["shift"] = back
    if layer.loop is not None:
        found["loop"] = sum(np.outer(g[t + 1], s[t]) for t in range(steps))
    return found


def gradients(
    layers: Sequence[Layer], x: A, g_of: Any, counts: Sequence[A | None], least: float
) -> tuple[list[dict[str, A]], A]:
    """Of one sample: a dict per layer, and the trace of the readout. g_of: trace -> its gradient."""
    y = x
    for layer in layers:
        y, _ = forward(layer, y)
    g_v = g_of(y)
    found: list[dict[str, A]] = []
    shift = np.zeros_like(y)
    for layer, count in zip(reversed(layers), reversed(counts), strict=True):
        n = len(layer.weight)
        last = not layer.spiking
        found.insert(0, backward(layer, g_v if last else None, shift, np.zeros(n) if count is None else count, least))
        shift = found[0]["shift"]
    return found, y
