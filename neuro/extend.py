"""The one door for extensions: entry points, optional packages, and "did you mean".

Chips, datasets and exporters are found through the entry-point groups ``neuro.chips``,
``neuro.datasets`` and ``neuro.exporters``. Our own are registered in setup.cfg like anybody
else's.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from neuro.errors import MissingExtra, NeuroError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'loihi2'?"`` when something is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(known)}." if known else "None are registered."


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Name -> entry point of one group, such as ``neuro.chips``."""
    return {ep.name: ep for ep in entry_points(group=group)}


def load_plugin(group: str, name: str, error: type[NeuroError] = NeuroError) -> object:
    """The object behind an entry point.

    Raises:
        error: no entry point of that name, with the nearest known name.
    """
    found = plugins(group)
    if name not in found:
        kind = group.rsplit(".", 1)[-1].rstrip("s")
        raise error(f"unknown {kind} '{name}'. {did_you_mean(name, found)}")
    return found[name].load()


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingExtra: it is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        raise MissingExtra(
            f"{module} is needed here and cannot be imported ({cause}). pip install 'axonport[{extra}]'"
        ) from cause
