"""Japanese Vowels: nine speakers say /ae/, 7-29 frames of 12 LPC cepstrum coefficients, 6.4 ms apart (Kudo 1999).

Embedded: all 640 series, the 270 training and 370 test ones of the set. A path takes any ``.npz`` of the same layout:
frames int[n, 12] in millionths, length int[series], speaker int[series], test int[series]. `series` gives the numbers
themselves, and what is left of them at irregular times; `SOURCE` gives ON/OFF events by
`neuro.datasets.delta.delta_modulate`: channel = (level * 12 + coefficient) * 2 + polarity.
"""

from __future__ import annotations

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

FILE = Path(__file__).parent / "data" / "vowels" / "japanese_vowels_640.npz"
SHA256 = "1568728e238ddb59d57da8bf51a350f6196c95741fb65fc7ef57e3523761ee24"
SPEAKERS = tuple(f"speaker {k}" for k in range(1, 10))
PERIOD = 6.4e-3  # seconds from frame to frame (the set's description)
COEFFICIENTS, LONGEST = 12, 29
OPTIONS: dict[str, object] = {"thresholds": (0.05, 0.1, 0.2), "substeps": 2}
_WANTED = {name: Wanted("iu", 2 if name == "frames" else 1) for name in ("frames", "length", "speaker", "test")}


class Series(NamedTuple):
    """values: float64[n, time, 12], 0 behind the end; gaps: float64[n, time], frames since the element before (1 for
    the first one), 0 behind the end; speaker, number: int64[n]."""

    values: NDArray[np.float64]
    gaps: NDArray[np.float64]
    speaker: NDArray[np.int64]
    number: NDArray[np.int64]


def series(split: str = "all", path: Path | str | None = None, dropped: float = 0.0, seed: int = 0) -> Series:
    """The series of a split: "train", "valid", "test" or "all".

    dropped: share of frames that are missing, chosen anew for each series from ``seed``; the first one stays. What is
    left moves together, and ``gaps`` says how long ago the element before was: irregular times.

    Raises:
        BadConfig: no such split, dropped outside of [0, 1). BadEventFile: another layout.
    """
    if split not in ("train", "valid", "test", "all") or not 0 <= dropped < 1:
        raise BadConfig(f"split must be train, valid, test or all, dropped in [0, 1), got {split!r}, {dropped}")
    arrays = read_arrays(verify(FILE, SHA256) if path is None else path, _WANTED)
    frames = arrays["frames"]
    length, speaker, test = (arrays[k].astype(np.int64) for k in ("length", "speaker", "test"))
    bad = [] if frames.shape[1] == COEFFICIENTS else [f"frames have {frames.shape[1]} values, not {COEFFICIENTS}"]
    if not len(length) == len(speaker) == len(test) > 0 or length.min() < 1 or length.sum() != len(frames):
        bad.append(f"{len(length)} lengths of {length.sum()} frames, {len(speaker)} speakers, {len(test)} tests")
    elif speaker.min() < 0 or speaker.max() >= len(SPEAKERS):
        bad.append(f"speakers lie in {speaker.min()}..{speaker.max()}, allowed 0..{len(SPEAKERS) - 1}")
    if bad:
        raise BadEventFile(f"{path or FILE}: not a file of the known layout", bad)
    n, most = len(length), int(length.max())
    values, gaps = np.zeros((n, most, COEFFICIENTS)), np.zeros((n, most))
    starts = np.cumsum(length) - length
    for k in range(n):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, k])))
        kept = np.flatnonzero(rng.random(length[k]) >= dropped)
        kept = np.union1d(kept, [0])
        values[k, : len(kept)] = frames[starts[k] + kept] / 1e6
        gaps[k, : len(kept)] = np.diff(kept, prepend=-1)
    number = np.arange(n)
    chosen = {"all": number >= 0, "test": test > 0}.get(split, (test == 0) & (side(number) == (split == "valid")))
    return Series(values[chosen], gaps[chosen], speaker[chosen], number[chosen])


def read(split: str, path: Path | None, **options: Any) -> EventSet:
    """The reader behind `SOURCE`; options: `OPTIONS`."""
    found = series(split, path)
    last = np.maximum((found.gaps > 0).sum(1) - 1, 0)
    held = np.take_along_axis(found.values, np.minimum(np.arange(found.values.shape[1]), last[:, None])[:, :, None], 1)
    steps, channels, offsets = delta_modulate(held, options["thresholds"], options["substeps"], [0.0] * COEFFICIENTS)
    times = (steps * (PERIOD / options["substeps"])).astype(np.float32)
    levels = np.atleast_1d(np.asarray(options["thresholds"])).shape[0]
    shape, duration = (levels * COEFFICIENTS * 2,), held.shape[1] * PERIOD
    return EventSet(times, channels, offsets, found.speaker, found.number, shape, duration, SPEAKERS, "japanese_vowels")


SOURCE = Source(
    name="japanese_vowels",
    title="Japanese Vowels, nine speakers",
    licence="not stated in the files; CC BY 4.0 as of its repository, not verified",
    citation="Kudo, Toyama, Shimbo 1999, Pattern Recognition Letters 20:1103-1111, doi:10.24432/C5NS47",
    url="https://doi.org/10.24432/C5NS47",
    shape=(72,),
    classes=SPEAKERS,
    dt=PERIOD / 2,
    steps=2 * LONGEST,
    reader=read,
    options=OPTIONS,
    embedded=True,
)
