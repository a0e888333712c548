"""Tactile Braille reading: a robot's fingertip slides over 27 characters, 12 taxels sampled at 40 Hz.

Embedded: 40 repetitions of each character (Mueller-Cleve et al. 2022, CC BY 4.0). A path takes any
``.npz`` of the same layout: taxels uint8[n, time, 12], length int[n] (samples that count), letter int[n],
repetition int[n]. The raw signal becomes ON/OFF events by `neuro.datasets.delta.delta_modulate`:
channel = (level * 12 + taxel) * 2 + polarity.

Splits are by repetition; there is no test split of its own, other repetitions come by path.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.collect import side
from neuro.datasets.delta import delta_modulate
from neuro.datasets.npz import Wanted, read_arrays
from neuro.datasets.source import Source, verify
from neuro.errors import BadConfig, BadEventFile
from neuro.events import EventSet

FILE = Path(__file__).parent / "data" / "braille" / "braille_1080.npz"
SHA256 = "bb8f7e677a5ecfb15e9fe32f42034212ff87b652287271d385d2ee79308ff09d"
LETTERS = (*"ABCDEFGHIJKLMNOPQRS", "Space", *"TUVWXYZ")  # the order of the labels
PERIOD = 0.025  # seconds; 40 Hz (Mueller-Cleve et al. 2022, section 2.1)
TAXELS = 12
# Median of each taxel's first sample over the embedded recordings: the untouched level. A follower that
# starts there tells the network the level of the recording, one that starts at the first sample hides it.
REST = (255.0, 238.0, 255.0, 255.0, 255.0, 255.0, 98.0, 255.0, 255.0, 255.0, 248.0, 255.0)
OPTIONS: dict[str, object] = {
    "thresholds": (2.0, 4.0, 8.0),  # raw units, one level each
    "substeps": 2,
    "start": "rest",
    "swap": 0.0,  # this and the next three: `vary`
    "shift": 0.0,
    "drift": 0.0,
    "noise": 0.0,
    "seed": 0,
    "epoch": 0,
}
_WANTED = {
    "taxels": Wanted("u", 3),
    "length": Wanted("iu", 1),
    "letter": Wanted("iu", 1),
    "repetition": Wanted("iu", 1),
}


class Signals(NamedTuple):
    """taxels: float64[n, time, 12], the last valid sample held to the end; letter, repetition: int64[n]."""

    taxels: NDArray[np.float64]
    letter: NDArray[np.int64]
    repetition: NDArray[np.int64]


def read_signals(path: Path | str) -> Signals:
    """The raw recordings of a file.

    Raises:
        BadEventFile: another layout, or arrays that contradict each other.
    """
    arrays = read_arrays(path, _WANTED)
    taxels = arrays["taxels"]
    length, letter, repetition = (arrays[k].astype(np.int64) for k in ("length", "letter", "repetition"))
    n, time = taxels.shape[:2]
    bad = []
    if taxels.dtype != np.uint8 or taxels.shape[2] != TAXELS or n < 1 or time < 1:
        bad.append(f"taxels is {taxels.dtype}{list(taxels.shape)}, expected uint8[n, time, {TAXELS}]")
    for name, values, least, most in (
        ("length", length, 1, time),
        ("letter", letter, 0, len(LETTERS) - 1),
        ("repetition", repetition, 0, 1 << 31),
    ):
        if len(values) != n:
            bad.append(f"{name} has {len(values)} entries for {n} recordings")
        elif n and (values.min() < least or values.max() > most):
            bad.append(f"{name} lies in {values.min()}..{values.max()}, allowed {least}..{most}")
    if bad:
        raise BadEventFile(f"{path}: not a Braille file of the known layout", bad)
    held = np.minimum(np.arange(time)[None], length[:, None] - 1)
    return Signals(np.take_along_axis(taxels, held[:, :, None], 1).astype(np.float64), letter, repetition)


def vary(
    taxels: NDArray[np.float64],
    letter: NDArray[np.int64],
    *,
    swap: float,
    shift: float,
    drift: float,
    noise: float,
    seed: int,
    epoch: int,
) -> NDArray[np.float64]:
    """Signals as another repetition might have given them; the same for the same (seed, epoch).

    In this order: with probability swap a recording takes each of its taxels, with probability 1/2, from
    another of the given recordings of its letter; it is moved in time by U(-shift, shift) samples (ends
    held); each taxel that moves at all gets a constant offset N(0, drift), and each of its samples
    N(0, noise), in raw units; clipped to 0..255.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    n, time, channels = taxels.shape
    partner = np.arange(n)
    for k in np.unique(letter):
        same = np.flatnonzero(letter == k)
        partner[same] = rng.permutation(same)
    foreign = (rng.random((n, 1, channels)) < 0.5) & (rng.random((n, 1, 1)) < swap)
    mixed = np.where(foreign, taxels[partner], taxels)
    at = np.clip(np.arange(time) + rng.uniform(-shift, shift, (n, 1)), 0, time - 1)
    before = np.floor(at).astype(np.int64)
    after = np.minimum(before + 1, time - 1)
    part = (at - before)[:, :, None]
    moved = (1 - part) * np.take_along_axis(mixed, before[:, :, None], 1)
    moved += part * np.take_along_axis(mixed, after[:, :, None], 1)
    live = moved.std(axis=1, keepdims=True) > 0
    moved += live * drift * rng.standard_normal((n, 1, channels))
    moved += live * noise * rng.standard_normal((n, time, channels))
    clipped: NDArray[np.float64] = np.clip(moved, 0.0, 255.0)
    return clipped


def number(name: str, value: object, bad: list[str], whole: bool = False) -> float:
    """The value of an option that is a number and not negative; else a line in ``bad`` and 0."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value < 0:
        bad.append(f"{name} must be a {'whole ' if whole else ''}number, not negative, got {value!r}")
        return 0.0
    return float(value)


def read(split: str, path: Path | None, **options: Any) -> EventSet:
    """The reader behind `SOURCE`; options: `OPTIONS`."""
    bad: list[str] = []
    amounts = {name: number(name, options[name], bad) for name in ("swap", "shift", "drift", "noise")}
    seeds = {name: int(number(name, options[name], bad, whole=True)) for name in ("seed", "epoch")}
    if amounts["swap"] > 1:
        bad.append(f"swap is a probability, got {options['swap']!r}")
    if options["start"] not in ("rest", "first"):
        bad.append(f"start must be 'rest' or 'first', got {options['start']!r}")
    if split == "test" and path is None:
        bad.append("the embedded file has no test split; give other repetitions by path, or load split 'valid'")
    if bad:
        raise BadConfig("braille cannot be loaded", bad)
    taxels, letter, repetition = read_signals(verify(FILE, SHA256) if path is None else path)
    if split in ("train", "valid"):
        chosen = np.flatnonzero(side(repetition) == (split == "valid"))
        taxels, letter, repetition = taxels[chosen], letter[chosen], repetition[chosen]
    if any(amounts.values()):  # after the split: what a letter swaps with comes from the same side
        taxels = vary(taxels, letter, **amounts, seed=seeds["seed"], epoch=seeds["epoch"])
    start = REST if options["start"] == "rest" else None
    steps, channels, offsets = delta_modulate(taxels, options["thresholds"], options["substeps"], start)
    times = (steps * (PERIOD / options["substeps"])).astype(np.float32)
    levels = np.atleast_1d(np.asarray(options["thresholds"])).shape[0]
    shape, duration = (levels * TAXELS * 2,), taxels.shape[1] * PERIOD
    return EventSet(times, channels, offsets, letter, repetition, shape, duration, LETTERS, "braille")


SOURCE = Source(
    name="braille",
    title="Tactile Braille reading, 27 characters",
    licence="CC BY 4.0",
    citation="Mueller-Cleve et al. 2022, Front. Neurosci. 16:951164, doi:10.3389/fnins.2022.951164",
    url="https://doi.org/10.5281/zenodo.6556273",
    shape=(72,),
    classes=LETTERS,
    dt=PERIOD / 2,
    steps=154,
    reader=read,
    options=OPTIONS,
    embedded=True,
)
