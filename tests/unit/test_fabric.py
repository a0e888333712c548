"""Fabrics against brute force: breadth-first search over links listed one by one, walks along every route."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import pytest

from neuro.errors import ChipError
from neuro.hardware import load_chip
from neuro.hardware.fabric import Fabric, HexTorus, Mesh, fabric_of, hexagon

SQUARE = ((1, 0), (0, 1), (-1, 0), (0, -1))
SIX = ((1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1))

FABRICS: dict[str, Fabric] = {
    "mesh 5 x 3": Mesh(5, 3, 2),
    "mesh 1 x 4": Mesh(1, 4, 1),
    "torus 2 x 2": HexTorus(2, 2, 17),
    "torus 5 x 4": HexTorus(5, 4, 17),
    "torus 12 x 12": HexTorus(12, 12, 17),
    "board of 48": HexTorus(8, 8, 17, False, False, hexagon(4)),
    "board with dead links": HexTorus(4, 4, 17, False, False, hexagon(2), frozenset({(1, 1, 0), (1, 1, 1), (2, 2, 5)})),
    "cylinder": HexTorus(4, 3, 17, True, False),
}


def links_of(f: Fabric) -> dict[int, dict[int, int]]:
    """node -> link -> node, written down chip by chip from the meaning of the fields."""
    table: dict[int, dict[int, int]] = {}
    places = {tuple(f.position(n).tolist()): n for n in range(f.nodes)}
    for (x, y), n in places.items():
        table[n] = {}
        for d, (dx, dy) in enumerate(SIX if isinstance(f, HexTorus) else SQUARE):
            u, v = x + dx, y + dy
            if isinstance(f, HexTorus):
                u, v = u % f.width if f.wrap_x else u, v % f.height if f.wrap_y else v
                if (x, y, d) in f.dead:
                    continue
            if (u, v) in places:
                table[n][n * len(f.offsets) + d] = places[u, v]
    return table


def distances(table: dict[int, dict[int, int]], source: int) -> list[int]:
    found = {source: 0}
    todo = deque([source])
    while todo:
        n = todo.popleft()
        for m in table[n].values():
            if m not in found:
                found[m] = found[n] + 1
                todo.append(m)
    return [found[n] for n in range(len(table))]


@pytest.mark.parametrize("name", FABRICS)
def test_hops_and_routes_are_shortest_paths(name: str) -> None:
    f = FABRICS[name]
    table = links_of(f)
    every = np.arange(f.nodes)
    wanted = np.array([distances(table, s) for s in range(f.nodes)])
    assert np.array_equal(f.hops(every[:, None], every), wanted)
    a, b = (x.ravel() for x in np.meshgrid(every, every))
    pair, link = f.paths(a, b)
    assert np.array_equal(np.bincount(pair, minlength=a.size), wanted[a, b])
    assert (np.diff(pair) >= 0).all()
    at = a.copy()
    for k, step in zip(pair.tolist(), link.tolist(), strict=True):  # walk along existing links only
        at[k] = table[int(at[k])][step]
    assert np.array_equal(at, b)
    start, end = f.ends(link)
    assert [table[s][e] for s, e in zip(start.tolist(), link.tolist(), strict=True)] == end.tolist()


@pytest.mark.parametrize("name", FABRICS)
def test_multicast_trees_are_unions_of_routes_and_trees(name: str) -> None:
    f, rng = FABRICS[name], np.random.default_rng(1)
    table = links_of(f)
    sources, sizes = [], []
    groups, a, b = [], [], []
    for g in range(40):
        source, targets = int(rng.integers(f.nodes)), rng.choice(f.nodes, int(rng.integers(1, f.nodes + 1)))
        union = set(itertools.chain(*(f.paths(source, t)[1].tolist() for t in targets)))
        tree = f.tree(source, targets)
        assert tree.tolist() == sorted(union)
        into = [table[link // f.degree][link] for link in tree.tolist()]
        assert len(set(into)) == len(into)  # each node is entered once: no message arrives twice
        assert source not in into
        assert {*targets.tolist()} <= {source, *into}
        sources.append(source), sizes.append(len(union))
        groups += [g] * len(targets)
        a += [source] * len(targets)
        b += targets.tolist()
    assert f.tree_hops(groups, a, b, 40).tolist() == sizes


@pytest.mark.parametrize(("width", "height"), [(2, 2), (5, 4), (12, 12), (8, 3)])
def test_hops_of_a_torus_are_the_closed_form(width: int, height: int) -> None:
    f = HexTorus(width, height, 1)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    turns = [(x - i * width, y - j * height) for i in (-1, 0, 1, 2) for j in (-1, 0, 1, 2)]
    wanted = np.min([np.max(np.abs([u, v, u - v]), axis=0) for u, v in turns], axis=0)
    assert np.array_equal(f.hops(0, f.at(np.stack([x, y], -1))), wanted)


def test_the_board_of_48_chips_is_the_published_hexagon() -> None:
    rows = {y: [x for x, v in hexagon(4) if v == y] for y in range(8)}
    ends = [(min(xs), max(xs)) for xs in rows.values()]  # rows of the 48-chip board, from y = 0
    assert ends == [(0, 4), (0, 5), (0, 6), (0, 7), (1, 7), (2, 7), (3, 7), (4, 7)]
    assert sum(len(xs) for xs in rows.values()) == 48


@pytest.mark.parametrize("name", ["torus 12 x 12", "board of 48"])
def test_routes_bend_once(name: str) -> None:
    f = FABRICS[name]
    a, b = (x.ravel() for x in np.meshgrid(np.arange(f.nodes), np.arange(f.nodes)))
    pair, link = f.paths(a, b)
    direction = link % 6
    bends = np.zeros(a.size, np.int64)
    np.add.at(bends, pair[1:], (pair[1:] == pair[:-1]) & (direction[1:] != direction[:-1]))
    assert bends.max() == 1


def test_load_counts_messages_on_each_link() -> None:
    f = Mesh(3, 3, 1)
    load = f.load([0, 0, 8], [2, 8, 8], [5, 7, 100])
    assert load.sum() == 5 * 2 + 7 * 4
    assert load[0 * 4 + 0] == 12  # both go east from node 0
    assert load[2 * 4 + 1] == 7  # one goes on north from node 2


def test_coordinates_and_nodes_are_inverse() -> None:
    for f in FABRICS.values():
        assert np.array_equal(f.at(f.position(np.arange(f.nodes))), np.arange(f.nodes))
        beyond = np.arange(f.nodes, f.nodes + 30)
        assert np.array_equal(f.at(f.position(beyond)), beyond)
        assert np.array_equal(f.xy(f.cores), f.xy(np.arange(f.cores)))


def test_what_cannot_be_routed_is_refused() -> None:
    f = HexTorus(2, 2, 1, dead=frozenset((0, 0, d) for d in range(6)))
    with pytest.raises(ChipError, match="no path"):
        f.hops(0, 3)
    with pytest.raises(ChipError, match="not on a machine of 4 chips"):
        f.hops(0, 4)


def test_fabric_of_a_chip_comes_from_its_limits() -> None:
    assert fabric_of(load_chip("loihi2")) == Mesh(8, 4, 4)
