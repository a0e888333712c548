"""`Events` and `EventSet`: the grid, the binning, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuro import events as module
from neuro.errors import BadEventFile
from neuro.events import Events, EventSet, step_of

NAN, INF = float("nan"), float("inf")


def some(**changed: Any) -> Events:
    return Events(**{"t": [2, 0, 2], "x": [5, 1, 5], "shape": (2, 3), "steps": 4, "dt": 1e-3, **changed})


def recordings(**changed: Any) -> EventSet:
    given = {
        "times": np.array([0.0, 0.0071, 0.001], np.float32),
        "channels": np.array([0, 5, 2]),
        "offsets": np.array([0, 2, 2, 3]),
        "labels": np.array([0, 1, 1]),
        "groups": np.array([4, 4, 5]),
        "shape": (2, 3),
        "duration": 0.01,
        "classes": ("a", "b"),
    }
    return EventSet(**{**given, **changed})


def test_events_are_sorted_frozen_and_dense() -> None:
    found = some()
    np.testing.assert_array_equal(found.t, [0, 2, 2])
    np.testing.assert_array_equal(found.x, [1, 5, 5])
    assert found.t.dtype == found.x.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        found.t[0] = 1
    dense = found.to_dense()
    assert dense.shape == (4, 2, 3)
    assert dense.dtype == np.uint8
    assert dense[0, 0, 1] == dense[2, 1, 2] == 1
    assert dense.sum() == 2  # two events in one place are one spike


def test_no_events_are_events() -> None:
    assert some(t=[], x=[]).to_dense().sum() == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"t": [0, 4, 1]}, "steps lie in 0..4, allowed 0..3"),
        ({"t": [0, -1, 1]}, "steps lie in -1..1"),
        ({"x": [0, 6, 1]}, "channels lie in 0..6, allowed 0..5"),
        ({"x": [0, -1, 1]}, "channels lie in -1"),
        ({"t": [0.5, 1.0, 2.0]}, "t must hold whole numbers"),
        ({"x": ["a", "b", "c"]}, "x must hold whole numbers"),
        ({"x": np.array([None, 1, 2])}, "x must hold whole numbers"),
        ({"t": [0, 1]}, "t has 2 events and x has 3"),
        ({"t": [[0, 1, 2]]}, "t must be a vector"),
        ({"t": [[0], [1, 2]]}, "cannot be read"),
        ({"x": None}, "x must be a vector"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": 2**31}, "steps must be a whole number"),
        ({"dt": 0.0}, "dt must be positive"),
        ({"dt": NAN}, "dt must be positive"),
        ({"dt": "1"}, "dt must be positive"),
        ({"shape": ()}, "shape must be"),
        ({"shape": (0, 3)}, "shape must be"),
        ({"shape": [2, 3]}, "shape must be"),
        ({"shape": (2.0, 3)}, "shape must be"),
        ({"shape": (2**20, 2**20)}, "shape must be"),
    ],
)
def test_events_refuse(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(BadEventFile, match=says):
        some(**changed)


def test_events_list_all_problems() -> None:
    with pytest.raises(BadEventFile) as caught:
        some(t=[0.5], x=[1, 2], steps=0, dt=-1)
    assert len(caught.value.violations) == 4


def test_dense_round_trip_and_what_is_refused() -> None:
    dense = np.zeros((3, 2, 2), np.uint8)
    dense[1, 0, 1] = 7
    found = Events.from_dense(dense, 1e-3)
    assert (found.t.tolist(), found.x.tolist(), found.shape, found.steps) == ([1], [1], (2, 2), 3)
    for bad, says in (
        (np.zeros(3), "steps, channels"),
        (np.zeros((0, 3)), "steps, channels"),
        (np.array([[NAN, 1.0]]), "NaN or infinite"),
        (np.array([["a"]]), "holds numbers"),
        ([[1], [1, 2]], "must be an array"),
    ):
        with pytest.raises(BadEventFile, match=says):
            Events.from_dense(bad, 1e-3)


def test_a_dense_array_beyond_memory_is_refused() -> None:
    with pytest.raises(BadEventFile, match="at most 4294967296"):
        some(steps=2**30, shape=(2**20,)).to_dense()
    with pytest.raises(BadEventFile, match="take fewer samples"):
        recordings().batch([0, 1], 1e-12, 2**31 - 1)


@pytest.mark.parametrize("dt", [1e-3, 1e-4, 1e-6, 0.025])
def test_events_on_the_grid_fall_into_their_own_step(dt: float) -> None:
    """float32(0.007) is below 7 ms: a bare floor(t / dt) puts it into step 6."""
    steps = np.arange(3000)
    times = (steps * dt).astype(np.float32)
    np.testing.assert_array_equal(step_of(times, dt), steps)
    assert (np.floor(times.astype(np.float64) / dt) != steps).any()  # the danger is real


def test_events_just_below_the_grid_stay_below() -> None:
    microseconds = np.arange(999, 300_000, 1000)
    times = (microseconds * 1e-6).astype(np.float32)
    np.testing.assert_array_equal(step_of(times, 1e-3), microseconds // 1000)


def test_recordings_bin_one_by_one_and_in_batches() -> None:
    data = recordings()
    assert len(data) == 3
    one = data.events(0, 1e-3, 10)
    assert (one.t.tolist(), one.x.tolist()) == ([0, 7], [0, 5])
    assert data.events(0, 1e-3, 7).t.tolist() == [0]  # what is later is dropped
    batch = data.batch([2, 0, 1], 1e-3, 10)
    assert batch.shape == (10, 3, 2, 3)
    for column, index in enumerate([2, 0, 1]):
        np.testing.assert_array_equal(batch[:, column], data.events(index, 1e-3, 10).to_dense())


def test_subset_by_index_and_mask() -> None:
    data = recordings()
    for chosen in ([2, 0], np.array([2, 0], np.int32)):
        part = data.subset(chosen)
        assert part.labels.tolist() == [1, 0]
        assert part.groups.tolist() == [5, 4]
        assert part.recording(1)[1].tolist() == [0, 5]
    assert data.subset(data.labels == 1).groups.tolist() == [4, 5]
    assert len(data.subset([])) == 0


@pytest.mark.parametrize("chosen", [[3], [-1], np.array([True, False])])
def test_subset_outside_is_an_index_error(chosen: Any) -> None:
    with pytest.raises(IndexError, match="3 recordings"):
        recordings().subset(chosen)


@pytest.mark.parametrize("index", [-1, 3])
def test_recording_outside_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        recordings().recording(index)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"times": np.array([0.0, 1.0])}, "2 times, but 3 channels"),
        ({"times": np.array([0.2, 0.1, 0.0])}, "sorted within"),
        ({"times": np.array([0.0, NAN, 0.0])}, "finite seconds"),
        ({"times": np.array([-1.0, 0.0, 0.0])}, "not negative"),
        ({"times": np.array(["a", "b", "c"])}, "real numbers"),
        ({"channels": np.array([0, 6, 0])}, "channels lie in 0..6"),
        ({"channels": np.array([0.0, 1.0, 2.0])}, "whole numbers"),
        ({"offsets": np.array([0, 2, 1, 3])}, "offsets must rise"),
        ({"offsets": np.array([0, 2, 2, 4])}, "offsets must rise"),
        ({"offsets": np.array([1, 2, 2, 3])}, "offsets must rise"),
        ({"offsets": np.array([0, 3])}, "one offset more"),
        ({"groups": np.array([0])}, "as many groups"),
        ({"labels": np.array([0, 1, 2])}, "there are 2 classes"),
        ({"labels": np.array([0, 1, -1])}, "labels lie in -1"),
        ({"shape": (0,)}, "shape must be"),
        ({"duration": 0.0}, "duration must be"),
        ({"duration": INF}, "duration must be"),
    ],
)
def test_recordings_refuse(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(BadEventFile, match=says):
        recordings(**changed)


@pytest.mark.parametrize(("dt", "steps"), [(0.0, 5), (NAN, 5), (1e-3, 0), (1e-3, 2.5)])
def test_a_bad_grid_is_refused(dt: float, steps: Any) -> None:
    with pytest.raises(BadEventFile, match="binned"):
        recordings().events(0, dt, steps)
    with pytest.raises(BadEventFile, match="binned"):
        recordings().batch([0], dt, steps)


def test_a_set_without_events_is_a_set() -> None:
    empty = np.zeros(0)
    data = recordings(times=empty, channels=empty, offsets=np.array([0, 0, 0, 0]))
    assert data.batch([0, 1, 2], 1e-3, 4).sum() == 0
    assert data.times.dtype == np.float32
    assert module.LARGEST == 2**31 - 1
