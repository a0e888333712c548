"""A compact file of many camera recordings: one xz stream of columns, exact and without pickle.

Content of the stream, little-endian: 8 bytes ``AXEVENTS``, uint32 length of the header, the header
(JSON: name, shape, recordings, events, classes), then the columns one after another: uint32 id, uint8
label, uint32 number of events (one per recording); uint8 low, middle and high byte of the time since
the event before in microseconds (since 0 for the first of a recording), uint8 x, uint8 y (one per
event); polarity, one bit per event. Columns compress better than rows: N-MNIST takes 18 bits an event,
of which 9 are the pixel.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.archive import unpacked
from neuro.datasets.collect import seconds, ticks
from neuro.errors import BadEventFile
from neuro.events import EventSet
from neuro.files import atomic_path

MAGIC = b"AXEVENTS"
MAX_UNPACKED = 2 * 2**30
_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
_PER_RECORDING = (("id", "<u4"), ("label", "u1"), ("count", "<u4"))
_PER_EVENT = (("low", "u1"), ("middle", "u1"), ("high", "u1"), ("x", "u1"), ("y", "u1"))


def save_compact(events: EventSet, path: Path | str) -> None:
    """Write recordings of shape (2, height <= 256, width <= 256); groups are kept as ids.

    Raises:
        BadEventFile: another shape, ids or labels that do not fit, a pause beyond 16.7 s.
    """
    polarities, height, width = events.shape if len(events.shape) == 3 else (0, 0, 0)
    t = ticks(events.times)
    delta = np.diff(t, prepend=0)
    starts = events.offsets[:-1][np.diff(events.offsets) > 0]
    delta[starts] = t[starts]
    bad = []
    if polarities != 2 or not 0 < height <= 256 or not 0 < width <= 256:
        bad.append(f"shape {events.shape}, allowed (2, 1..256, 1..256)")
    if delta.size and (delta.min() < 0 or delta.max() >= 1 << 24):
        bad.append(f"steps of time {delta.min()}..{delta.max()} us, allowed 0..{(1 << 24) - 1}")
    if len(events) and (events.groups.min() < 0 or events.groups.max() >= 1 << 32):
        bad.append("groups outside 0..2**32-1")
    if len(events) and (events.labels.min() < 0 or events.labels.max() > 255):
        bad.append("labels outside 0..255")
    if bad:
        raise BadEventFile(f"{events.name} cannot be written as {path}", bad)
    pixel = events.channels % (height * width)
    header = json.dumps(
        {
            "name": events.name,
            "shape": list(events.shape),
            "recordings": len(events),
            "events": len(t),
            "duration": events.duration,
            "classes": list(events.classes),
        }
    ).encode()
    columns = {
        "id": events.groups,
        "label": events.labels,
        "count": np.diff(events.offsets),
        "low": delta & 255,
        "middle": (delta >> 8) & 255,
        "high": delta >> 16,
        "x": pixel % width,
        "y": pixel // width,
    }
    body = [MAGIC, len(header).to_bytes(4, "little"), header]
    body += [columns[name].astype(kind).tobytes() for name, kind in _PER_RECORDING + _PER_EVENT]
    body.append(np.packbits(events.channels >= height * width).tobytes())
    data = lzma.compress(b"".join(body), lzma.FORMAT_XZ, lzma.CHECK_SHA256, filters=_LZMA)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data)


def _count(header: dict[str, object], key: str, most: int) -> int:
    value = header.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{key} is {value!r}, allowed 0..{most}")
    return value


def load_compact(path: Path | str) -> EventSet:
    """Read what `save_compact` wrote: the same events in the same order.

    Raises:
        BadEventFile: damaged, cut, oversized, or columns that contradict each other.
    """
    data = unpacked(Path(path), MAX_UNPACKED)
    if data[:8] != MAGIC:
        raise BadEventFile(f"{path}, byte 0 of the unpacked stream: not a compact event file. Fetch it again.")
    try:
        length = int.from_bytes(data[8:12], "little")
        header = json.loads(data[12 : 12 + length])
        if not isinstance(header, dict):
            raise ValueError("the header is no table")
        recordings, events = _count(header, "recordings", 1 << 28), _count(header, "events", 1 << 31)
        shape = tuple(int(n) for n in header["shape"])
        duration, classes = float(header["duration"]), tuple(str(c) for c in header["classes"])
        if len(shape) != 3 or shape[0] != 2 or not all(0 < n <= 256 for n in shape) or not 0 < duration < 1e6:
            raise ValueError(f"shape {shape} or duration {duration} cannot be")
        offset = 12 + length
        columns: dict[str, NDArray[np.int64]] = {}
        for names, rows in ((_PER_RECORDING, recordings), (_PER_EVENT, events)):
            for name, kind in names:
                columns[name] = np.frombuffer(data, kind, rows, offset)
                offset += columns[name].nbytes
        bits = np.frombuffer(data, "u1", -(-events // 8), offset)
        if offset + bits.nbytes != len(data):
            raise ValueError(f"{len(data) - offset - bits.nbytes} bytes too many")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as cause:
        raise BadEventFile(f"{path}: not a whole compact event file ({cause}). Fetch it again.") from cause
    _, height, width = shape
    offsets = np.concatenate([[0], np.cumsum(columns["count"], dtype=np.int64)])
    x, y = columns["x"].astype(np.int32), columns["y"].astype(np.int32)
    bad = []
    if offsets[-1] != events:
        bad.append(f"recordings claim {offsets[-1]} events, the file holds {events}")
    if events and (x.max() >= width or y.max() >= height):
        bad.append(f"pixels up to ({x.max()}, {y.max()}), the sensor is {width} x {height}")
    if recordings and columns["label"].max() >= len(classes):
        bad.append(f"labels up to {columns['label'].max()}, the file names {len(classes)} classes")
    if bad:
        raise BadEventFile(f"{path}: columns contradict each other", bad)
    delta = columns["low"].astype(np.int64) | columns["middle"].astype(np.int64) << 8
    delta |= columns["high"].astype(np.int64) << 16
    total = np.cumsum(delta)
    before = np.concatenate([[0], total])[offsets[:-1]]
    t = total - np.repeat(before, columns["count"])
    polarity = np.unpackbits(bits, count=events).astype(np.int32)
    labels, ids = columns["label"].astype(np.int64), columns["id"].astype(np.int64)
    result = (seconds(t), (polarity * height + y) * width + x, offsets, labels, ids)
    for column in result:
        column.setflags(write=False)
    return EventSet(*result, shape, duration, classes, str(header.get("name", "events")))
