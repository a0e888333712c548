"""Spoken words as another voice might have said them: log-mel levels moved, stretched, tilted and noisy (neuro.jit).

`adapt`, `own`, `contrast` and `even` are no variations but what every recording goes through: the colour of a speaker
and a microphone is taken off, bands stand against their neighbours, and words become as long as each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.kernels import key_of, mix, uniform
from neuro.jit import routine

NEIGHBOURS = 12  # bands to either side
SPEECH = 25.0  # dB: frames whose loudest band is less far below a recording's loudest cell are speech
DEEPEST = 50.0  # dB below a recording's loudest cell: in a mean spectrum what is quieter counts as that
SLOPE = -0.5  # dB per band: the mean spectrum that all speakers are brought to falls as that of speech does
VOICED = 15.0  # dB: frames with a band above this are what the mean spectrum of one word is taken over (`own`)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CELL_COUNTER = np.uint64(1 << 41)
_COLOUR_COUNTER = 16  # and those after it: one for each wave of a colour
WAVES = 6  # half waves over all bands that a colour has at most
_LOW16, _S16, _S32, _S48 = np.uint64(0xFFFF), np.uint64(16), np.uint64(32), np.uint64(48)
SPREAD = math.sqrt(3.0) / 65536.0  # the sum of four uniform 16-bit numbers has standard deviation 65536 / sqrt(3)


@routine
def _vary(
    levels: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ids: NDArray[np.int64],
    amounts: NDArray[np.float64],
    reach: float,
    seed: np.uint64,
    epoch: np.uint64,
    waves: NDArray[np.float64],
    curve: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Recordings k, frames offsets[k]:offsets[k + 1] of levels, into out[k] [time, bands], 0 before; see `vary`.
    waves [WAVES, bands]: of a colour. curve [bands]: room for what a recording gets."""
    bands = levels.shape[1]
    warp, tempo, tilt, noise, colour = amounts[0], amounts[1], amounts[2], amounts[3], amounts[4]
    middle = 0.5 * (bands - 1)
    for k in range(out.shape[0]):
        start, frames = offsets[k], offsets[k + 1] - offsets[k]
        peak = np.uint8(0)
        for i in range(start, start + frames):
            for b in range(bands):
                peak = max(peak, levels[i, b])
        low = np.float64(peak) - reach
        key = np.uint64(key_of(seed, epoch, np.uint64(ids[k])))
        shift = warp * (2.0 * uniform(key, np.uint64(0)) - 1.0)
        widen = warp * (uniform(key, np.uint64(1)) - 0.5)
        slope = tilt * (2.0 * uniform(key, np.uint64(2)) - 1.0)
        length = min(out.shape[1], max(1, round(frames * math.exp(tempo * (2.0 * uniform(key, np.uint64(3)) - 1.0)))))
        pace = (frames - 1) / (length - 1) if length > 1 else 0.0
        for b in range(bands):
            curve[b] = slope * ((b - middle) / middle)
        if colour > 0.0:
            for j in range(waves.shape[0]):
                height = colour * (2.0 * uniform(key, np.uint64(_COLOUR_COUNTER + j)) - 1.0)
                for b in range(bands):
                    curve[b] += height * waves[j, b]
        for i in range(length):
            at = i * pace
            before = min(np.int64(at), frames - 1)
            after = min(before + 1, frames - 1)
            part = at - before
            for b in range(bands):
                away = (b - middle) / middle
                place = min(max(b + shift + widen * away, 0.0), bands - 1.0)
                below = min(np.int64(place), bands - 1)
                above = min(below + 1, bands - 1)
                share = place - below
                # silence ends at ``low``: what lies below it is nothing, not less than nothing
                early = (1.0 - share) * max(levels[start + before, below] - low, 0.0)
                early += share * max(levels[start + before, above] - low, 0.0)
                late = (1.0 - share) * max(levels[start + after, below] - low, 0.0)
                late += share * max(levels[start + after, above] - low, 0.0)
                y = (1.0 - part) * early + part * late + curve[b]
                if noise > 0.0:
                    r = np.uint64(mix(key + (_CELL_COUNTER + np.uint64(i * bands + b)) * _GOLDEN))
                    four = (r & _LOW16) + ((r >> _S16) & _LOW16) + ((r >> _S32) & _LOW16) + (r >> _S48)
                    y += noise * SPREAD * (np.float64(four) - 131070.0)
                out[k, i, b] = max(y, 0.0)


@dataclass(frozen=True)
class Voice:
    """How words vary (`vary`); 0 leaves them as they are. reach: dB below a recording's loudest cell that count."""

    reach: float
    warp: float = 0.0
    tempo: float = 0.0
    tilt: float = 0.0
    noise: float = 0.0
    colour: float = 0.0
    seed: int = 0
    epoch: int = 0


def vary(
    levels: NDArray[np.uint8], offsets: NDArray[np.int64], ids: NDArray[np.int64], voice: Voice, tail: int
) -> NDArray[np.float64]:
    """Levels above ``reach`` dB below each recording's loudest cell, varied: float64[n, time, bands], dB, >= 0.

    levels: uint8[frames, bands], dB above some floor; recording k holds frames offsets[k]:offsets[k + 1]. With U
    uniform in [-1, 1), drawn once per recording from the hash of (seed, epoch, ids[k]), and b the band, a = (b -
    middle) / middle in -1..1: band b reads band b + warp U + warp U a / 2 (linear between bands, ends held; another
    vocal tract); the word lasts exp(tempo U) times as long (linear between frames); each cell gets tilt U a + noise N
    dB, N the sum of four uniform numbers scaled to variance 1 and independent for each cell. A colour, as another
    microphone and throat have it, adds colour sum_j U_j cos(pi j (b + 1/2) / bands) sqrt(6 / WAVES) dB, j = 1..WAVES:
    of standard deviation ``colour`` over bands and recordings. Zero afterwards, for ``tail`` frames at least.
    """
    amounts = np.array([voice.warp, voice.tempo, voice.tilt, voice.noise, voice.colour], np.float64)
    lengths = np.diff(offsets)
    most = math.ceil(int(lengths.max()) * math.exp(voice.tempo)) if len(lengths) else 0
    out = np.zeros((len(ids), most + tail, levels.shape[1]))
    bands = levels.shape[1]
    at = np.pi * (np.arange(bands) + 0.5) / max(bands, 1)
    waves = math.sqrt(6.0 / WAVES) * np.cos(np.arange(1, WAVES + 1)[:, None] * at)
    given = (np.ascontiguousarray(levels)[:], np.ascontiguousarray(offsets)[:], np.ascontiguousarray(ids)[:])
    for column in given:
        column.setflags(write=False)
    with np.errstate(over="ignore"):  # the hash wraps on purpose; numpy says so when jit is off
        _vary(
            *given,
            amounts,
            float(voice.reach),
            np.uint64(voice.seed),
            np.uint64(voice.epoch),
            waves,
            np.empty(bands),
            out,
        )
    return out


def contrast(levels: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """y - share m, with m the mean of y over the bands within NEIGHBOURS of a band, as many as there are: float64[n,
    time, bands], dB. What all bands have in common, loudness and the colour of a voice or a microphone, counts less,
    and formants stand out: lateral inhibition. Silence stays silence, below 0 is less than the neighbours."""
    if not share:
        return levels
    bands = levels.shape[2]
    ends = np.zeros((*levels.shape[:2], bands + 1))
    np.cumsum(levels, axis=2, out=ends[:, :, 1:])
    first, last = np.maximum(np.arange(bands) - NEIGHBOURS, 0), np.minimum(np.arange(bands) + NEIGHBOURS + 1, bands)
    mean = (ends[:, :, last] - ends[:, :, first]) / (last - first)
    contrasted: NDArray[np.float64] = levels - share * mean
    return contrasted


def own(levels: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """y - share (m - mean(m)) in the voiced frames of a recording, y in the others; with m [bands] the mean of y over
    the voiced frames of that recording, whose loudest band is above VOICED: float64[n, time, bands], dB.

    The subtraction of the cepstral mean of one utterance (Atal 1974), in log-mel bands: it hears nothing but the word
    itself. What a voice and a microphone add to all of a word goes, and with it what the word says all the time."""
    if not share:
        return levels
    voiced = levels.max(axis=2, keepdims=True, initial=0.0) > VOICED
    mean = (levels * voiced).sum(axis=1, keepdims=True) / np.maximum(voiced.sum(axis=1, keepdims=True), 1)
    taken: NDArray[np.float64] = levels - share * (mean - mean.mean(axis=2, keepdims=True)) * voiced
    return taken


def even(levels: NDArray[np.float64], share: float, frames: int) -> NDArray[np.float64]:
    """Words brought to a common length: float64[n, time, bands], dB; time is that of the longest of them.

    A word is what a recording has from its first to its last frame whose loudest band is above VOICED, n frames. It is
    read at m = round(frames^share n^(1 - share)) places that lie evenly from the first to the last of them (linear
    between frames), and stands at the beginning; what is quieter before and behind it goes. A recording without such
    frames is silence. share: 1 makes all words ``frames`` long, between 0 and 1 their lengths come closer.

    The linear time normalisation of isolated words, what Sakoe and Chiba (1978) compare theirs with. It hears nothing
    but the word itself, and has to wait for its end."""
    if not share:
        return levels
    voiced = levels.max(axis=2, initial=0.0) > VOICED
    first, last = voiced.argmax(axis=1), levels.shape[1] - 1 - voiced[:, ::-1].argmax(axis=1)
    heard = np.where(voiced.any(axis=1), last - first + 1, 0)
    length = np.maximum(np.rint(frames**share * heard ** (1.0 - share)), 1.0).astype(np.int64) * (heard > 0)
    step = np.arange(int(length.max(initial=0)))
    far = np.maximum(heard - 1, 0)  # from the first to the last frame
    at = first[:, None] + np.minimum(step * (far / np.maximum(length - 1, 1))[:, None], far[:, None])
    before = at.astype(np.int64)
    after, part = np.minimum(before + 1, last[:, None]), (at - before)[:, :, None]
    row = np.arange(len(levels))[:, None]
    found: NDArray[np.float64] = (1.0 - part) * levels[row, before] + part * levels[row, after]
    found *= (step < length[:, None])[:, :, None]
    return found


def adapt(
    levels: NDArray[np.uint8], offsets: NDArray[np.int64], speaker: NDArray[np.int64], share: float
) -> NDArray[np.uint8]:
    """y - share (m - mean(m) - r), whole dB, in 0..255: uint8[frames, bands]; with m the mean spectrum of a speaker.

    levels: uint8[frames, bands], dB above some floor; recording k, of speaker[k], holds frames offsets[k]:offsets[k +
    1]. m, per band: the mean over all frames of speech (SPEECH) of all recordings of a speaker, of the level below its
    recording's loudest cell, DEEPEST at most. r: a line that falls by SLOPE dB per band, 0 on average. What a voice and
    a microphone add to everything that is said goes; which word is said is in how a recording differs from m. The
    subtraction of the cepstral mean of a speaker (Furui 1981; Viikki and Laurila 1998), in log-mel bands.
    """
    bands = levels.shape[1]
    lengths = np.diff(offsets)
    loudest = levels.max(axis=1).astype(np.float64)
    peak = np.repeat(np.maximum.reduceat(loudest, offsets[:-1]), lengths)
    who = np.repeat(speaker, lengths)
    line = SLOPE * (np.arange(bands) - 0.5 * (bands - 1))
    out = np.empty_like(levels)
    for name in np.unique(speaker):
        mine = who == name
        speech = mine & (loudest > peak - SPEECH)
        mean = np.maximum(levels[speech] - peak[speech, None], -DEEPEST).mean(axis=0)
        out[mine] = np.clip(np.rint(levels[mine] - share * (mean - mean.mean() - line)), 0, 255).astype(np.uint8)
    return out
