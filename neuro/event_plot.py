"""A recording as a picture: events of either polarity per pixel, and their rate over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuro.datasets.formats.recording import Recording, info
from neuro.errors import BadEventFile
from neuro.plots import BLUE, GREY, ORANGE, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 200


def picture(recording: Recording) -> tuple[Axes, Axes]:
    """Axes of the pixels and of the rates. Reads the recording twice, piece by piece.

    Raises:
        BadEventFile: as the recording; one without events.
    """
    known = info(recording)
    if not known.events:
        raise BadEventFile(f"{recording.path} holds no event; there is nothing to draw")
    width, height = known.sensor
    pixels = np.zeros((2, height * width), np.int64)
    rate = np.zeros((2, BINS), np.int64)
    span = max(known.last_us - known.first_us, 1)
    for piece in recording.pieces():
        for p in (0, 1):
            own = piece[piece["p"] == p]
            pixels[p] += np.bincount(own["y"].astype(np.int64) * width + own["x"], minlength=height * width)
            rate[p] += np.bincount((own["t"] - known.first_us) * BINS // (span + 1), minlength=BINS)
    figure = _figure(8, 6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1])
    difference = (pixels[1] - pixels[0]).reshape(height, width)
    total = pixels.sum(0).reshape(height, width)
    most = max(1.0, float(np.quantile(np.abs(difference[total > 0]), 0.99)))
    drawn = above.imshow(difference, cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest", aspect="equal")
    figure.colorbar(drawn, ax=above, label="brighter minus darker events", shrink=0.9)
    above.set_title(f"{recording.path.name}: {known.format}, {known.events:,} events, {width} x {height}", fontsize=10)
    seconds = (np.arange(BINS) + 0.5) * span / BINS / 1e6
    for p, colour, name in ((1, ORANGE, "brighter"), (0, BLUE, "darker")):
        below.plot(seconds, rate[p] * BINS / span * 1e6, color=colour, lw=1, label=name)
    below.set_xlabel("time since the first event (s)", fontsize=9)
    below.set_ylabel("events per second", fontsize=9)
    below.legend(fontsize=8, frameon=False)
    below.grid(color=GREY, lw=0.3, alpha=0.5)
    return above, below
