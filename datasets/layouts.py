"""Readers of the original layouts of published data sets: a folder or file in, a `Collector` filled.

Every reader has the form reader(root, part, keep, collector): root holds the files as their publisher (or
tonic, which unpacks them) lays them out; part is "train", "valid" or "test"; keep(group) says whether a
recording belongs to the wanted split. It returns the names of the files it used: an empty list means that
root holds nothing of that part.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.aer import Columns, aedat2_dvs128, aedat3_polarity, check_pixels, nmnist_bin, sorted_columns
from neuro.datasets.archive import read_bytes
from neuro.datasets.collect import Collector, pixel_channels, seconds
from neuro.datasets.formats.hdf5_rows import rows
from neuro.datasets.npz import DAMAGE, array_of
from neuro.errors import BadEventFile
from neuro.extend import require

Keep = Callable[[int], bool]

DVS128 = (2, 128, 128)
NMNIST = (2, 34, 34)
MAX_RECORDING = 2**30  # bytes; the original DVS Gesture files have up to 200 MB
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TIDIGITS = ("o", "1", "2", "3", "4", "5", "6", "7", "8", "9", "z")
COCHLEA = 64
HEIDELBERG = 700


def _spikes(
    times: NDArray[Any], units: NDArray[Any], n: int, where: str
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Checked (seconds, channel) of one cochlea recording, in the order of time."""
    if times.ndim != 1 or times.shape != units.shape or times.dtype.kind != "f" or units.dtype.kind not in "iu":
        raise BadEventFile(
            f"{where}: times {times.dtype}{times.shape} and units {units.dtype}{units.shape} do not match"
        )
    t, x = times.astype(np.float32), units.astype(np.int64)
    if t.size and not (np.isfinite(t).all() and t.min() >= 0):
        raise BadEventFile(f"{where}: times must be finite seconds, not negative. Fetch the file again.")
    if x.size and (x.min() < 0 or x.max() >= n):
        raise BadEventFile(f"{where}: units lie in {x.min()}..{x.max()}, allowed 0..{n - 1}. Fetch the file again.")
    order = np.argsort(t, kind="stable")
    return t[order], x[order].astype(np.int32)


def _heidelberg(prefix: str, root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    path = root if root.is_file() else root / f"{prefix}_{part}.h5"
    if not path.is_file() or path.name != f"{prefix}_{part}.h5":
        return []

    found = rows(path, "heidelberg")
    note, (labels, speakers) = _head(found, path)
    if not len(labels) == len(speakers) == note["times"] == note["units"]:
        found.close()  # type: ignore[attr-defined]
        raise BadEventFile(
            f"{path}: {len(labels)} labels, {len(speakers)} speakers, {note['times']} times, {note['units']} units"
        )
    if note["names"]:
        collector.classes = note["names"]
    for k, (_, (times, units)) in enumerate(found):
        if keep(int(speakers[k])):
            t, x = _spikes(times, units, HEIDELBERG, f"{path} recording {k}")
            collector.add(t, x, int(labels[k]), int(speakers[k]))
    return [str(path)]


def _head(found: Iterator[Any], path: Path) -> Any:
    for row in found:
        return row
    raise BadEventFile(f"{path}: cannot be read as this data set's HDF5 (nothing was read). Fetch it again.")


def shd(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """SHD (Cramer et al. 2020): ``shd_train.h5`` and ``shd_test.h5``, or one of them.

    Datasets spikes/times (seconds) and spikes/units, one row a recording, and labels; extra/keys names the
    classes. The group is the speaker (extra/speaker), or the number of the recording where there is none.
    """
    return _heidelberg("shd", root, part, keep, collector)


def ssc(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """SSC (Cramer et al. 2020): ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, or one of them.

    As `shd`.
    """
    return _heidelberg("ssc", root, part, keep, collector)


def ntidigits(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """N-TIDIGITS18 (Anumula et al. 2018): ``n-tidigits.hdf5``, single digits only.

    PART_labels lists names such as "man-ah-z"; PART_addresses/NAME and PART_timestamps/NAME hold channel
    and seconds. Names that end in several digits are sequences, which have no class, and are left out.
    The group is the speaker: the CRC-32 of the name without its digits.
    """
    path = root if root.is_file() else root / "n-tidigits.hdf5"
    if not path.is_file():
        return []

    for name, (times, units) in rows(path, f"ntidigits {part}"):
        speaker, _, spoken = name.rpartition("-")
        if spoken not in TIDIGITS:
            raise BadEventFile(f"{path}: '{name}' does not end in one of {', '.join(TIDIGITS)}")
        group = zlib.crc32(speaker.encode())
        if keep(group):
            t, x = _spikes(times, units, COCHLEA, f"{path} {name}")
            collector.add(t, x, TIDIGITS.index(spoken), group)
    return [str(path)]


def nmnist(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """N-MNIST (Orchard et al. 2015): ``Train/0..9/NNNNN.bin`` and ``Test/0..9/NNNNN.bin``.

    The group is the id; an id of Test counts from 100,000 on.
    """
    folder = root / part.capitalize()
    used = []
    for digit in range(10):
        for path in sorted((folder / str(digit)).glob("*.bin")):
            if not path.stem.isdecimal():
                raise BadEventFile(f"{path}: the name must be a number, such as 00012.bin")
            used.append(str(path))
            group = int(path.stem) + (100_000 if part == "test" else 0)
            if keep(group):
                events = nmnist_bin(read_bytes(path), str(path))
                collector.add(seconds(events.t), pixel_channels(events, NMNIST), digit, group)
    return used


def _pixels(events: Columns, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(seconds since the first event, channel)."""
    start = events.t[0] if events.t.size else 0
    return seconds(events.t - start), pixel_channels(events, shape)


def _user(name: str, path: Path) -> int:
    digits = name[4:6]
    if not name.startswith("user") or not digits.isdecimal():
        raise BadEventFile(f"{path}: '{name}' does not begin with 'userNN'")
    return int(digits)


def dvs_gesture(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """DVS Gesture (Amir et al. 2017), as tonic unpacks it or as IBM publishes it; group is the user.

    tonic: ``ibmGestureTrain/user01_fluorescent/LABEL.npy``, columns x, y, polarity, milliseconds.
    IBM: ``user01_fluorescent.aedat`` with ``..._labels.csv`` (class 1-11, start and end in microseconds),
    listed in ``trials_to_train.txt`` and ``trials_to_test.txt``.
    """
    folder = root / f"ibmGesture{part.capitalize()}"
    used = []
    for path in sorted(folder.glob("user*/*.npy")):
        used.append(str(path))
        user = _user(path.parent.name, path)
        if not path.stem.isdecimal():
            raise BadEventFile(f"{path}: the name must be the label, such as 3.npy")
        if keep(user):
            t, x = _pixels(_gesture_npy(path), DVS128)
            collector.add(t, x, int(path.stem), user)
    trials = root / f"trials_to_{part}.txt"
    if used or not trials.is_file():
        return used
    for line in read_bytes(trials).decode("utf-8", "replace").split():
        path = root / Path(line).name
        used.append(str(path))
        user = _user(path.name, path)
        if keep(user):
            events = aedat3_polarity(read_bytes(path, MAX_RECORDING), str(path))
            for label, start, stop in _gesture_csv(path.with_name(f"{path.stem}_labels.csv")):
                a, b = np.searchsorted(events.t, [start, stop])
                t, x = _pixels(Columns(*(c[a:b] for c in events)), DVS128)
                collector.add(t, x, label, user)
    return used


def _gesture_npy(path: Path) -> Columns:
    data = read_bytes(path, MAX_RECORDING)
    try:
        raw = array_of(data, "it")
    except DAMAGE as cause:
        raise BadEventFile(f"{path}: not a readable npy file ({cause}). Fetch it again.") from cause
    if raw.ndim != 2 or raw.shape[1] != 4 or raw.dtype.kind not in "iuf":
        raise BadEventFile(f"{path}: expected numbers [events, 4] (x, y, polarity, ms). Fetch it again.")
    if not np.isfinite(raw).all() or np.abs(raw).max(initial=0) > 1 << 40:
        raise BadEventFile(f"{path}: values that no recording has. Fetch it again.")
    x, y, p, t = raw.astype(np.int64).T
    check_pixels(x, y, (128, 128), str(path), size=4 * raw.itemsize)
    return sorted_columns(t * 1000, x, y, (p > 0).astype(np.int64))


def _gesture_csv(path: Path) -> list[tuple[int, int, int]]:
    rows = list(csv.reader(read_bytes(path).decode("utf-8", "replace").splitlines()))
    found = []
    bad = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) < 3 or not all(cell.strip().isdecimal() for cell in row[:3]) or not 1 <= int(row[0]) <= 11:
            bad.append(f"line {number}: {','.join(row)[:60]!r}, expected class 1-11, start, end in microseconds")
        else:
            found.append((int(row[0]) - 1, int(row[1]), int(row[2])))
    if bad or not found:
        raise BadEventFile(f"{path}: labels cannot be read", bad[:20] or ["no line"])
    return found


def cifar10_dvs(root: Path, part: str, keep: Keep, collector: Collector) -> list[str]:
    """CIFAR10-DVS (Li et al. 2017): ``airplane/0.aedat4`` (tonic) or ``airplane/cifar10_airplane_0.aedat``.

    One undivided set; the group is the class times 100,000 plus the number in the file's name.
    """
    used = []
    for label, name in enumerate(CIFAR10):
        for path in sorted((root / name).glob("*.aedat*")):
            digits = path.stem.rpartition("_")[2]
            if not digits.isdecimal():
                raise BadEventFile(f"{path}: the name must end in a number, such as 12.aedat4")
            used.append(str(path))
            group = label * 100_000 + int(digits)
            if keep(group):
                if path.suffix == ".aedat4":
                    events = aedat4(path, 128, 128)
                else:
                    events = aedat2_dvs128(read_bytes(path, MAX_RECORDING), str(path))
                t, x = _pixels(events, DVS128)
                collector.add(t, x, label, group)
    return used


def aedat4(path: Path, width: int, height: int) -> Columns:
    """Polarity events of an AEDAT 4 file, through tonic and the aedat package.

    Raises:
        BadEventFile: no such file, damaged, no events, a pixel outside the sensor.
        MissingExtra: tonic or aedat is not installed.
    """
    require("aedat", "tonic")
    tonic_io = require("tonic.io", "tonic")
    try:
        raw = tonic_io.read_aedat4(str(path))
    except Exception as cause:  # tonic raises Exception itself, aedat RuntimeError
        raise BadEventFile(f"{path}: not a readable AEDAT 4 file ({cause}). Fetch it again.") from cause
    t, x, y, p = (raw[name].astype(np.int64) for name in ("t", "x", "y", "p"))
    check_pixels(x, y, (width, height), str(path), size=raw.itemsize)
    return sorted_columns(t, x, y, p)
