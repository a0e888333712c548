"""Delta modulation against plain Python, and the Braille loader."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from event_sets import survives
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuro.datasets import braille, delta, source
from neuro.datasets.delta import delta_modulate
from neuro.errors import BadConfig, BadEventFile, NeuroError


def plain(signal: np.ndarray, thresholds: list[float], substeps: int, start: np.ndarray | None) -> list[list[tuple]]:
    """The equation of the module, event by event, in Python floats."""
    result = []
    for record in signal:
        time, taxels = record.shape
        first = record[0] if start is None else start
        follower = {(j, c): float(first[c]) for j in range(len(thresholds)) for c in range(taxels)}
        found = []
        for s in range(time * substeps):
            a = s // substeps
            b = min(a + 1, time - 1)
            for j, h in enumerate(thresholds):
                for c in range(taxels):
                    before, after = float(record[a, c]), float(record[b, c])
                    y = before + (s - a * substeps) / substeps * (after - before)
                    if y - follower[j, c] >= h:
                        follower[j, c] += h
                        found.append((s, (j * taxels + c) * 2 + 1))
                    elif follower[j, c] - y >= h:
                        follower[j, c] -= h
                        found.append((s, (j * taxels + c) * 2))
        result.append(found)
    return result


signals = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 30)
)


@settings(max_examples=60, deadline=None)
@given(
    signals, st.lists(st.sampled_from([1.0, 2.0, 3.5, 8.0]), min_size=1, max_size=3), st.integers(1, 4), st.booleans()
)
def test_equals_the_equation(signal: np.ndarray, thresholds: list[float], substeps: int, at_rest: bool) -> None:
    start = np.full(signal.shape[2], 12.0) if at_rest else None
    steps, channels, offsets = delta_modulate(signal, thresholds, substeps, start)
    found = [list(zip(steps[a:b].tolist(), channels[a:b].tolist(), strict=True)) for a, b in pairwise(offsets)]
    assert found == plain(signal, thresholds, substeps, start)


@settings(max_examples=40, deadline=None)
@given(signals, st.sampled_from([1.0, 4.0]))
def test_the_follower_stays_within_a_threshold_of_slow_signals(signal: np.ndarray, threshold: float) -> None:
    substeps = 40  # 30 raw units in 40 sub-steps: slower than any threshold here per sub-step
    steps, channels, offsets = delta_modulate(signal, threshold, substeps)
    n, time, taxels = signal.shape
    for k in range(n):
        s, c = steps[offsets[k] : offsets[k + 1]], channels[offsets[k] : offsets[k + 1]]
        change = np.zeros((time * substeps, taxels))
        np.add.at(change, (s, c // 2), threshold * (2 * (c % 2) - 1))
        follower = signal[k, 0] + np.cumsum(change, axis=0)
        assert (np.abs(follower[::substeps] - signal[k].astype(float)) < threshold).all()


def test_kernel_equals_its_python() -> None:
    signal = np.random.default_rng(0).integers(0, 50, (2, 9, 3)).astype(float)
    steps, channels, offsets = delta_modulate(signal, [2.0, 5.0], 2)
    kernel = getattr(delta._modulate, "py_func", delta._modulate)
    table = np.repeat([[2.0], [5.0]], 3, axis=1)
    again = [np.zeros_like(steps), np.zeros_like(channels)]
    kernel(signal, table, signal[:, 0].copy(), np.empty_like(table), np.int64(2), offsets.copy(), *again)
    assert np.array_equal(again[0], steps)
    assert np.array_equal(again[1], channels)


def test_bad_settings_are_named_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        delta_modulate(np.full((1, 4, 2), np.nan), [0.0, 1.0], 0, np.zeros(3))
    assert len(caught.value.violations) == 4
    with pytest.raises(BadConfig, match="got shape"):
        delta_modulate(np.zeros((4, 2)), 1.0)
    with pytest.raises(BadConfig) as caught:
        source.load("braille", "valid", shift=-1.0, epoch=0.5, start="middle")
    assert len(caught.value.violations) == 3


def test_embedded_events() -> None:
    found = source.load("braille", "all")
    assert len(found) == 1080
    assert found.shape == (72,)
    assert len(found.times) == 222_975, "counted with an independent encoder of the training recipe"
    assert np.bincount(found.labels).tolist() == [40] * 27
    dense = found.batch([0, 500], 0.0125, 154)
    assert dense.sum() == found.offsets[1] + found.offsets[501] - found.offsets[500], "no two events in one cell"
    # only taxels 1, 2, 6 and 10 move; 2 hardly
    taxels = np.bincount(found.channels // 2 % 12, minlength=12)
    assert set(np.flatnonzero(taxels)) <= {1, 2, 6, 10}


def test_rest_is_the_median_of_the_first_samples() -> None:
    signals_ = braille.read_signals(braille.FILE)
    assert np.array_equal(np.median(signals_.taxels[:, 0], axis=0), braille.REST)


def test_padding_gives_no_events() -> None:
    raw = np.load(braille.FILE)
    short = int(np.flatnonzero(raw["length"] == 76)[0])
    assert not raw["taxels"][short, 76].any(), "the file pads with zeros"
    found = source.load("braille", "all", thresholds=[4.0], start="first")
    times, _ = found.recording(short)
    assert times.max() < 76.5 * braille.PERIOD


def other_file(path: Path, **changes: np.ndarray) -> Path:
    """Two repetitions of four letters with 50 samples, written like the embedded file."""
    rng = np.random.default_rng(3)
    walk = 200 + np.cumsum(rng.integers(-4, 5, (8, 50, 12)), axis=1)
    arrays = {
        "taxels": walk.clip(0, 255).astype(np.uint8),
        "length": np.full(8, 50, np.int16),
        "letter": np.arange(8, dtype=np.int8) // 2,
        "repetition": np.array([40, 41] * 4, np.int16),
        "letters": np.array(braille.LETTERS),
    }
    np.savez_compressed(path, **{**arrays, **changes})
    return path


def test_a_path_with_other_recordings(tmp_path: Path) -> None:
    file = other_file(tmp_path / "more.npz")
    found = source.load("braille", path=file)
    assert len(found) == 8
    assert found.duration == pytest.approx(50 * 0.025)
    assert len(source.load("braille", "test", path=file)) == 8
    with pytest.raises(BadConfig, match="no recording"):
        source.load("braille", "valid", path=file)  # 40 and 41 both train


def test_a_copy_by_path_equals_the_embedded(tmp_path: Path) -> None:
    copy = tmp_path / "copy.npz"
    copy.write_bytes(braille.FILE.read_bytes())
    a, b = source.load("braille", "train"), source.load("braille", "train", path=copy)
    assert np.array_equal(a.times, b.times)
    assert np.array_equal(a.channels, b.channels)


def test_variation_repeats_and_keeps_still_taxels_still() -> None:
    options = {"swap": 0.5, "shift": 1.0, "drift": 1.0, "noise": 0.5}
    first, again, next_epoch = (source.load("braille", "valid", **options, seed=3, epoch=e) for e in (0, 0, 1))
    assert np.array_equal(first.times, again.times)
    assert np.array_equal(first.channels, again.channels)
    assert not np.array_equal(first.offsets, next_epoch.offsets)
    assert set(np.unique(first.channels // 2 % 12)) <= {1, 2, 6, 10}
    raw, letter, _ = braille.read_signals(braille.FILE)
    still = braille.vary(raw, letter, **NOTHING, seed=1, epoch=1)
    assert np.array_equal(still, raw)


NOTHING = {"swap": 0.0, "shift": 0.0, "drift": 0.0, "noise": 0.0}


def test_swapped_taxels_come_from_the_same_letter() -> None:
    letter = np.repeat(np.arange(5), 8)
    raw = np.broadcast_to((np.arange(40.0) * 5)[:, None, None], (40, 6, 12)).copy()  # the level tells the recording
    found = braille.vary(raw, letter, **{**NOTHING, "swap": 0.5}, seed=2, epoch=0)
    origin = found[:, 0] / 5
    assert np.array_equal(origin // 8, np.broadcast_to(letter[:, None], (40, 12))), "within the letter"
    foreign = origin != np.arange(40)[:, None]
    touched = foreign.any(axis=1)
    assert touched.mean() == pytest.approx(0.5 * 7 / 8, abs=0.2)
    assert foreign[touched].mean() == pytest.approx(0.5, abs=0.1)


def test_each_kind_of_variation_does_what_it_says() -> None:
    ramp = np.broadcast_to(np.arange(100.0)[None, :, None] + 50, (500, 100, 2)).copy()
    ramp[..., 1] = 77.0
    letter = np.zeros(500, np.int64)
    moved = braille.vary(ramp, letter, **{**NOTHING, "shift": 3.0}, seed=0, epoch=0)
    offset = moved[:, 50, 0] - ramp[:, 50, 0]
    assert np.abs(offset).max() <= 3
    assert offset.std() == pytest.approx(3 / np.sqrt(3), rel=0.1)
    assert np.allclose(moved[:, 10:90, 0] - ramp[:, 10:90, 0], offset[:, None]), "a linear signal is only moved"
    drifted = braille.vary(ramp, letter, **{**NOTHING, "drift": 2.0}, seed=0, epoch=0)[..., 0] - ramp[..., 0]
    assert np.allclose(drifted, drifted[:, :1])
    assert drifted.std() == pytest.approx(2.0, rel=0.1)
    noisy = braille.vary(ramp, letter, **{**NOTHING, "noise": 2.0}, seed=0, epoch=0)
    assert (noisy[..., 0] - ramp[..., 0]).std() == pytest.approx(2.0, rel=0.05)
    assert np.array_equal(noisy[..., 1], ramp[..., 1]), "a still taxel stays still"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"taxels": np.zeros((8, 50, 11), np.uint8)}, "expected uint8"),
        ({"length": np.zeros(8, np.int16)}, "length lies in 0..0"),
        ({"length": np.full(8, 51, np.int16)}, "length lies in 51..51"),
        ({"letter": np.full(8, 27, np.int8)}, "letter lies in 27..27"),
        ({"letter": np.zeros(7, np.int8)}, "7 entries for 8"),
        ({"repetition": np.full(8, -1, np.int16)}, "repetition lies in -1"),
        ({"taxels": np.zeros((8, 50, 12))}, "expected kind u"),
        ({"length": np.array([None] * 8)}, "pickled objects"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(BadEventFile, match=match):
        source.load("braille", path=other_file(tmp_path / "bad.npz", **change))


def test_spoiled_files_give_one_named_error(tmp_path: Path) -> None:
    data = other_file(tmp_path / "good.npz").read_bytes()
    refused, read = survives(lambda p: source.load("braille", path=p), tmp_path / "bad.npz", data, 5, 200)
    assert refused > 100
    assert issubclass(BadEventFile, NeuroError)
    assert read < 100
