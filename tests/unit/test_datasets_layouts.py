"""The tonic rows: files made in each publisher's layout, read by us and, where installed, by tonic."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from event_sets import nmnist_bytes, random_nmnist, survives

from neuro.datasets import tonic_sets as sets
from neuro.datasets.aer import aedat2_dvs128, aedat3_polarity
from neuro.datasets.collect import ticks
from neuro.errors import BadConfig, BadEventFile, MissingExtra
from neuro.extend import plugins
from neuro.hdf5_process import kept

h5py = pytest.importorskip("h5py", reason="needs h5py")
GOLDEN = Path(__file__).parents[1] / "golden" / "datasets" / "cifar10_dvs.aedat4"
ROWS = (sets.NMNIST_FULL, sets.SHD, sets.SSC, sets.DVS_GESTURE, sets.CIFAR10_DVS, sets.NTIDIGITS)


def tonic_datasets() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tonic.datasets", reason="needs tonic")


def read_by_tonic(name: str, folder: Path, **arguments: object) -> object:
    """tonic's own class on files that are there, its check for the downloaded archive left out."""
    theirs = getattr(tonic_datasets(), name)
    checked = type(name, (theirs,), {"_check_exists": lambda self: True})
    return checked(save_to=str(folder), **arguments)


def heidelberg_file(path: Path, n: int, seed: int, classes: int, speakers: bool = True) -> None:
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (n,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (n,), h5py.vlen_dtype(np.uint16))
        for k in range(n):
            m = int(rng.integers(1, 40))
            times[k] = np.sort(rng.random(m)).astype(np.float16)
            units[k] = rng.integers(0, 700, m)
        file["labels"] = rng.integers(0, classes, n).astype(np.uint16)
        if speakers:
            file["extra/speaker"] = np.arange(n) % 12
        file["extra/keys"] = np.array([f"k{i}" for i in range(classes)], "S")


def ntidigits_file(path: Path) -> list[str]:
    rng = np.random.default_rng(4)
    names = [
        f"{who}-{take}-{digit}"
        for who in ("man-ah", "woman-bf", "boy-cd")
        for take in "ab"
        for digit in ("z", "3", "12")
    ]
    with h5py.File(path, "w") as file:
        for part, chosen in (("train", names), ("test", names[:3])):
            file[f"{part}_labels"] = np.array(chosen, "S")
            for name in chosen:
                m = int(rng.integers(1, 30))
                file[f"{part}_timestamps/{name}"] = np.sort(rng.random(m))
                file[f"{part}_addresses/{name}"] = rng.integers(0, 64, m).astype(np.int32)
    return names


def gesture_folder(root: Path) -> None:
    rng = np.random.default_rng(5)
    for part, users in (("Train", (1, 2, 9)), ("Test", (24,))):
        for user in users:
            folder = root / f"ibmGesture{part}" / f"user{user:02d}_lab"
            folder.mkdir(parents=True)
            for label in (0, 10):
                m = int(rng.integers(2, 40))
                events = np.stack(
                    [
                        rng.integers(0, 128, m),
                        rng.integers(0, 128, m),
                        rng.integers(0, 2, m),
                        np.sort(rng.integers(0, 900, m)),
                    ],
                    1,
                )
                np.save(folder / f"{label}.npy", events.astype(np.float64))


@pytest.mark.parametrize(("row", "prefix", "classes"), [(sets.SHD, "shd", 20), (sets.SSC, "ssc", 35)])
def test_heidelberg(tmp_path: Path, row: object, prefix: str, classes: int) -> None:
    parts = ("train", "test") if prefix == "shd" else ("train", "valid", "test")
    for seed, part in enumerate(parts):
        heidelberg_file(tmp_path / f"{prefix}_{part}.h5", 24 - seed, seed, classes)
    found = {s: row.load(s, tmp_path) for s in ("train", "valid", "test", "all")}  # type: ignore[attr-defined]
    assert len(found["all"]) == sum(24 - k for k in range(len(parts)))
    assert found["train"].classes[3] == "k3", "the file's own names"
    if prefix == "shd":
        assert len(found["train"]) + len(found["valid"]) == 24
        assert not set(found["train"].groups.tolist()) & set(found["valid"].groups.tolist()), "split by speaker"
        assert set(found["valid"].groups.tolist()) == {1, 9}
    else:
        assert [len(found[s]) for s in parts] == [24, 23, 22], "the publisher's own split"
    one = row.load(None, tmp_path / f"{prefix}_test.h5")  # type: ignore[attr-defined]
    assert len(one) == len(found["test"])


def test_spikes_out_of_order_are_sorted_with_their_units(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "shd_test.h5", "w") as file:
        file.create_dataset("spikes/times", (1,), h5py.vlen_dtype(np.float32))[0] = np.array([0.5, 0.25, 0.75], "f4")
        file.create_dataset("spikes/units", (1,), h5py.vlen_dtype(np.uint16))[0] = np.array([1, 2, 3], "u2")
        file["labels"] = np.zeros(1, int)
    found = sets.SHD.load("test", tmp_path)
    assert found.times.tolist() == [0.25, 0.5, 0.75]
    assert found.channels.tolist() == [2, 1, 3]
    for name, value, match in (
        ("spikes/times", np.array([np.nan, 0, 0], "f4"), "finite"),
        ("spikes/units", np.array([700, 0, 0], "u2"), "units lie in 0..700"),
        ("spikes/units", np.array([1, 2], "u2"), "do not match"),
    ):
        with h5py.File(tmp_path / "shd_test.h5", "r+") as file:
            kept = file[name][0]
            file[name][0] = value
        with pytest.raises(BadEventFile, match=match):
            sets.SHD.load("test", tmp_path)
        with h5py.File(tmp_path / "shd_test.h5", "r+") as file:
            file[name][0] = kept


@pytest.mark.parametrize(("row", "name", "prefix"), [(sets.SHD, "SHD", "shd"), (sets.SSC, "SSC", "ssc")])
def test_heidelberg_equals_tonic(tmp_path: Path, row: object, name: str, prefix: str) -> None:
    tonic_datasets()
    (tmp_path / name).mkdir()
    heidelberg_file(tmp_path / name / f"{prefix}_test.h5", 10, 3, 20 if name == "SHD" else 35)
    arguments = {"train": False} if name == "SHD" else {"split": "test"}
    theirs = read_by_tonic(name, tmp_path, **arguments)
    ours = row.load("test", tmp_path / name)  # type: ignore[attr-defined]
    assert len(ours) == len(theirs) == 10  # type: ignore[arg-type]
    for k in range(10):
        events, label = theirs[k]  # type: ignore[index]
        times, channels = ours.recording(k)
        assert label == ours.labels[k]
        assert np.array_equal(channels, events["x"])
        assert np.abs(times * 1e6 - events["t"]).max() < 1.1, "tonic cuts to whole microseconds"


def test_ntidigits(tmp_path: Path) -> None:
    names = ntidigits_file(tmp_path / "n-tidigits.hdf5")
    found = {s: sets.NTIDIGITS.load(s, tmp_path) for s in ("train", "test", "all")}
    try:
        valid = set(sets.NTIDIGITS.load("valid", tmp_path).groups.tolist())
    except BadConfig:
        valid = set()
    singles = [n for n in names if len(n.rpartition("-")[2]) == 1]
    assert len(found["all"]) == len(singles) + 2, "sequences of digits have no class"
    assert len(set(found["train"].groups.tolist()) | valid) == 6
    assert not set(found["train"].groups.tolist()) & valid
    assert sorted(set(found["all"].labels.tolist())) == [3, 10]
    assert len(sets.NTIDIGITS.load("all", tmp_path / "n-tidigits.hdf5")) == len(found["all"])


@pytest.mark.filterwarnings("ignore")
def test_ntidigits_equals_tonic(tmp_path: Path) -> None:
    tonic_datasets()
    (tmp_path / "NTIDIGITS18").mkdir()
    ntidigits_file(tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5")
    theirs = read_by_tonic("NTIDIGITS18", tmp_path, train=False, single_digits=True)
    ours = sets.NTIDIGITS.load("test", tmp_path / "NTIDIGITS18")
    assert len(ours) == len(theirs) == 2  # type: ignore[arg-type]
    for k in range(2):
        events, label = theirs[k]  # type: ignore[index]
        assert label == ours.labels[k]
        assert np.array_equal(ours.recording(k)[1], events["x"])


def test_dvs_gesture(tmp_path: Path) -> None:
    gesture_folder(tmp_path)
    found = {s: sets.DVS_GESTURE.load(s, tmp_path) for s in ("train", "valid", "test", "all")}
    assert [set(found[s].groups.tolist()) for s in ("train", "valid", "test")] == [{2}, {1, 9}, {24}]
    assert len(found["all"]) == 8
    assert set(found["all"].labels.tolist()) == {0, 10}
    raw = np.load(tmp_path / "ibmGestureTest" / "user24_lab" / "0.npy")
    times, channels = found["test"].recording(0)
    assert np.array_equal(ticks(times), (raw[:, 3] - raw[0, 3]) * 1000)
    assert np.array_equal(channels, (raw[:, 2] * 128 + raw[:, 1]) * 128 + raw[:, 0])


@pytest.mark.filterwarnings("ignore")
def test_dvs_gesture_equals_tonic(tmp_path: Path) -> None:
    tonic_datasets()
    gesture_folder(tmp_path / "DVSGesture")
    theirs = read_by_tonic("DVSGesture", tmp_path, train=False)
    ours = sets.DVS_GESTURE.load("test", tmp_path / "DVSGesture")
    assert len(ours) == len(theirs) == 2  # type: ignore[arg-type]
    by_label = {label: events for events, label in (theirs[k] for k in range(2))}  # type: ignore[index]
    for k, label in enumerate(ours.labels.tolist()):
        events = by_label[label]
        assert np.array_equal(ours.recording(k)[1], (events["p"].astype(int) * 128 + events["y"]) * 128 + events["x"])
        assert np.array_equal(ticks(ours.recording(k)[0]), events["t"] - events["t"][0])


def aedat3(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, chunk: int = 16) -> bytes:
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for a in range(0, len(t), chunk):
        n = len(t[a : a + chunk])
        words = np.array([(int(x[k]) << 17) | (int(y[k]) << 2) | (int(p[k]) << 1) | 1 for k in range(a, a + n)], "<u4")
        out += np.array([1, 1], "<u2").tobytes() + np.array([8, 4, 0, n, n, n], "<u4").tobytes()
        out += np.stack([words, t[a : a + n].astype("<u4")], 1).tobytes()
        out += np.array([0, 1], "<u2").tobytes() + np.array([8, 4, 0, 1, 1, 1], "<u4").tobytes() + bytes(8)  # special
    return out


def test_dvs_gesture_as_published(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    t = np.sort(rng.integers(1000, 90_000, 70))
    x, y, p = rng.integers(0, 128, 70), rng.integers(0, 128, 70), rng.integers(0, 2, 70)
    (tmp_path / "user02_lab.aedat").write_bytes(aedat3(t, x, y, p))
    (tmp_path / "user02_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,1000,40000\n11,40000,90000\n")
    (tmp_path / "trials_to_train.txt").write_text("user02_lab.aedat\n")
    found = sets.DVS_GESTURE.load("train", tmp_path)
    assert found.labels.tolist() == [0, 10]
    assert len(found.times) == 70
    later = t >= 40_000
    assert np.array_equal(found.recording(1)[1], ((p * 128 + y) * 128 + x)[later])
    assert np.array_equal(ticks(found.recording(1)[0]), t[later] - t[later][0])
    (tmp_path / "user02_lab_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,1000,40000\n1,x,2\n")
    with pytest.raises(BadEventFile) as caught:
        sets.DVS_GESTURE.load("train", tmp_path)
    assert len(caught.value.violations) == 2


def test_aedat3_clock_overflow_and_invalid_events() -> None:
    data = bytearray(aedat3(np.array([5, 9]), np.array([1, 2]), np.array([3, 4]), np.array([0, 1])))
    body = data.index(b"#!END-HEADER\r\n") + len(b"#!END-HEADER\r\n")
    data[body + 12 : body + 16] = (1).to_bytes(4, "little")  # the packet's overflow counter
    data[body + 28] &= 0xFE  # the first event is marked invalid
    found = aedat3_polarity(bytes(data), "f")
    assert [c.tolist() for c in found] == [[9 + 2**31], [2], [4], [1]]


def test_aedat2_addresses() -> None:
    """jAER's DVS128: bit 0 is 1 for OFF, columns and rows are counted from the far corner."""
    words = np.array([[(5 << 8) | (3 << 1) | 0, 7], [(127 << 8) | (0 << 1) | 1, 9], [1 << 15, 9]], ">u4")
    data = b"#!AER-DAT2.0\r\n# made up\r\n" + words.tobytes()
    found = aedat2_dvs128(data, "f")
    assert found.t.tolist() == [7, 9]
    assert found.x.tolist() == [124, 127]
    assert found.y.tolist() == [122, 0]
    assert found.p.tolist() == [1, 0]
    with pytest.raises(BadEventFile, match="multiple of 8"):
        aedat2_dvs128(data[:-3], "f")
    with pytest.raises(BadEventFile, match=r"AEDAT 2\.0, this reader takes AEDAT 3"):
        aedat3_polarity(data, "f")


def cifar_folder(root: Path) -> None:
    for name, numbers in (("airplane", (0, 1, 2)), ("truck", (7,))):
        (root / name).mkdir(parents=True)
        for k in numbers:
            shutil.copy(GOLDEN, root / name / f"{k}.aedat4")


@pytest.mark.filterwarnings("ignore")
def test_cifar10_dvs(tmp_path: Path) -> None:
    tonic_datasets()
    pytest.importorskip("aedat", reason="needs aedat")
    cifar_folder(tmp_path / "CIFAR10DVS")
    found = sets.CIFAR10_DVS.load("all", tmp_path / "CIFAR10DVS")
    assert found.labels.tolist() == [0, 0, 0, 9]
    rng = np.random.default_rng(7)  # tests/golden/datasets/README.md
    t = np.sort(rng.integers(0, 300_000, 200))
    x, y, p = rng.integers(0, 128, 200), rng.integers(0, 128, 200), rng.integers(0, 2, 200)
    times, channels = found.recording(0)
    assert np.array_equal(ticks(times), t - t[0])
    assert np.array_equal(channels, (p * 128 + y) * 128 + x)
    theirs = read_by_tonic("CIFAR10DVS", tmp_path)
    assert len(theirs) == 4  # type: ignore[arg-type]
    assert np.array_equal(theirs[0][0]["x"], x)  # type: ignore[index]
    assert {s: len(sets.CIFAR10_DVS.load(s, tmp_path / "CIFAR10DVS")) for s in ("train", "valid")} == {
        "train": 3,
        "valid": 1,
    }


@pytest.mark.filterwarnings("ignore")
def test_nmnist_full_equals_tonic(tmp_path: Path) -> None:
    tonic_datasets()
    for i in range(12):
        file = tmp_path / "NMNIST" / "Train" / str(i % 10) / f"{i:05d}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(nmnist_bytes(*random_nmnist(i)))
    theirs = read_by_tonic("NMNIST", tmp_path, train=True)
    ours = sets.NMNIST_FULL.load("all", tmp_path / "NMNIST")
    assert len(ours) == len(theirs) == 12  # type: ignore[arg-type]
    for k in range(12):
        events, label = theirs[k]  # type: ignore[index]
        assert label == ours.labels[k]
        assert np.array_equal(ours.recording(k)[1], (events["p"] * 34 + events["y"]) * 34 + events["x"])
        assert np.array_equal(ticks(ours.recording(k)[0]), events["t"])


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_an_empty_folder_names_the_layout(tmp_path: Path, row: object) -> None:
    with pytest.raises(BadEventFile, match="Known layout: "):
        row.load("train", tmp_path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_without_network_the_manual_steps_are_named(
    tmp_path: Path, row: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tonic's class fails as it does without a network, half way through; nothing half is kept."""
    module = tonic_datasets()

    def fails(save_to: str, **_: object) -> None:
        (Path(save_to) / "half").mkdir()
        raise OSError("no network")

    name = row.reader.__self__.tonic_name  # type: ignore[attr-defined]
    monkeypatch.setattr(module, name, fails)
    monkeypatch.setenv("AXONPORT_CACHE", str(tmp_path))
    with pytest.raises(BadEventFile, match=r"no network.*By hand: fetch it from http.*path=FOLDER"):
        row.load("train")  # type: ignore[attr-defined]
    assert [p for p in tmp_path.rglob("*") if p.is_file() or p.name == "half"] == []


def test_a_download_is_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tonic_datasets()
    calls = []

    def downloads(save_to: str, train: bool) -> None:
        calls.append(train)
        (Path(save_to) / "SHD").mkdir()
        heidelberg_file(Path(save_to) / "SHD" / f"shd_{'train' if train else 'test'}.h5", 24, 0, 20)

    monkeypatch.setattr(module, "SHD", downloads)
    monkeypatch.setenv("AXONPORT_CACHE", str(tmp_path))
    assert len(sets.SHD.load("all")) == 48
    assert len(sets.SHD.load("train")) == 20
    assert calls == [True, False]


def test_without_tonic_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    monkeypatch.setenv("AXONPORT_CACHE", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'axonport\[tonic\]'"):
        sets.SHD.load("train")
    heidelberg_file(tmp_path / "shd_test.h5", 3, 0, 20)
    assert len(sets.SHD.load("test", tmp_path)) == 3, "files that are there need no tonic"


def test_large_sets_spill_to_a_file_and_stay_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuro.datasets import collect
    from neuro.datasets.transforms import batch

    heidelberg_file(tmp_path / "shd_train.h5", 30, 1, 20)
    held = sets.SHD.load("all", tmp_path)
    monkeypatch.setattr(collect, "SPILL", 50)
    spilled = sets.SHD.load("all", tmp_path)
    for column in ("times", "channels", "offsets", "labels", "groups"):
        assert np.array_equal(getattr(held, column), getattr(spilled, column))
    assert spilled.times.base is not None, "mapped from the file"
    assert np.array_equal(batch(held, range(30), 0.01, 100), batch(spilled, range(30), 0.01, 100))


def test_spoiled_files(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    t = np.arange(40) * 10
    (good / "user02_lab.aedat").write_bytes(aedat3(t, t % 128, t % 127, t % 2))
    aedat = (good / "user02_lab.aedat").read_bytes()
    refused, _ = survives(lambda p: aedat3_polarity(p.read_bytes(), str(p)), tmp_path / "bad.aedat", aedat, 3, 200)
    assert refused > 50
    gesture_folder(good)
    npy = (good / "ibmGestureTest" / "user24_lab" / "0.npy").read_bytes()
    bad = tmp_path / "bad" / "ibmGestureTest" / "user24_lab" / "0.npy"
    bad.parent.mkdir(parents=True)
    refused, _ = survives(lambda p: sets.DVS_GESTURE.load("test", tmp_path / "bad"), bad, npy, 4, 200)
    assert refused > 50
    heidelberg_file(tmp_path / "shd_test.h5", 6, 0, 20)
    data = (tmp_path / "shd_test.h5").read_bytes()
    with kept():
        for size in range(0, len(data), 997):  # HDF5 is read by a foreign library: cut files only
            (tmp_path / "shd_test.h5").write_bytes(data[:size])
            with pytest.raises(BadEventFile):
                sets.SHD.load("test", tmp_path)


def test_a_process_that_dies_on_a_set_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heidelberg_file(tmp_path / "shd_test.h5", 6, 0, 20)
    monkeypatch.setattr("neuro.datasets.formats.hdf5_events.WORKER", "import os; os.abort()")
    with pytest.raises(BadEventFile, match="ended with signal 6"):
        sets.SHD.load("test", tmp_path)


def test_rows_are_registered_under_their_names() -> None:
    registered = set(plugins("neuro.datasets"))
    if not {r.name for r in ROWS} & registered:
        pytest.skip("needs the tonic rows in setup.cfg and pip install -e .")
    assert {r.name for r in ROWS} <= registered
