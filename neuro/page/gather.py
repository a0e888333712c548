"""Reads a folder: which runs, deployments and sweeps are in it, and what they say. Only files, nothing computed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro.errors import NeuroError, RunError
from neuro.results import CONFIG, MANIFEST, Run

DEPTH = 3  # folders below the one that was given
MAX_JSON = 256 << 20  # bytes: a file that is larger is none of ours


@dataclass(frozen=True)
class Chip:
    """One chip of a deployment: its entry of report.json, its view.json (None where there is none), its pictures as
    data URIs by kind."""

    name: str
    table: Mapping[str, Any]
    view: Mapping[str, Any] | None
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Deployment:
    """path: relative to the folder."""

    path: str
    report: Mapping[str, Any]
    chips: tuple[Chip, ...]


@dataclass(frozen=True)
class Sweep:
    """path: relative to the folder. picture: a data URI, or ""."""

    path: str
    table: Mapping[str, Any]
    picture: str


@dataclass(frozen=True)
class Folder:
    """Everything that was found; runs by their path relative to the folder."""

    path: Path
    runs: Mapping[str, Run]
    deployments: tuple[Deployment, ...]
    sweeps: tuple[Sweep, ...]


def gather(folder: Path) -> Folder:
    """Read all runs, deployments and sweeps in a folder and below it.

    Raises:
        RunError: no such folder; files that cannot be read, or that are not what a run wrote, all of them.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give the --out of neuro train, deploy or sweep")
    bad: list[str] = []
    runs: dict[str, Run] = {}
    deployments: list[Deployment] = []
    sweeps: list[Sweep] = []
    for place in _places(folder):
        name = str(place.relative_to(folder))
        try:
            if (place / MANIFEST).is_file() and (place / CONFIG).is_file():
                runs[name] = Run.open(place)
            if (place / "report.json").is_file():
                deployments.append(_deployment(place, name))
            if (place / "sweep.json").is_file():
                sweeps.append(Sweep(name, _json(place / "sweep.json"), _picture(place, "pareto.png")))
        except (NeuroError, OSError, ValueError, KeyError, TypeError) as problem:
            bad.append(f"{place}: {problem}")
    if bad:
        raise RunError("a report cannot be written of files that cannot be trusted", bad)
    return Folder(folder, runs, tuple(deployments), tuple(sweeps))


def _places(folder: Path, depth: int = DEPTH) -> list[Path]:
    found = [folder]
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                found += _places(child, depth - 1)
    return found


def _deployment(place: Path, name: str) -> Deployment:
    report = _json(place / "report.json")
    chips = []
    for chip, table in report["chips"].items():
        own = place / chip / "view.json"
        files = {kind: path for kind, path in table["files"].items() if str(path).endswith(".png")}
        pictures = {kind: _picture(place, path) for kind, path in files.items()}
        view = _json(own) if own.is_file() else None
        chips.append(Chip(chip, table, view, {kind: data for kind, data in pictures.items() if data}))
    return Deployment(name, report, tuple(chips))


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON:
        raise RunError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_JSON:,}: not written by axonport")
    table = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(table, dict):
        raise RunError(f"{path} holds no table")
    return table


def _picture(place: Path, name: str) -> str:
    """A PNG inside the folder as a data URI; "" where there is none."""
    path = (place / name).resolve()
    if not path.is_relative_to(place.resolve()) or not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
