"""Files of tonic's data sets: downloaded by tonic, or from a mirror where the publisher's link is dead.

A mirror is a folder or an address under which the archives lie by their names. What comes from it must have the sha256
that is given, or else the MD5 that tonic knows; where there is neither it is refused. Nothing is unpacked before that.
Where nothing can be fetched, one error says what, from where, and the steps to do by hand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuro.datasets.source import verify
from neuro.errors import BadConfig, BadEventFile, ChecksumMismatch, NeuroError
from neuro.extend import require

TIMEOUT_S = 30.0  # of a mirror that does not answer


def made_by_tonic(cls: type, place: Path, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """tonic's class, made over a folder of which NAME/ holds its files; downloaded where they are missing.

    given: arguments of the class. options: "mirror", "sha256", see the module.

    Raises:
        BadEventFile: no network, a dead link, files that are damaged; with the manual steps.
        ChecksumMismatch: what came is not what was published. BadConfig: a mirror that cannot be used.
    """

    def download(self: Any) -> None:
        _download(cls, self, options)

    own = type(cls.__name__, (cls,), {"download": download, "__module__": cls.__module__})  # tonic's folder is its name
    place.mkdir(parents=True, exist_ok=True)
    try:
        return own(save_to=str(place), **given)
    except NeuroError:
        raise
    except Exception as cause:  # a class that fetches in its own way, or reads what is not there: each raises its own
        raise BadEventFile(_by_hand(cls, None, place / cls.__name__, cause)) from cause


def _download(cls: Any, made: Any, options: Mapping[str, Any]) -> None:
    mirror, hashes = str(options["mirror"]), dict(options["sha256"])
    file = getattr(made, "filename", None)
    place = Path(made.location_on_system)
    target = place / str(file)
    try:
        if mirror:
            if file is None:
                raise BadConfig(f"{cls.__name__} downloads in a way of its own, so no mirror can stand in for it")
            _from_mirror(mirror, cls.__name__, target, hashes.get(str(file)), getattr(made, "file_md5", None))
        else:
            cls.download(made)
            if file is not None and str(file) in hashes:
                verify(target, hashes[str(file)])
    except ChecksumMismatch:
        target.unlink(missing_ok=True)
        raise
    except NeuroError:
        raise
    except Exception as cause:  # urllib, http, ssl, gdown, tarfile, zipfile, and tonic's own RuntimeError
        raise BadEventFile(_by_hand(cls, made, place, cause)) from cause


def _from_mirror(mirror: str, name: str, target: Path, sha256: str | None, md5: str | None) -> None:
    """Fetch, check, and only then unpack beside it, as tonic does."""
    if sha256 is None and md5 is None:
        raise BadConfig(
            f'{target.name} has no checksum in tonic: give data.options.sha256 = {{"{target.name}" = "..."}}'
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with _opened(mirror, name, target.name) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        if sha256 is not None:
            verify(part, sha256)
        elif _md5(part) != md5:
            raise ChecksumMismatch(
                f"{mirror}: {target.name} has MD5 {_md5(part)}, tonic expects {md5}. Use another mirror"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    require("tonic.download_utils", "tonic").extract_archive(str(target), str(target.parent))


def _opened(mirror: str, name: str, file: str) -> Any:
    if "://" not in mirror:
        places = [Path(mirror).expanduser() / name / file, Path(mirror).expanduser() / file]
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"neither {places[0]} nor {places[1]} is there")
        return found.open("rb")
    if not mirror.startswith(("https://", "http://")):
        raise BadConfig(f"a mirror is a folder, or begins with https:// or http://, got {mirror!r}")
    return urllib.request.urlopen(f"{mirror.rstrip('/')}/{file}", timeout=TIMEOUT_S)  # noqa: S310  # checked above


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _by_hand(cls: Any, made: Any, place: Path, cause: Exception) -> str:
    """What went wrong, and what to do without this machine's network."""
    file, url, md5 = (getattr(made, n, None) for n in ("filename", "url", "file_md5"))
    steps = [
        f"fetch {file or 'its files'} from {url or getattr(cls, 'base_url', 'its publisher (see its page in tonic)')} "
        "on a machine with network" + (f" (MD5 {md5})" if md5 else ""),
        f"put {'it' if file else 'them'} into {place}" + (" and unpack it there" if file else ""),
        "run the same command again",
    ]
    numbered = "; ".join(f"{k}. {step}" for k, step in enumerate(steps, 1))
    return (
        f"{cls.__name__} cannot be had through tonic ({type(cause).__name__}: {cause}). By hand: {numbered}. Or give "
        "data.options.mirror a folder or an address under which the archive lies"
    )
