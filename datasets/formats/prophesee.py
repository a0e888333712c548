"""Two binary formats of eight-byte events behind text headers: Prophesee .dat and AEDAT 2.0 (jAER)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuro.datasets.formats.recording import AGAIN, MAX_SIDE, PIECE, Piece, Recording, columns
from neuro.errors import BadEventFile

MAX_HEADER = 1 << 20  # bytes: a header that is longer is none


def _header(path: Path, mark: bytes) -> tuple[list[bytes], int]:
    """Lines that begin with ``mark``, and the offset behind them."""
    lines: list[bytes] = []
    with path.open("rb") as file:
        while True:
            begin = file.tell()
            if begin > MAX_HEADER:
                raise BadEventFile(f"{path}: the header has more than {MAX_HEADER:,} bytes; it is damaged. {AGAIN}")
            line = file.readline(MAX_HEADER)
            if not line.startswith(mark) or not line.endswith(b"\n"):
                return lines, begin
            lines.append(line)


def _eight(path: Path, name: str, begin: int, order: str) -> Iterator[np.ndarray]:
    size = path.stat().st_size - begin
    if size % 8:
        raise BadEventFile(
            f"{path} ({name}), byte {begin + size - size % 8}: the last event is cut, {size % 8} of its 8 bytes are "
            f"there. {AGAIN}"
        )
    with path.open("rb") as file:
        file.seek(begin)
        while data := file.read(8 * PIECE):
            yield np.frombuffer(data[: len(data) // 8 * 8], f"{order}u4").reshape(-1, 2)


def dat(path: Path) -> Recording:
    """Prophesee .dat (Metavision "DAT Format", docs.prophesee.ai): header lines with %, then one byte event type (0
    or 12: two-dimensional events), one byte event size (8); events little-endian, time uint32 in us, then x bits 0-13,
    y bits 14-27, polarity bits 28-31. A clock that runs over 2^32 goes on from there.

    Raises:
        BadEventFile: another event type or size, a last event that is cut.
    """
    lines, begin = _header(path, b"%")
    with path.open("rb") as file:
        file.seek(begin)
        kind = file.read(2)
    if len(kind) < 2 or kind[0] not in (0, 12) or kind[1] != 8:
        raise BadEventFile(
            f"{path} (dat), byte {begin}: event type and size are {list(kind)}, read are 0 or 12 and 8. {AGAIN}"
        )
    text = b"".join(lines).decode("ascii", "replace")
    sides = [re.search(rf"% {word} (\d{{1,9}})", text, re.IGNORECASE) for word in ("width", "height")]
    sensor = (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None
    if sensor and not (0 < sensor[0] <= MAX_SIDE and 0 < sensor[1] <= MAX_SIDE):
        raise BadEventFile(f"{path} (dat) says its sensor is {sensor[0]} x {sensor[1]}, at most {MAX_SIDE}. {AGAIN}")

    def pieces() -> Iterator[Piece]:
        clock = _Clock()
        for raw in _eight(path, "dat", begin + 2, "<"):
            word = raw[:, 1]
            yield columns(clock.unwrapped(raw[:, 0]), word & 0x3FFF, (word >> 14) & 0x3FFF, (word >> 28) & 1)

    return Recording(path, "dat", sensor, "us", "1: brighter, as stored", pieces)


DAVIS = {"240": (240, 180), "346": (346, 260), "640": (640, 480)}


def aedat2(path: Path) -> Recording:
    """AEDAT 2.0 of jAER: header lines with #, then big-endian pairs of address and time (32 bits each, us).

    DVS128: bit 15 an external event, y bits 8-14, x bits 1-7, polarity bit 0 (1: increase; docs.inivation.com, "AEDAT
    1.0", whose addresses 2.0 keeps). DAVIS: y bits 22-30, x bits 12-21, polarity bit 11; bit 31 (a frame's sample)
    or bit 10 (inertial, triggers) set: no event of a pixel, left out (as eventcv reads recordings of a DAVIS346).
    Their row 0 is the lowest; here, as in all other formats, it is the highest.

    Raises:
        BadEventFile: the header names neither chip; a last event that is cut.
    """
    lines, begin = _header(path, b"#")
    text = b"".join(lines).decode("ascii", "replace")
    davis = re.search(r"davis\D{0,4}(\d{3})", text, re.IGNORECASE)
    sensor = DAVIS.get(davis[1]) if davis else (128, 128) if re.search("dvs128", text, re.IGNORECASE) else None
    if sensor is None:
        raise BadEventFile(
            f"{path} (aedat2): the header names no chip whose addresses are known (DVS128, DAVIS {', '.join(DAVIS)}). "
            "Convert it with jAER or DV to AEDAT 4, or to csv"
        )
    y_shift, x_shift, bits, polarity = (22, 12, (0x1FF, 0x3FF), 11) if davis else (8, 1, (0x7F, 0x7F), 0)
    others = 1 << 31 | 1 << 10 if davis else ~0x7FFF & 0xFFFFFFFF

    def pieces() -> Iterator[Piece]:
        clock = _Clock()
        for raw in _eight(path, "aedat2", begin, ">"):
            address, t = raw[:, 0].astype(np.uint32), clock.unwrapped(raw[:, 1].astype(np.uint32))
            pixels = (address & np.uint32(others)) == 0
            address, t = address[pixels], t[pixels]
            x, y = (address >> x_shift) & bits[1], (address >> y_shift) & bits[0]
            up = sensor[1] - 1 - y.astype(np.int64)  # below 0 where the address is none of this sensor
            yield columns(t, x, up, (address >> polarity) & 1)

    return Recording(path, "aedat2", sensor, "us", "1: increase", pieces)


class _Clock:
    """A 32-bit clock that may run over, across pieces."""

    def __init__(self) -> None:
        self.high, self.last = 0, 0

    def unwrapped(self, t: np.ndarray) -> np.ndarray:
        wide = t.astype(np.int64)
        if not len(wide):
            return wide
        falls = np.diff(wide, prepend=np.int64(self.last)) < -(1 << 31)
        wide += (self.high + np.cumsum(falls)) << 32
        self.high += int(falls.sum())
        self.last = int(t[-1])
        return wide
