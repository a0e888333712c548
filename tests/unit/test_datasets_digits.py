"""Spoken digits: the spectrum against closed forms, the voices against plain Python, the loader, spoiled files."""

from __future__ import annotations

import io
import math
import tarfile
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_sets import survives

from neuro.datasets import digits, source, spectrum, voices
from neuro.datasets.digits import FILE, save_levels, speaker_group
from neuro.datasets.voices import NEIGHBOURS, Voice, adapt, contrast, vary
from neuro.errors import BadConfig, BadEventFile

RATE = 8000
VARY = {"warp": 2.0, "tempo": 0.2, "tilt": 3.0, "noise": 1.0}


def wav(samples: np.ndarray, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """Samples in -1..1 as a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        top = (1 << (8 * width - 1)) - 1
        file.writeframes(np.rint(samples * top).astype({1: "i1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    return out.getvalue()


def word(digit: int, speaker: int, index: int, rate: int = RATE) -> np.ndarray:
    """A tone whose pitch says the digit, gliding up, with some noise."""
    rng = np.random.default_rng([digit, speaker, index])
    t = np.arange(int((0.2 + 0.01 * index) * rate)) / rate
    tone = np.sin(2 * np.pi * (300.0 + 150.0 * digit + 20.0 * speaker) * t * (1 + t))
    return 0.5 * tone * np.hanning(len(t)) + 1e-3 * rng.standard_normal(len(t))


def folder_of(path: Path, speakers: tuple[str, ...] = ("theo", "ann"), indices: range = range(8)) -> Path:
    path.mkdir()
    for s, name in enumerate(speakers):
        for d in (0, 3, 9):
            for k in indices:
                (path / f"{d}_{name}_{k}.wav").write_bytes(wav(word(d, s, k)))
    return path


def test_a_sinusoid_has_its_level_in_its_band() -> None:
    t = np.arange(RATE) / RATE
    for amplitude, hertz in ((1.0, 1000.0), (0.1, 440.0), (0.01, 2500.0)):
        level = spectrum.log_mel(amplitude * np.sin(2 * np.pi * hertz * t), RATE)[20:80]
        ends = 2595 * np.log10(1 + np.array([spectrum.LOW, spectrum.HIGH]) / 700)
        place = (2595 * math.log10(1 + hertz / 700) - ends[0]) / (ends[1] - ends[0]) * (spectrum.BANDS + 1) - 1
        assert abs(level.mean(axis=0).argmax() - place) <= 0.6
        # triangles add up to 1: all bands together hold the power (Parseval; Hann: sum w^2 / (sum w)^2 = 1.5 / n)
        total = 10 * np.log10((10 ** (level / 10)).sum(axis=1))
        assert np.allclose(total, 20 * math.log10(amplitude) + 10 * math.log10(1.5 * 512 / 200), atol=0.1)


def test_levels_do_not_depend_on_the_rate_of_sampling() -> None:
    for hertz in (500.0, 1700.0):
        one, other = (
            spectrum.log_mel(0.3 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate), rate) for rate in (8000, 16000)
        )
        assert one.shape == other.shape == (100, spectrum.BANDS)
        loud = one[50] > one[50].max() - 20
        assert np.allclose(one[50][loud], other[50][loud], atol=0.3)


def test_silence_is_the_floor() -> None:
    assert np.allclose(spectrum.log_mel(np.zeros(801), RATE), -100.0)
    assert spectrum.log_mel(np.zeros(801), RATE).shape == (11, spectrum.BANDS)


def plain(levels: np.ndarray, voice: Voice, recording: int) -> np.ndarray:
    """The equation of `vary` for one recording without noise, cell by cell, in Python floats."""
    from neuro.datasets.kernels import key_of, uniform

    with np.errstate(over="ignore"):
        key = np.uint64(key_of(np.uint64(voice.seed), np.uint64(voice.epoch), np.uint64(recording)))
        u = [2 * float(uniform(key, np.uint64(k))) - 1 for k in (*range(4), *range(16, 22))]
    frames, bands = levels.shape
    base = np.maximum(levels - (float(levels.max()) - voice.reach), 0.0)
    length = max(1, round(frames * math.exp(voice.tempo * u[3])))
    out = np.zeros((length, bands))
    for i in range(length):
        at = i * (frames - 1) / (length - 1) if length > 1 else 0.0
        for b in range(bands):
            away = (b - (bands - 1) / 2) / ((bands - 1) / 2)
            place = min(max(b + voice.warp * u[0] + voice.warp * u[1] / 2 * away, 0.0), bands - 1.0)
            rows = [np.interp(place, np.arange(bands), base[min(f, frames - 1)]) for f in (int(at), int(at) + 1)]
            y = rows[0] + (at - int(at)) * (rows[1] - rows[0])
            colour = sum(u[3 + j] * math.cos(math.pi * j * (b + 0.5) / bands) for j in range(1, 7))
            out[i, b] = max(y + voice.tilt * u[2] * away + voice.colour * colour, 0.0)
    return out


def some_levels(seed: int, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 90, (sum(lengths), 7)).astype(np.uint8), np.concatenate([[0], np.cumsum(lengths)])


@pytest.mark.parametrize("seed", range(5))
def test_voices_equal_the_equation(seed: int) -> None:
    levels, offsets = some_levels(seed, (9, 1, 14, 2))
    voice = Voice(reach=40.0, warp=1.7, tempo=0.3, tilt=2.5, colour=4.0, seed=seed, epoch=3)
    found = vary(levels, offsets, np.array([4, 7, 0, 1]), voice, tail=3)
    for k, recording in enumerate((4, 7, 0, 1)):
        expected = plain(levels[offsets[k] : offsets[k + 1]], voice, recording)
        assert np.allclose(found[k, : len(expected)], expected, atol=1e-9)
        assert not found[k, len(expected) :].any()
        assert found.shape[1] - len(expected) >= 3


def test_an_unvaried_voice_is_the_recording() -> None:
    levels, offsets = some_levels(1, (6, 11))
    found = vary(levels, offsets, np.arange(2), Voice(reach=50.0), tail=2)
    for k in range(2):
        mine = levels[offsets[k] : offsets[k + 1]].astype(float)
        assert np.array_equal(found[k, : len(mine)], np.maximum(mine - mine.max() + 50.0, 0))


def test_noise_has_the_variance_it_says_and_differs_from_cell_to_cell() -> None:
    levels = np.full((4000, 7), 80, np.uint8)
    found = vary(levels, np.array([0, 4000]), np.arange(1), Voice(reach=50.0, noise=2.0), tail=0)[0] - 50.0
    assert abs(found.mean()) < 0.05
    assert abs(found.std() - 2.0) < 0.05
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.02


def test_colour_has_the_variance_it_says_and_stays_for_a_recording() -> None:
    levels, offsets = np.full((2000 * 3, spectrum.BANDS), 80, np.uint8), np.arange(2001) * 3
    found = vary(levels, offsets, np.arange(2000), Voice(reach=50.0, colour=3.0), tail=0) - 50.0
    assert abs(found.std() - 3.0) < 0.1
    assert np.array_equal(found[:, 0], found[:, 2])
    assert abs(np.corrcoef(found[:-1, 0].ravel(), found[1:, 0].ravel())[0, 1]) < 0.02
    steps = np.diff(found[:, 0], axis=1)
    assert steps.std() < 1.0  # smooth over bands


def test_kernel_equals_its_python() -> None:
    kernel = getattr(voices._vary, "py_func", voices._vary)
    levels, offsets = some_levels(2, (5, 3))
    voice = Voice(reach=40.0, warp=1.0, tempo=0.2, tilt=1.0, noise=1.0, colour=2.0, seed=1, epoch=2)
    found = vary(levels, offsets, np.arange(2), voice, tail=1)
    again = np.zeros_like(found)
    with np.errstate(over="ignore"):
        at = np.pi * (np.arange(7) + 0.5) / 7
        waves = np.cos(np.arange(1, 7)[:, None] * at)
        amounts = np.array([1.0, 0.2, 1.0, 1.0, 2.0])
        kernel(levels, offsets, np.arange(2), amounts, 40.0, np.uint64(1), np.uint64(2), waves, np.empty(7), again)
    assert np.allclose(again, found, atol=1e-12)


def test_embedded_events() -> None:
    found = source.load("digits", "all")
    assert (len(found), found.shape) == (2000, (80,))
    assert len(found.times) == 947_436, "counted from the wavs with an encoder that is not ours"
    assert np.bincount(found.labels).tolist() == [200] * 10
    assert sorted(np.unique(found.groups)) == [speaker_group(n) for n in ("george", "jackson", "nicolas", "yweweler")]
    assert FILE.stat().st_size < 2_000_000
    # a follower ends where it began, in silence: as many OFF as ON
    on = np.bincount(found.channels // 2, found.channels % 2 * 2 - 1.0)
    assert not on.any()


def test_splits() -> None:
    sizes = {split: len(source.load("digits", split)) for split in ("train", "valid", "test", "all")}
    assert sizes["test"] == 200
    assert sum(sizes[s] for s in ("train", "valid", "test")) == sizes["all"] == 2000
    assert 300 <= sizes["valid"] <= 420
    for name in ("george", "jackson", "nicolas", "yweweler"):
        train, valid = (source.load("digits", s, unseen=name) for s in ("train", "valid"))
        assert (len(train), len(valid)) == (1500, 500)
        assert set(valid.groups) == {speaker_group(name)}
        assert speaker_group(name) not in set(train.groups)


def test_a_speaker_that_is_left_out_is_nowhere() -> None:
    """Folds within the training speakers of a fold, to choose on."""
    kept = {split: source.load("digits", split, without="george") for split in ("train", "valid", "test", "all")}
    inner = [source.load("digits", split, unseen="jackson", without="george") for split in ("train", "valid")]
    for found in (*kept.values(), *inner):
        assert speaker_group("george") not in found.groups
    assert len(kept["all"]) == sum(len(kept[s]) for s in ("train", "valid", "test")) == 1500
    assert [len(found) for found in inner] == [1000, 500]
    assert set(inner[1].groups) == {speaker_group("jackson")}
    whole = source.load("digits", "valid", unseen="jackson")
    assert np.array_equal(whole.channels, inner[1].channels)
    for options, match in (
        ({"without": "georg"}, "without = 'georg'"),
        ({"without": "george", "unseen": "george"}, "nothing would be left"),
        ({"without": 1}, "without is the name"),
    ):
        with pytest.raises(BadConfig, match=match):
            source.load("digits", "valid", **options)


def test_wavs_in_a_folder_a_tar_and_our_file_give_the_same(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "recordings")
    with tarfile.open(tmp_path / "more.tar.xz", "w:xz") as tar:
        tar.add(folder, "free-spoken-digit-dataset/recordings")
    save_levels(folder, tmp_path / "levels.npz")
    sets = [source.load("digits", path=p) for p in (folder, tmp_path / "more.tar.xz", tmp_path / "levels.npz")]
    first = sets[0]
    assert len(first) == 48
    assert first.times.size > 1000
    assert first.groups.tolist() == [speaker_group("ann")] * 24 + [4] * 24
    for other in sets[1:]:
        for name in ("times", "channels", "offsets", "labels", "groups"):
            assert np.array_equal(getattr(first, name), getattr(other, name))
    assert len(source.load("digits", "test", path=folder)) == 2 * 3 * 5
    assert len(source.load("digits", "valid", path=folder, unseen="ann")) == 24


def test_loudness_does_not_matter(tmp_path: Path) -> None:
    for name, gain in (("loud", 1.0), ("soft", 0.1)):  # 20 dB
        (tmp_path / name).mkdir()
        (tmp_path / name / "4_bo_0.wav").write_bytes(wav(gain * word(4, 0, 9)))
    loud, soft = (source.load("digits", path=tmp_path / name) for name in ("loud", "soft"))
    assert abs(len(loud.times) - len(soft.times)) <= 0.05 * len(loud.times)


def test_variation_repeats_and_differs_by_epoch_and_not_by_company() -> None:
    first, again, later = (source.load("digits", "valid", **VARY, seed=3, epoch=e) for e in (0, 0, 1))
    assert np.array_equal(first.times, again.times)
    assert np.array_equal(first.channels, again.channels)
    assert not np.array_equal(first.offsets, later.offsets)
    whole = source.load("digits", "all", **VARY, seed=3, epoch=0)
    chosen = source.load("digits", "valid", unseen="jackson", **VARY, seed=3, epoch=0)
    mine = whole.subset(whole.groups == speaker_group("jackson"))
    assert np.array_equal(mine.times, chosen.times)
    assert np.array_equal(mine.channels, chosen.channels)
    assert replace(mine, name="x").shape == chosen.shape


def test_bad_options_are_named_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        source.load("digits", "valid", warp=-1.0, epoch=0.5, tempo=1.5, unseen=3, contrast=1.5, range=-1.0)
    assert len(caught.value.violations) == 6
    with pytest.raises(BadConfig, match="george"):
        source.load("digits", "valid", unseen="georg")
    with pytest.raises(BadConfig, match="split 'valid'"):
        source.load("digits", "test", unseen="george")
    with pytest.raises(BadConfig, match="thresholds"):
        source.load("digits", "valid", thresholds=[-1.0])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("7_bo_0.wav", wav(word(7, 0, 0), channels=2), "2 channel"),
        ("7_bo_0.wav", wav(word(7, 0, 0), width=4), "32 bits"),
        ("7_bo_0.wav", wav(word(7, 0, 0), rate=4000), "4000 Hz"),
        ("7_bo_0.wav", wav(np.zeros(0)), "0 samples"),
        ("7_bo_0.wav", wav(np.zeros(31 * RATE)), "allowed 1..240000"),
        ("7_bo_0.wav", wav(word(7, 0, 0))[:-100], "cut"),
        ("7_bo_0.wav", b"", "ends early"),
        ("7_bo_0.wav", b"RIFF", "7_bo_0.wav"),
        ("seven.wav", wav(word(7, 0, 0)), "7_jackson_32.wav"),
        ("7_bo_0.txt", b"", "no recording"),
    ],
)
def test_other_recordings_are_refused(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadEventFile, match=match) as caught:
        source.load("digits", path=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    for sub in ("a", "b"):
        (tmp_path / sub).mkdir()
        (tmp_path / sub / "1_bo_0.wav").write_bytes(wav(word(1, 0, 0)))
    with pytest.raises(BadEventFile, match="second recording"):
        source.load("digits", path=tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"change": np.zeros((30, 39), np.uint8)}, "expected uint8"),
        ({"frames": np.array([10, 21])}, "claim 31 frames"),
        ({"frames": np.array([10, 0])}, "frames lies in 0"),
        ({"digit": np.array([1, 10])}, "digit lies in 1..10"),
        ({"speaker": np.array([0, 1])}, "speaker lies in 0..1"),
        ({"index": np.array([1])}, "1 entries for 2"),
        ({"speakers": np.array([1, 2])}, "expected kind U"),
        ({"change": np.array([[None] * 40] * 30)}, "pickled objects"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, np.ndarray], match: str) -> None:
    arrays = {
        "change": np.ones((30, 40), np.uint8),
        "frames": np.array([10, 20]),
        "digit": np.array([1, 2]),
        "speaker": np.array([0, 0]),
        "index": np.array([0, 1]),
        "speakers": np.array(["bo"]),
    }
    np.savez(tmp_path / "good.npz", **arrays)
    assert len(source.load("digits", path=tmp_path / "good.npz")) == 2
    np.savez(tmp_path / "bad.npz", **{**arrays, **change})
    with pytest.raises(BadEventFile, match=match):
        source.load("digits", path=tmp_path / "bad.npz")


def test_spoiled_files_give_one_named_error(tmp_path: Path) -> None:
    data = wav(word(7, 0, 0)[:400])
    (tmp_path / "w").mkdir()
    refused, read = survives(
        lambda p: source.load("digits", path=p.parent), tmp_path / "w" / "7_bo_0.wav", data, 5, 200
    )
    assert refused > 20
    assert refused + read == 200
    save_levels(folder_of(tmp_path / "r", ("bo",), range(1)), tmp_path / "good.npz")
    refused, read = survives(
        lambda p: source.load("digits", path=p), tmp_path / "bad.npz", (tmp_path / "good.npz").read_bytes(), 5, 200
    )
    assert refused > 100
    assert digits.SOURCE.embedded


def test_bands_against_their_neighbours_cell_by_cell():
    """The equation in Python floats; what all bands share goes by the share, silence stays."""
    levels = np.random.default_rng(0).random((2, 3, 40)) * 30
    levels[1, 2] = 0.0
    found = contrast(levels, 0.4)
    for k, t, b in np.ndindex(levels.shape):
        near = [float(levels[k, t, c]) for c in range(40) if abs(c - b) <= NEIGHBOURS]
        assert found[k, t, b] == pytest.approx(float(levels[k, t, b]) - 0.4 * sum(near) / len(near), abs=1e-9)
    assert not found[1, 2].any()
    np.testing.assert_allclose(contrast(levels + 10.0, 0.4), found + 6.0)
    assert contrast(levels, 0.0) is levels


def test_range_and_contrast_reach_the_events():
    """Less range, fewer events; with contrast there are other ones, and events sum to the levels that they follow."""
    plain, narrow, sharp = (
        source.load("digits", "valid", unseen="george", **o) for o in ({}, {"range": 30.0}, {"contrast": 0.5})
    )
    assert len(narrow.times) < len(plain.times)
    assert len(sharp.times) < len(plain.times)
    same = source.load("digits", "valid", unseen="george", range=50.0, contrast=0.0)
    assert np.array_equal(same.channels, plain.channels)


def words(seed: int, lengths: tuple[int, ...], low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (sum(lengths), 7)).astype(np.uint8), np.concatenate([[0], np.cumsum(lengths)])


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_a_speakers_mean_spectrum_is_taken_off_as_the_equation_says(share: float) -> None:
    """Cell by cell in Python floats, with frames that are no speech and cells below the deepest."""
    levels, offsets = words(0, (6, 9, 4, 7), 40, 120)
    levels[[3, 8]] = 10
    speaker = np.array([0, 1, 0, 1])
    found = adapt(levels, offsets, speaker, share)
    for name in (0, 1):
        heard = []
        for k in np.flatnonzero(speaker == name):
            mine = levels[offsets[k] : offsets[k + 1]].astype(int).tolist()
            top = max(max(row) for row in mine)
            heard += [[max(y - top, -50) for y in row] for row in mine if max(row) > top - 25]
        assert 4 < len(heard) < {0: 10, 1: 17}[name]
        mean = [sum(column) / len(heard) for column in zip(*heard, strict=True)]
        for k in np.flatnonzero(speaker == name):
            for i in range(offsets[k], offsets[k + 1]):
                for b in range(7):
                    y = float(levels[i, b]) - share * (mean[b] - sum(mean) / 7 + 0.5 * (b - 3))
                    assert abs(found[i, b] - min(max(y, 0.0), 255.0)) <= 0.5 + 1e-9


def test_an_adapted_ear_does_not_hear_the_microphone() -> None:
    """Another microphone for all of a speaker's recordings, whole dB per band, changes nothing; nor other speakers."""
    levels, offsets = words(1, (8, 5, 6), 100, 120)
    speaker = np.array([0, 1, 0])
    found = adapt(levels, offsets, speaker, 1.0)
    coloured = levels.copy()
    mine = np.repeat(speaker == 0, np.diff(offsets))
    coloured[mine] += np.array([3, 0, -3, 5, -4, -2, 1]).astype(np.uint8)  # 0 on average; wraps, as sums do
    again = adapt(coloured, offsets, speaker, 1.0)
    assert np.array_equal(again, found)
    assert np.array_equal(adapt(levels[~mine], np.array([0, 5]), np.array([1]), 1.0), found[~mine])
    # what is left of a speaker falls by half a dB per band
    mean = [found[mine][:, b].mean() for b in range(7)]
    assert np.allclose(np.diff(mean), -0.5, atol=1.0)  # each band is rounded as a whole


def test_adaptation_reaches_the_events_and_depends_on_the_speaker_alone() -> None:
    plain, adapted = (source.load("digits", "valid", unseen="jackson", adapt=a) for a in (0.0, 1.0))
    assert len(plain) == len(adapted)
    assert not np.array_equal(plain.channels, adapted.channels)
    whole = source.load("digits", "all", adapt=1.0)
    mine = whole.subset(whole.groups == speaker_group("jackson"))
    assert np.array_equal(mine.channels, adapted.channels)
    with pytest.raises(BadConfig, match="adapt is 2"):
        source.load("digits", "valid", adapt=2.0)


def test_an_image_has_the_same_events_by_band() -> None:
    for thresholds in ([6.0], [4.0, 9.0]):
        flat, image = (
            source.load("digits", "test", thresholds=thresholds, layout=layout) for layout in ("flat", "image")
        )
        assert image.shape == (2 * len(thresholds), 1, 40)
        assert np.array_equal(image.times, flat.times)
        for event in (0, 1000, 5000, len(flat.times) - 1):
            rest, polarity = divmod(int(flat.channels[event]), 2)
            level, band = divmod(rest, 40)
            assert np.unravel_index(image.channels[event], image.shape) == (2 * level + polarity, 0, band)
    with pytest.raises(BadConfig, match="layout"):
        source.load("digits", "test", layout="picture")
