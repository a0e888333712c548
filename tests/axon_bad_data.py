"""Bad files and options of the data sets, and bad event files."""

from __future__ import annotations

import io
import lzma
import math
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from axon_bad import Attempt, category, pick

from neuro.datasets.compact import load_compact, save_compact
from neuro.datasets.delta import delta_modulate
from neuro.datasets.loader import arrays
from neuro.datasets.npz import load_events_npz, save_events_npz
from neuro.datasets.source import Source, load, source, verify
from neuro.datasets.tonic_sets import NTIDIGITS, SHD, SSC
from neuro.datasets.transforms import Augment, batch
from neuro.errors import BadConfig, BadEventFile, ChecksumMismatch, FormatError
from neuro.events import Events, EventSet

Rng = np.random.Generator


def some_events(rng: Rng) -> EventSet:
    n = int(rng.integers(4, 20))
    return EventSet(
        times=np.sort(rng.uniform(0, 0.1, n)).astype(np.float32),
        channels=rng.integers(0, 8, n),
        offsets=np.array([0, n // 2, n]),
        labels=np.array([0, 1]),
        groups=np.array([0, 1]),
        shape=(2, 2, 2),
        duration=0.1,
        classes=("a", "b"),
    )


def cut(rng: Rng, path: Path) -> str:
    """Keep only a beginning of a file."""
    whole = path.read_bytes()
    length = int(rng.integers(0, len(whole)))
    path.write_bytes(whole[:length])
    assert path.stat().st_size < len(whole)
    return f"first {length} of {len(whole)} bytes"


@category("data: EVENTS.npz")
def event_file(rng: Rng, folder: Path) -> Attempt:
    path = folder / "events.npz"
    steps = int(rng.integers(2, 9))
    sample = Events(rng.integers(0, steps, 5), rng.integers(0, 6, 5), (2, 3), steps, 1e-3)  # type: ignore[arg-type]
    save_events_npz(path, [sample, sample], [0, 1])
    load_events_npz(path)
    with np.load(path) as archive:
        arrays_ = dict(archive)
    changes: dict[str, dict[str, Any]] = {
        "late": {"t": arrays_["t"] + steps},
        "negative": {"t": arrays_["t"] - steps},
        "fraction": {"t": arrays_["t"] + 0.5},
        "channel": {"x": arrays_["x"] + 6},
        "length": {"x": arrays_["x"][1:]},
        "objects": {"t": arrays_["t"].astype(object)},
        "texts": {"t": arrays_["t"].astype(str)},
        "two axes": {"t": arrays_["t"][None]},
        "dt zero": {"dt": np.array(0.0)},
        "dt NaN": {"dt": np.array(math.nan)},
        "dt vector": {"dt": np.ones(2)},
        "steps": {"steps": np.array(0)},
        "shape": {"shape": np.array([0, 3])},
        "shape huge": {"shape": np.array([2**40, 2**40])},
        "offsets": {"offsets": np.array([0, 9, 3])},
        "labels": {"labels": np.array([0])},
        **{f"no {name}": {name: None} for name in ("t", "x", "shape", "dt", "steps")},
    }
    what = ["truncated", "text", "folder", "missing", "lie", *changes][int(rng.integers(5 + len(changes)))]
    if what == "truncated":
        what += ": " + cut(rng, path)
    elif what == "text":
        path.write_text("t,x\n1,2\n")
    elif what == "folder":
        path = folder
    elif what == "missing":
        path = folder / "none.npz"
    elif what == "lie":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**40,)})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.npy", header.getvalue())
    else:
        changed = {name: values for name, values in {**arrays_, **changes[what]}.items() if values is not None}
        np.savez(path, **changed)
    return Attempt(what, lambda: load_events_npz(path), (str(path),), BadEventFile)


@category("data: EVENTS.npz written")
def event_file_written(rng: Rng, folder: Path) -> Attempt:
    path = folder / "events.npz"
    a = Events([0], [0], (3,), 4, 1e-3)  # type: ignore[arg-type]
    other = Events([0], [0], (3,), 5 + int(rng.integers(9)), 1e-3)  # type: ignore[arg-type]
    what, call = pick(
        rng,
        {
            "none": lambda: save_events_npz(path, []),
            "other steps": lambda: save_events_npz(path, [a, other]),
            "labels": lambda: save_events_npz(path, [a], [1, 2]),
        },
    )
    return Attempt(what, call, (str(path),), BadEventFile)


@category("data: paths")
def data_path(rng: Rng, folder: Path) -> Attempt:
    """A path that holds nothing of the named data set."""
    sets: tuple[Source, ...] = (source("braille"), source("nmnist"), SHD, SSC, NTIDIGITS)
    chosen = sets[int(rng.integers(len(sets)))]
    empty, text, noise = folder / "empty", folder / "text.txt", folder / "noise.bin"
    empty.mkdir(exist_ok=True)
    text.write_text("not events")
    noise.write_bytes(rng.bytes(int(rng.integers(1, 4000))))
    archive = folder / "x.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(text, "text.txt")
    what, path = pick(
        rng,
        {
            "missing": folder / "missing",
            "empty folder": empty,
            "text": text,
            "noise": noise,
            "other archive": archive,
            "long name": folder / ("x" * 5000),
            "nul": "a\0b",
        },
    )
    names = (chosen.name, str(path))
    return Attempt(f"{chosen.name} from {what}", lambda: chosen.load(path=path), names, FormatError)


@category("data: N-MNIST recordings")
def nmnist_files(rng: Rng, folder: Path) -> Attempt:
    place = folder / "nmnist"
    place.mkdir(exist_ok=True)

    def event(x: int, y: int, t: int) -> bytes:
        return bytes([x, y, (t >> 16) & 127, (t >> 8) & 255, t & 255])

    good = b"".join(event(int(rng.integers(34)), int(rng.integers(34)), 1000 * k) for k in range(9))
    what, (content, labels) = pick(
        rng,
        {
            "cut": (good[: -1 - int(rng.integers(4))], "1 3\n"),
            "empty": (b"", "1 3\n"),
            "pixel": (good + event(34 + int(rng.integers(200)), 3, 9000), "1 3\n"),
            "line": (good + event(3, 34 + int(rng.integers(200)), 9000), "1 3\n"),
            "no label": (good, ""),
            "other label": (good, "2 3\n"),
            "class": (good, "1 10\n"),
            "text as label": (good, "1 three\n"),
            "one column": (good, "1\n"),
        },
    )
    (place / "00001.bin").write_bytes(content)
    (place / "labels.txt").write_text(labels)
    return Attempt(what, lambda: load("nmnist", path=place), (str(place), "00001.bin", "labels.txt"), BadEventFile)


@category("data: hostile archives")
def archives(rng: Rng, folder: Path) -> Attempt:
    path = folder / "nmnist.tar.xz"
    info = tarfile.TarInfo("nmnist/00001.bin")
    what, (kind, name) = pick(
        rng,
        {
            "symbolic link": (tarfile.SYMTYPE, "nmnist/00001.bin"),
            "hard link": (tarfile.LNKTYPE, "nmnist/00001.bin"),
            "device": (tarfile.CHRTYPE, "nmnist/00001.bin"),
            "pipe": (tarfile.FIFOTYPE, "nmnist/00001.bin"),
            "parent": (tarfile.REGTYPE, "../../00001.bin"),
            "absolute": (tarfile.REGTYPE, "/00001.bin"),
            "cut": (tarfile.REGTYPE, "nmnist/00001.bin"),
        },
    )
    info.name, info.type, info.linkname, info.size = name, kind, "/etc/passwd", 5 if kind == tarfile.REGTYPE else 0
    with tarfile.open(path, "w:xz") as tar:
        tar.addfile(info, io.BytesIO(bytes(5)))
    if what == "cut":
        cut(rng, path)
    return Attempt(what, lambda: load("nmnist", path=path), (str(path),), BadEventFile)


@category("data: HDF5 of tonic's sets")
def heidelberg(rng: Rng, folder: Path) -> Attempt:
    path = folder / "shd_train.h5"
    n = int(rng.integers(1, 4))
    times, units = [np.arange(4.0) * 1e-3] * n, [np.arange(4)] * n
    what, (t, u, labels) = pick(
        rng,
        {
            "units": (times, [np.full(4, 700)] * n, np.zeros(n, int)),
            "negative time": ([-np.ones(4)] * n, units, np.zeros(n, int)),
            "NaN": ([np.full(4, np.nan)] * n, units, np.zeros(n, int)),
            "lengths": (times, [np.arange(3)] * n, np.zeros(n, int)),
            "labels": (times, units, np.zeros(n + 1, int)),
            "cut": (times, units, np.zeros(n, int)),
            "no spikes": (None, None, np.zeros(n, int)),
        },
    )
    with h5py.File(path, "w") as file:
        file["labels"] = labels
        if t is not None:
            for key, rows, dtype in (("times", t, "f4"), ("units", u, "i4")):
                data = file.create_dataset(f"spikes/{key}", (len(rows),), h5py.vlen_dtype(np.dtype(dtype)))
                for k, row in enumerate(rows):
                    data[k] = row
    if what == "cut":
        cut(rng, path)
    return Attempt(what, lambda: SHD.load(path=folder), (str(path),), BadEventFile)


@category("data: options")
def data_options(rng: Rng, folder: Path) -> Attempt:
    what, (call, names) = pick(
        rng,
        {
            "set": (lambda: load("nmnits"), ("nmnist",)),
            "split": (lambda: load("braille", "testing"), ("test",)),
            "option": (lambda: load("braille", treshold=1.0), ("treshold",)),
            "option value": (lambda: load("braille", threshold=math.nan), ("threshold",)),
            "option type": (lambda: load("braille", threshold="high"), ("threshold",)),
            "split of tonic's": (lambda: SHD.load("everything"), ("split",)),
        },
    )
    return Attempt(what, call, names, BadConfig)


@category("data: compact files")
def compact(rng: Rng, folder: Path) -> Attempt:
    path = folder / "events.axe.xz"
    times = np.arange(6) * 1e-6
    data = EventSet(
        times, np.arange(6), np.array([0, 3, 6]), np.array([0, 1]), np.array([0, 1]), (2, 2, 2), 0.1, ("a", "b")
    )  # type: ignore[arg-type]
    save_compact(data, path)
    load_compact(path)
    raw = lzma.decompress(path.read_bytes())
    what = ("cut", "inner cut", "longer", "text", "missing", "noise")[int(rng.integers(6))]
    if what == "cut":
        cut(rng, path)
    elif what == "inner cut":
        path.write_bytes(lzma.compress(raw[: int(rng.integers(len(raw)))]))
    elif what == "longer":
        path.write_bytes(lzma.compress(raw + rng.bytes(int(rng.integers(1, 9)))))
    elif what == "text":
        path.write_text("events")
    elif what == "noise":
        path.write_bytes(lzma.compress(rng.bytes(200)))
    else:
        path = folder / "none.xz"
    return Attempt(what, lambda: load_compact(path), (str(path),), BadEventFile)


@category("data: batches and augmentation")
def batching(rng: Rng, folder: Path) -> Attempt:
    data = some_events(rng)
    flat = EventSet(
        data.times, data.channels, data.offsets, data.labels, data.groups, (8,), data.duration, data.classes
    )
    what, (call, names) = pick(
        rng,
        {
            "index": (lambda: batch(data, [2 + int(rng.integers(9))], 1e-3, 10), ("record", "index")),
            "negative index": (lambda: batch(data, [-1], 1e-3, 10), ("record", "index")),
            "dt": (lambda: batch(data, [0], -1e-3, 10), ("dt",)),
            "dt NaN": (lambda: batch(data, [0], math.nan, 10), ("dt",)),
            "steps": (lambda: batch(data, [0], 1e-3, 0), ("steps",)),
            "steps fraction": (lambda: batch(data, [0], 1e-3, 2.5), ("steps",)),  # type: ignore[arg-type]
            "beyond memory": (lambda: batch(data, [0], 1e-12, 2**31 - 1), ("bytes",)),
            "seed": (lambda: batch(data, [0], 1e-3, 10, seed=-1), ("seed",)),
            "batch size": (lambda: list(arrays(data, 0, 1e-3, 10)), ("batch_size",)),
            "batch size fraction": (lambda: list(arrays(data, 1.5, 1e-3, 10)), ("batch_size",)),  # type: ignore[arg-type]
            "shift of a vector": (lambda: batch(flat, [0], 1e-3, 10, Augment(shift=1.0)), ("shift", "shape", "axes")),
        },
    )
    return Attempt(what, call, names, FormatError)


@category("data: signals")
def signals(rng: Rng, folder: Path) -> Attempt:
    y = rng.normal(size=(2, 5, 3))
    spoiled = y.copy()
    spoiled.flat[int(rng.integers(y.size))] = math.nan
    what, call = pick(
        rng,
        {
            "NaN": lambda: delta_modulate(spoiled, 1.0),
            "axes": lambda: delta_modulate(y[0], 1.0),
            "empty": lambda: delta_modulate(y[:, :0], 1.0),
            "threshold": lambda: delta_modulate(y, 0.0),
            "threshold NaN": lambda: delta_modulate(y, math.nan),
        },
    )
    return Attempt(what, call, ("signal", "threshold", "shape", "finite", "delta"), FormatError)


@category("data: checksums")
def checksum(rng: Rng, folder: Path) -> Attempt:
    path = folder / "data.bin"
    path.write_bytes(rng.bytes(100))
    if rng.random() < 0.3:
        os.remove(path)
        return Attempt("no file", lambda: verify(path, "0" * 64), (str(path),), BadEventFile)
    return Attempt("other content", lambda: verify(path, "0" * 64), (str(path),), ChecksumMismatch)
