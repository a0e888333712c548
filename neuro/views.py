"""What a report shows of a deployment beyond its figures: one recording's spikes, and who was taken for whom.

`neuro deploy` writes it as CHIP/view.json::

    classes     names in the order of the labels
    confusion   [true class][decided class], counts over all samples, of the chip
    float       the same of the float network
    raster      recording, label, decided (indices), dt (s), steps, and layers: name, size, spikes (how many there
                are), steps and neurons (of those that are kept, evenly thinned to MAX_SHOWN)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SHOWN = 8000  # spikes of a layer that a page can hold and a screen can tell apart


def confusion(labels: NDArray[np.int64], decided: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Counts [true class][decided class]."""
    size = max(classes, int(labels.max(initial=-1)) + 1, int(decided.max(initial=-1)) + 1)
    return np.bincount(labels * size + decided, minlength=size * size).reshape(size, size).tolist()


def raster(spikes: Mapping[str, NDArray[Any]], dt: float, recording: int, label: int, decided: int) -> dict[str, Any]:
    """One recording: layer -> [steps, neurons], in the order of the layers."""
    layers = []
    for name, train in spikes.items():
        flat = train.reshape(len(train), -1)
        step, neuron = np.nonzero(flat)
        keep = np.arange(len(step)) if len(step) <= MAX_SHOWN else np.linspace(0, len(step) - 1, MAX_SHOWN).astype(int)
        layers.append(
            {
                "name": name,
                "size": flat.shape[1],
                "spikes": len(step),
                "steps": step[keep].tolist(),
                "neurons": neuron[keep].tolist(),
            }
        )
    steps = max(len(train) for train in spikes.values())
    return {"recording": recording, "label": label, "decided": decided, "dt": dt, "steps": steps, "layers": layers}


def view(
    classes: Sequence[str],
    labels: NDArray[np.int64],
    decided: NDArray[np.int64],
    decided_float: NDArray[np.int64],
    shown: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of view.json."""
    return {
        "classes": list(classes),
        "confusion": confusion(labels, decided, len(classes)),
        "float": confusion(labels, decided_float, len(classes)),
        "raster": shown,
    }
