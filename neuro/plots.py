"""Pictures of one sample: raster of every population, membrane of the output. Arrays in, PNG out.

Colours are Okabe and Ito's (2008), told apart by all common kinds of colour blindness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREY = "#1a1a1a", "#0072B2", "#D55E00", "#8a8a8a"
CYCLE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", INK)
MAX_LEGEND = 12


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def raster(spikes: Mapping[str, NDArray[Any]], dt: float, title: str) -> Figure:
    """One panel per population, a dot per spike.

    spikes: population -> [steps, n], in the order of the layers. dt: seconds per step.
    """
    heights = [1.0 + 0.25 * np.log2(1 + s.shape[1] / 16) for s in spikes.values()]
    figure = _figure(8, 1.2 + 1.1 * sum(heights))
    axes = figure.subplots(len(spikes), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, train), colour in zip(axes, spikes.items(), CYCLE * len(spikes), strict=False):
        step, neuron = np.nonzero(train)
        size = float(np.clip(2500 / max(train.shape[1], 1), 0.6, 12))
        axis.scatter(step * dt * 1e3, neuron, s=size, color=colour, linewidths=0)
        axis.set_ylim(-0.5, train.shape[1] - 0.5)
        axis.set_ylabel(f"{name}\n({train.shape[1]})", fontsize=8)
        axis.annotate(
            f"{len(step):,} spikes", (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=7, color=GREY
        )
        _bare(axis)
    axes[-1].set_xlabel("network time (ms); each layer lags one step behind the one before", fontsize=9)
    axes[-1].set_xlim(-0.5 * dt * 1e3, (len(next(iter(spikes.values()))) - 0.5) * dt * 1e3)
    figure.suptitle(title, fontsize=10)
    return figure


def membrane(
    chip: NDArray[np.floating],
    reference: NDArray[np.floating],
    dt: float,
    title: str,
    classes: Sequence[str],
    label: int,
) -> Figure:
    """Membrane of the output population, chip (lines) over float reference (dashes), and their difference.

    chip, reference: [steps, n] in the Network's own units, aligned. label: the true class.
    """
    figure = _figure(8, 5)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    time = np.arange(len(chip)) * dt * 1e3
    final = np.abs(chip).max(axis=0)
    shown = sorted(set(np.argsort(-final)[: len(CYCLE) - 1].tolist()) | {label})
    for index, colour in zip(shown, CYCLE, strict=False):
        wide = 2.2 if index == label else 1.0
        name = classes[index] if index < len(classes) else str(index)
        top.plot(
            time, chip[:, index], color=colour, lw=wide, label=f"{name}{' (true class)' if index == label else ''}"
        )
        top.plot(time, reference[:, index], color=colour, lw=0.8 * wide, ls=(0, (2, 2)), alpha=0.6)
    top.set_ylabel("membrane v", fontsize=9)
    top.legend(fontsize=7, ncols=2, frameon=False, title="line: chip, dashes: float", title_fontsize=7)
    low.plot(time, np.abs(chip - reference).max(axis=1), color=INK, lw=1)
    low.set_ylabel("max |chip - float|", fontsize=9)
    low.set_xlabel("time (ms)", fontsize=9)
    for axis in (top, low):
        _bare(axis)
    figure.suptitle(title, fontsize=10)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return path
