"""Formats without a signature: text with one event a line, and five-byte events (N-MNIST, N-Caltech101)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuro.datasets.aer import NMNIST_OVERFLOW_ROW, NMNIST_OVERFLOW_US
from neuro.datasets.formats.recording import AGAIN, PIECE, Piece, Recording, columns
from neuro.errors import BadEventFile

NAMES = {"t": ("t", "time", "timestamp", "ts", "t_us"), "x": ("x", "col"), "y": ("y", "row"),
         "p": ("p", "pol", "polarity", "on")}  # fmt: skip
MAX_LINE = 4096


def csv(path: Path) -> Recording:
    """One event a line: t, x, y, p by the names in the first line, or in this order where it has none.

    Separated by commas, tabs or blanks; lines with # are comments. Times are microseconds; seconds where any has a
    fraction. Polarity: positive numbers are 1.

    Raises:
        BadEventFile: a line that is not four numbers, with its number.
    """
    with path.open("rb") as file:
        first = next((line for line in iter(lambda: file.readline(MAX_LINE), b"") if _said(line)), b"")
    if not first:
        raise BadEventFile(f"{path}: no line with an event in it")
    order = [0, 1, 2, 3]
    words = _words(first)
    named = any(not _number(word) for word in words)
    if named:
        lower = [word.strip(b'"').decode("ascii", "replace").lower() for word in words]
        found = {key: [i for i, word in enumerate(lower) if word in known] for key, known in NAMES.items()}
        missing = [key for key, at in found.items() if len(at) != 1]
        if missing:
            raise BadEventFile(f"{path}, first line: columns {missing} are missing, or there twice; found {lower}")
        order = [found[key][0] for key in "txyp"]
    elif len(words) != 4:
        raise BadEventFile(f"{path}, first line: four columns t, x, y, p are needed, found {len(words)}")
    seconds = _fractional(path, order[0], named)

    def pieces() -> Iterator[Piece]:
        with path.open("rb") as file:
            lines = ((k, line) for k, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1) if _said(line))
            if named:
                next(lines, None)
            while block := list(itertools.islice(lines, PIECE)):
                yield _parsed(path, block, order, seconds)

    return Recording(path, "csv", None, "s" if seconds else "us", "1: positive", pieces)


def _parsed(path: Path, block: list[tuple[int, bytes]], order: list[int], seconds: bool) -> Piece:
    rows = np.empty((len(block), 4))
    for k, (number, line) in enumerate(block):
        words = _words(line)
        try:
            rows[k] = [float(words[i]) for i in order]
        except (ValueError, IndexError):
            raise BadEventFile(f"{path}, line {number}: {line[:60]!r} is not an event t, x, y, p") from None
    if not np.isfinite(rows).all() or (np.abs(rows[:, 0]) > 2**53).any():
        number = block[int((~np.isfinite(rows)).any(1).argmax())][0]
        raise BadEventFile(f"{path}, near line {number}: a value is no number, or too large for one")
    t = np.rint(rows[:, 0] * 1e6) if seconds else rows[:, 0]
    return columns(t.astype(np.int64), rows[:, 1], rows[:, 2], rows[:, 3])


def _fractional(path: Path, at: int, named: bool) -> bool:
    """Whether any of the first times has a fraction."""
    with path.open("rb") as file:
        said = (line for line in iter(lambda: file.readline(MAX_LINE), b"") if _said(line))
        if named:
            next(said, None)
        for line in itertools.islice(said, 1000):
            words = _words(line)
            if at < len(words) and b"." in words[at] and words[at].split(b".")[1].strip(b"0"):
                return True
    return False


def _said(line: bytes) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def _words(line: bytes) -> list[bytes]:
    return line.replace(b",", b" ").replace(b";", b" ").split()


def _number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def five_bytes(path: Path) -> Recording:
    """N-MNIST and N-Caltech101 .bin (Orchard et al. 2015), big-endian: x, y, polarity and 23 bits of microseconds. An
    event in row 240 says that the clock ran over, and 2^13 us are added to what follows.

    Raises:
        BadEventFile: a last event that is cut.
    """
    size = path.stat().st_size
    if size % 5:
        raise BadEventFile(
            f"{path} (bin), byte {size - size % 5}: the last event is cut, {size % 5} of its 5 bytes are there. {AGAIN}"
        )

    def pieces() -> Iterator[Piece]:
        added = 0
        with path.open("rb") as file:
            while data := file.read(5 * PIECE):
                raw = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64)
                over = raw[:, 1] == NMNIST_OVERFLOW_ROW
                late = added + NMNIST_OVERFLOW_US * np.cumsum(over)
                added = int(late[-1])
                t = (((raw[:, 2] & 0x7F) << 16) | (raw[:, 3] << 8) | raw[:, 4]) + late
                keep = ~over
                yield columns(t[keep], raw[keep, 0], raw[keep, 1], raw[keep, 2] >> 7)

    return Recording(path, "bin", None, "us", "as stored", pieces)
