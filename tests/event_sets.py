"""Small event sets and hostile files for the tests of data sets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from neuro.errors import NeuroError
from neuro.events import EventSet


def random_set(n: int, events: int, shape: tuple[int, ...], seed: int, duration: float = 0.3) -> EventSet:
    """n recordings of 0..events events each, times on whole microseconds."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, events + 1, n)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    ticks = [np.sort(rng.integers(0, int(duration * 1e6), c)) for c in counts]
    times = (np.concatenate([*ticks, np.zeros(0)]) * 1e-6).astype(np.float32)
    channels = rng.integers(0, np.prod(shape), offsets[-1]).astype(np.int32)
    labels = rng.integers(0, 3, n)
    return EventSet(times, channels, offsets, labels, np.arange(n), shape, duration, ("a", "b", "c"))


def nmnist_bytes(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> bytes:
    """N-MNIST .bin, written from the description of the format, one event at a time."""
    out = bytearray()
    for k in range(len(t)):
        word = (int(x[k]) << 32) | (int(y[k]) << 24) | (int(p[k]) << 23) | int(t[k])
        out += word.to_bytes(5, "big")
    return bytes(out)


def random_nmnist(seed: int, events: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(t, x, y, p) of one made-up recording."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 300_000, events))
    return t, rng.integers(0, 34, events), rng.integers(0, 34, events), rng.integers(0, 2, events)


def tar_of(
    members: dict[str, bytes], mode: str = "w", change: Callable[[tarfile.TarInfo], None] | None = None
) -> bytes:
    """A tar in memory; change may spoil each member's header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change:
                change(info)
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def spoiled(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Truncations, flipped bytes, zeroed and doubled stretches of a file."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        bad = bytearray(data)
        kind = k % 4
        at = int(rng.integers(0, len(data)))
        if kind == 0:
            bad = bad[:at]
        elif kind == 1:
            for _ in range(int(rng.integers(1, 9))):
                bad[int(rng.integers(0, len(bad)))] ^= int(rng.integers(1, 256))
        elif kind == 2:
            stop = min(len(bad), at + int(rng.integers(1, 64)))
            bad[at:stop] = bytes(stop - at)
        else:
            bad[at:at] = bad[at : at + int(rng.integers(1, 64))]
        yield bytes(bad)


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """The message with which a reader refuses a file; None when it reads it. Any other exception escapes."""
    try:
        read(path)
    except NeuroError as error:
        return str(error)
    return None


def survives(read: Callable[[Path], object], path: Path, data: bytes, seed: int, count: int) -> tuple[int, int]:
    """Feed spoiled copies of a file to a reader: each is one NeuroError or a valid result. (refused, read)."""
    refused = 0
    for bad in spoiled(data, seed, count):
        path.write_bytes(bad)
        message = refusal(read, path)
        if message is not None:
            assert str(path) in message, "an error names the file"
            refused += 1
    return refused, count - refused
