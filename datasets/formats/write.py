"""Recordings written in another format, piece by piece; the file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuro.datasets.formats.recording import EVENT, Recording
from neuro.errors import BadEventFile
from neuro.files import atomic_path

MAX_NPZ_EVENTS = 100_000_000


def _csv(recording: Recording, part: Path) -> None:
    with part.open("w", encoding="ascii") as file:
        file.write("t,x,y,p\n")
        for piece in recording.pieces():
            np.savetxt(file, np.stack([piece[name] for name in EVENT.names or ()], 1), fmt="%d", delimiter=",")


def _hdf5(recording: Recording, part: Path) -> None:
    import h5py

    with h5py.File(part, "w") as file:
        group = file.create_group("events")
        if recording.sensor:
            group.attrs["sensor"] = recording.sensor
        sets = {
            name: group.create_dataset(
                name, (0,), EVENT[name], maxshape=(None,), chunks=(1 << 16,), compression="gzip", compression_opts=1
            )
            for name in EVENT.names or ()
        }
        for piece in recording.pieces():
            for name, column in sets.items():
                column.resize((len(column) + len(piece),))
                column[-len(piece) :] = piece[name]


def _npz(recording: Recording, part: Path) -> None:
    events = recording.read(MAX_NPZ_EVENTS)
    with part.open("wb") as file:
        np.savez_compressed(file, t=events["t"], x=events["x"], y=events["y"], p=events["p"])


def _bin(recording: Recording, part: Path) -> None:
    with part.open("wb") as file:
        for piece in recording.pieces():
            t, y = piece["t"], piece["y"]
            if (piece["x"] > 255).any() or (y > 255).any() or (y == 240).any() or (t >= 1 << 23).any():
                raise BadEventFile(
                    f"{recording.path} does not fit five-byte events: x and y up to 255, y not 240 (which says that "
                    "the clock ran over), times below 8.388608 s. Write npz, csv or hdf5"
                )
            packed = np.empty((len(piece), 5), np.uint8)
            packed[:, 0], packed[:, 1] = piece["x"], y
            packed[:, 2] = (piece["p"] << 7) | (t >> 16)
            packed[:, 3], packed[:, 4] = (t >> 8) & 255, t & 255
            file.write(packed.tobytes())


WRITERS: dict[str, Callable[[Recording, Path], None]] = {"csv": _csv, "hdf5": _hdf5, "npz": _npz, "bin": _bin}
SUFFIXES = {".csv": "csv", ".txt": "csv", ".h5": "hdf5", ".hdf5": "hdf5", ".npz": "npz", ".bin": "bin"}


def write(recording: Recording, out: Path | str, format: str | None = None) -> Path:
    """Write a recording; the format by ``out``'s ending where it is not named.

    Raises:
        BadEventFile: an unknown format, or events that it cannot hold.
    """
    out = Path(out)
    name = format or SUFFIXES.get(out.suffix.lower())
    if name not in WRITERS:
        raise BadEventFile(f"{out}: written are {', '.join(WRITERS)}; name one with --to, or by the file's ending")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as part:
        WRITERS[name](recording, part)
    return out
