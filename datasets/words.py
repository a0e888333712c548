"""A spoken word as one image, time by band: events whose number at a pixel is the level there.

A word is ROWS rows of WORD / ROWS seconds. With y [dB] the mean over a row's frames of what the front end sends, a
pixel has round(y / level) events, none where that is negative: channel = row * bands + band, at the time at which its
row begins. What a recording says after WORD seconds is not in it. A convolution over such an image has kernels over
time and frequency; a delay line holds the word until its last row is there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

WORD, ROWS = 0.96, 48  # seconds, and rows


def word_events(
    heard: Iterable[NDArray[np.float64]], level: float, hop: float, bands: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """(times in seconds, channels, offsets int64[n + 1]) of n words; see the module's equation.

    heard: some recordings at a time, [n, time, bands], dB, a frame each ``hop`` seconds. level: dB of an event.
    """
    frames = round(WORD / hop)
    times, channels, counts = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for levels in heard:
        room = np.zeros((len(levels), frames, bands))
        room[:, : levels.shape[1]] = levels[:, :frames]
        rows = room.reshape(len(levels), ROWS, frames // ROWS, bands).mean(axis=2)
        quanta = np.maximum(np.rint(rows / level), 0.0).astype(np.int64).reshape(len(levels), -1)
        pixel = np.tile(np.arange(quanta.shape[1], dtype=np.int32), len(levels))
        channels.append(np.repeat(pixel, quanta.ravel()))
        times.append((channels[-1] // bands * (WORD / ROWS)).astype(np.float32))
        counts.append(quanta.sum(axis=1))
    return np.concatenate(times), np.concatenate(channels), np.cumsum(np.concatenate(counts))
