"""Any data set of tonic: `from_tonic` takes an object of theirs, `tonic_source` its name ("tonic:NMNIST").

A recording is what ``dataset[k]`` returns, so tonic's transforms apply as they do there: a structured array with t, in
us, x and, where the sensor has them, y and p; or a frame array [time, *shape] of whole counts, of which each count
becomes so many events in the middle of its frame. Labels are whole numbers, or names of ``dataset.classes``.

What a name takes as options (``[data.options]``) is `OPTIONS`: arguments of the class, transforms by name with their
arguments (``sensor_size`` is filled in), a cache (tonic.DiskCachedDataset, one folder per set and transforms, so a
changed transform never meets an old cache), and a mirror (`neuro.datasets.tonic_fetch`). A path is the folder that
tonic calls save_to. "train" and "valid" divide tonic's training part by the number of the recording.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets.collect import Collector, seconds, side
from neuro.datasets.source import Source, cache_folder
from neuro.datasets.tonic_fetch import made_by_tonic
from neuro.errors import BadConfig
from neuro.events import EventSet, Shape
from neuro.extend import did_you_mean, require

OPTIONS: dict[str, object] = {
    "arguments": {},  # of the class
    "transforms": [],  # names, or tables with a name and its arguments
    "shape": [],  # of a step after the transforms; empty: of the sensor
    "frame_dt": 1e-3,  # seconds per frame where a transform makes frames
    "cache": True,  # recordings after their transforms, by tonic.DiskCachedDataset
    "mirror": "",  # folder or address
    "sha256": {},  # of archives, by file name
}
OWN = ("save_to", "transform", "target_transform", "transforms", "train", "split", "self")


def tonic_source(name: str) -> Source:
    """The data set of tonic.datasets of that name.

    Raises:
        BadConfig: tonic has none of that name. MissingExtra: tonic is not installed.
    """
    found = require("tonic.datasets", "tonic")
    names = [n for n in dir(found) if inspect.isclass(getattr(found, n)) and n[0].isupper()]
    if name not in names:
        raise BadConfig(f"tonic has no data set '{name}'. {did_you_mean(name, names)} All: {', '.join(sorted(names))}")
    cls = getattr(found, name)
    shape = shape_of(getattr(cls, "sensor_size", None)) or (1,)
    classes = tuple(str(c) for c in getattr(cls, "classes", ()) or ())
    words = " ".join((inspect.getdoc(cls) or name).split("Parameters:")[0].split("::")[0].split())

    def read(split: str, path: Path | None, **options: Any) -> EventSet:
        return _read(cls, split, path, options)

    url = str(
        getattr(cls, "base_url", getattr(cls, "url", getattr(cls, "train_url", ""))) or "https://tonic.readthedocs.io"
    )
    return Source(
        f"tonic:{name}", words[:200], "see its publisher", words[:200], url, shape, classes, 0.010, 100, read, OPTIONS
    )


def shape_of(sensor_size: Any) -> Shape | None:
    """(width, height, polarities) of tonic as (polarities, height, width), or (channels,) of a cochlea."""
    if not isinstance(sensor_size, Sequence) or len(sensor_size) != 3:
        return None
    width, height, polarities = (int(n) for n in sensor_size)
    return (width,) if height == 1 and polarities == 1 else (polarities, height, width)


# ---------------------------------------------------------------- recordings of an object


def from_tonic(
    dataset: Any,
    *,
    shape: Shape | None = None,
    classes: Sequence[str] | None = None,
    frame_dt: float = 1e-3,
    chosen: Sequence[int] | None = None,
    name: str | None = None,
) -> EventSet:
    """The recordings of a data set of tonic, or of any object with its layout, as an `EventSet`.

    Args:
        dataset: has a length and gives (recording, label) by number. shape: of a step; None: of its ``sensor_size``.
        classes: None: its ``classes``, or the labels that occur. frame_dt: seconds per frame where recordings are
            frames. chosen: numbers of the recordings; None: all.

    Raises:
        BadConfig: recordings or labels of another kind, or events outside of the shape; each says which and the remedy.
    """
    title = name or type(dataset).__name__
    step = shape or shape_of(getattr(dataset, "sensor_size", None))
    if step is None:
        raise BadConfig(f"{title} does not say its sensor_size; give shape=(polarities, height, width)")
    known = [str(c) for c in (classes if classes is not None else getattr(dataset, "classes", None) or [])]
    collector = Collector()
    frames = 0
    for k in range(len(dataset)) if chosen is None else chosen:
        recording, target = dataset[int(k)][:2]
        array = np.asarray(recording)
        where = f"{title}, recording {k}"
        if array.dtype.names:
            t, x = _structured(array, step, where)
        else:
            t, x = _frames(array, step, frame_dt, where)
            frames = max(frames, len(array))
        ordered = np.argsort(t, kind="stable")
        collector.add(t[ordered], x[ordered], _label(target, known, where, fixed=classes is not None), int(k))
    if not len(collector):
        raise BadConfig(f"{title} holds no recording")
    top = max(collector.labels) + 1
    known += [str(n) for n in range(len(known), top)]
    return collector.finish(step, frames * frame_dt if frames else None, tuple(known), title)


def _structured(array: Any, shape: Shape, where: str) -> tuple[Any, Any]:
    fields = array.dtype.names
    if "t" not in fields or "x" not in fields:
        raise BadConfig(
            f"{where}: an array with fields {fields}; t and x are needed (y and p where the sensor has them)"
        )
    sizes = (1, 1, *shape)[-3:]
    columns: dict[str, Any] = {
        "p": (np.asarray(array["p"]) > 0).astype(np.int64) if "p" in fields and sizes[0] > 1 else 0,
        "y": np.asarray(array["y"]).astype(np.int64) if "y" in fields and sizes[1] > 1 else 0,
        "x": np.asarray(array["x"]).astype(np.int64),
    }
    for (axis, values), size in zip(columns.items(), sizes, strict=True):
        if np.size(values) and not (np.min(values) >= 0 and np.max(values) < size):
            raise BadConfig(
                f"{where}: {axis} lies in {np.min(values)}..{np.max(values)}, the shape {shape} allows 0..{size - 1}; "
                "give the shape of a step after the transforms (data.options.shape)"
            )
    t = np.asarray(array["t"], np.float64)
    if t.size and not (np.isfinite(t).all() and t.min() >= 0):
        raise BadConfig(f"{where}: times must be finite microseconds from 0 on")
    return seconds(t), ((columns["p"] * sizes[1] + columns["y"]) * sizes[2] + columns["x"]).astype(np.int32)


def _frames(array: Any, shape: Shape, dt: float, where: str) -> tuple[Any, Any]:
    if array.ndim < 2 or math.prod(array.shape[1:]) != math.prod(shape):
        raise BadConfig(
            f"{where}: shape {array.shape} is neither events nor frames [time, *{shape}]; give data.options.shape"
        )
    counts = np.rint(array)
    if array.dtype.kind not in "buif" or not np.array_equal(counts, array) or (counts < 0).any():
        raise BadConfig(f"{where}: frames must hold counts of events: whole numbers, none negative")
    flat = counts.reshape(len(array), -1).astype(np.int64)
    time, channel = np.nonzero(flat)
    times = flat[time, channel]
    return np.repeat((time + 0.5) * dt, times).astype(np.float32), np.repeat(channel, times).astype(np.int32)


def _label(target: Any, known: list[str], where: str, fixed: bool) -> int:
    value = target.decode() if isinstance(target, bytes) else target
    if isinstance(value, str):
        if value not in known:
            if fixed:
                raise BadConfig(f"{where}: label '{value}' is none of the classes {known[:12]}")
            known.append(value)
        return known.index(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biu" or int(array.item()) < 0:
        raise BadConfig(
            f"{where}: label {str(target)[:60]!r} is no class; give from_tonic a data set whose "
            "target_transform makes it one"
        )
    return int(array.item())


# ---------------------------------------------------------------- by name


def _read(cls: type, split: str, path: Path | None, options: Mapping[str, Any]) -> EventSet:
    name = cls.__name__
    place = path if path is not None else cache_folder() / "tonic"
    takes = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    given = dict(options["arguments"])
    bad = [f"arguments.{n} is none of {name}'s" for n in given if n not in takes or n in OWN]
    needed = [n for n, p in takes.items() if p.default is p.empty and n not in (*OWN, *given)]
    bad += [f"{name} needs arguments.{n}" for n in needed]
    if "save_to" not in takes:
        bad.append(
            f"{name} takes no folder save_to; make it yourself and give it to neuro.datasets.tonic_any.from_tonic"
        )
    parts = {"train": "train", "valid": "train", "test": "test", "all": "train"}
    if "train" in takes:
        given["train"] = parts[split] == "train"
    elif "split" in takes:
        given["split"] = parts[split]
    elif split == "test":
        bad.append(f"{name} has no test split of its own; load 'valid'")
    if bad:
        raise BadConfig(f"tonic:{name}", bad)
    shape = tuple(int(n) for n in options["shape"]) or shape_of(getattr(cls, "sensor_size", None))
    transform = _transform(options["transforms"], getattr(cls, "sensor_size", None))
    made = made_by_tonic(cls, place, given | ({"transform": transform} if transform is not None else {}), options)
    numbers = np.arange(len(made))
    if split in ("train", "valid"):
        numbers = numbers[side(numbers) == (split == "valid")]
    classes = [str(c) for c in getattr(made, "classes", None) or []] or None
    source: Any = made
    if options["cache"] and transform is not None:
        key = json.dumps(
            [name, given, options["transforms"], require("tonic", "tonic").__version__], sort_keys=True, default=str
        )
        folder = place / f"{name}_cache" / hashlib.sha256(key.encode()).hexdigest()[:16]
        source = require("tonic", "tonic").DiskCachedDataset(made, cache_path=str(folder))
    return from_tonic(
        source,
        shape=shape,
        classes=classes,
        frame_dt=float(options["frame_dt"]),
        chosen=numbers.tolist(),
        name=f"tonic:{name}",
    )


def _transform(wanted: Any, sensor_size: Any) -> Any:
    """tonic.transforms.Compose of what is named; None where nothing is."""
    if not wanted:
        return None
    known = require("tonic.transforms", "tonic")
    names = [n for n in dir(known) if inspect.isclass(getattr(known, n)) and n[0].isupper()]
    steps = []
    for entry in wanted:
        arguments = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = arguments.pop("name", "")
        if name not in names:
            raise BadConfig(f"tonic has no transform '{name}'. {did_you_mean(str(name), names)}")
        cls = getattr(known, name)
        if "sensor_size" in inspect.signature(cls).parameters and "sensor_size" not in arguments:
            arguments["sensor_size"] = sensor_size
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        try:
            steps.append(cls(**lists))
        except (TypeError, ValueError, AssertionError) as cause:
            raise BadConfig(f"transform {name}: {cause}") from cause
    return known.Compose(steps)


__all__ = ["OPTIONS", "from_tonic", "shape_of", "tonic_source"]
