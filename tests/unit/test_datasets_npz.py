"""EVENTS.npz: round trip, and files that lie."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from event_sets import survives
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.datasets.npz import Wanted, load_events_npz, read_arrays, save_events_npz
from neuro.errors import BadEventFile
from neuro.events import Events


def samples(n: int = 4, seed: int = 0) -> list[Events]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        m = int(rng.integers(0, 20)) if k else 0  # the first one is silent
        cells = rng.choice(10 * 12, m, replace=False)
        found.append(Events(cells // 12, cells % 12, (2, 3, 2), 10, 0.001))
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 100), st.booleans())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, labelled: bool) -> None:
    path = tmp_path_factory.mktemp("npz") / "EVENTS.npz"
    given_ = samples(n, seed)
    save_events_npz(path, given_, list(range(n)) if labelled else None)
    found = load_events_npz(path)
    assert len(found.samples) == n
    for a, b in zip(given_, found.samples, strict=True):
        assert (a.shape, a.steps, a.dt) == (b.shape, b.steps, b.dt)
        assert np.array_equal(a.t, b.t)
        assert np.array_equal(a.x, b.x)
    assert (found.labels is None) != labelled
    assert [p.name for p in path.parent.iterdir()] == ["EVENTS.npz"], "no temporary file stays"


def test_without_offsets_it_is_one_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", t=[0, 3], x=[1, 2], shape=[4], dt=0.01, steps=5)
    assert len(load_events_npz(tmp_path / "one.npz").samples) == 1


def test_samples_of_different_grids_are_refused(tmp_path: Path) -> None:
    other = Events(np.zeros(1, int), np.zeros(1, int), (12,), 10, 0.001)
    with pytest.raises(BadEventFile, match="2 different"):
        save_events_npz(tmp_path / "x.npz", [*samples(), other])
    with pytest.raises(BadEventFile, match="3 labels for 4"):
        save_events_npz(tmp_path / "x.npz", samples(), [0, 1, 2])
    with pytest.raises(BadEventFile, match="0 different"):
        save_events_npz(tmp_path / "x.npz", [])
    assert not list(tmp_path.iterdir())


GOOD = {"t": [0, 3], "x": [1, 2], "shape": [4], "dt": 0.01, "steps": 5, "offsets": [0, 1, 2], "labels": [0, 1]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"t": [0]}, "t has 1 events, x has 2"),
        ({"shape": [0]}, "shape"),
        ({"shape": [1 << 20, 1 << 20]}, "shape"),
        ({"dt": np.nan}, "dt is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"offsets": [0, 2, 1, 2]}, "offsets must rise"),
        ({"offsets": [0, 3]}, "offsets must rise"),
        ({"labels": [0]}, "1 labels for 2"),
        ({"x": [1, 4]}, "channels lie in"),
        ({"t": [0, 5]}, "steps lie in"),
        ({"t": [0.5, 1.0]}, "'t' is float64"),
        ({"labels": np.array([None, None])}, "pickled"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, change: dict[str, object], match: str) -> None:
    np.savez(tmp_path / "bad.npz", **{**GOOD, **change})
    with pytest.raises(BadEventFile, match=match):
        load_events_npz(tmp_path / "bad.npz")


def test_a_missing_array_and_no_npz_at_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in GOOD.items() if k not in ("t", "dt")})
    with pytest.raises(BadEventFile) as caught:
        load_events_npz(tmp_path / "bad.npz")
    assert len(caught.value.violations) == 2
    (tmp_path / "bad.npz").write_text("hello")
    with pytest.raises(BadEventFile, match="not a readable npz"):
        load_events_npz(tmp_path / "bad.npz")
    with pytest.raises(BadEventFile, match="not a readable npz"):
        load_events_npz(tmp_path)


def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("t.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(BadEventFile, match="allowed 1048576"):
        read_arrays(path, {"t": Wanted("u", 1)}, limit=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    # a header that promises more than is there must not allocate it
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.npy", header.getvalue())
    with pytest.raises(BadEventFile, match="promises shape"):
        read_arrays(path, {"t": Wanted("i", 1)})


def test_spoiled_files(tmp_path: Path) -> None:
    save_events_npz(tmp_path / "good.npz", samples(), [0, 1, 2, 3])
    start = time.perf_counter()
    refused, _ = survives(load_events_npz, tmp_path / "bad.npz", (tmp_path / "good.npz").read_bytes(), 11, 300)
    assert refused > 150
    assert time.perf_counter() - start < 30
