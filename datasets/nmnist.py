"""N-MNIST: a camera on a shaking head looks at handwritten digits (Orchard et al. 2015).

Embedded: recordings 1-800 of the training set (CC BY-SA 4.0, kept apart as separate data). A path takes

- a folder, tar, tar.xz or tar.gz with ``NNNNN.bin`` files and ``labels.txt`` ("id label" per line);
- the original layout, ``Train/0..9/NNNNN.bin`` and ``Test/...``, or one of these two folders;
- one of our compact files (`neuro.datasets.compact`).

shape is (2, 34, 34): polarity as stored (1 is ON), row, column. groups hold the id (an id of Test
counts from 100,000 on). Splits are by id; Test is the test split where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets import layouts
from neuro.datasets.aer import nmnist_bin
from neuro.datasets.archive import folder_files, tar_files
from neuro.datasets.collect import Collector, check_complete, pixel_channels, seconds, side
from neuro.datasets.compact import load_compact
from neuro.datasets.source import Source, verify
from neuro.datasets.transforms import stabilise
from neuro.errors import BadConfig, BadEventFile
from neuro.events import EventSet

FILE = Path(__file__).parent / "data" / "nmnist" / "nmnist_800.events.xz"
SHA256 = "7be869061936fdec2ffbde91bcab7f03304621cb0121b88fa9207e56e1720aba"
SHAPE = (2, 34, 34)
DIGITS = tuple("0123456789")
DURATION = 0.32  # seconds: three saccades of about 105 ms
# Where the events lie on average (column, row) at 5, 15, ..., 295 ms after the start: the path of the
# camera's head, the same for every digit. Mean over the embedded recordings; a test measures it again.
HEAD_PERIOD = 0.010
HEAD_PATH = (
    (13.96, 16.76), (14.42, 15.82), (14.36, 15.80), (14.31, 16.67), (14.35, 17.84), (14.81, 19.12),
    (15.42, 19.96), (15.92, 20.26), (15.82, 20.50), (16.56, 19.72), (16.53, 19.92), (16.49, 20.12),
    (16.88, 20.15), (17.29, 19.60), (17.79, 18.68), (18.13, 17.61), (18.60, 16.58), (18.88, 16.08),
    (19.30, 15.87), (19.57, 16.02), (19.81, 15.74), (19.30, 15.84), (19.34, 15.81), (19.41, 15.48),
    (18.63, 15.49), (17.63, 15.48), (16.65, 15.41), (15.92, 15.32), (15.40, 15.41), (15.48, 15.55),
)
_BIN = re.compile(r"(?:.*/)?(\d{1,9})\.bin")


def _labels(text: bytes, file: str) -> dict[int, int]:
    labels: dict[int, int] = {}
    bad = []
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not all(w.isascii() and w.isdigit() and len(w) < 10 for w in words):
            bad.append(f"line {number}: {line[:40]!r}, expected 'id label'")
        elif int(words[0]) in labels:
            bad.append(f"line {number}: id {int(words[0])} a second time")
        else:
            labels[int(words[0])] = int(words[1])
    if bad:
        raise BadEventFile(f"{file} labels.txt cannot be read", bad[:20])
    return labels


def _labelled(files: Iterable[tuple[str, bytes]], file: str) -> EventSet:
    """``NNNNN.bin`` files and labels.txt, in any order; the result is in the order of the ids."""
    labels: dict[int, int] | None = None
    collector = Collector()
    for name, content in files:
        match = _BIN.fullmatch(name)
        if name.rpartition("/")[2] == "labels.txt":
            if labels is not None:
                raise BadEventFile(f"{file}: a second labels.txt, {name}. Keep one data set in one folder.")
            labels = _labels(content, file)
        elif match:
            events = nmnist_bin(content, f"{file} {name}")
            collector.add(seconds(events.t), pixel_channels(events, SHAPE), 0, int(match[1]))
    if labels is None or not len(collector):
        raise BadEventFile(
            f"{file}: {len(collector)} .bin files and {'no' if labels is None else 'a'} labels.txt in it. {LAYOUTS}"
        )
    ids = collector.groups
    if len(set(ids)) != len(ids):
        raise BadEventFile(f"{file}: {len(ids) - len(set(ids))} ids occur twice. Keep one data set in one folder.")
    check_complete(file, labels, set(ids), len(DIGITS))
    collector.labels = [labels[i] for i in ids]
    return collector.finish(SHAPE, DURATION, DIGITS, "nmnist").subset(np.argsort(np.array(ids, np.int64)))


def _original(path: Path, split: str) -> EventSet:
    """``Train/0..9/*.bin`` and ``Test/0..9/*.bin``, or one of these folders."""
    one = path.name in ("Train", "Test")
    parts = [path.name.lower()] if one else ["train", "test"]
    parts = {"train": ["train"], "valid": ["train"], "test": ["test"]}.get(split, parts)

    def keep(group: int) -> bool:
        return split not in ("train", "valid") or bool(side(np.array([group]))[0]) == (split == "valid")

    collector = Collector()
    used = [file for part in parts for file in layouts.nmnist(path.parent if one else path, part, keep, collector)]
    if not used:
        raise BadEventFile(f"{path}: no recording of {' or '.join(parts)} in it. {LAYOUTS}")
    return collector.finish(SHAPE, DURATION, DIGITS, "nmnist")


LAYOUTS = (
    "Known layouts: NNNNN.bin and labels.txt in a folder or tar; Train/0..9/NNNNN.bin and Test/...; "
    "a file of neuro.datasets.compact."
)


def _from_path(path: Path, split: str) -> EventSet:
    if path.is_dir():
        if path.name in ("Train", "Test") or (path / "Train").is_dir() or (path / "Test").is_dir():
            return _original(path, split)
        return _divided(_labelled(folder_files(path, (".bin", "labels.txt")), str(path)), split)
    with path.open("rb") as file:
        head = file.read(6)
    # Both are xz; a tar has its magic at byte 257 of what is inside, ours at byte 0.
    if head == b"\xfd7zXZ\x00" and not path.name.endswith((".tar.xz", ".txz")):
        return _divided(load_compact(path), split)
    return _divided(_labelled(tar_files(path), str(path)), split)


def _divided(events: EventSet, split: str) -> EventSet:
    if split in ("all", "test"):
        return events
    return events.subset(np.flatnonzero(side(events.groups) == (split == "valid")))


def read(split: str, path: Path | None, **options: Any) -> EventSet:
    """The reader behind `SOURCE`. options: stabilise (bool), size (pixels, 1..34)."""
    bad = []
    size = options["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= SHAPE[1]:
        bad.append(f"size must be a whole number of pixels in 1..{SHAPE[1]}, got {size!r}")
    if not isinstance(options["stabilise"], bool):
        bad.append(f"stabilise must be true or false, got {options['stabilise']!r}")
    if split == "test" and path is None:
        bad.append("the embedded recordings have no test split; give others by path, or load split 'valid'")
    if bad:
        raise BadConfig("nmnist cannot be loaded", bad)
    events = _divided(load_compact(verify(FILE, SHA256)), split) if path is None else _from_path(path, split)
    if events.shape != SHAPE or events.classes != DIGITS:
        raise BadEventFile(f"{path}: recordings of shape {events.shape}, expected {SHAPE} and ten digits. {LAYOUTS}")
    if options["stabilise"] or size != SHAPE[1]:
        head = HEAD_PATH if options["stabilise"] else None
        events = stabilise(events, head, HEAD_PERIOD, size)
    return events


SOURCE = Source(
    name="nmnist",
    title="N-MNIST, handwritten digits seen by an event camera",
    licence="CC BY-SA 4.0",
    citation="Orchard et al. 2015, Front. Neurosci. 9:437, doi:10.3389/fnins.2015.00437",
    url="https://doi.org/10.17632/468j46mzdv.1",
    shape=SHAPE,
    classes=DIGITS,
    dt=0.020,
    steps=15,
    reader=read,
    options={"stabilise": False, "size": SHAPE[1]},
    embedded=True,
)
