"""N-MNIST: exact events, every layout, hostile archives."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from event_sets import nmnist_bytes, random_nmnist, random_set, refusal, spoiled, tar_of

from neuro.datasets import archive, nmnist, source
from neuro.datasets.aer import nmnist_bin
from neuro.datasets.collect import ticks
from neuro.datasets.compact import load_compact, save_compact
from neuro.datasets.transforms import Augment, batch
from neuro.errors import BadConfig, BadEventFile
from neuro.events import EventSet

# sha256 over (id, label, count) and (x, y, t, p) of all 800 recordings as tonic 1.7.0's read_mnist_file gives
# them from the original .bin files, in the layout that `digest` below repeats.
ORIGINAL = "ccb0e943df74e88c44a89122b1a00f07803015b7f572799c9bf55d54359e9514"
EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<u4"), ("p", "u1")])
IDS = (3, 5, 9, 12, 13, 14)


@pytest.fixture(scope="module")
def embedded() -> EventSet:
    return source.load("nmnist", "all")


def test_every_embedded_event_is_the_original(embedded: EventSet) -> None:
    found = embedded
    assert (len(found), len(found.times)) == (800, 3_281_009)
    digest = hashlib.sha256()
    t = ticks(found.times)
    for k in range(len(found)):
        span = slice(int(found.offsets[k]), int(found.offsets[k + 1]))
        channels = found.channels[span]
        events = np.zeros(len(channels), EVENT)
        events["p"], rest = np.divmod(channels, 34 * 34)
        events["y"], events["x"] = np.divmod(rest, 34)
        events["t"] = t[span]
        digest.update(np.array([found.groups[k], found.labels[k], len(events)], "<u4").tobytes())
        digest.update(events.tobytes())
    assert digest.hexdigest() == ORIGINAL
    assert nmnist.FILE.stat().st_size <= 10_000_000


def test_embedded_recordings_load_fast() -> None:
    start = time.process_time()
    source.load("nmnist", "all")
    assert time.process_time() - start < 3.0  # 0.6 s measured; room for a slow machine


def test_an_augmented_epoch_takes_well_under_a_second(embedded: EventSet) -> None:
    found = embedded
    augment = Augment(
        time_shift=4e-3, time_jitter=3e-3, drop=0.3, shift=2, jitter=0.3, rotation=14, scale=0.1, elastic=1
    )
    batch(found, [0], 0.02, 15, augment)  # compile
    start = time.process_time()
    for k in range(0, 800, 32):
        batch(found, range(k, k + 32), 0.02, 15, augment, seed=1, epoch=1)
    assert time.process_time() - start < 1.0  # 0.2 s measured for 3.3 million events


def test_head_path_is_measured_from_the_recordings(embedded: EventSet) -> None:
    found = embedded
    bin_ = ticks(found.times) // 10_000
    inside = bin_ < len(nmnist.HEAD_PATH)
    pixel = found.channels[inside] % (34 * 34)
    n = np.bincount(bin_[inside])
    mean = [np.bincount(bin_[inside], v) / n for v in (pixel % 34, pixel // 34)]
    assert np.allclose(np.stack(mean, 1), nmnist.HEAD_PATH, atol=0.0051)


def test_stabilised_recordings_stand_still() -> None:
    moving = source.load("nmnist", "valid")
    still = source.load("nmnist", "valid", stabilise=True, size=28)
    assert still.shape == (2, 28, 28)
    assert len(still.times) > 0.95 * len(moving.times)

    def wandering(events: EventSet, width: int) -> float:
        step = (events.times // 0.03).astype(int)
        x = events.channels % width
        return float(np.ptp((np.bincount(step, x) / np.bincount(step))[:9]))

    assert wandering(still, 28) < 1
    assert wandering(moving, 34) > 3
    cut = source.load("nmnist", "valid", size=32)  # the middle of the sensor, one pixel less on each side
    p, rest = np.divmod(moving.channels, 34 * 34)
    y, x = np.divmod(rest, 34)
    inside = (x > 0) & (x < 33) & (y > 0) & (y < 33)
    assert np.array_equal(cut.channels, (p * 32 * 32 + (y - 1) * 32 + x - 1)[inside])


def test_bin_reader_equals_the_description() -> None:
    t, x, y, p = random_nmnist(0, 300)
    found = nmnist_bin(nmnist_bytes(t, x, y, p), "f")
    for a, b in zip(found, (t, x, y, p), strict=True):
        assert np.array_equal(a, b)


def test_clock_overflow() -> None:
    """Row 240 is no event: 2**13 us are added from there on (as tonic and Orchard's own reader do)."""
    data = nmnist_bytes(
        np.array([10, 0, 20, 0, 30]), np.array([1, 9, 2, 9, 3]), np.array([1, 240, 2, 240, 3]), np.ones(5, int)
    )
    found = nmnist_bin(data, "f")
    assert found.t.tolist() == [10, 20 + 8192, 30 + 16384]
    assert found.x.tolist() == [1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_bin_reader_equals_tonic() -> None:
    tonic_io = pytest.importorskip("tonic.io", reason="needs tonic")
    t, x, y, p = random_nmnist(1, 400)
    y[::37] = 240
    data = nmnist_bytes(t, x, y, p)
    theirs = tonic_io.read_mnist_file(
        io.BytesIO(data), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]), True
    )
    ours = nmnist_bin(data, "f")
    order = np.argsort(theirs["t"], kind="stable")
    for name in "txyp":
        assert np.array_equal(theirs[name][order], getattr(ours, name))


def test_cut_and_foreign_bins_name_file_offset_and_remedy() -> None:
    data = nmnist_bytes(*random_nmnist(2))
    with pytest.raises(BadEventFile, match=r"x\.bin, byte 245: .* 4 of its 5 bytes.*again"):
        nmnist_bin(data[:-1], "x.bin")
    with pytest.raises(BadEventFile, match="empty"):
        nmnist_bin(b"", "x.bin")
    t, x, y, p = random_nmnist(2)
    x[7] = 34
    with pytest.raises(BadEventFile, match=r"x\.bin, byte 35: event 7 lies at pixel \(34"):
        nmnist_bin(nmnist_bytes(t, x, y, p), "x.bin")


def members(ids: tuple[int, ...] = IDS) -> dict[str, bytes]:
    files = {f"nmnist/{i:05d}.bin": nmnist_bytes(*random_nmnist(i)) for i in ids}
    return {"nmnist/labels.txt": "".join(f"{i} {i % 10}\n" for i in ids).encode(), **files}


def layouts(folder: Path) -> dict[str, Path]:
    found = {name: folder / name for name in ("set.tar.xz", "set.tar", "set.tar.gz", "set.events.xz", "loose")}
    (folder / "loose").mkdir()
    for name, content in members().items():
        (folder / "loose" / name.rpartition("/")[2]).write_bytes(content)
    for name, mode in (("set.tar.xz", "w:xz"), ("set.tar", "w"), ("set.tar.gz", "w:gz")):
        found[name].write_bytes(tar_of(members(), mode))
    backwards = dict(reversed(members().items()))  # labels last
    found["backwards.tar"] = folder / "backwards.tar"
    found["backwards.tar"].write_bytes(tar_of(backwards))
    save_compact(source.load("nmnist", path=found["loose"]), found["set.events.xz"])
    return found


def test_every_layout_gives_the_same_events(tmp_path: Path) -> None:
    for name, path in layouts(tmp_path).items():
        found = source.load("nmnist", path=path)
        assert found.groups.tolist() == list(IDS), name
        assert found.labels.tolist() == [i % 10 for i in IDS]
        for k, i in enumerate(IDS):
            t, x, y, p = random_nmnist(i)
            times, channels = found.recording(k)
            assert np.array_equal(ticks(times), t)
            assert np.array_equal(channels, (p * 34 + y) * 34 + x)
        train, valid = (set(source.load("nmnist", s, path=path).groups.tolist()) for s in ("train", "valid"))
        assert valid == {9, 14}
        assert train == set(IDS) - valid


def test_original_layout(tmp_path: Path) -> None:
    for part, ids in (("Train", IDS), ("Test", (3, 77))):
        for i in ids:
            file = tmp_path / part / str(i % 10) / f"{i:05d}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(nmnist_bytes(*random_nmnist(i)))
    everything = source.load("nmnist", path=tmp_path)
    assert sorted(everything.groups.tolist()) == [*IDS, 100_003, 100_077]
    assert everything.labels.tolist() == (everything.groups % 10).tolist()
    sets = {s: set(source.load("nmnist", s, path=tmp_path).groups.tolist()) for s in ("train", "valid", "test")}
    assert sets == {"train": {3, 5, 12, 13}, "valid": {9, 14}, "test": {100_003, 100_077}}
    assert len(source.load("nmnist", path=tmp_path / "Train")) == len(IDS)
    assert len(source.load("nmnist", path=tmp_path / "Test")) == 2


def test_incomplete_sets_list_every_disagreement(tmp_path: Path) -> None:
    files = members()
    files["nmnist/labels.txt"] = b"3 3\n5 12\n777 1\n12 2\n13 3\n14 4\n"
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of(files))
    with pytest.raises(BadEventFile) as caught:
        source.load("nmnist", path=path)
    text = str(caught.value)
    assert len(caught.value.violations) == 3
    for part in ("such as 9", "777", "outside 0..9"):
        assert part in text
    files["nmnist/labels.txt"] = b"3 x\n5\n3 3\n3 3\n"
    path.write_bytes(tar_of(files))
    with pytest.raises(BadEventFile) as caught:
        source.load("nmnist", path=path)
    assert len(caught.value.violations) == 3
    del files["nmnist/labels.txt"]
    path.write_bytes(tar_of(files))
    with pytest.raises(BadEventFile, match=r"no labels\.txt"):
        source.load("nmnist", path=path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadEventFile, match=r"0 \.bin files"):
        source.load("nmnist", path=tmp_path / "empty")


def as_link(info: tarfile.TarInfo) -> None:
    if info.name.endswith("00003.bin"):
        info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def as_hard_link(info: tarfile.TarInfo) -> None:
    if info.name.endswith("00003.bin"):
        info.type, info.linkname, info.size = tarfile.LNKTYPE, "../../etc/passwd", 0


def as_device(info: tarfile.TarInfo) -> None:
    if info.name.endswith("00003.bin"):
        info.type, info.size = tarfile.CHRTYPE, 0


def outside(info: tarfile.TarInfo) -> None:
    info.name = info.name.replace("nmnist/00003", "nmnist/../../00003")


def absolute(info: tarfile.TarInfo) -> None:
    info.name = info.name.replace("nmnist/00003", "/etc/00003")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (as_link, "is a link"),
        (as_hard_link, "is a link"),
        (as_device, "is a link, a device"),
        (outside, "outside the archive"),
        (absolute, "outside the archive"),
    ],
)
def test_hostile_members(tmp_path: Path, change: object, match: str) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(tar_of(members(), change=change))  # type: ignore[arg-type]
    with pytest.raises(BadEventFile, match=match) as caught:
        source.load("nmnist", path=path)
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.tar"], "nothing is extracted"


def test_oversized_members_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.tar.xz"
    header = tarfile.TarInfo("nmnist/00003.bin")
    header.size = 1 << 40
    path.write_bytes(lzma.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    with pytest.raises(BadEventFile, match="wants 1099511627776 bytes"):
        source.load("nmnist", path=path)
    # a pax header of 32 MiB would be read whole before its member is seen
    extended = tarfile.TarInfo("x")
    extended.type, extended.size = tarfile.XHDTYPE, 32 << 20
    path.write_bytes(lzma.compress(extended.tobuf() + bytes(33 << 20)))
    tracemalloc.start()
    with pytest.raises(BadEventFile, match="wants 33554432 bytes"):
        source.load("nmnist", path=path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    monkeypatch.setattr(archive, "MAX_TOTAL", 1 << 20)
    path.write_bytes(tar_of({"nmnist/00001.bin": bytes(4 << 20)}, "w:xz"))
    with pytest.raises(BadEventFile, match="unpacks to more than 1048576"):
        source.load("nmnist", path=path)
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    path.write_bytes(tar_of(members(), "w:xz"))
    with pytest.raises(BadEventFile, match="more than 3 members"):
        source.load("nmnist", path=path)


def test_a_pax_header_cannot_smuggle_a_name_or_a_size(tmp_path: Path) -> None:
    path = tmp_path / "pax.tar"
    for field, value, match in (("path", "../evil.bin", "outside"), ("size", str(1 << 40), "wants|not a readable")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("nmnist/00003.bin")
            info.size, info.pax_headers = 5, {field: value}
            tar.addfile(info, io.BytesIO(bytes(5)))
        path.write_bytes(buffer.getvalue())
        with pytest.raises(BadEventFile, match=match):
            source.load("nmnist", path=path)


@pytest.mark.parametrize("name", ["set.tar.xz", "set.tar", "set.tar.gz", "set.events.xz"])
def test_spoiled_files_never_lose_recordings_in_silence(tmp_path: Path, name: str) -> None:
    good = layouts(tmp_path)[name]
    data = good.read_bytes()
    path = tmp_path / f"bad.{name}"
    for bad in spoiled(data, 17, 150):
        path.write_bytes(bad)
        message = refusal(lambda p: source.load("nmnist", path=p), path)
        if message is None:
            found = source.load("nmnist", path=path)
            assert found.groups.tolist() == list(IDS), "valid, or refused; never a part"
        else:
            assert str(path) in message


@pytest.mark.parametrize("name", ["set.tar.xz", "set.events.xz"])
def test_every_flipped_byte_of_an_xz_is_noticed(tmp_path: Path, name: str) -> None:
    """Its checksum lies behind the end of the tar, where a reader of tars alone does not look."""
    good = layouts(tmp_path)[name]
    data = bytearray(good.read_bytes())
    for k in range(0, len(data), 5):
        data[k] ^= 1 << (k % 8)
        good.write_bytes(data)
        assert refusal(lambda p: source.load("nmnist", path=p), good), f"byte {k}"
        data[k] ^= 1 << (k % 8)
    for k in range(len(data) - 48, len(data)):  # checksum, index and footer
        good.write_bytes(bytes(data[:k]) + bytes([data[k] ^ 255]) + bytes(data[k + 1 :]))
        assert refusal(lambda p: source.load("nmnist", path=p), good), f"byte {k}"


def test_spoiled_compact_content(tmp_path: Path) -> None:
    """The checksum of xz is right, what is inside is not."""
    inside = lzma.decompress(layouts(tmp_path)["set.events.xz"].read_bytes())

    path = tmp_path / "bad.events.xz"
    refused = 0
    for bad in spoiled(inside, 23, 300):
        path.write_bytes(lzma.compress(bad, preset=0))
        message = refusal(load_compact, path)
        refused += message is not None
        assert message is None or str(path) in message
    assert refused > 150


def test_compact_round_trip_and_what_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x.events.xz"
    for seed, shape in ((0, (2, 5, 7)), (1, (2, 256, 256)), (2, (2, 1, 1))):
        events = random_set(9, 30, shape, seed)
        save_compact(events, path)
        found = load_compact(path)
        for column in ("times", "channels", "offsets", "labels", "groups", "shape", "duration", "classes", "name"):
            assert np.array_equal(getattr(found, column), getattr(events, column)), column
    save_compact(random_set(0, 5, (2, 5, 7), 0), path)
    assert len(load_compact(path)) == 0
    for shape in ((10,), (3, 5, 5), (2, 5, 257)):
        with pytest.raises(BadEventFile, match="shape"):
            save_compact(random_set(2, 5, shape, 0), tmp_path / "not.xz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.events.xz"]


def test_another_sensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.events.xz"
    save_compact(random_set(2, 5, (2, 5, 7), 0), path)
    with pytest.raises(BadEventFile, match="expected \\(2, 34, 34\\)"):
        source.load("nmnist", path=path)


def test_bad_options() -> None:
    with pytest.raises(BadConfig) as caught:
        source.load("nmnist", "valid", size=35, stabilise=1)
    assert len(caught.value.violations) == 2
