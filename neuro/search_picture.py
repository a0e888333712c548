"""The picture of a search: what accuracy costs, and which designs nothing beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.plots import BLUE, GREY, ORANGE, _bare, _figure


def picture(rows: Sequence[Mapping[str, Any]], title: str) -> NDArray[Any]:
    """Two axes: accuracy over event energy and over latency of a sample, chips by marker; designs of the
    front are ringed. Lines span low to high of the estimate. Rows that do not fit are counted in the title."""
    shown = [r for r in rows if r["fits"] and r["accuracy"] is not None and r["energy_j"]]
    figure = _figure(9.0, 4.4)
    axes: NDArray[Any] = figure.subplots(1, 2, sharey=True)
    chips = list(dict.fromkeys(r["point"].get("chip", "") for r in shown))
    for axis, name, unit, factor in zip(axes, ("energy_j", "latency_s"), ("uJ", "ms"), (1e6, 1e3), strict=True):
        some = [r for r in shown if r[name]]
        for chip, marker in zip(chips, "osD^vP*X" * len(chips), strict=False):
            own = [r for r in some if r["point"].get("chip", "") == chip]
            x = np.array([[r[name][k] for k in ("low", "nominal", "high")] for r in own]).reshape(-1, 3) * factor
            y = np.array([100 * r["accuracy"] for r in own])
            best = np.array([bool(r["pareto"]) for r in own], dtype=np.bool_)
            axis.hlines(y, x[:, 0], x[:, 2], color=GREY, lw=0.6, alpha=0.5, zorder=1)
            axis.scatter(x[:, 1], y, s=26, marker=marker, color=BLUE, alpha=0.55, zorder=3, label=chip)
            axis.scatter(x[best, 1], y[best], s=90, facecolors="none", edgecolors=ORANGE, lw=1.5, zorder=4)
        if some and all(r[name]["nominal"] > 0 for r in some):
            axis.set_xscale("log")
        axis.set_xlabel(
            f"{'event energy' if unit == 'uJ' else 'latency'} of a sample ({unit}): nominal, low to high", fontsize=9
        )
        axis.grid(color="#e6e6e6", lw=0.6, zorder=0)
        _bare(axis)
    axes[0].set_ylabel("accuracy on validation data (%)", fontsize=9)
    if len(chips) > 1:
        axes[1].legend(fontsize=7, frameon=False, loc="lower right")
    left_out = len(rows) - len(shown)
    figure.suptitle(title + (f"; {left_out} refused, or of unknown cost" if left_out else ""), fontsize=10)
    return axes
