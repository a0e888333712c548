"""Run folders: what a training run leaves behind, whole or not at all.

::

    RUN/
      manifest.json        written last: its presence says the run is finished; sha256 of all below, and of itself
      config.json          the configuration, every default spelt out
      metrics.jsonl        one line per epoch; the same for the same configuration
      network.nir          the trained network
      weights.safetensors  the module's parameters and buffers
      versions.json        python, packages, threads, commit
      timing.jsonl         seconds per epoch (not hashed, not reproducible)
      checkpoint/          while training; gone when the run is finished
      .lock                held by the process that writes

Every file is written beside its place and moved over it; a process killed at any moment leaves the
old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import ChecksumMismatch, RunError
from neuro.files import atomic_path, sha256, write_json

if TYPE_CHECKING:
    from neuro.ir import Network

MANIFEST, CONFIG, METRICS = "manifest.json", "config.json", "metrics.jsonl"
NETWORK, WEIGHTS, VERSIONS, TIMING = "network.nir", "weights.safetensors", "versions.json", "timing.jsonl"
CHECKPOINT, LOCK = "checkpoint", ".lock"
FORMAT = 2
PACKAGES = ("axonport", "numpy", "numba", "torch", "safetensors", "nir")


@dataclass(frozen=True)
class Run:
    """A finished run folder whose files are those that were written."""

    path: Path
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, Any]
    summary: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Read and verify a run folder.

        Raises:
            RunError: there is none, it is not finished, or it is no run folder.
            ChecksumMismatch: a file is missing or differs from what the run wrote; all of them.
        """
        path = Path(path)
        manifest = read_manifest(path)
        check_files(path, manifest["files"])
        return cls(
            path=path,
            config=json.loads((path / CONFIG).read_text(encoding="utf-8")),
            metrics=read_lines(path / METRICS),
            versions=json.loads((path / VERSIONS).read_text(encoding="utf-8")),
            summary=manifest["summary"],
        )

    @cached_property
    def network(self) -> Network:
        """The trained network."""
        from neuro.nir import load

        return load(self.path / NETWORK)

    @property
    def seed(self) -> int:
        """The seed of the configuration."""
        return int(self.config["seed"])


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        RunError: the folder does not exist, is not a finished run, or its manifest cannot be read.
        ChecksumMismatch: the manifest itself is not as it was written.
    """
    if not path.is_dir():
        raise RunError(f"{path} is not a folder; give the --out of a training run")
    file = path / MANIFEST
    if not file.is_file():
        if (path / CONFIG).is_file():
            raise RunError(f"{path} holds a run that is not finished; train again with the same --out to resume it")
        raise RunError(f"{path} holds no run: {MANIFEST} is missing")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and isinstance(manifest["files"], dict) and "summary" in manifest
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{file} cannot be read ({type(cause).__name__}: {cause}); train into another folder") from cause
    if not known:
        raise RunError(f"{file} is not of format {FORMAT}; it was written by another version of axonport")
    assert isinstance(manifest, dict)
    if manifest.pop("sha256", None) != _digest_of(manifest):
        raise ChecksumMismatch(f"{file} is not as it was written; train again into another folder")
    return manifest


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Hex digest of a manifest without its own digest, whatever its whitespace."""
    return hashlib.sha256(json.dumps(manifest, allow_nan=False).encode()).hexdigest()


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise ChecksumMismatch where files of a folder are not the ones with these digests, naming all."""
    bad = []
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            bad.append(f"{name} is missing")
        elif (found := sha256(file)) != digest:
            bad.append(f"{name} has sha256 {found[:16]}..., the run wrote {str(digest)[:16]}...")
    if bad:
        raise ChecksumMismatch(f"{folder} is not as it was written; train again into another folder", bad)


def read_lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The objects of a JSON-lines file."""
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON-lines file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")


def finish(path: Path, summary: Mapping[str, Any]) -> Run:
    """Hash what lies in a run folder and write its manifest: from here on the run is finished."""
    names = (CONFIG, METRICS, NETWORK, WEIGHTS, VERSIONS)
    manifest = {"format": FORMAT, "files": {n: sha256(path / n) for n in names}, "summary": dict(summary)}
    write_json(path / MANIFEST, {**manifest, "sha256": _digest_of(json.loads(json.dumps(manifest)))})
    return Run.open(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder alone; the lock dies with the process. What a killed writer left half done is removed.

    Raises:
        RunError: another process holds it, or the folder cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path / LOCK))
        lock.acquire(timeout=0)
    except Timeout as cause:
        raise RunError(f"{path}: another process writes into it; wait for it or choose another --out") from cause
    except OSError as cause:
        raise RunError(f"{path} cannot be used for a run: {cause.strerror or cause}") from cause
    try:
        for stale in path.glob(".*.part"):
            stale.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def claim(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Make a folder the place of this configuration; call it with the lock held.

    Raises:
        RunError: it holds something else, or a run of another configuration (what differs is listed), or
            any run where ``resume`` is False.
    """
    file = path / CONFIG
    foreign = [p.name for p in path.iterdir() if p.name != LOCK]
    if not file.is_file():
        if foreign:
            raise RunError(f"{path} holds other files ({', '.join(sorted(foreign)[:5])}); choose another --out")
        write_json(file, config)
        return
    if not resume:
        raise RunError(f"{path} already holds a run; choose another --out, or let it resume")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise RunError(f"{file} cannot be read ({cause}); choose another --out") from cause
    differs = sorted(_differences("", held, json.loads(json.dumps(config))))
    if differs:
        raise RunError(f"{path} holds a run of another configuration; choose another --out", differs)


def _differences(where: str, held: Any, wanted: Any) -> list[str]:
    if isinstance(held, dict) and isinstance(wanted, dict):
        keys = held.keys() | wanted.keys()
        return [d for k in keys for d in _differences(f"{where}.{k}".lstrip("."), held.get(k), wanted.get(k))]
    return [] if held == wanted else [f"{where} is {held!r:.60} there, {wanted!r:.60} here"]


def versions() -> dict[str, Any]:
    """Versions of what had a part in a run, and the commit of axonport where it runs from a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["commit"] = commit()
    return found


def commit() -> str | None:
    """Commit of the checkout that axonport runs from, with "+" where files differ from it; None elsewhere."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(  # noqa: S603  # fixed arguments, no shell
                ["git", "-C", str(root), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")
