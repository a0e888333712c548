"""Which format a file is in, told by its content; a name decides only where nothing else can.

| format | how it is told | read by |
|---|---|---|
| evt2, evt3 | header lines "% evt 2.0", "% format EVT3" | faery |
| aedat4 | "#!AER-DAT4.0" | faery |
| es | "Event Stream" | faery |
| aedat2 | "#!AER-DAT2.0" | here: evlib reads such files as empty, without an error |
| dat | header lines and "% Version 2" (Prophesee, N-CARS) | here: what reads them is GPL |
| hdf5 | the signature; datasets x, y, t, p in one group | h5py, in a process of its own |
| npz | a zip of arrays x, y, t, p; or `neuro simulate`'s layout, which is refused by name | numpy |
| csv | text, columns t, x, y, p by header or in that order | here, in pieces |
| bin | no signature: five-byte events (N-MNIST, N-Caltech101), the name ends in .bin | here |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from neuro.datasets.formats import foreign, hdf5_events, plain, prophesee, tables
from neuro.datasets.formats.recording import Recording
from neuro.errors import BadEventFile

HEAD = 4096
READERS: dict[str, Callable[[Path], Recording]] = {
    "evt2": foreign.evt2,
    "evt3": foreign.evt3,
    "aedat4": foreign.aedat4,
    "es": foreign.es,
    "aedat2": prophesee.aedat2,
    "dat": prophesee.dat,
    "hdf5": hdf5_events.hdf5,
    "npz": tables.npz,
    "csv": plain.csv,
    "bin": plain.five_bytes,
}


def format_of(path: Path) -> str:
    """The name of a file's format.

    Raises:
        BadEventFile: no such file, an empty one, or none of `READERS`.
    """
    if not path.is_file():
        raise BadEventFile(f"{path} does not exist, or is no file")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise BadEventFile(f"{path}: empty file, no event in it")
    if head.startswith(b"#!AER-DAT4"):
        return "aedat4"
    if head.startswith(b"#!AER-DAT2"):
        return "aedat2"
    if head.startswith(b"Event Stream"):
        return "es"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    if head.startswith(b"%"):
        lines = head.split(b"\n")
        said = b"\n".join(line for line in lines if line.startswith(b"%")).lower()
        if re.search(rb"evt ?3|evt 3\.0", said):
            return "evt3"
        if re.search(rb"evt ?2\b|evt 2\.0", said):
            return "evt2"
        if b"version 2" in said or b"event2d" in said or b"data file" in said:
            return "dat"
    if head.startswith(b"#!AER-DAT"):
        version = head[9:12].decode("ascii", "replace")
        raise BadEventFile(f"{path} is AEDAT {version}; 2.0 and 4.0 are read. Convert it with its own tool (DV, jAER)")
    if _text(head):
        return "csv"
    if path.suffix.lower() == ".bin":
        return "bin"
    raise BadEventFile(
        f"{path} is in no format that is known ({', '.join(READERS)}); name it with --format if it is one"
    )


def _text(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0].strip()
    return bool(line) and all(32 <= c < 127 or c == 9 for c in line) and (b"," in line or b" " in line or b"\t" in line)


def open_events(path: Path | str, format: str | None = None) -> Recording:
    """A recording, by content, or as ``format`` says.

    Raises:
        BadEventFile: as `format_of`; a header that is damaged. MissingExtra: faery is needed and not installed.
    """
    path = Path(path)
    name = format_of(path) if format is None else format
    if name not in READERS:
        raise BadEventFile(f"format '{name}' is unknown; known: {', '.join(READERS)}")
    if not path.is_file():
        raise BadEventFile(f"{path} does not exist, or is no file")
    return READERS[name](path)
