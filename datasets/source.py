"""`Source`, one data set with its licence and splits, and the door through which all are found.

A data set is one file with a `Source` and one line in the entry-point group ``neuro.datasets``; ours go
through the same door. Splits are deterministic: "train" and "valid" divide what is not "test", and a
recording's side depends on nothing but its own id or repetition (`neuro.datasets.collect.side`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from neuro.errors import BadConfig, BadEventFile, ChecksumMismatch
from neuro.events import EventSet, Shape
from neuro.extend import did_you_mean, load_plugin, plugins
from neuro.files import sha256 as sha256_of

GROUP = "neuro.datasets"
SPLITS = ("train", "valid", "test", "all")

Reader = Callable[..., EventSet]


@dataclass(frozen=True, eq=False)
class Source:
    """One data set.

    licence: of the recordings, not of this code. url: where they come from, None for generated ones.
    shape, classes: of one step, names in the order of the labels. dt, steps: seconds per step and
    number of steps that a first experiment should use, for the default options. options: names and
    defaults of what `load` takes beyond split and path; where "seed" and "epoch" are among them, a load
    varies the recordings before they become events, anew for every epoch. embedded: whether it loads
    without network.
    reader: reader(split, path, **options) -> EventSet; split is one of SPLITS.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str | None
    shape: Shape
    classes: tuple[str, ...]
    dt: float
    steps: int
    reader: Reader = field(repr=False)
    options: Mapping[str, object] = field(default_factory=dict)
    embedded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def load(self, split: str | None = None, path: Path | str | None = None, **options: object) -> EventSet:
        """Recordings of one split.

        split: "train", "valid", "test" or "all"; None means "all" of what is at path, and "train"
        without a path. path: files in the layout of this data set (see the module of the data set).

        Raises:
            BadConfig: an unknown split or option, or a split with nothing in it.
            BadEventFile: path does not exist or holds something else.
        """
        bad = [f"unknown option '{name}'. {did_you_mean(name, self.options)}" for name in options.keys() - self.options]
        if split is not None and split not in SPLITS:
            bad.append(f"unknown split '{split}'. {did_you_mean(split, SPLITS)}")
        if bad:
            raise BadConfig(f"{self.name} cannot be loaded", sorted(bad))
        place = None if path is None else Path(path).expanduser()
        if place is not None and not os.path.exists(place):  # unlike Path.exists, False for names that are too long
            raise BadEventFile(f"{self.name}: {place} does not exist. Give a file or folder in the layout of this set.")
        chosen = split or ("train" if place is None else "all")
        found = self.reader(chosen, place, **{**self.options, **options})
        if not len(found):
            raise BadConfig(
                f"{self.name}: no recording of {place or 'the set'} belongs to split '{chosen}'. Load split 'all'."
            )
        return found


def sources() -> tuple[str, ...]:
    """Names of every registered data set."""
    return tuple(sorted(plugins(GROUP)))


def source(name: str) -> Source:
    """The registered data set of that name, or "tonic:NAME", any of tonic's (`neuro.datasets.tonic_any`).

    Raises:
        BadConfig: none of that name, with the nearest one; or its entry point is no `Source`.
    """
    if name.startswith("tonic:"):
        from neuro.datasets.tonic_any import tonic_source

        found: object = tonic_source(name.removeprefix("tonic:"))
    else:
        found = load_plugin(GROUP, name, BadConfig)
    if not isinstance(found, Source):
        raise BadConfig(f"entry point '{name}' of {GROUP} gives {type(found).__name__}, expected a Source")
    return found


def load(name: str, split: str | None = None, path: Path | str | None = None, **options: object) -> EventSet:
    """``source(name).load(split, path, **options)``."""
    return source(name).load(split, path, **options)


def cache_folder() -> Path:
    """Where downloads go: $AXONPORT_CACHE, else the user's cache folder."""
    chosen = os.environ.get("AXONPORT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(str(pooch.os_cache("axonport")))


def verify(path: Path | str, sha256: str) -> Path:
    """The path, once its content has this sha256.

    Raises:
        ChecksumMismatch: another content.
        BadEventFile: no such file.
    """
    path = Path(path)
    try:
        found = sha256_of(path)
    except OSError as cause:
        raise BadEventFile(f"{path}: cannot be read ({cause.strerror or cause})") from cause
    if found != sha256:
        raise ChecksumMismatch(
            f"{path}: sha256 is {found}, expected {sha256}. Delete the file and fetch it again, "
            "or reinstall axonport if it came with it."
        )
    return path


def fetch(url: str, sha256: str, name: str, folder: Path | None = None) -> Path:
    """Download once into the cache (`cache_folder`), verified; a whole file appears or none.

    Raises:
        ChecksumMismatch: what came is not what was published.
        BadEventFile: no network or no such file, with the manual steps.
    """
    target = (folder or cache_folder()) / name
    if target.exists():
        return verify(target, sha256)
    import pooch

    # pooch downloads to a temporary file and renames it; the hash is checked by `verify` below, so that
    # a wrong content is our error and is not left in the cache.
    try:
        pooch.retrieve(url, known_hash=None, fname=name, path=target.parent)
    except (OSError, ValueError) as cause:  # a requests error is an OSError
        raise BadEventFile(
            f"{url} cannot be downloaded ({type(cause).__name__}: {cause}). By hand: fetch it on a machine with "
            f"network, check sha256 {sha256}, and put it at {target}"
        ) from cause
    try:
        return verify(target, sha256)
    except ChecksumMismatch:
        target.unlink()
        raise
