"""The page's drawings as SVG: intervals, lines, points and spikes. Numbers in, markup out.

Matplotlib draws what is looked at once; these are what a reader works with: every mark says its value, spikes can be
zoomed with all layers linked, and everything is text that scales to a phone and to paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from neuro.report import si

# Okabe and Ito (2008): told apart by all common kinds of colour blindness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5c5c5c")
WIDTH, ROW, LEFT = 640.0, 26.0, 150.0


def intervals(rows: Sequence[tuple[str, Mapping[str, Any]]], unit: str, label: str) -> Markup:
    """Ranges low..high with a mark at the nominal value, on a logarithmic axis; rows without a number are left out.

    rows: (name, {"low", "nominal", "high"}).
    """
    known = [(n, r) for n, r in rows if r and r.get("nominal")]
    if not known:
        return Markup("")
    least = min(r["low"] if r["low"] > 0 else r["nominal"] for _, r in known)
    most = max(r["high"] for _, r in known)
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most) + 1e-12)
    last = max(last, first + 1)

    def at(value: float) -> float:
        place = (math.log10(max(value, 10.0**first)) - first) / (last - first)
        return LEFT + place * (WIDTH - LEFT - 44)

    height = ROW * len(known) + 30
    parts = [_open(WIDTH, height, label)]
    stride = max(1, math.ceil((last - first) / 7))
    for power in range(first, last + 1, stride):
        x = at(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 24:.0f}"/>')
        tick = escape(si(10.0**power, unit))
        parts.append(f'<text x="{x:.1f}" y="{height - 8:.0f}" text-anchor="middle">{tick}</text>')
    for k, (name, r) in enumerate(known):
        y = ROW * k + 17
        said = f"{name}: {si(r['nominal'], unit)} ({si(r['low'], unit)} to {si(r['high'], unit)})"
        parts.append(f'<g class="mark" tabindex="0"><title>{escape(said)}</title>')
        parts.append(f'<rect class="hold" x="0" y="{y - ROW / 2:.0f}" width="{WIDTH:.0f}" height="{ROW:.0f}"/>')
        parts.append(f'<text x="{LEFT - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<line class="span" x1="{at(r["low"]):.1f}" x2="{at(r["high"]):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{at(r["nominal"]):.1f}" cy="{y}" r="5"/></g>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704  # names are escaped above


def lines(series: Mapping[str, Sequence[float | None]], label: str) -> Markup:
    """Curves over epochs, 1 on, in one panel with its own scale each."""
    drawn = {name: list(values) for name, values in series.items() if any(v is not None for v in values)}
    return Markup("").join(_curve(name, values, f"{label}: {name}") for name, values in drawn.items())


def _curve(name: str, values: Sequence[float | None], label: str) -> Markup:
    known = [(k + 1, float(v)) for k, v in enumerate(values) if v is not None and math.isfinite(v)]
    if not known:
        return Markup("")
    low, high = min(v for _, v in known), max(v for _, v in known)
    high = high if high > low else low + (abs(low) or 1.0)
    wide, tall, left = 300.0, 150.0, 52.0
    last = max(len(values), 2)

    def place(epoch: int, value: float) -> tuple[float, float]:
        x = left + (epoch - 1) / (last - 1) * (wide - left - 12)
        return x, tall - 26 - (value - low) / (high - low) * (tall - 52)

    points = " ".join("{:.1f},{:.1f}".format(*place(*each)) for each in known)
    parts = [_open(wide, tall, label), f'<text class="head" x="{left}" y="14">{escape(name)}</text>']
    for value in (low, high):
        y = place(1, value)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{wide - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<polyline class="curve" points="{points}"/>')
    for epoch, value in known:
        x, y = place(epoch, value)
        said = escape(f"{name}, epoch {epoch}: {value:.5g}")
        parts.append(f'<circle class="dot small" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{said}</title></circle>')
    parts.append(f'<text x="{(left + wide - 12) / 2:.0f}" y="{tall - 6}" text-anchor="middle">epoch</text></svg>')
    return Markup("".join(parts))  # noqa: S704


def spikes(raster: Mapping[str, Any], number: int) -> Markup:
    """One recording: a panel per layer over one time axis, which the page's script zooms for all of them at once.

    number: tells several on a page apart.
    """
    steps, dt = int(raster["steps"]), float(raster["dt"])
    parts = []
    for k, layer in enumerate(raster["layers"]):
        size = int(layer["size"])
        marks = "".join(f"M{t} {size - 1 - i}h.9" for t, i in zip(layer["steps"], layer["neurons"], strict=True))
        tall = 34 + 10 * math.log2(1 + size / 8)
        thin = "" if len(layer["steps"]) == layer["spikes"] else f", {len(layer['steps']):,} of them shown"
        said = f"{layer['name']}: {size:,} neurons, {layer['spikes']:,} spikes{thin}"
        stroke = max(1.5, min(5.0, tall / size))
        parts.append(
            f'<figure class="layer"><figcaption>{escape(said)}</figcaption>'
            f'<svg class="raster" role="img" aria-label="{escape(said)}" viewBox="0 -0.5 {steps} {size}" '
            f'preserveAspectRatio="none" style="height:{tall:.0f}px" data-steps="{steps}" data-size="{size}" '
            f'data-dt="{dt:g}" data-name="{escape(layer["name"])}">'
            f'<path d="{marks}" style="stroke:{COLOURS[k % len(COLOURS)]};stroke-width:{stroke:.1f}px"/></svg></figure>'
        )
    axis = f'<div class="axis"><span>0 s</span><output class="where"></output><span>{si(steps * dt, "s")}</span></div>'
    return Markup(f'<div class="rasters" id="raster{number}">{"".join(parts)}{axis}</div>')  # noqa: S704


def pareto(rows: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """Accuracy over event energy of designs that fit, Pareto-optimal ones ringed."""
    fit = [r for r in rows if r["fits"] and r["energy_j"] and r["energy_j"].get("nominal")]
    if not fit:
        return Markup("")
    energy = [r["energy_j"]["nominal"] for r in fit]
    first, last = math.log10(min(energy)), math.log10(max(energy))
    last = last if last > first else first + 1
    low, high = min(r["accuracy"] for r in fit), max(r["accuracy"] for r in fit)
    high = high if high > low else low + 0.01
    tall = 330.0

    def place(row: Mapping[str, Any]) -> tuple[float, float]:
        x = 70 + (math.log10(row["energy_j"]["nominal"]) - first) / (last - first) * (WIDTH - 110)
        return x, tall - 50 - (row["accuracy"] - low) / (high - low) * (tall - 90)

    parts = [_open(WIDTH, tall, label)]
    for value in (low, high):
        y = tall - 50 - (value - low) / (high - low) * (tall - 90)
        parts.append(f'<line class="grid" x1="60" x2="{WIDTH - 20:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="54" y="{y + 4:.1f}" text-anchor="end">{100 * value:.1f} %</text>')
    for power in (first, last):
        x = 70 + (power - first) / (last - first) * (WIDTH - 110)
        parts.append(f'<text x="{x:.0f}" y="{tall - 26:.0f}" text-anchor="middle">{escape(si(10**power, "J"))}</text>')
    chips = list(dict.fromkeys(r["point"]["chip"] for r in fit))
    for r in fit:
        x, y = place(r)
        named = ", ".join(f"{k} {v}" for k, v in r["point"].items())
        said = escape(f"{named}: {100 * r['accuracy']:.2f} %, {si(r['energy_j']['nominal'], 'J')}")
        colour = COLOURS[chips.index(r["point"]["chip"]) % len(COLOURS)]
        ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>' if r["pareto"] else ""
        parts.append(f'<g class="mark" tabindex="0"><title>{said}</title>{ring}')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/></g>')
    axis = "event energy of a sample (logarithmic)"
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{tall - 6:.0f}" text-anchor="middle">{axis}</text></svg>')
    return Markup("".join(parts))  # noqa: S704


def shade(count: int, most: int) -> str:
    """Background of a cell of a confusion matrix, stronger with the count, never so dark that ink cannot be read."""
    share = 0.0 if most == 0 else count / most
    return f"rgba(0,114,178,{0.7 * share:.3f})" if count else "transparent"


def _open(width: float, height: float, label: str) -> str:
    return f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}">'
