"""Event files: what is read is what an independent packing wrote, or faery; damage is one named error."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import tracemalloc
from collections import deque
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from neuro.cli import app
from neuro.datasets.formats.detect import READERS, format_of, open_events
from neuro.datasets.formats.hdf5_events import answer
from neuro.datasets.formats.recording import EVENT, PIECE, Recording, info
from neuro.datasets.formats.write import WRITERS, write
from neuro.errors import BadEventFile
from neuro.hdf5_process import kept

Events = NDArray[np.void]


def made(count: int = 500, seed: int = 0, side: int = 64, until: int = 900_000) -> Events:
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["t"] = np.sort(rng.integers(0, until, count))
    events["x"], events["y"], events["p"] = *rng.integers(0, side, (2, count)), rng.integers(0, 2, count)
    return events


def dat(events: Events, header: str = "% Data file\n% Version 2\n") -> bytes:
    body = b"".join(
        struct.pack("<II", int(t) & 0xFFFFFFFF, int(x) | int(y) << 14 | int(p) << 28) for t, x, y, p in events
    )
    return header.encode() + bytes([0, 8]) + body


def davis(events: Events, height: int) -> bytes:
    rows = [(int(height - 1 - y) << 22 | int(x) << 12 | int(p) << 11, int(t)) for t, x, y, p in events]
    rows.insert(1, (1 << 31 | 5 << 12, rows[0][1]))  # a frame's sample
    rows.insert(2, (1 << 10, rows[0][1]))  # a trigger
    head = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
    return head + b"".join(struct.pack(">II", *row) for row in rows)


def dvs128(events: Events) -> bytes:
    rows = [(int(127 - y) << 8 | int(x) << 1 | int(p), int(t)) for t, x, y, p in events]
    return b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n" + b"".join(
        struct.pack(">II", *row) for row in [*rows, (1 << 15, 9)]
    )


def five(events: Events) -> bytes:
    return b"".join(
        bytes([int(x), int(y), int(p) << 7 | int(t) >> 16, int(t) >> 8 & 255, int(t) & 255]) for t, x, y, p in events
    )


PACKED = {
    "dat": lambda e: dat(e),
    "aedat2": lambda e: davis(e, 180),
    "bin": five,
    "csv": lambda e: b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % tuple(map(int, row)) for row in e),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_was_packed_by_hand_is_read(name: str, tmp_path: Path) -> None:
    events = made()
    path = tmp_path / ("file.bin" if name == "bin" else "file")
    path.write_bytes(PACKED[name](events))
    assert format_of(path) == name
    assert np.array_equal(open_events(path).read(), events)


def test_dvs128(tmp_path: Path) -> None:
    events = made(side=128)
    (tmp_path / "a").write_bytes(dvs128(events))
    found = open_events(tmp_path / "a")
    assert found.sensor == (128, 128)
    assert np.array_equal(found.read(), events)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    events = made()
    (tmp_path / "a").write_bytes(dat(events))
    out = write(open_events(tmp_path / "a"), tmp_path / "b.bin", name)
    again = open_events(out)
    assert again.format == name
    assert np.array_equal(again.read(), events)


@pytest.mark.parametrize(("name", "suffix"), [("evt2", ".raw"), ("evt3", ".raw"), ("es", ".es")])
def test_formats_of_faery(name: str, suffix: str, tmp_path: Path) -> None:
    faery = pytest.importorskip("faery")
    events = made()
    theirs = np.empty(len(events), faery.EVENTS_DTYPE)
    for ours, field in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        theirs[field] = events[ours]
    path = tmp_path / f"a{suffix}"
    options = {"version": name} if name.startswith("evt") else {}
    faery.events_stream_from_array(theirs, (64, 64)).to_file(path, **options)
    found = open_events(path)
    assert found.format == name
    assert found.sensor == (64, 64)
    read = found.read()
    assert np.array_equal(read["t"] - read["t"][0], events["t"] - events["t"][0])
    for column in ("x", "y", "p"):
        assert np.array_equal(read[column], events[column])


def test_a_clock_that_runs_over_goes_on(tmp_path: Path) -> None:
    events = made(3)
    events["t"] = [2**32 - 5, 2**32 + 7, 2**32 + 9]
    (tmp_path / "a").write_bytes(dat(events))
    assert open_events(tmp_path / "a").read()["t"].tolist() == events["t"].tolist()


def _recording(folder: Path) -> Recording:
    (folder / "made").write_bytes(dat(made()))
    return open_events(folder / "made")


def test_five_bytes_overflow_across_pieces(tmp_path: Path) -> None:
    one = five(made(1, until=10))
    late = bytes([0, 240, 0, 0, 0])
    (tmp_path / "a.bin").write_bytes(one * (PIECE - 1) + late + one)
    t = open_events(tmp_path / "a.bin").read()["t"]
    assert len(t) == PIECE
    assert t[-1] == t[0] + 2**13


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,x,y,p\n1,2,3,1\n1,2,x,1\n", "line 3"),
        ("t,x,p\n1,2,1\n", r"\['y'\] are missing"),
        ("1,2,3\n", "four columns"),
        ("1,2,3,1\n1,2,nan,1\n", "no number"),
        ("1,-2,3,1\n", "lies at pixel"),
        ("-1,2,3,1\n", "no time"),
    ],
)
def test_text_that_is_wrong_says_where(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadEventFile, match=said):
        open_events(tmp_path / "a.csv").read()


def test_seconds_become_microseconds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# ECD dataset\n0.000001 3 4 1\n1.5 5 6 0\n")
    found = open_events(tmp_path / "a.txt")
    assert found.unit == "s"
    assert found.read().tolist() == [(1, 3, 4, 1), (1_500_000, 5, 6, 0)]


def test_hdf5_links_and_odd_shapes_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "txyp":
            file[name] = np.arange(4)
        file["away"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(BadEventFile, match="link"):
        open_events(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for name in "txy":
            file[name] = np.arange(4)
        file["p"] = np.arange(5)
    with pytest.raises(BadEventFile, match="one length"):
        open_events(tmp_path / "b.h5")


def test_hdf5_in_chunks_that_cannot_be_unpacked_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "txyp":
            file.create_dataset(name, (4,), "i8", maxshape=(None,), chunks=(1 << 26,), compression="gzip")
    with pytest.raises(BadEventFile, match=r"chunks of 67,108,864 events.*h5repack"):
        open_events(tmp_path / "a.h5")


def test_a_process_that_dies_on_an_hdf5_file_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(_recording(tmp_path), tmp_path / "a.h5")
    monkeypatch.setattr("neuro.datasets.formats.hdf5_events.PATIENCE_S", 1.0)
    for program, said in (
        ("import os; os.abort()", "ended with signal 6"),
        ("raise OSError('no such thing')", "status 1: OSError: no such thing"),
        ("import time; time.sleep(30)", "does not end within 1 s"),
        ("import sys; sys.stdout.buffer.write(bytes(8))", "nothing was read"),
        ("import sys; sys.stdout.buffer.write(b'x' * 99)", "what is no answer"),
    ):
        monkeypatch.setattr("neuro.datasets.formats.hdf5_events.WORKER", program)
        with pytest.raises(BadEventFile, match=said) as caught:
            open_events(path)
        assert str(path) in str(caught.value)
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
    with pytest.raises(BadEventFile, match="no process could be started"):
        open_events(path)


def test_a_kept_process_reads_many_files_and_is_replaced_where_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = made()
    path = write(_recording(tmp_path), tmp_path / "a.h5")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with kept():
        for _ in range(3):
            assert np.array_equal(open_events(path).read(), events)
        assert len(started) == 1
        cut = tmp_path / "cut.h5"
        cut.write_bytes(path.read_bytes()[:700])
        with pytest.raises(BadEventFile, match="damaged"):
            open_events(cut)
        os.kill(started[0].pid, signal.SIGSEGV)
        with pytest.raises(BadEventFile, match="ended with signal 11"):
            open_events(path)
        assert np.array_equal(open_events(path).read(), events)
        pieces = open_events(path).pieces()
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert np.array_equal(open_events(path).read(), events)
    assert all(process.poll() is not None for process in started)


def test_a_recording_in_hdf5_is_read_in_constant_memory(tmp_path: Path) -> None:
    one = made(PIECE)
    peaks: list[list[int]] = []
    for many in (4, 40):
        path = tmp_path / f"{many}.h5"
        with h5py.File(path, "w") as file:
            for name in "txyp":
                file.create_dataset(name, data=np.tile(one[name], many), chunks=(PIECE,), compression="gzip")
        peaks.append([])
        for use in (lambda p: info(open_events(p)), lambda p: deque(answer(p, head=False), 0)):  # here; in the other
            tracemalloc.start()
            use(path)
            peaks[-1].append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert info(open_events(path)).events == many * PIECE
    assert all(long < 1.1 * short for short, long in zip(*peaks, strict=True))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.array([{}], object), x=[1], y=[1], p=[1])
    with pytest.raises(BadEventFile, match="no npz of arrays"):
        open_events(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["dat", "aedat2", "bin"])
def test_a_cut_file_says_at_which_byte(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(PACKED[name](made())[:-3])
    with pytest.raises(BadEventFile, match="byte"):
        open_events(path, name).read()


def test_what_is_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(BadEventFile, match="empty"):
        format_of(tmp_path / "empty")
    (tmp_path / "odd").write_bytes(bytes(range(256)))
    with pytest.raises(BadEventFile, match="no format that is known"):
        format_of(tmp_path / "odd")
    (tmp_path / "aedat").write_bytes(b"#!AER-DAT3.1\r\n")
    with pytest.raises(BadEventFile, match=r"3\.1"):
        format_of(tmp_path / "aedat")
    with pytest.raises(BadEventFile, match="unknown"):
        open_events(tmp_path / "odd", "evt4")
    assert "evt3" in READERS


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    one = dat(made(PIECE))
    body = one[-8 * PIECE :]
    peaks = []
    for many in (4, 40):
        path = tmp_path / f"{many}.dat"
        path.write_bytes(one[: -8 * PIECE] + body * many)
        tracemalloc.start()
        assert info(open_events(path)).events == many * PIECE
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_info_counts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("5,1,2,1\n3,9,0,0\n7,0,4,1\n")
    found = info(open_events(tmp_path / "a.csv"))
    assert (found.events, found.first_us, found.last_us, found.sensor) == (3, 3, 7, (10, 5))
    assert (found.on, found.unordered, found.sensor_known) == (2, 1, False)


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(dat(made()))
    run = CliRunner().invoke
    shown = run(app, ["events", "info", str(tmp_path / "a")])
    assert shown.exit_code == 0
    assert "dat, 500 events" in shown.output
    assert run(app, ["events", "convert", str(tmp_path / "a"), str(tmp_path / "b.npz")]).exit_code == 0
    assert run(app, ["events", "plot", str(tmp_path / "b.npz"), str(tmp_path / "c.png")]).exit_code == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
