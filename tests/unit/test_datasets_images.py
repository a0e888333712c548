"""Images: splits, files in MNIST's layout, and files that are not."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from neuro.datasets.images import FASHION, images
from neuro.errors import BadConfig, BadEventFile


def write(folder: Path, kind: str, n: int, zipped: bool) -> None:
    pictures = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)
    parts = {
        f"{kind}-images-idx3-ubyte": bytes((0, 0, 8, 3)) + struct.pack(">3I", n, 2, 3) + pictures.tobytes(),
        f"{kind}-labels-idx1-ubyte": bytes((0, 0, 8, 1)) + struct.pack(">I", n) + bytes(k % 3 for k in range(n)),
    }
    for name, data in parts.items():
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)


def test_the_embedded_digits_are_split_by_class() -> None:
    parts = [images(s) for s in ("train", "valid", "test")]
    assert sum(len(p) for p in parts) == len(images("all")) == 10_000
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        counts = np.bincount(part.labels) / np.bincount(images("all").labels)
        np.testing.assert_allclose(counts, share, atol=0.002)
    seen = [{p.tobytes() for p in part.images} for part in parts]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert parts[0].images.shape[1:] == (28, 28)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_in_the_layout_of_mnist(tmp_path: Path, zipped: bool) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    write(folder, "train", 36, zipped)
    write(folder, "t10k", 5, zipped)
    train, valid, test = (images(s, folder) for s in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test), len(images("all", folder))) == (30, 6, 5, 41)
    assert np.bincount(valid.labels).tolist() == [2, 2, 2]
    assert test.images[1].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert test.classes == FASHION


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="split"):
        images("trian")
    with pytest.raises(BadEventFile, match="neither train-images"):
        images("train", tmp_path)
    write(tmp_path, "train", 4, False)
    file = tmp_path / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for broken, said in (
        (whole[:-1], "holds 23 bytes"),
        (whole + b"x", "holds more bytes"),
        (whole[:10], "not an IDX file"),
        (b"\1" + whole[1:], "not an IDX file"),
        (whole[:4] + struct.pack(">3I", 1 << 30, 2, 3), "more than"),
    ):
        file.write_bytes(broken)
        with pytest.raises(BadEventFile, match=said):
            images("train", tmp_path)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 3), np.uint8), labels=np.zeros(3, np.int64))
    with pytest.raises(BadEventFile, match="2 images and 3 labels"):
        images("all", tmp_path / "a.npz")
