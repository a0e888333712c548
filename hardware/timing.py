"""When populations run, where every projection costs one step of the chip. Knows no chip.

The Network gives feed-forward paths no step; on the chip each projection takes one. A population therefore lags
by its skew, and a path that skips layers is delayed so that all its spikes arrive together::

    delay on chip = delay in the Network + skew[target] - skew[source] - 1   >= 0

The skews are the smallest that satisfy this for every path (longest path, Bellman-Ford). A loop with fewer steps
of delay than projections has no solution; then only forward paths are aligned, and the rest arrives late.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Link(NamedTuple):
    """One path. least: smallest delay in steps of its synapses (a feedback edge counts as one)."""

    source: str
    target: str
    least: int
    feedback: bool


def skews(populations: tuple[str, ...], links: Iterable[Link]) -> dict[str, int]:
    """Population -> steps it lags behind the Network. The first population, the input, has 0, the others >= 1."""
    links = tuple(links)
    settled = _relax(populations, links)
    if settled is None:
        settled = _relax(populations, tuple(k for k in links if not k.feedback))
    assert settled is not None, "forward paths form no loop"
    return settled


def _relax(populations: tuple[str, ...], links: tuple[Link, ...]) -> dict[str, int] | None:
    skew = {name: min(k, 1) for k, name in enumerate(populations)}
    for _ in range(len(populations) + 1):
        before = dict(skew)
        for k in links:
            skew[k.target] = max(skew[k.target], skew[k.source] + 1 - k.least)
        if skew == before:
            return skew
    return None
