"""IF networks in whole numbers: a loop over steps in int64, from the docstrings of `neuro.ir`, not from the code.

``unit`` is the real value of one whole number of weight, threshold and reset. It shares nothing with
`neuro.reference`: integers instead of float64, gathered synapses instead of taps and matrix products.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro import ir

Ints = NDArray[np.int64]


def whole(values: NDArray[np.float64], unit: float) -> Ints:
    """values / unit as integers; an assertion if they are none."""
    q = values / unit
    assert np.array_equal(q, np.rint(q)), "not on the grid"
    return np.rint(q).astype(np.int64)


def conv(node: ir.Conv2d, k: Ints, bias: Ints, x: Ints) -> Ints:
    """One output at a time: [batch, in, height, width] -> [batch, out, height, width]."""
    (sy, sx), (py, px), (dy, dx) = node.stride, node.padding, node.dilation
    out, per, kh, kw = k.shape
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    height = (padded.shape[2] - (kh - 1) * dy - 1) // sy + 1
    width = (padded.shape[3] - (kw - 1) * dx - 1) // sx + 1
    y = np.zeros((len(x), out, height, width), np.int64)
    for o in range(out):
        first = o // (out // node.groups) * per
        for r in range(height):
            for c in range(width):
                rows, columns = slice(r * sy, r * sy + kh * dy, dy), slice(c * sx, c * sx + kw * dx, dx)
                seen = padded[:, first : first + per, rows, columns][:, :, :kh, :kw]
                y[:, o, r, c] = (seen * k[o]).sum((1, 2, 3)) + bias[o]
    return y


def run(network: ir.Network, dense: NDArray[np.uint8], unit: float) -> dict[str, NDArray[np.uint8]]:
    """Spikes [time, batch, *shape] of every IF. What feeds a neuron is in units, what feeds weights is spikes."""
    steps, batch = dense.shape[:2]
    nodes = network.nodes
    v = {n: np.zeros((batch, *network.shapes[n]), np.int64) for n in network.of(ir.IF)}
    late = {n: np.zeros((batch, *network.shapes[n]), np.int64) for n in network.order}
    past: dict[str, list[Ints]] = {n: [] for n in network.order}
    spikes: dict[str, list[NDArray[np.uint8]]] = {n: [] for n in v}
    for t in range(steps):
        now: dict[str, Ints] = {}
        for name in network.order:
            node = nodes[name]
            if isinstance(node, ir.Input):
                now[name] = dense[t].astype(np.int64)
                continue
            x = sum(late[s] if (s, name) in network.feedback else now[s] for s in network.sources(name))
            step = unit if any(isinstance(nodes[d], ir.IF) for d in network.targets(name)) else 1.0
            if isinstance(node, ir.IF):
                theta, reset = whole(node.v_threshold, unit), whole(node.v_reset, unit)
                v[name] = v[name] + x
                fired = v[name] > theta
                v[name] = np.where(fired, v[name] - theta if node.reset == "subtract" else reset, v[name])
                spikes[name].append(fired.astype(np.uint8))
                now[name] = fired.astype(np.int64)
            elif isinstance(node, ir.Linear):
                k = whole(node.weight, step)
                bias = whole(node.bias, step) if isinstance(node, ir.Affine) else np.zeros(len(k), np.int64)
                steps_back = np.zeros(k.shape, int) if node.delay_steps is None else node.delay_steps
                past[name].append(x)
                total = np.tile(bias, (batch, 1))
                for d in np.unique(steps_back):
                    if t - d >= 0:
                        total = total + past[name][t - d] @ np.where(steps_back == d, k, 0).T
                now[name] = total
            elif isinstance(node, ir.Delay):
                past[name].append(x)
                now[name] = np.zeros_like(x)
                for d in (d for d in np.unique(node.steps) if t - d >= 0):
                    now[name] += np.where(node.steps == d, past[name][t - d], 0)
            elif isinstance(node, ir.Conv2d):
                now[name] = conv(node, whole(node.weight, step), whole(node.bias, step), x)
            elif isinstance(node, ir.Flatten):
                now[name] = x.reshape(batch, -1)
            else:
                assert isinstance(node, ir.Output), name
                now[name] = x
        late = now
    return {n: np.stack(rows) for n, rows in spikes.items()}
