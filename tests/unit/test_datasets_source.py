"""The door to data sets: names, splits, options, checksums, downloads, and a foreign `datasets`."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from neuro.datasets import source
from neuro.datasets.collect import side
from neuro.errors import BadConfig, BadEventFile, ChecksumMismatch

ROOT = Path(__file__).parents[2]


def test_ours_are_registered_and_embedded() -> None:
    assert {"braille", "nmnist"} <= set(source.sources())
    for name in ("braille", "nmnist"):
        found = source.source(name)
        assert found.name == name
        assert found.embedded
        assert found.licence.startswith("CC BY")
        assert (ROOT / "datasets" / "data" / name / "LICENSE").read_text(encoding="utf-8").count("creativecommons") == 1


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(BadConfig, match="Did you mean 'nmnist'"):
        source.load("nmnst")
    with pytest.raises(BadConfig) as caught:
        source.load("braille", "vaild", substep=2, treshold=1)
    assert len(caught.value.violations) == 3, "all problems at once"
    assert "Did you mean 'valid'" in str(caught.value)
    assert "Did you mean 'substeps'" in str(caught.value)


@pytest.mark.parametrize("name", ["braille", "nmnist"])
def test_splits_are_disjoint_complete_and_repeat(name: str) -> None:
    parts = {split: source.load(name, split) for split in ("train", "valid", "all")}
    key = {s: [e.groups * 100 + e.labels, np.diff(e.offsets)] for s, e in parts.items()}
    together = np.sort(np.concatenate([key["train"][0], key["valid"][0]]))
    assert np.array_equal(together, np.sort(key["all"][0]))
    assert len(set(together.tolist())) == len(together), "no recording on both sides"
    assert not set(parts["train"].groups.tolist()) & set(parts["valid"].groups.tolist()), "no group is torn apart"
    assert len(parts["valid"]) == pytest.approx(len(parts["all"]) / 5, rel=0.01)
    assert set(parts["valid"].labels.tolist()) == set(parts["all"].labels.tolist())
    again = source.load(name, "valid")
    for column in ("times", "channels", "offsets", "labels", "groups"):
        assert np.array_equal(getattr(again, column), getattr(parts["valid"], column))
    assert len(source.load(name)) == len(parts["train"]), "without a path the default is train"
    with pytest.raises(BadConfig, match="no test split"):
        source.load(name, "test")


def test_defaults_of_a_source_describe_what_it_loads() -> None:
    for name in ("braille", "nmnist"):
        found = source.source(name)
        loaded = found.load("valid")
        assert loaded.shape == found.shape
        assert loaded.classes == found.classes
        inside = loaded.times < found.dt * found.steps
        assert inside.mean() > 0.99, "the default grid covers the recordings"


def test_side_depends_on_the_id_alone() -> None:
    ids = np.arange(100_000)
    mask = side(ids)
    assert mask.mean() == pytest.approx(0.2, abs=1e-4)
    some = np.random.default_rng(1).permutation(ids)[:500]
    assert np.array_equal(side(some), mask[some])
    assert np.flatnonzero(mask[:40]).tolist() == [1, 9, 14, 17, 22, 27, 30, 35], "published: a change breaks old runs"


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BadEventFile, match=r"nothing\.npz does not exist"):
        source.load("braille", path=tmp_path / "nothing.npz")


def test_changed_embedded_data_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    good = hashlib.sha256(b"abc").hexdigest()
    assert source.verify(file, good) == file
    file.write_bytes(b"abd")
    with pytest.raises(ChecksumMismatch, match="fetch it again"):
        source.verify(file, good)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "data.bin").write_bytes(b"events")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_fetch_verifies_and_keeps_nothing_wrong(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    good = hashlib.sha256(b"events").hexdigest()
    path = source.fetch(server + "data.bin", good, "data.bin")
    assert path == tmp_path / "cache" / "data.bin"
    assert path.read_bytes() == b"events"
    (tmp_path / "served" / "data.bin").write_bytes(b"other")
    assert source.fetch(server + "data.bin", good, "data.bin") == path, "what is cached is not fetched again"
    with pytest.raises(ChecksumMismatch):
        source.fetch(server + "data.bin", good, "second.bin")
    with pytest.raises(BadEventFile, match="By hand"):
        source.fetch(server + "absent.bin", good, "third.bin")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["data.bin"]


def test_a_foreign_datasets_package_wins_its_own_name(tmp_path: Path) -> None:
    foreign = tmp_path / "datasets"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("WHOSE = 'foreign'\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import datasets, neuro.datasets.braille as ours\n"
        "assert datasets.WHOSE == 'foreign', datasets\n"
        "print(len(ours.SOURCE.load('valid')), ours.__name__)"
    )
    # cwd is the checkout, where a folder of that name lies: without __init__.py it must lose
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["216", "neuro.datasets.braille"]


def test_listing_sources_imports_nothing_heavy() -> None:
    code = (
        "import sys, neuro.datasets.source as s; s.sources()\n"
        "print([m for m in ('torch', 'numba', 'tonic', 'h5py', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
