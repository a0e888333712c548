"""What `fit` adds: how constant inputs start, and what must be said of a population."""

from __future__ import annotations

import numpy as np

from neuro.hardware.spinnaker1.layer import Gains, Int64, Layer, per_neuron
from neuro.ir import Array

ONE = 1 << 15
FULL = (1 << 16) - 1
ROOM = float((1 << 30) - (1 << 16))  # as in fit.py


def started(layer: Layer, g: Gains, words: dict[str, Int64]) -> dict[str, Int64]:
    """v_init from which constant inputs alone bring v to 0 when the sample arrives, ``skew`` steps after the start;
    where there is no such v, or the neuron would fire on the way, v = 0 held for so long by the refractory timer."""
    syn = [words["init_exc"].astype(np.float64), words["init_inh"].astype(np.float64)]
    drive = []
    for _ in range(layer.skew):
        drive.append(words["i_offset"] + syn[0] - syn[1] + words["v_rest"])
        syn = [np.floor(s * g.decay_syn) for s in syn]
    v, decay = np.zeros(layer.size), np.maximum(g.decay / ONE, 2.0**-40)
    with np.errstate(over="ignore"):
        for alpha in drive[::-1]:
            v = np.rint(alpha - (alpha - v) / decay)
    good = np.abs(v) < ROOM
    forth = np.where(good, v, 0.0)
    for alpha in drive:
        forth = alpha - np.floor(g.decay * (alpha - forth) / ONE)
        good &= forth < words["threshold"]
    good &= np.abs(forth) <= 2
    if good.all():
        return {"v_init": v.astype(np.int64)}
    held = {"refract_init": np.where(good, 0, layer.skew), "v_init": np.where(good, v, 0.0).astype(np.int64)}
    return {name: values.astype(np.int64) for name, values in held.items()}


def note(layer: Layer, g: Gains, scale: float, substitutions: list[str]) -> None:
    name = layer.name
    if getattr(layer.node, "reset", "hard") == "subtract":
        substitutions.append(
            f"'{name}' resets to v_reset instead of subtracting its threshold: what v exceeds the threshold by is lost "
            "with each spike; train with reset='hard' to make it exact"
        )
    if not (layer.c.beta < 1).all():
        substitutions.append(
            f"'{name}' has no leak; the longest time constant of the chip pulls v to 0 by {g.pull.min():.2g} of itself "
            f"in a step, though not while |v| is below {(0.5 / g.pull.min() - 1) / scale:.3g}"
        )
    if any(b.start for b in layer.biases):
        substitutions.append(
            f"'{name}' has its bias from its first step on, where a Delay would hold it back; put the Delay elsewhere"
        )
    if layer.node.spiking and layer.skew and (per_neuron(layer, "v_threshold", 0.0) < 0).any():
        substitutions.append(
            f"neurons of '{name}' with a negative threshold fire in the {layer.skew} step(s) before the sample reaches "
            "them, and from then on start at v_reset"
        )


def note_saturation(layer: Layer, total: Array, substitutions: list[str]) -> None:
    if total.max(initial=0) > FULL:
        substitutions.append(
            f"'{layer.name}': {int((total > FULL).any(axis=0).sum())} neuron(s) lose input where more arrives in "
            "a step than sPyNNaker's bound expects (ring buffers saturate); compile with ring='safe' to rule that out"
        )
