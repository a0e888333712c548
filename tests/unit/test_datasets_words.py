"""Spoken words as images, and the mean spectrum of a recording taken off: against their equations in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.datasets import source
from neuro.datasets.voices import VOICED, even, own
from neuro.datasets.words import ROWS, WORD, word_events
from neuro.errors import BadConfig


def levels(seed: int, n: int, frames: int, bands: int) -> np.ndarray:
    """dB; some frames are quiet, some cells below 0."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(-10.0, 45.0, (n, frames, bands))
    found[rng.random((n, frames)) < 0.4] *= 0.35
    return found


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_a_recordings_mean_spectrum_is_taken_off_as_the_equation_says(share: float) -> None:
    given = levels(0, 3, 9, 5)
    given[2] = 1.0  # nothing voiced in it
    found = own(given, share)
    for k in range(3):
        rows = given[k].tolist()
        voiced = [row for row in rows if max(row) > VOICED]
        assert len(voiced) in (range(2, 9) if k < 2 else (0,))
        mean = [sum(column) / len(voiced) for column in zip(*voiced, strict=True)] if voiced else [0.0] * 5
        for i, b in np.ndindex(9, 5):
            off = share * (mean[b] - sum(mean) / 5) if max(rows[i]) > VOICED else 0.0
            assert found[k, i, b] == pytest.approx(rows[i][b] - off, abs=1e-9)
    assert own(given, 0.0) is given


def test_another_microphone_is_not_heard_and_another_recording_neither() -> None:
    """A colour, 0 on average over the bands, that is on all voiced frames of one recording goes altogether."""
    given = levels(1, 2, 12, 4)
    given[:, :, 0] = 30.0  # all voiced, before and after
    colour = np.array([2.0, -5.0, 4.0, -1.0])
    coloured = given.copy()
    coloured[0] += colour
    found, again = own(given, 1.0), own(coloured, 1.0)
    np.testing.assert_allclose(again, found, atol=1e-9)
    assert np.array_equal(own(given[1:], 1.0), found[1:])


@pytest.mark.parametrize(("share", "frames"), [(1.0, 20), (1.0, 5), (0.5, 20)])
def test_words_become_equally_long_as_the_equation_says(share: float, frames: int) -> None:
    given = levels(4, 6, 14, 3)
    given[:4, [4, 8]] = 20.0  # voiced at least there
    given[4] = 1.0  # nothing voiced in it
    given[5] = np.where(np.arange(14) == 6, 30.0, 2.0)[:, None]  # one frame
    found = even(given, share, frames)
    lengths = []
    for k in range(6):
        voiced = [i for i in range(14) if max(given[k, i].tolist()) > VOICED]
        n = voiced[-1] - voiced[0] + 1 if voiced else 0
        m = round(frames**share * n ** (1 - share)) if n else 0
        for i in range(found.shape[1]):
            at = voiced[0] + i * (n - 1) / (m - 1) if i < m and m > 1 else 6.0
            low = int(at + 1e-9)
            part = at - low
            for b in range(3):
                later = float(given[k, min(low + 1, 13), b])
                expected = (1 - part) * float(given[k, low, b]) + part * later if i < m else 0.0
                assert found[k, i, b] == pytest.approx(expected, abs=1e-7), (k, i, b)
        lengths.append(m)
    assert found.shape[1] == max(lengths)
    assert lengths[4] == 0
    assert (len(set(lengths[:4])) == 1) == (share == 1)
    assert even(given, 0.0, frames) is given


def test_a_word_said_half_as_fast_behind_a_silence_is_the_same_word() -> None:
    """Levels that change linearly with time, so that nothing is lost between frames."""
    time = np.linspace(0.0, 1.0, 11)[:, None]
    fast = 20.0 + np.concatenate([10.0 * time, 5.0 - 3.0 * time], axis=1)
    slow = np.stack([np.interp(np.arange(21) / 2, np.arange(11), fast[:, b]) for b in range(2)], axis=1)
    room = np.zeros((2, 40, 2))
    room[0, :11], room[1, 9:30] = fast, slow
    quick, late = even(room, 1.0, 31)
    np.testing.assert_allclose(late, quick, atol=1e-9)
    assert not np.allclose(*even(room, 0.5, 31)), "with half a share they stay of different lengths"


def test_even_words_of_the_data_set_reach_the_last_row_but_two() -> None:
    plain, same = (source.load("digits", "valid", unseen="george", layout="word", even=e) for e in (0.0, 1.0))
    ends = [np.array([d.channels[a:b].max() // 40 for a, b in zip(d.offsets[:-1], d.offsets[1:], strict=True)])
            for d in (plain, same)]  # fmt: skip
    assert set(ends[1].tolist()) == {43}, "0.88 s are 44 rows"
    assert ends[0].std() > 3
    flat = source.load("digits", "valid", unseen="george", even=1.0)
    assert flat.duration == pytest.approx(0.98), "0.88 s and the silence behind it"


def test_a_pixel_has_as_many_events_as_its_level_has_quanta() -> None:
    """Pieces of several lengths, one longer than a word: its end is cut; rows are means of two frames of 10 ms."""
    short, long = levels(2, 3, 31, 4), levels(3, 2, 110, 4)
    times, channels, offsets = word_events([short, long], 5.0, 0.01, 4)
    assert offsets[-1] == len(times) == len(channels)
    for k in range(5):
        frames = short[k] if k < 3 else long[k - 3]
        mine = slice(offsets[k], offsets[k + 1])
        counted = np.bincount(channels[mine], minlength=ROWS * 4).reshape(ROWS, 4)
        assert (np.diff(times[mine]) >= 0).all()
        np.testing.assert_allclose(times[mine], channels[mine] // 4 * 0.02, rtol=1e-6)
        for row, band in np.ndindex(ROWS, 4):
            pair = [float(frames[t, band]) if t < len(frames) else 0.0 for t in (2 * row, 2 * row + 1)]
            assert counted[row, band] == max(0, round(sum(pair) / 2 / 5.0)), (k, row, band)
    assert word_events([], 5.0, 0.01, 4)[2].tolist() == [0]


def test_words_of_the_data_set() -> None:
    """One step sees the whole word as counts; a recording's mean spectrum and the size of an event reach it."""
    options = {"unseen": "george", "layout": "word"}
    plain, taken, coarse = (source.load("digits", "valid", **options, **o) for o in ({}, {"own": 1.0}, {"level": 10.0}))
    assert plain.shape == (1, ROWS, 40)
    assert plain.duration == WORD
    assert plain.labels.tolist() == source.load("digits", "valid", unseen="george").labels.tolist()
    counts = plain.batch(range(20), WORD, 1, 15)[0]
    assert counts.shape == (20, 1, ROWS, 40)
    assert counts.sum() == plain.offsets[20], "up to 50 dB in quanta of 5 fit into 15 counts"
    halves = plain.batch(range(20), WORD / 2, 2, 15)
    assert np.array_equal(halves.sum(axis=0), counts)
    assert not halves[0, :, :, ROWS // 2 :].any(), "the second half of a word comes in the second step"
    assert not np.array_equal(taken.channels, plain.channels)
    assert 0.4 < len(coarse.times) / len(plain.times) < 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"own": 1.5}, "own is 1.5"),
        ({"even": 1.5}, "even is 1.5"),
        ({"level": 0.0}, "level is 0"),
        ({"layout": "word", "thresholds": [3.0]}, "no delta modulation"),
        ({"layout": "word", "substeps": 2}, "no delta modulation"),
    ],
)
def test_what_a_word_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        source.load("digits", "test", **options)
