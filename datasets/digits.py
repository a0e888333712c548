"""Spoken digits: the words "zero" to "nine", said 50 times each by four speakers (Free Spoken Digit Dataset).

Embedded: 2000 recordings as log-mel levels (CC BY-SA 4.0, kept apart as separate data): the microphone's sound is not
there, what `neuro.datasets.spectrum` makes of it is, every 10 ms, in whole decibels. A path takes

- a folder, or a tar, tar.xz or tar.gz, with ``DIGIT_SPEAKER_INDEX.wav`` files (one channel, 16 bits, 8 kHz or more);
- one of our ``.npz`` files, as `save_levels` writes them from such recordings.

Both give the same events. Levels are counted from ``range`` dB below the loudest cell of the recording, so that
loudness does not matter; quieter is silence, and silence follows the word. With option contrast, bands inhibit their
neighbours (`neuro.datasets.voices.contrast`), which takes out part of what a microphone and a voice add to all of them.
With option adapt the front end knows who speaks into which microphone: the mean spectrum over all recordings of the
speaker in the file, whatever was said, is brought to a common one (`neuro.datasets.voices.adapt`), as an ear or an
amplifier that adapts slowly does. It sees no labels, but it hears the speaker: say so beside a result with it. Option
own does so with the mean spectrum of the recording itself (`neuro.datasets.voices.own`), and hears nothing else.
With option even words become equally long, EVEN seconds, whoever speaks fast or slowly (`neuro.datasets.voices.even`).
`neuro.datasets.delta.delta_modulate` with a follower that starts in silence makes ON/OFF events of what is left:
channel = (threshold * 40 + band) * 2 + polarity. With option layout = "image" a step has the shape (2 thresholds, 1,
40) instead, channel threshold * 2 + polarity of an image as wide as there are bands, for convolutions along them.

With option layout = "word" there is no delta modulation: a word is an image (1, 48 rows of 20 ms, 40 bands), and a
pixel has an event for each ``level`` dB (`neuro.datasets.words`). One step of 0.96 s sees the whole word as counts
(`neuro.train.config.DataConfig.high`), shorter steps see it arrive.

groups hold the speaker. Splits: as published, recordings 0-4 of each digit and speaker are "test", the others are
"train" and "valid" by their index. With option unseen = SPEAKER that speaker is "valid" and all others are "train":
one of the folds in which a network meets a voice that it has never heard. With option without = SPEAKER there are no
recordings of that speaker in any split: what is to be chosen for a fold can be chosen on the folds within its training
speakers (unseen one of them, without the speaker of the fold), and nobody has heard the last one yet.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.archive import folder_files, tar_files
from neuro.datasets.braille import number
from neuro.datasets.collect import side
from neuro.datasets.delta import delta_modulate
from neuro.datasets.npz import Wanted, read_arrays
from neuro.datasets.source import Source, verify
from neuro.datasets.spectrum import BANDS, HOP, log_mel, read_wav
from neuro.datasets.voices import Voice, adapt, contrast, even, own, vary
from neuro.datasets.words import ROWS, WORD, word_events
from neuro.errors import BadConfig, BadEventFile
from neuro.events import EventSet
from neuro.extend import did_you_mean
from neuro.files import atomic_path

FILE = Path(__file__).parent / "data" / "digits" / "digits_2000.npz"
SHA256 = "6a8898236ef5ebda9a038a86aa2c173124a0d4e6fcad1d5555f960a35f44592f"
DIGITS = tuple("0123456789")
KNOWN = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")  # groups 0-5
FLOOR = -80  # dB of full scale: level 0 of a file
TAIL = 0.1  # seconds of silence behind the longest word, in which followers come down
EVEN = 0.88  # seconds that words last which are made equally long: most of an image (`neuro.datasets.words.WORD`)
TEST_BELOW = 5  # recordings 0-4 of each digit and speaker, as the data set's README says
OPTIONS: dict[str, object] = {
    "thresholds": (6.0,),  # dB
    "substeps": 1,
    "range": 50.0,  # dB below the loudest cell of a recording that count
    "contrast": 0.0,  # share of the mean over neighbouring bands that is taken off
    "adapt": 0.0,  # share of a speaker's mean spectrum that is taken off
    "own": 0.0,  # share of a recording's own mean spectrum that is taken off
    "even": 0.0,  # 1: all words become equally long
    "layout": "flat",  # or "image", or "word"
    "level": 5.0,  # dB of an event in layout "word"
    "unseen": "",  # a speaker
    "without": "",  # a speaker
    "warp": 0.0,  # this and the next four: `neuro.datasets.voices.vary`; bands
    "tempo": 0.0,  # logarithm of the duration
    "tilt": 0.0,  # dB
    "noise": 0.0,  # dB
    "colour": 0.0,  # dB
    "seed": 0,
    "epoch": 0,
}
LAYOUTS = "Known layouts: DIGIT_SPEAKER_INDEX.wav files in a folder or tar; an .npz of save_levels."
_WANTED = {
    "change": Wanted("u", 2),
    "frames": Wanted("iu", 1),
    "digit": Wanted("iu", 1),
    "speaker": Wanted("iu", 1),
    "index": Wanted("iu", 1),
    "speakers": Wanted("U", 1),
}
_NAME = re.compile(r"(?:.*/)?(\d)_([A-Za-z][A-Za-z0-9-]{0,63})_(\d{1,6})\.wav")
_CHUNK = 256  # recordings that are real numbers at a time


@dataclass(frozen=True, eq=False)
class Levels:
    """levels: uint8[frames, BANDS], dB above FLOOR; recording k holds frames offsets[k]:offsets[k + 1].

    digit, index: int64[n]; speaker: int64[n], into speakers."""

    levels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    digit: NDArray[np.int64]
    speaker: NDArray[np.int64]
    index: NDArray[np.int64]
    speakers: tuple[str, ...]

    def of(self, chosen: NDArray[Any]) -> Levels:
        """The recordings with these indices."""
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        take = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Levels(
            self.levels[take], offsets, self.digit[chosen], self.speaker[chosen], self.index[chosen], self.speakers
        )


def _from_wavs(files: Iterable[tuple[str, bytes]], file: str) -> Levels:
    """In the order of speaker, digit and index. file: what stands before a name in a message."""
    rows: dict[tuple[str, int, int], NDArray[np.uint8]] = {}
    for name, content in files:
        match = _NAME.fullmatch(name)
        if not match:
            if name.endswith(".wav"):
                raise BadEventFile(f"{file}{name}: a name like 7_jackson_32.wav is expected. {LAYOUTS}")
            continue
        key = (match[2], int(match[1]), int(match[3]))
        if key in rows:
            raise BadEventFile(f"{file}{name}: a second recording of that name. Keep one data set in one folder.")
        level = log_mel(*read_wav(content, f"{file}{name}"))
        rows[key] = np.clip(np.rint(level - FLOOR), 0, 255).astype(np.uint8)
    if not rows:
        raise BadEventFile(f"{file.rstrip(' /')}: no recording in it. {LAYOUTS}")
    keys = sorted(rows)
    speakers = tuple(sorted({k[0] for k in keys}))
    offsets = np.concatenate([[0], np.cumsum([len(rows[k]) for k in keys])]).astype(np.int64)
    numbers = np.array([(k[1], speakers.index(k[0]), k[2]) for k in keys], np.int64)
    return Levels(
        np.concatenate([rows[k] for k in keys]), offsets, numbers[:, 0], numbers[:, 1], numbers[:, 2], speakers
    )


def save_levels(recordings: Path | str, path: Path | str) -> None:
    """Write the levels of a folder or tar of wavs as one ``.npz`` file, whole or not at all.

    change: uint8[frames, BANDS], level minus that of the frame before, modulo 256; frames: int32[n] per recording;
    digit: uint8[n]; speaker: uint8[n] into speakers; index: int32[n]; speakers: their names.

    Raises:
        BadEventFile: as `Source.load` with this path.
    """
    found = _open(Path(recordings))
    arrays: dict[str, NDArray[Any]] = {
        "change": np.diff(found.levels, axis=0, prepend=np.zeros((1, BANDS), np.uint8)),
        "frames": np.diff(found.offsets).astype(np.int32),
        "digit": found.digit.astype(np.uint8),
        "speaker": found.speaker.astype(np.uint8),
        "index": found.index.astype(np.int32),
        "speakers": np.array(found.speakers),
    }
    with atomic_path(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_LZMA
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _from_npz(path: Path) -> Levels:
    arrays = read_arrays(path, _WANTED)
    change, speakers = arrays["change"], tuple(str(name) for name in arrays["speakers"])
    frames, digit, speaker, index = (arrays[k].astype(np.int64) for k in ("frames", "digit", "speaker", "index"))
    bad = []
    if change.dtype != np.uint8 or change.shape[1] != BANDS:
        bad.append(f"change is {change.dtype}{list(change.shape)}, expected uint8[frames, {BANDS}]")
    for name, values, least, most in (
        ("frames", frames, 1, len(change)),
        ("digit", digit, 0, 9),
        ("speaker", speaker, 0, len(speakers) - 1),
        ("index", index, 0, 999_999),
    ):
        if len(values) != len(frames) or not len(values):
            bad.append(f"{name} has {len(values)} entries for {len(frames)} recordings")
        elif values.min() < least or values.max() > most:
            bad.append(f"{name} lies in {values.min()}..{values.max()}, allowed {least}..{most}")
    if not bad and frames.sum() != len(change):
        bad.append(f"recordings claim {frames.sum()} frames, the file holds {len(change)}")
    if bad:
        raise BadEventFile(f"{path}: not a file of spoken digits of the known layout", bad)
    offsets = np.concatenate([[0], np.cumsum(frames)]).astype(np.int64)
    return Levels(np.cumsum(change, axis=0, dtype=np.uint8), offsets, digit, speaker, index, speakers)


def _open(path: Path) -> Levels:
    if path.is_dir():
        return _from_wavs(folder_files(path, (".wav",)), f"{path}/")
    return _from_npz(path) if path.suffix == ".npz" else _from_wavs(tar_files(path), f"{path} ")


def _split(found: Levels, split: str, unseen: str, without: str) -> NDArray[np.int64]:
    """Indices of a split's recordings."""
    chosen = _side(found, split, unseen)
    return chosen[found.speaker[chosen] != _speaker(found, "without", without)] if without else chosen


def _speaker(found: Levels, option: str, name: str) -> int:
    """The number of a speaker whose recordings are there."""
    present = [found.speakers[k] for k in np.unique(found.speaker)]
    if name not in present:
        raise BadConfig(f"digits: no recording of {option} = {name!r}. {did_you_mean(name, present)}")
    return found.speakers.index(name)


def _side(found: Levels, split: str, unseen: str) -> NDArray[np.int64]:
    """Indices of a split's recordings, of all speakers."""
    if split == "all":
        return np.arange(len(found.digit))
    if unseen and split != "test":
        return np.flatnonzero((found.speaker == _speaker(found, "unseen", unseen)) == (split == "valid"))
    test = found.index < TEST_BELOW
    if split == "test":
        return np.flatnonzero(test)
    return np.flatnonzero(~test & (side(found.index) == (split == "valid")))


def speaker_group(name: str) -> int:
    """The group of a speaker's recordings, the same in every file."""
    return KNOWN.index(name) if name in KNOWN else len(KNOWN) + zlib.crc32(name.encode())


def read(split: str, path: Path | None, **options: Any) -> EventSet:
    """The reader behind `SOURCE`; options: `OPTIONS`."""
    bad: list[str] = []
    amounts: Any = {name: number(name, options[name], bad) for name in ("warp", "tempo", "tilt", "noise", "colour")}
    given: Any = {
        name: number(name, options[name], bad) for name in ("range", "contrast", "adapt", "own", "even", "level")
    }
    seeds: Any = {name: int(number(name, options[name], bad, whole=True)) for name in ("seed", "epoch")}
    bad += [f"tempo is {amounts['tempo']:g}, allowed 0..1"] if amounts["tempo"] > 1 else []
    bad += [f"contrast is {given['contrast']:g}, allowed 0..1"] if given["contrast"] > 1 else []
    bad += [f"adapt is {given['adapt']:g}, allowed 0..1"] if given["adapt"] > 1 else []
    bad += [f"own is {given['own']:g}, allowed 0..1"] if given["own"] > 1 else []
    bad += [f"even is {given['even']:g}, allowed 0..1"] if given["even"] > 1 else []
    bad += ["level is 0, it must be positive dB"] if given["level"] == 0 else []
    if options["layout"] not in ("flat", "image", "word"):
        bad.append(f"layout is {options['layout']!r}, allowed 'flat', 'image' and 'word'")
    elif options["layout"] == "word" and (options["thresholds"], options["substeps"]) != (OPTIONS["thresholds"], 1):
        bad.append("layout 'word' has no delta modulation: leave out thresholds and substeps, or take another layout")
    unseen, without = options["unseen"], options["without"]
    for option, name in (("unseen", unseen), ("without", without)):
        if not isinstance(name, str):
            bad.append(f"{option} is the name of a speaker, or empty, got {name!r}")
    if unseen and split == "test":
        bad.append(f"with unseen = {unseen!r} the unseen speaker is split 'valid'")
    if unseen and unseen == without:
        bad.append(f"unseen and without are the same speaker, {unseen!r}: nothing would be left to judge")
    if bad:
        raise BadConfig("digits cannot be loaded", bad)
    found = _from_npz(verify(FILE, SHA256)) if path is None else _open(path)
    if given["adapt"]:
        found = replace(found, levels=adapt(found.levels, found.offsets, found.speaker, given["adapt"]))
    found = found.of(_split(found, split, str(unseen), str(without)))
    voice = Voice(given["range"], **amounts, **seeds)
    heard = _heard(found, voice, given["even"], given["own"], given["contrast"])
    if options["layout"] == "word":
        columns = word_events(heard, given["level"], HOP, BANDS)
        return EventSet(*columns, found.digit, _groups(found), (1, ROWS, BANDS), WORD, DIGITS, "digits")
    events = _events(found, options["thresholds"], options["substeps"], heard)
    return _image(events) if options["layout"] == "image" else events


def _heard(found: Levels, voice: Voice, same: float, mean: float, neighbours: float) -> Iterator[NDArray[np.float64]]:
    """Levels behind the front end, some recordings at a time: float64[n, time, BANDS], dB."""
    ids = (found.speaker * 1_000_000 + found.index) * 10 + found.digit
    for first in range(0, len(ids), _CHUNK):
        some = np.arange(first, min(first + _CHUNK, len(ids)))
        offsets = found.offsets[first : some[-1] + 2]
        tail = round(TAIL / HOP)
        levels = vary(found.levels[offsets[0] : offsets[-1]], offsets - offsets[0], ids[some], voice, tail)
        if same:
            levels = np.pad(even(levels, same, round(EVEN / HOP)), ((0, 0), (0, tail), (0, 0)))
        yield contrast(own(levels, mean), neighbours)


def _groups(found: Levels) -> NDArray[np.int64]:
    return np.array([speaker_group(name) for name in found.speakers], np.int64)[found.speaker]


def _events(found: Levels, thresholds: Any, substeps: Any, heard: Iterable[NDArray[np.float64]]) -> EventSet:
    times, channels, counts, longest = [], [], [], 0
    for levels in heard:
        longest = max(longest, levels.shape[1])
        steps, channel, bounds = delta_modulate(levels, thresholds, substeps, np.zeros(BANDS))
        times.append((steps * (HOP / substeps)).astype(np.float32))
        channels.append(channel)
        counts.append(np.diff(bounds))
    columns = (
        np.concatenate([np.zeros(0, np.float32), *times]),
        np.concatenate([np.zeros(0, np.int32), *channels]),
        np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]).astype(np.int64),
        found.digit,
        _groups(found),
    )
    width = np.atleast_1d(np.asarray(thresholds, np.float64)).shape[0] * BANDS * 2
    return EventSet(*columns, (width,), max(longest, 1) * HOP, DIGITS, "digits")


def _image(events: EventSet) -> EventSet:
    """The same events as pixels of (threshold and polarity, 1, band)."""
    level, band, polarity = events.channels // (2 * BANDS), events.channels // 2 % BANDS, events.channels % 2
    pixels = ((level * 2 + polarity) * BANDS + band).astype(np.int32)
    return replace(events, channels=pixels, shape=(events.shape[0] // BANDS, 1, BANDS))


SOURCE = Source(
    name="digits",
    title="Spoken digits, four speakers, log-mel bands as ON/OFF events",
    licence="CC BY-SA 4.0",
    citation="Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401",
    url="https://github.com/Jakobovski/free-spoken-digit-dataset",
    shape=(2 * BANDS,),
    classes=DIGITS,
    dt=HOP,
    steps=100,
    reader=read,
    options=OPTIONS,
    embedded=True,
)
