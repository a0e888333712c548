"""What `Report.plot`, `Trace.plot` and `Events.plot` draw: matplotlib axes, to be changed or saved by the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuro.errors import SimulationError
from neuro.plots import BLUE, GREY, INK, ORANGE, _bare, _figure, raster

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from neuro.deployment import Report
    from neuro.events import Events

COSTS = {"energy": ("energy_j", 1e6, "event energy of a sample (uJ)"), "latency": ("latency_s", 1e3, "latency (ms)")}
WHATS = ("accuracy", *COSTS)


def report(found: Report, what: str, ax: Axes | None) -> Axes:
    """One row per chip: its accuracy beside the float network's, or a cost from low to high with the nominal value.

    A chip that cannot hold the network, or whose cost is unknown, keeps its row and says so.

    Raises:
        SimulationError: no such thing to draw.
    """
    if what not in WHATS:
        raise SimulationError(f"a report draws {', '.join(WHATS)}, not {what!r}")
    names = list(found.chips)
    axes = ax if ax is not None else _figure(7.0, 1.2 + 0.38 * len(names)).subplots()
    values = []
    for row, name in enumerate(names):
        chip = found.chips[name]
        if what == "accuracy":
            known = None if chip.accuracy is None else 100 * chip.accuracy
            ends = None
        else:
            key, factor, _ = COSTS[what]
            cost = getattr(chip, key)
            known = None if not cost or cost.get("nominal") is None else factor * float(cost["nominal"])
            ends = None if known is None else (factor * float(cost["low"]), factor * float(cost["high"]))
        if known is None:
            said = "its cost is unknown" if chip.fits else "does not fit"
            axes.annotate(
                said, (0.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=GREY
            )  # fmt: skip
            continue
        if ends is not None:
            axes.plot(ends, (row, row), color=GREY, lw=3, solid_capstyle="round", zorder=2)
        axes.plot([known], [row], "o", color=BLUE, ms=7, zorder=3)
        axes.annotate(f"{known:.3g}", (known, row), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
        values += [known, *(ends or ())]
    if what == "accuracy":
        axes.axvline(100 * found.float_accuracy, color=ORANGE, lw=1, zorder=1)
        axes.set_xlabel(f"accuracy (%); line: the float network, {100 * found.float_accuracy:.1f}", fontsize=9)
    else:
        axes.set_xlabel(f"{COSTS[what][2]}: nominal, bar from low to high", fontsize=9)
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.grid(axis="x", color="#e6e6e6", lw=0.6, zorder=0)
    axes.set_title(f"{found.dataset}, {found.samples} samples of {found.steps} steps", fontsize=10, color=INK)
    _bare(axes)
    return axes


def trace(found: Any, sample: int) -> NDArray[Any]:
    """Rasters of one sample of a batch (a `neuro.hardware.trace.Trace`), the axes of its populations.

    Raises:
        SimulationError: no such sample; the trace holds no spikes.
    """
    if not found.spikes:
        raise SimulationError("this trace holds no spikes: simulate with spikes to draw them")
    count = next(iter(found.spikes.values())).shape[1]
    if not 0 <= sample < count:
        raise SimulationError(f"sample {sample} was asked for, the batch has samples 0..{count - 1}")
    decided = f", decided {int(found.decision[sample])}" if found.scores.size else ""
    spikes = {name: train[:, sample].reshape(len(train), -1) for name, train in found.spikes.items()}
    return raster(spikes, found.dt, f"sample {sample} on {found.chip}{decided}")


def events(sample: Events, ax: Axes | None) -> Axes:
    """A dot per event: channel over time."""
    axes = ax if ax is not None else _figure(7.0, 3.2).subplots()
    size = float(np.clip(2500 / max(int(np.prod(sample.shape)), 1), 0.6, 12))
    axes.scatter(sample.t * sample.dt * 1e3, sample.x, s=size, color=BLUE, linewidths=0)
    axes.set_xlim(-0.5 * sample.dt * 1e3, (sample.steps - 0.5) * sample.dt * 1e3)
    axes.set_ylim(-0.5, int(np.prod(sample.shape)) - 0.5)
    axes.set_xlabel("time (ms)", fontsize=9)
    axes.set_ylabel("channel" if len(sample.shape) == 1 else f"channel of {sample.shape}, row-major", fontsize=9)
    axes.set_title(f"{len(sample.t):,} events", fontsize=10)
    _bare(axes)
    return axes
