"""Pictures of one sample: raster of every population, membrane of the output. Arrays in, matplotlib axes out.

What is drawn comes back as axes, to be changed or saved (`save`, or ``axes.figure``). In a notebook the picture also
shows below its cell. Colours are Okabe and Ito's (2008), told apart by all common kinds of colour blindness.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREY = "#1a1a1a", "#0072B2", "#D55E00", "#8a8a8a"
CYCLE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", INK)
MAX_LEGEND = 12


def in_notebook() -> bool:
    """Whether pyplot's pictures appear by themselves: in Jupyter, or where pyplot was made interactive."""
    if "ipykernel" in sys.modules:
        return True
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot is not None and bool(pyplot.isinteractive())


def _figure(width: float, height: float) -> Figure:
    """pyplot's own where it shows pictures; elsewhere one that no window and no registry holds on to."""
    if in_notebook():
        from matplotlib import pyplot

        return pyplot.figure(figsize=(width, height), layout="constrained")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def raster(spikes: Mapping[str, NDArray[Any]], dt: float, title: str) -> NDArray[Any]:
    """One panel per population, a dot per spike; the axes, one for each.

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
    return axes


def membrane(
    chip: NDArray[np.floating],
    reference: NDArray[np.floating],
    dt: float,
    title: str,
    classes: Sequence[str],
    label: int,
) -> tuple[Axes, Axes]:
    """Membrane of the output population, chip (lines) over float reference (dashes), and their difference: two axes.

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
    return top, low


def pareto(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], title: str) -> Axes:
    """Accuracy over event energy, coloured by latency, Pareto-optimal designs ringed and named.

    rows: of `neuro.sweep`; those that do not fit or have no energy are left out, and counted. varied: parameters that
    are named at the rings.
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    fit = [r for r in rows if r["fits"] and r["energy_j"]]
    energy = np.array([[r["energy_j"][k] for k in ("low", "nominal", "high")] for r in fit]) * 1e6
    accuracy = np.array([100 * r["accuracy"] for r in fit])
    timed = all(r["latency_s"] is not None for r in fit)
    latency = np.array([r["latency_s"]["nominal"] for r in fit]) * 1e3 if timed else np.ones(len(fit))
    best = np.array([r["pareto"] for r in fit])
    chips = list(dict.fromkeys(r["point"]["chip"] for r in fit))
    figure = _figure(8.6, 5.2)
    axes = figure.subplots()
    wide = latency.min() > 0 and latency.max() > 10 * latency.min()
    norm = (LogNorm if wide else Normalize)(latency.min(), max(latency.max(), latency.min() * 1.0001))
    for chip, marker in zip(chips, "osD^vP*X" * len(chips), strict=False):
        own = np.array([r["point"]["chip"] == chip for r in fit])
        style: dict[str, Any] = {"c": latency[own], "cmap": "viridis_r", "norm": norm} if timed else {"color": BLUE}
        drawn = axes.scatter(energy[own, 1], accuracy[own], s=42, marker=marker, zorder=3, label=chip, **style)
    axes.hlines(accuracy, energy[:, 0], energy[:, 2], color=GREY, lw=0.6, alpha=0.5, zorder=1)
    order = np.flatnonzero(best)[np.lexsort((accuracy[best], energy[best, 1]))]
    axes.scatter(energy[order, 1], accuracy[order], s=110, facecolors="none", edgecolors=ORANGE, lw=1.6, zorder=4)
    _name_rings(figure, axes, fit, order.tolist(), varied)
    if (energy > 0).all():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12, 0.1)
    axes.set_ylim(top=min(axes.get_ylim()[1], 104.0))
    axes.set_xlabel("event energy of a sample (uJ): nominal, line from low to high", fontsize=9)
    axes.set_ylabel("accuracy (%)", fontsize=9)
    axes.grid(color="#e6e6e6", lw=0.6, zorder=0)
    if timed:
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
        bar.set_label("latency of a sample (ms), nominal", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    if len(chips) > 1:
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    _bare(axes)
    left_out = len(rows) - len(fit)
    figure.suptitle(title + (f"; {left_out} do not fit, or cost is unknown" if left_out else ""), fontsize=10)
    return axes


def _name_rings(
    figure: Figure, axes: Any, rows: Sequence[Mapping[str, Any]], order: Sequence[int], varied: Sequence[str]
) -> None:
    """A number at each ring, equal results sharing one, and below the picture what it stands for."""
    from matplotlib.lines import Line2D

    places: dict[tuple[float, float], list[int]] = {}
    for k in order:
        places.setdefault((rows[k]["energy_j"]["nominal"] * 1e6, 100 * rows[k]["accuracy"]), []).append(k)
    handles = []
    for number, (place, same) in enumerate(list(places.items())[:MAX_LEGEND], 1):
        axes.annotate(str(number), place, xytext=(8, 4), textcoords="offset points", fontsize=8, color=ORANGE)
        point = rows[same[0]]["point"]
        told = ", ".join(f"{n.partition('.')[2] or n} {point[n]}" for n in varied)
        more = f" (and {len(same) - 1} more with the same result)" if len(same) > 1 else ""
        handles.append(Line2D([], [], ls="", label=f"{number}  {told}{more}"))
    if len(places) > MAX_LEGEND:
        handles.append(Line2D([], [], ls="", label=f"and {len(places) - MAX_LEGEND} more"))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=2,
        fontsize=7,
        frameon=False,
        handlelength=0,
        title="Pareto-optimal designs",
        title_fontsize=8,
        alignment="left",
    )


def save(drawn: Axes | Figure | Iterable[Axes], path: Path | str) -> Path:
    """Write the picture that axes belong to as a PNG, whole or not at all."""
    one: Any = drawn if hasattr(drawn, "figure") or hasattr(drawn, "savefig") else next(iter(drawn))
    figure = one if hasattr(one, "savefig") else one.get_figure(root=True)
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    if "matplotlib.pyplot" in sys.modules:  # else a notebook shows below the cell what it was told to write
        sys.modules["matplotlib.pyplot"].close(figure)
    return Path(path)
