"""Any data set of tonic: what its object gives is loaded; transforms, cache, mirror; dead links say what to do."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuro.datasets.source import source
from neuro.datasets.tonic_any import from_tonic
from neuro.errors import BadConfig, BadEventFile, ChecksumMismatch
from neuro.train.config import DataConfig
from neuro.train.data import Recordings

tonic = pytest.importorskip("tonic", reason="needs tonic")
DTYPE = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
REFUSED = "http://127.0.0.1:9/gone"  # nobody listens there


def recording(k: int, count: int = 30) -> Any:
    rng = np.random.default_rng(k)
    events = np.zeros(count, DTYPE)
    events["t"] = np.sort(rng.integers(0, 90_000, count))
    events["x"], events["y"], events["p"] = (
        rng.integers(0, 12, count),
        rng.integers(0, 8, count),
        rng.integers(0, 2, count),
    )
    return events


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with the archive of `Small`, as a mirror has it."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with zipfile.ZipFile(mirror / "small.zip", "w") as file:
        for k in range(20):
            np.save(tmp_path / "one.npy", recording(k))
            file.write(tmp_path / "one.npy", f"small/{k:02d}.npy")
    return mirror


@pytest.fixture
def small(archive: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """A class as tonic writes them, in tonic.datasets."""
    digest = hashlib.md5((archive / "small.zip").read_bytes()).hexdigest()

    class Small(tonic.dataset.Dataset):  # type: ignore[misc,name-defined]
        """A few recordings.

        Parameters: none.
        """

        url, filename, file_md5 = REFUSED, "small.zip", digest
        sensor_size, classes = (12, 8, 2), ["left", "right"]
        reads = 0

        def __init__(self, save_to: str, train: bool = True, first: int = 20, transform: Any = None,
                     target_transform: Any = None, transforms: Any = None) -> None:  # fmt: skip
            super().__init__(save_to, transform, target_transform, transforms)
            if not self._is_file_present():
                self.download()
            self.data = sorted(Path(self.location_on_system, "small").glob("*.npy"))[: first if train else 5]

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, k: int) -> Any:
            Small.reads += 1
            events = np.load(self.data[k])
            return (self.transform(events) if self.transform else events), k % 2

    monkeypatch.setattr(tonic.datasets, "Small", Small, raising=False)
    return Small


def load(folder: Path, split: str = "all", **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return source("tonic:Small").load(split, folder, **options)


def test_a_set_from_a_mirror_is_what_tonic_gives(small: type, archive: Path, tmp_path: Path) -> None:
    found = load(tmp_path / "data", mirror=str(archive))
    assert (len(found), found.shape, found.classes) == (20, (2, 8, 12), ("left", "right"))
    for k in (0, 7, 19):
        events = recording(k)
        part = slice(found.offsets[k], found.offsets[k + 1])
        assert np.array_equal(np.rint(found.times[part] * 1e6), events["t"])
        assert np.array_equal(found.channels[part], (events["p"] * 8 + events["y"]) * 12 + events["x"])
    assert found.labels.tolist() == [0, 1] * 10
    train, valid = (load(tmp_path / "data", split) for split in ("train", "valid"))
    assert sorted([*train.groups, *valid.groups]) == list(range(20))
    assert len(load(tmp_path / "data", "test")) == 5
    assert len(load(tmp_path / "data", arguments={"first": 3})) == 3


def test_transforms_apply_and_are_cached(small: Any, archive: Path, tmp_path: Path) -> None:
    options = {
        "mirror": str(archive),
        "transforms": [{"name": "Downsample", "spatial_factor": 0.5}],
        "shape": [2, 4, 6],
    }
    found = load(tmp_path / "data", **options)
    theirs = small(
        str(tmp_path / "data"), transform=tonic.transforms.Downsample(sensor_size=(12, 8, 2), spatial_factor=0.5)
    )
    events = theirs[3][0]
    part = slice(found.offsets[3], found.offsets[4])
    assert np.array_equal(found.channels[part], (events["p"] * 4 + events["y"]) * 6 + events["x"])
    reads = small.reads
    again = load(tmp_path / "data", **options)
    assert small.reads == reads  # from the disk cache
    assert np.array_equal(again.channels, found.channels)
    other = load(tmp_path / "data", **{**options, "transforms": [{"name": "Downsample", "spatial_factor": 0.25}]})
    assert small.reads > reads  # another transform does not meet it
    assert not np.array_equal(other.channels, found.channels)
    assert load(tmp_path / "data", **{**options, "cache": False}).labels.tolist() == found.labels.tolist()


def test_frames_become_as_many_events(small: Any, archive: Path, tmp_path: Path) -> None:
    found = load(tmp_path / "data", mirror=str(archive), frame_dt=0.01,
                 transforms=[{"name": "ToFrame", "n_time_bins": 5}])  # fmt: skip
    assert found.duration == pytest.approx(0.05)
    frames = tonic.transforms.ToFrame(sensor_size=(12, 8, 2), n_time_bins=5)(recording(4))
    part = slice(found.offsets[4], found.offsets[5])
    counted = np.zeros((5, 2 * 8 * 12))
    np.add.at(counted, ((found.times[part] / 0.01).astype(int), found.channels[part]), 1)
    assert np.array_equal(counted.reshape(frames.shape), frames)


def test_a_name_in_a_configuration(small: type, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    config = DataConfig(dataset="tonic:Small", path=str(tmp_path / "data"), options={"mirror": str(archive)})
    assert len(Recordings(config, 0).train(0)) > 10
    with pytest.raises(BadConfig, match="Did you mean 'mirror'"):
        Recordings(DataConfig(dataset="tonic:Small", options={"miror": "x"}), 0)


def test_without_network_the_steps_are_said(small: type, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BadEventFile) as caught:
        load(tmp_path / "data")
    said = str(caught.value)
    place = tmp_path / "data" / "Small"
    for part in ("Small cannot be had", "refused", "1. fetch small.zip", REFUSED, "MD5", f"2. put it into {place}",
                 "unpack it", "3. run the same command again", "data.options.mirror"):  # fmt: skip
        assert part in said
    shutil.copy(archive / "small.zip", place / "small.zip")  # the steps work
    with zipfile.ZipFile(place / "small.zip") as file:
        file.extractall(place)
    assert len(load(tmp_path / "data")) == 20


def test_what_a_mirror_holds_must_be_what_was_published(small: Any, archive: Path, tmp_path: Path) -> None:
    good = hashlib.sha256((archive / "small.zip").read_bytes()).hexdigest()
    with pytest.raises(ChecksumMismatch, match="sha256"):
        load(tmp_path / "a", mirror=str(archive), sha256={"small.zip": "0" * 64})
    assert not list((tmp_path / "a").rglob("*small*"))  # neither kept nor unpacked
    assert len(load(tmp_path / "a", mirror=str(archive), sha256={"small.zip": good})) == 20
    with (archive / "small.zip").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ChecksumMismatch, match=r"has MD5 .* tonic expects"):
        load(tmp_path / "b", mirror=str(archive))
    small.file_md5 = None
    with pytest.raises(BadConfig, match=r"no checksum in tonic: give data.options.sha256"):
        load(tmp_path / "c", mirror=str(archive))


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("/no/such/folder", "neither .* is there"),
        ("http://127.0.0.1:9", "refused"),
        ("ftp://x", "begins with https://"),
    ],
)
def test_a_mirror_that_is_none(small: type, mirror: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((BadEventFile, BadConfig), match=said):
        load(tmp_path / "data", mirror=mirror)


def test_what_cannot_be_is_said(small: type, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="Did you mean 'Small'"):
        source("tonic:Smal")
    for options, said in (
        ({"arguments": {"save_to": "x", "many": 3}}, "arguments.many is none of Small's"),
        ({"transforms": ["Downsampel"]}, "Did you mean 'Downsample'"),
        ({"transforms": [{"name": "Downsample", "sideways": 1}]}, "transform Downsample"),
        ({"shape": [2, 4, 6]}, r"give\s+the shape of a step"),
    ):
        with pytest.raises(BadConfig, match=said):
            load(tmp_path / "data", mirror=str(archive), **options)


def test_an_object_with_tonics_layout() -> None:
    items = [(recording(k), name) for k, name in enumerate(["b", "a", "b"])]
    found = from_tonic(items, shape=(2, 8, 12))
    assert found.labels.tolist() == [0, 1, 0]
    assert found.classes == ("b", "a")
    with pytest.raises(BadConfig, match="sensor_size"):
        from_tonic(items)
    with pytest.raises(BadConfig, match="is no class"):
        from_tonic([(recording(0), np.zeros(3))], shape=(2, 8, 12))
    with pytest.raises(BadConfig, match="whole numbers"):
        from_tonic([(np.full((3, 2, 8, 12), 0.5), 0)], shape=(2, 8, 12))
    cochlea = np.zeros(3, [("t", int), ("x", int), ("p", int)])
    cochlea["x"] = [5, 699, 0]
    assert from_tonic([(cochlea, 1)], shape=(700,)).channels.tolist() == [5, 699, 0]
