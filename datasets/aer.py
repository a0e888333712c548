"""Readers of address-event recordings: bytes in, checked event columns out, nothing else.

Every reader takes bytes and the name to complain about, and gives `Columns` (time in whole
microseconds, x, y, polarity). Whatever is cut or damaged raises `BadEventFile` with the file, the
offset in bytes and what to do about it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import BadEventFile

AGAIN = "Fetch or copy the file again."
NMNIST_OVERFLOW_ROW = 240  # this row stands for "the clock overflowed", it is not a pixel
NMNIST_OVERFLOW_US = 2**13


class Columns(NamedTuple):
    """Events of one recording, sorted by time (equal times keep the order of the file).

    t: int64[n] microseconds. x, y, p: int64[n] column, row, polarity (0 or 1, as stored).
    """

    t: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    p: NDArray[np.int64]


def sorted_columns(t: NDArray[np.int64], x: NDArray[np.int64], y: NDArray[np.int64], p: NDArray[np.int64]) -> Columns:
    """`Columns` in the order of time; a recording that is in order already is not copied."""
    if t.size > 1 and bool((np.diff(t) < 0).any()):
        order = np.argsort(t, kind="stable")
        t, x, y, p = t[order], x[order], y[order], p[order]
    return Columns(t, x, y, p)


def check_pixels(
    x: NDArray[np.int64], y: NDArray[np.int64], sensor: tuple[int, int], file: str, *, size: int, start: int = 0
) -> None:
    """Refuse addresses outside the sensor (width, height). size: bytes per event, start: offset of the first.

    Raises:
        BadEventFile: with the offset of the first such event.
    """
    width, height = sensor
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        first = int(outside.argmax())
        raise BadEventFile(
            f"{file}, byte {start + first * size}: event {first} lies at pixel ({x[first]}, {y[first]}), the sensor is "
            f"{width} x {height} ({int(outside.sum())} such events). It is damaged or from another sensor. {AGAIN}"
        )


def nmnist_bin(data: bytes, file: str, width: int = 34, height: int = 34) -> Columns:
    """N-MNIST and N-Caltech101 ``.bin``: five bytes an event, big-endian (Orchard et al. 2015).

    Bits 39-32 x, 31-24 y, 23 polarity, 22-0 time in microseconds. An event in row 240 is no event:
    the clock overflowed, and 2**13 us are added to all that follow.

    Raises:
        BadEventFile: empty, cut inside an event, or a pixel outside the sensor.
    """
    if not data:
        raise BadEventFile(f"{file}: empty file, no event in it. {AGAIN}")
    if len(data) % 5:
        raise BadEventFile(
            f"{file}, byte {len(data) - len(data) % 5}: the last event is cut, {len(data) % 5} of its 5 bytes are "
            f"there. {AGAIN}"
        )
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64)
    x, y, p = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
    t = ((raw[:, 2] & 0x7F) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    overflow = y == NMNIST_OVERFLOW_ROW
    if overflow.any():
        check_pixels(np.where(overflow, 0, x), np.where(overflow, 0, y), (width, height), file, size=5)
        t = t + NMNIST_OVERFLOW_US * np.cumsum(overflow)
        t, x, y, p = t[~overflow], x[~overflow], y[~overflow], p[~overflow]
    else:
        check_pixels(x, y, (width, height), file, size=5)
    return sorted_columns(t, x, y, p)


def _aedat_header(data: bytes, file: str) -> tuple[str, int]:
    """(version such as "2.0", offset of the first byte after the comment lines)."""
    if not data.startswith(b"#!AER-DAT"):
        raise BadEventFile(f"{file}, byte 0: no '#!AER-DAT' at the start, this is not an AEDAT file. {AGAIN}")
    version = data[9:24].split(b"\r\n")[0].decode("ascii", "replace").strip()
    offset = 0
    while data[offset : offset + 1] == b"#":
        end = data.find(b"\n", offset)
        if end < 0:
            raise BadEventFile(f"{file}, byte {offset}: the header does not end. {AGAIN}")
        offset = end + 1
        if data[:offset].endswith(b"#!END-HEADER\r\n"):
            break
    return version, offset


def aedat2_dvs128(data: bytes, file: str) -> Columns:
    """AEDAT 2.0 of a DVS128: pairs of big-endian uint32 (address, microseconds), 128 x 128 pixels.

    Address bit 0: 0 for ON, 1 for OFF; bits 1-7 the mirrored column; bits 8-14 the row from below
    (jAER's DVS128 convention). Polarity 1 means ON here, row 0 is the top row.

    Raises:
        BadEventFile: not AEDAT 2, empty, or cut inside an event.
    """
    version, start = _aedat_header(data, file)
    if not version.startswith("2"):
        raise BadEventFile(f"{file}: AEDAT {version}, this reader takes AEDAT 2.0. Convert it with jAER or dv.")
    body = len(data) - start
    if body % 8 or not body:
        raise BadEventFile(f"{file}, byte {len(data) - body % 8}: {body} bytes of events, not a multiple of 8. {AGAIN}")
    pairs = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    # Special events (bit 15: external input, bit 31: frame) are no pixels of the DVS128.
    address, t = pairs[(pairs[:, 0] & 0x80008000) == 0].T
    x, y, p = 127 - ((address >> 1) & 0x7F), 127 - ((address >> 8) & 0x7F), 1 - (address & 1)
    return sorted_columns(t, x, y, p)


def aedat3_polarity(data: bytes, file: str, width: int = 128, height: int = 128) -> Columns:
    """Polarity events of AEDAT 3.1 (DVS Gesture's original files).

    Packets of a 28-byte little-endian header (uint16 type, source; uint32 event size, offset of the
    time, time overflow, capacity, number, valid) and its events; type 1 is polarity: uint32 data
    (bit 0 valid, bit 1 polarity, bits 2-16 y, bits 17-31 x) and uint32 microseconds. Each time
    overflow stands for 2**31 us. Other packet types are skipped.

    Raises:
        BadEventFile: not AEDAT 3, cut, a packet that contradicts itself, a pixel outside the sensor.
    """
    version, start = _aedat_header(data, file)
    if not version.startswith("3"):
        raise BadEventFile(f"{file}: AEDAT {version}, this reader takes AEDAT 3.1. Convert it with jAER or dv.")
    parts, offset = [], start
    while offset < len(data):
        if len(data) - offset < 28:
            raise BadEventFile(f"{file}, byte {offset}: {len(data) - offset} of a packet's 28 header bytes. {AGAIN}")
        kind = int(np.frombuffer(data, "<u2", 1, offset)[0])
        size, _, overflow, _, number, _ = (int(v) for v in np.frombuffer(data, "<u4", 6, offset + 4))
        body, end = offset + 28, offset + 28 + size * number
        if end > len(data):
            raise BadEventFile(
                f"{file}, byte {offset}: the packet wants {size * number} bytes of events, {len(data) - body} are "
                f"left. {AGAIN}"
            )
        if kind == 1:
            if size != 8:
                raise BadEventFile(f"{file}, byte {offset + 4}: polarity events of {size} bytes, expected 8. {AGAIN}")
            pairs = np.frombuffer(data, "<u4", 2 * number, body).reshape(-1, 2).astype(np.int64)
            word, t = pairs[:, 0], pairs[:, 1] + (overflow << 31)
            x, y = (word >> 17) & 0x7FFF, (word >> 2) & 0x7FFF
            valid = (word & 1) == 1
            in_use = np.where(valid, x, 0), np.where(valid, y, 0)
            check_pixels(*in_use, (width, height), file, size=8, start=body)
            parts.append(np.stack([t, x, y, (word >> 1) & 1])[:, valid])
        offset = end
    if not parts:
        raise BadEventFile(f"{file}: no polarity packet in it. {AGAIN}")
    t, x, y, p = np.concatenate(parts, axis=1)
    return sorted_columns(t, x, y, p)
