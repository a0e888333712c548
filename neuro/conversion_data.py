"""`samples`: labelled data for a conversion, from arrays, files or a registered data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neuro.errors import FormatError, NeuroError
from neuro.events import EventSet
from neuro.extend import did_you_mean

HELD_OUT = 0.2
EMBEDDED = "mnist"
MAX_COUNT = 255
Pair = tuple[ArrayLike | Tensor, ArrayLike | Tensor]


@dataclass(frozen=True, eq=False)
class Samples:
    """x: float64[n, ...] and y: int64[n] or None to calibrate (and to train) with; test_x, test_y to certify on."""

    x: Tensor
    y: Tensor | None
    test_x: Tensor
    test_y: Tensor | None
    name: str


def samples(data: str | Path | Pair | ArrayLike | Tensor, shape: tuple[int, ...] | None = None) -> Samples:
    """What to calibrate with, and what to certify on.

    Args:
        data: (x, y) or x alone: the last fifth is certified on. A path to an .npz with x, y (and x_test, y_test), or to
            a folder of IDX files (images 0..1, [1, height, width]; "t10k" is certified on). "mnist": the embedded
            digits. Another registered data set of events: counts per channel over each recording.
        shape: of one sample, where it is to be another.

    Raises:
        FormatError: what cannot be read, or does not hold samples and their labels.
    """
    if isinstance(data, (str, Path)):
        return _shaped(_from_path(data), shape)
    x, y = data if isinstance(data, tuple) else (data, None)
    return _shaped(_split(_real(x, "x"), None if y is None else _whole(y, "y"), "arrays"), shape)


def _from_path(data: str | Path) -> Samples:
    path = Path(data)
    if str(data) == EMBEDDED or path.is_dir():
        from neuro.datasets.images import images

        folder = None if str(data) == EMBEDDED else path
        train, test = images("train", folder), images("test", folder)
        sides = [torch.as_tensor(s.images.astype(np.float64) / 255)[:, None] for s in (train, test)]
        labels = [torch.as_tensor(s.labels) for s in (train, test)]
        return Samples(sides[0], labels[0], sides[1], labels[1], str(data))
    if path.suffix == ".npz":
        return _npz(path)
    if path.exists():
        raise FormatError(f"{path} holds no samples: an .npz with x and y, or a folder of IDX files, is needed")
    return _events(str(data))


def _npz(path: Path) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as cause:
        raise FormatError(f"{path} cannot be read: {cause}") from cause
    if "x" not in arrays:
        raise FormatError(f"{path} holds {sorted(arrays)}; x, y and perhaps x_test, y_test are needed")
    x, y = _real(arrays["x"], "x"), None if "y" not in arrays else _whole(arrays["y"], "y")
    if "x_test" not in arrays:
        return _split(x, y, path.name)
    labels = None if "y_test" not in arrays else _whole(arrays["y_test"], "y_test")
    return _checked(Samples(x, y, _real(arrays["x_test"], "x_test"), labels, path.name))


def _events(name: str) -> Samples:
    from neuro.datasets.source import load
    from neuro.extend import plugins

    known = [EMBEDDED, *plugins("neuro.datasets")]
    if name not in known:
        raise FormatError(f"no file, folder or data set '{name}'. {did_you_mean(name, known)}")
    found = []
    for splits in (("train",), ("test", "valid")):  # some sets have no test split embedded
        try:
            events = _first(load, name, splits)
        except NeuroError as cause:
            raise FormatError(f"data set '{name}': {cause}") from cause
        counts = events.batch(np.arange(len(events)), events.duration, 1, MAX_COUNT)[0]
        found += [torch.as_tensor(counts.astype(np.float64)), torch.as_tensor(events.labels)]
    return Samples(found[0], found[1], found[2], found[3], name)


def _first(load: Callable[[str, str], EventSet], name: str, splits: tuple[str, ...]) -> EventSet:
    for split in splits[:-1]:
        try:
            return load(name, split)
        except NeuroError:
            continue
    return load(name, splits[-1])


def _split(x: Tensor, y: Tensor | None, name: str) -> Samples:
    first = len(x) - max(1, math.floor(HELD_OUT * len(x)))
    if first < 1:
        raise FormatError(f"{len(x)} sample(s) cannot be split into some to calibrate with and some to certify on")
    if y is not None and len(y) != len(x):
        raise FormatError(f"{len(x)} samples and {len(y)} labels")
    return Samples(x[:first], None if y is None else y[:first], x[first:], None if y is None else y[first:], name)


def _checked(s: Samples) -> Samples:
    bad = [] if len(s.x) and len(s.test_x) else ["no samples"]
    for x, y, what in ((s.x, s.y, "x, y"), (s.test_x, s.test_y, "x_test, y_test")):
        if y is not None and len(x) != len(y):
            bad.append(f"{what}: {len(x)} samples and {len(y)} labels")
    if s.x.shape[1:] != s.test_x.shape[1:]:
        bad.append(f"x is {tuple(s.x.shape)}, x_test {tuple(s.test_x.shape)}")
    if bad:
        raise FormatError(f"{s.name} cannot be used", bad)
    return s


def _shaped(s: Samples, shape: tuple[int, ...] | None) -> Samples:
    if shape is None:
        return s
    if math.prod(shape) != s.x[0].numel():
        raise FormatError(f"samples of {tuple(s.x.shape[1:])} have {s.x[0].numel()} values, not those of {shape}")
    return Samples(s.x.reshape(-1, *shape), s.y, s.test_x.reshape(-1, *shape), s.test_y, s.name)


def _real(values: ArrayLike | Tensor, name: str) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind not in "buif" or array.ndim < 2 or 0 in array.shape:
        raise FormatError(f"{name} must be real numbers [samples, ...], got {array.dtype} {array.shape}")
    tensor = torch.as_tensor(array.astype(np.float64))
    if not bool(tensor.isfinite().all()):
        raise FormatError(f"{name} holds values that are NaN or infinite")
    return tensor


def _whole(values: ArrayLike | Tensor, name: str) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind not in "bui" or array.ndim != 1:
        raise FormatError(f"{name} must be whole numbers [samples], got {array.dtype} {array.shape}")
    return torch.as_tensor(array.astype(np.int64))


__all__ = ["Samples", "samples"]
