"""`export`: a program or a network as files that other tools run. Extension point ``neuro.exporters``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuro.errors import NeuroError, SimulationError
from neuro.extend import load_plugin, plugins
from neuro.hardware.program import Program
from neuro.ir import Network

TAKES = {"program": Program, "network": Network}


@dataclass(frozen=True)
class Exporter:
    """One file format. takes: "program" (compiled integers) or "network" (reals).

    write(item, path, **options) -> what it wrote, a folder or a file, whole or not at all.
    compile_options: what `neuro.hardware.compile` must be told for a program that the format can hold.
    suffix: of the file's name, ".json"; empty for a folder. chips: whose programs it can hold, the usual one first.
    """

    name: str
    title: str
    takes: str
    write: Callable[..., Path]
    compile_options: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ""
    chips: tuple[str, ...] = ()


def exporters() -> tuple[str, ...]:
    """Names of all registered exporters."""
    return tuple(sorted(plugins("neuro.exporters")))


def load_exporter(name: str) -> Exporter:
    """A registered exporter by name.

    Raises:
        NeuroError: no exporter of that name, with the nearest known one.
    """
    found = load_plugin("neuro.exporters", name, NeuroError)
    assert isinstance(found, Exporter)
    return found


def export(item: Program | Network, path: Path | str, to: str = "lava", **options: Any) -> Path:
    """Write a program (lava, netx) or a network (nir) for another tool; returns what was written.

    Raises:
        NeuroError: no such exporter. SimulationError: the exporter takes the other kind of object.
        UnsupportedNode, DoesNotFit: the format cannot hold it; every reason at once.
    """
    exporter = load_exporter(to)
    wanted = TAKES[exporter.takes]
    if not isinstance(item, wanted):
        remedy = "neuro.hardware.compile(network, chip) makes one" if wanted is Program else "give the Network itself"
        raise SimulationError(
            f"exporter '{to}' takes a {wanted.__name__}, got a {type(item).__name__}; {remedy}"
        )
    return exporter.write(item, Path(path), **options)


__all__ = ["Exporter", "export", "exporters", "load_exporter"]
