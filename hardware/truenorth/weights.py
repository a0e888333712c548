"""Weights in the four values of a neuron: which axons an input needs so that they add up to what was trained.

An input reaches a core on one or more axons, each of its own type. A neuron joins a subset of them, so the weights
it can give an input are the sums of subsets of its four values. `shape` finds values and subsets with as few axons
as possible: one axon per input where every input can be given a type; else a basis per neuron.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
LOW, HIGH = -256, 255  # a weight: 9 bits, signed
TYPES = 4
POOL = (0, 400, 200, 40, 24)  # candidates from which a basis of 1..4 values is drawn


class Shaped(NamedTuple):
    """values: int64[n, 4] by axon type. subset: int64[synapses], bit G: joined to the source's axon of type G."""

    values: IntArray
    subset: IntArray


def sums(values: tuple[int, ...]) -> dict[int, int]:
    """Sum -> subset (bits) with the fewest members that adds up to it."""
    found: dict[int, int] = {}
    for subset in sorted(range(1 << len(values)), key=lambda s: (s.bit_count(), s)):
        total = sum(v for k, v in enumerate(values) if subset >> k & 1)
        found.setdefault(total, subset)
    return found


def _regular(k: int) -> list[tuple[int, ...]]:
    """Bases of k values whose sums are all integers of a range, and {-1, 0, 1}."""
    up = tuple(1 << j for j in range(k))
    ends = [(*up[:-1], 1 - (1 << (k - 1))), (*up[:-1], -(1 << (k - 1)))] if k > 1 else []
    found = [up, *ends]  # -(2^(k-1) - 1) before -2^(k-1): fewer crosspoints where both do
    return found + [tuple(-v for v in each) for each in found]


@cache
def basis(wanted: frozenset[int]) -> tuple[int, ...] | None:
    """The fewest values, at most four of 9 bits, among whose subset sums are all of ``wanted`` (without 0).

    Looked for among the wanted values, their differences, and bases of whole ranges; None if none of these does.
    """
    size = math.gcd(*wanted) or 1
    pool = set(wanted) | {a - b for a in wanted for b in wanted if a != b}
    ranked = sorted((v for v in pool if LOW <= v <= HIGH), key=lambda v: (v not in wanted, abs(v), -v))
    for k in range(1, TYPES + 1):
        if len(wanted) >= 1 << k:
            continue
        regular = (tuple(size * v for v in each) for each in _regular(k))
        for values in itertools.chain(regular, itertools.combinations(ranked[: POOL[k]], k)):
            if all(LOW <= v <= HIGH for v in values) and wanted <= sums(values).keys():
                return tuple(sorted(values, reverse=True))
    return None


def typed(row: IntArray, line: IntArray, weight: IntArray, n: int) -> Shaped | None:
    """One axon per input: each input a type, each neuron one value per type; None if greedy finds no such types."""
    if weight.size and (weight.min() < LOW or weight.max() > HIGH):
        return None
    values = np.zeros((n, TYPES), np.int64)
    subset = np.zeros(row.size, np.int64)
    order = np.argsort(line, kind="stable")
    cuts = np.flatnonzero(np.diff(line[order])) + 1
    for of in np.split(order, cuts):
        for kind in range(TYPES):
            held = values[row[of], kind]
            if ((held == 0) | (held == weight[of])).all():
                values[row[of], kind] = weight[of]
                subset[of] = 1 << kind
                break
        else:
            return None
    return Shaped(values, subset)


def shape(row: IntArray, line: IntArray, weight: IntArray, n: int) -> tuple[Shaped, IntArray]:
    """Values and subsets of a population; row: neuron, line: input, weight: non-zero integers, all [synapses].

    Also returns the neurons for which no basis was found; their subsets are 0.
    """
    easy = typed(row, line, weight, n)
    if easy is not None:
        return easy, np.zeros(0, np.int64)
    order = np.argsort(row, kind="stable")
    pointer = np.searchsorted(row[order], np.arange(n + 1))
    found: list[tuple[int, ...]] = []
    hard = []
    for j in range(n):
        one = basis(frozenset(weight[order[pointer[j] : pointer[j + 1]]].tolist()))
        if one is None:
            hard.append(j)
        found.append(one or ())
    places = _places(found)
    values, subset = np.zeros((n, TYPES), np.int64), np.zeros(row.size, np.int64)
    for j, (one, place) in enumerate(zip(found, places, strict=True)):
        values[j, place] = one
        if one:
            table = sums(tuple(values[j].tolist()))
            of = order[pointer[j] : pointer[j + 1]]
            subset[of] = [table[w] for w in weight[of].tolist()]
    return Shaped(values, subset), np.array(hard, np.int64)


def _places(found: list[tuple[int, ...]]) -> list[list[int]]:
    """Types of each basis' values: excitation first, then inhibition, at the same types in all neurons if they fit,
    so that an input that only ever excites needs no axon of an inhibiting type."""
    most = max((sum(v > 0 for v in one) for one in found), default=0)
    if most + max((sum(v < 0 for v in one) for one in found), default=0) > TYPES:
        return [list(range(len(one))) for one in found]
    places = []
    for one in found:
        up = sum(v > 0 for v in one)
        places.append([*range(up), *range(most, most + len(one) - up)])
    return places


LEVELS = {  # axons per input -> values, in steps, to round to
    2: ((1, -1), (1, -2), (2, -1), (1, 2), (-1, -2)),
    3: ((1, 2, -4), (1, 2, -3), (4, -1, -2), (1, 2, 4), (-1, -2, -4)),
    4: ((1, 2, 4, -8), (8, -1, -2, -4), (1, 2, 4, 8), (-1, -2, -4, -8)),
}
SHRINK = np.linspace(0.3, 1.0, 36)  # of the step at which nothing saturates


def rounded(weight: NDArray[np.float64], axons: int) -> tuple[tuple[int, ...], float]:
    """What ``axons`` (2..4) axons per input can hold nearest to the weights: values in steps, and the step.

    It minimises the sum of squared errors.
    """
    best: tuple[float, tuple[int, ...], float] | None = None
    for values in LEVELS[axons]:
        reach = np.array(sorted(sums(values)))
        top, low = reach.max(), reach.min()
        need = max(weight.max() / top if top > 0 else 0.0, weight.min() / low if low < 0 else 0.0)
        for step in need * SHRINK if need > 0 else ():
            exact = weight / step
            right = np.clip(np.searchsorted(reach, exact), 1, len(reach) - 1)
            near = np.where(exact - reach[right - 1] <= reach[right] - exact, reach[right - 1], reach[right])
            off = float(((near - exact) ** 2).sum() * step * step)
            if best is None or off < best[0]:
                best = (off, values, float(step))
    assert best is not None, "only called with non-zero weights"
    return best[1:]
