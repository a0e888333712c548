"""The floor plan: a picture of a chip at work. Cores coloured by load, links by the messages they carry.

A mesh is drawn as squares with their cores inside, SpiNNaker's triangular fabric as hexagons. The two directions of
a link lie side by side, each keeping to the right; a link that wraps around ends in a stub on either side.
points: of a printer (1/72 inch), in the distance of two nodes.
Load is synapses reached plus neurons updated. Everything is a mean per sample of the run that is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.fabric import Fabric, HexTorus
from neuro.hardware.program import Program
from neuro.hardware.target import load_target
from neuro.hardware.trace import Trace
from neuro.hardware.traffic import NOT_MODELLED, Traffic, traffic
from neuro.plots import CYCLE, INK, MAX_LEGEND, _bare, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
WHOLE_CHIP = 600  # nodes up to which the whole chip is drawn; of a larger one the part in use
SIDE = 0.70  # of a node, where the next one is 1 away
IDLE, LINE, PAPER, DIM = "#efefec", "#d4d4d0", "#fbfbfa", "#555555"
CORES, LINKS = "YlGnBu", "YlOrRd"


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is drawn, and where. shown: nodes. at: float64[nodes, 2] centres of all of them."""

    shown: NDArray[np.int64]
    at: Array
    hexagonal: bool
    cropped: bool


def floorplan(program: Program, trace: Trace, title: str = "") -> Axes:
    """Cores on the chip by load, links by traffic, with totals; `neuro.plots.save` writes it.

    trace: of this program, with its spikes. title: above the picture; the chip's own where left out.

    Raises:
        ChipError: the chip names no fabric, or the trace holds no spikes.
    """
    found = traffic(program, trace)
    plan = _plan(found)
    spread = plan.at[plan.shown]
    width, height = np.ptp(spread, axis=0) + 1.3 if len(spread) else (1.0, 1.0)
    scale = min(1.05, 8.2 / max(width, 1.25 * height), 3.2 / math.sqrt(max(1.0, width * height)) + 0.3)
    names = [n for n in program.placement.core_of if n in program.populations]
    many = len(names) > 1
    figure = _figure(max(6.4, width * scale + 2.6), max(3.4, height * scale + 1.15 + 0.4 * many))
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.axis("off")
    _nodes(axes, plan, found.fabric)
    links = _links(axes, plan, found, 72 * scale)
    cores = _cores(axes, plan, found, program, names, 72 * scale)
    margin = 0.75 if plan.hexagonal else 0.5
    low, high = spread.min(axis=0) - margin, spread.max(axis=0) + margin
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(*((low[1], high[1]) if plan.hexagonal else (high[1], low[1])))
    _bars(figure, axes, cores, links)
    if many:
        _legend(figure, names)
    lines = 14 * (_summary(found, plan).count("\n") + 1)
    axes.annotate(
        title or load_target(program.chip).chip.title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, lines + 12),
        textcoords="offset points",
        fontsize=12,
        color=INK,
    )
    axes.set_title(_summary(found, plan), fontsize=8.5, color=DIM, pad=6, loc="left", linespacing=1.4)
    return axes


def _plan(found: Traffic) -> _Plan:
    fabric = found.fabric
    nodes = max(fabric.nodes, int(found.node.max(initial=0)) + 1)
    xy = fabric.position(np.arange(nodes)).astype(np.float64)
    if isinstance(fabric, HexTorus):  # east (1, 0), north-east at 60 degrees, north at 120
        at = np.stack([xy[:, 0] - xy[:, 1] / 2, xy[:, 1] * math.sqrt(3) / 2], axis=1)
    else:
        at = xy
    if nodes <= WHOLE_CHIP:
        return _Plan(np.arange(nodes), at, isinstance(fabric, HexTorus), False)
    used = np.unique(np.concatenate([found.node, *fabric.ends(found.used)]))
    low, high = xy[used].min(axis=0) - 1, xy[used].max(axis=0) + 1
    inside = ((xy >= low) & (xy <= high)).all(axis=1)
    return _Plan(np.flatnonzero(inside), at, isinstance(fabric, HexTorus), not inside.all())


def _outline(hexagonal: bool) -> Array:
    if hexagonal:
        angle = np.pi / 6 + np.arange(6) * np.pi / 3
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) * SIDE / math.sqrt(3) * 1.08
    half = SIDE / 2
    return np.array([[-half, -half], [half, -half], [half, half], [-half, half]])


def _nodes(axes: Any, plan: _Plan, fabric: Fabric) -> None:
    from matplotlib.collections import PolyCollection

    shape = _outline(plan.hexagonal)
    frames = plan.at[plan.shown][:, None] + shape
    axes.add_collection(PolyCollection(list(frames), facecolors=PAPER, edgecolors=LINE, linewidths=0.8, zorder=2))


def _seats(cores: int, hexagonal: bool) -> tuple[Array, float]:
    """(float64[cores, 2] centres of the cores of a node, radius or half side of each)."""
    if hexagonal:
        rings = math.ceil((math.sqrt(12 * cores - 3) - 3) / 6) if cores > 1 else 0
        q, r = (axis.ravel() for axis in np.meshgrid(*(np.arange(-rings, rings + 1),) * 2))
        every = np.stack([q + r / 2, r * math.sqrt(3) / 2], axis=1)[np.abs(q + r) <= rings]
        angle, far = np.arctan2(every[:, 1], every[:, 0]).round(6), np.hypot(*every.T).round(6)
        order = np.lexsort((angle, angle % round(math.pi, 6), far))[:cores]  # from the middle, opposite ones in turn
        pitch = SIDE * 1.02 / (2 * rings + 1)
        turned = np.stack([every[order, 1], every[order, 0]], axis=1)  # as the chip's own outline stands
        return turned * pitch, 0.5 * pitch
    wide = math.ceil(math.sqrt(cores))
    high = math.ceil(cores / wide)
    pitch = SIDE * (0.94 if cores > 1 else 1.0) / wide
    k = np.arange(cores)
    seats_xy = np.stack([k % wide - (wide - 1) / 2, k // wide - (high - 1) / 2], axis=1) * pitch
    return seats_xy, (0.44 if cores > 1 else 0.5) * pitch


def _shapes(centres: Array, radius: float, hexagonal: bool) -> Array:
    corners = 6 if hexagonal else 4
    angle = (0.0 if hexagonal else np.pi / 4) + np.arange(corners) * 2 * np.pi / corners
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius * (1.05 if hexagonal else math.sqrt(2))
    return np.asarray(centres[:, None] + ring)


def _cores(axes: Any, plan: _Plan, found: Traffic, program: Program, names: list[str], points: float) -> Any:
    """Every core; those in use by load, with the colour of their population as the frame."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Normalize

    seats, radius = _seats(found.fabric.cores_per_node, plan.hexagonal)
    empty = plan.at[plan.shown][:, None] + seats
    idle = _shapes(empty.reshape(-1, 2), radius, plan.hexagonal)
    axes.add_collection(PolyCollection(list(idle), facecolors=IDLE, edgecolors="none", zorder=3))
    order = np.argsort(found.node, kind="stable")
    first = np.concatenate([[True], np.diff(found.node[order]) != 0])
    rank = np.arange(order.size) - np.maximum.accumulate(np.where(first, np.arange(order.size), 0))
    seat = np.empty(order.size, np.int64)
    seat[order] = rank % len(seats)
    owner = np.full(found.node.size, -1)
    for k, name in enumerate(names):
        owner[np.unique(program.placement.core_of[name])] = k
    frames = [CYCLE[k % len(CYCLE)] if k >= 0 and len(names) > 1 else INK for k in owner]
    wide = float(np.clip(0.09 * radius * points, 0.7, 1.6))
    drawn = PolyCollection(
        list(_shapes(plan.at[found.node] + seats[seat], radius, plan.hexagonal)),
        array=found.load,
        cmap=CORES,
        norm=Normalize(0, max(float(found.load.max(initial=0.0)), 1e-9)),
        edgecolors=frames,
        linewidths=wide,
        zorder=4,
    )
    axes.add_collection(drawn)
    return drawn


def _links(axes: Any, plan: _Plan, found: Traffic, points: float) -> Any:
    """Every link as a thin line, those that carry messages wider and coloured; None where nothing travels."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    fabric = found.fabric
    link = np.arange(len(found.link))
    start = link // fabric.degree
    link = link[np.isin(start, plan.shown)]
    start = link // fabric.degree
    if fabric.nodes <= int(start.max(initial=0)):
        link, start = link[start < fabric.nodes], start[start < fabric.nodes]
    end = fabric.neighbour(start, link % fabric.degree)
    there = (end >= 0) & np.isin(end, plan.shown)
    link, start, end = link[there], start[there], end[there]
    offset = fabric.offsets[link % fabric.degree].astype(np.float64)
    if plan.hexagonal:
        offset = np.stack([offset[:, 0] - offset[:, 1] / 2, offset[:, 1] * math.sqrt(3) / 2], axis=1)
    wraps = np.abs(plan.at[end] - plan.at[start] - offset).max(axis=1, initial=0.0) > 1e-6
    right = np.stack([offset[:, 1], -offset[:, 0]], axis=1) * (0.055 if plan.hexagonal else -0.055)
    near, far = SIDE / 2, np.where(wraps, 0.62, 1 - SIDE / 2)
    a = plan.at[start] + offset * near + right
    b = plan.at[start] + offset * far[:, None] + right
    carried = found.link[link]
    axes.add_collection(LineCollection(list(np.stack([a, b], axis=1)), colors=LINE, linewidths=0.7, zorder=1))
    busy = carried > 0
    if not busy.any():
        return None
    share = carried[busy] / carried.max()
    drawn = LineCollection(
        list(np.stack([a, b], axis=1)[busy]),
        array=carried[busy],
        cmap=LINKS,
        norm=Normalize(0, float(carried.max())),
        linewidths=float(np.clip(points / 75, 0.6, 1.0)) * (1.0 + 3.2 * np.sqrt(share)),
        capstyle="round",
        zorder=1.5,
    )
    axes.add_collection(drawn)
    return drawn


def _bars(figure: Figure, axes: Any, cores: Any, links: Any) -> None:
    parts = [(cores, "synapses reached + neurons updated\nper core and sample")]
    if links is not None:
        parts.append((links, "messages per link and sample"))
    for drawn, label in parts:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=22, pad=0.02, fraction=0.05)
        bar.set_label(label, fontsize=8, color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.ax.ticklabel_format(axis="y", scilimits=(-3, 5))
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
        _bare(bar.ax)


def _legend(figure: Figure, names: list[str]) -> None:
    from matplotlib.patches import Patch

    shown = names[:MAX_LEGEND]
    handles = [
        Patch(facecolor="white", edgecolor=CYCLE[k % len(CYCLE)], linewidth=1.8, label=name)
        for k, name in enumerate(shown)
    ]
    if len(names) > len(shown):
        handles.append(Patch(facecolor="none", edgecolor="none", label=f"and {len(names) - len(shown)} more"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(6, len(handles)),
        fontsize=8,
        frameon=False,
        title="frame of a core: the population on it",
        title_fontsize=8,
    )


def _summary(found: Traffic, plan: _Plan) -> str:
    packets, hops = float(found.packets.sum()), float(found.hops.sum())
    lines = [
        f"{found.node.size:,} of {found.fabric.cores:,} cores in use"
        + (f", the {len(plan.shown):,} nodes around them shown" if plan.cropped else "")
        + f"; per sample {packets:,.0f} messages over {hops:,.0f} links"
    ]
    link, most = found.busiest_link
    if link >= 0:
        start, end = found.fabric.ends([link])
        a, b = (tuple(found.fabric.position(n)[0].tolist()) for n in (start, end))
        lines.append(f"busiest link {a} to {b}: {most:,.0f} messages; congestion is not modelled")
    elif not hops:
        lines.append("no message leaves its node")
    lines += [n for n in found.notes if n not in NOT_MODELLED]
    return "\n".join(lines)
