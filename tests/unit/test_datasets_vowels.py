"""Japanese Vowels: the series, irregular times, events, and files that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuro.datasets import source
from neuro.datasets.npz import write_npz
from neuro.datasets.vowels import PERIOD, SPEAKERS, series
from neuro.errors import BadConfig, BadEventFile

ROOT = Path(__file__).parents[2]


def test_splits_are_those_of_the_set() -> None:
    train, valid, test, whole = (series(s) for s in ("train", "valid", "test", "all"))
    assert len(train.speaker) + len(valid.speaker) == 270
    assert (len(test.speaker), len(whole.speaker)) == (370, 640)
    # counts of the set's description
    assert np.bincount(test.speaker).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = (whole.gaps > 0).sum(1)
    assert (lengths.min(), lengths.max()) == (7, 29)
    assert not set(train.number) & set(valid.number)
    assert whole.values[0, 0, :2].tolist() == [1.860936, -0.207383]  # the first numbers of the training file
    assert not whole.values[whole.gaps == 0].any()


def test_what_is_left_keeps_its_time() -> None:
    whole, left = series("test"), series("test", dropped=0.4, seed=3)
    again = series("test", dropped=0.4, seed=3)
    np.testing.assert_array_equal(left.values, again.values)
    assert 0.5 < (left.gaps > 0).sum() / (whole.gaps > 0).sum() < 0.7
    for k in range(len(left.speaker)):
        at = np.cumsum(left.gaps[k][left.gaps[k] > 0]).astype(int) - 1
        np.testing.assert_array_equal(left.values[k, : len(at)], whole.values[k, at])
    assert (left.gaps[:, 0] == 1).all()


def test_it_is_a_registered_data_set() -> None:
    found = source.source("japanese_vowels")
    assert found.embedded
    events = found.load("test")
    assert len(events) == 370
    assert events.shape == found.shape == (72,)
    assert events.classes == SPEAKERS
    assert events.times.max() < 29 * PERIOD
    text = (ROOT / "datasets" / "data" / "vowels" / "LICENSE").read_text(encoding="utf-8")
    assert text.count("creativecommons") == 1


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="split"):
        series("trian")
    with pytest.raises(BadConfig, match="dropped"):
        series(dropped=1.0)
    arrays = {"frames": np.zeros((5, 12), np.int32), "length": np.array([2, 3]), "speaker": np.array([0, 1])}
    for changed in ({"length": np.array([2, 2])}, {"speaker": np.array([0, 9])}, {"frames": np.zeros((5, 11), int)}):
        file = tmp_path / "series.npz"
        write_npz(file, {**arrays, "test": np.array([0, 1]), **changed})
        with pytest.raises(BadEventFile, match="not a file of the known layout"):
            series(path=file)
