"""What joins the cores of a chip: a rectangular mesh, or SpiNNaker's triangular torus. Knows no chip.

Nodes are routers, numbered along x, then y; ``cores_per_node`` cores share one (a tile of Loihi, a chip of
SpiNNaker; 1 where every core has its own router). A link is directed, and numbered node * degree + direction.
Routes are shortest and depend on source and target alone; all routes from one source form a tree, so a multicast
message crosses each link of their union once.

Everything takes and gives nodes, as int64 arrays; `Fabric.node` makes them of cores that are numbered in order,
`Fabric.at` of coordinates, such as `Placement.xy`::

    fabric = Mesh(8, 4, 4)                                    # 8 x 4 tiles of 4 cores
    fabric.hops(fabric.node(core_a), fabric.node(core_b))     # links crossed, 0 within a node

Congestion is no part of this: routes do not give way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError
from neuro.hardware.chip import Chip

IntArray = NDArray[np.int64]
PIECE = 1 << 18  # pairs routed at a time, which bounds the memory of `Fabric.load`


def _ints(values: Any) -> IntArray:
    array: IntArray = np.asarray(values, dtype=np.int64)
    return array


@dataclass(frozen=True)
class Fabric(ABC):
    """A fabric of ``width`` x ``height`` places; see `Mesh` and `HexTorus`."""

    width: int
    height: int
    cores_per_node: int

    @property
    @abstractmethod
    def offsets(self) -> IntArray:
        """int64[degree, 2]: where each direction leads."""

    @property
    def degree(self) -> int:
        """Directions out of a node; not each need have a link."""
        return len(self.offsets)

    @property
    def nodes(self) -> int:
        """Routers."""
        return self.width * self.height

    @property
    def cores(self) -> int:
        """Cores on all nodes."""
        return self.nodes * self.cores_per_node

    def node(self, cores: Any) -> IntArray:
        """Node of cores that are numbered node by node."""
        return _ints(cores) // self.cores_per_node

    def position(self, nodes: Any) -> IntArray:
        """int64[..., 2]: coordinates of nodes."""
        nodes = _ints(nodes)
        return np.stack([nodes % self.width, nodes // self.width], axis=-1)

    def at(self, xy: Any) -> IntArray:
        """Node at coordinates [..., 2]; the inverse of `position`."""
        xy = _ints(xy)
        return np.asarray(xy[..., 1] * self.width + xy[..., 0])

    def xy(self, cores: Any) -> IntArray:
        """int64[..., 2]: coordinates of cores numbered node by node; an integer n stands for cores 0..n-1."""
        return self.position(self.node(np.arange(cores) if np.ndim(cores) == 0 else cores))

    @abstractmethod
    def hops(self, a: Any, b: Any) -> IntArray:
        """Links between nodes a and b, which broadcast."""

    @abstractmethod
    def paths(self, a: Any, b: Any) -> tuple[IntArray, IntArray]:
        """The links of the routes from a[k] to b[k]: (k, link) of each, in order of k and along the route."""

    @abstractmethod
    def neighbour(self, nodes: Any, directions: Any) -> IntArray:
        """Node at the other end of a link; -1 where there is none."""

    def ends(self, links: Any) -> tuple[IntArray, IntArray]:
        """(from node, to node) of links."""
        links = _ints(links)
        start = links // self.degree
        return start, self.neighbour(start, links % self.degree)

    def load(self, a: Any, b: Any, weight: Any) -> IntArray:
        """int64[links]: what each link carries when weight[k] messages go from a[k] to b[k], one by one."""
        a, b, weight = (x.ravel() for x in np.broadcast_arrays(_ints(a), _ints(b), _ints(weight)))
        total = np.zeros(self.nodes * self.degree, np.int64)
        for begin in range(0, a.size, PIECE):
            some = slice(begin, begin + PIECE)
            pair, link = self.paths(a[some], b[some])
            total = _added(total, link, weight[some][pair])
        return total

    def trees(self, group: Any, a: Any, b: Any) -> tuple[IntArray, IntArray]:
        """Multicast: the links of the union of routes a[k] -> b[k] of each group, (group, link), no pair twice.

        A group is one message: all of its routes start at one node.
        """
        group, a, b = (x.ravel() for x in np.broadcast_arrays(_ints(group), _ints(a), _ints(b)))
        pair, link = self.paths(a, b)
        stride = int(link.max(initial=0)) + 1
        key = np.unique(group[pair] * stride + link)
        return key // stride, key % stride

    def tree(self, source: int, targets: Any) -> IntArray:
        """Links of the multicast tree from one node to many, sorted."""
        return self.trees(0, source, targets)[1]

    def tree_hops(self, group: Any, a: Any, b: Any, groups: int) -> IntArray:
        """int64[groups]: links of each group's multicast tree, see `trees`."""
        return np.bincount(self.trees(group, a, b)[0], minlength=groups).astype(np.int64)


def _added(total: IntArray, index: IntArray, weight: IntArray) -> IntArray:
    """total with weight[k] added at index[k]; grown where an index lies beyond it."""
    size = max(total.size, int(index.max(initial=-1)) + 1)
    grown = np.zeros(size, np.int64)
    grown[: total.size] = total
    np.add.at(grown, index, weight)
    return grown


@dataclass(frozen=True)
class Mesh(Fabric):
    """A rectangle of nodes with four links each, routed in dimension order: along x, then along y.

    Directions: 0 east (x + 1), 1 north (y + 1), 2 west, 3 south. hops = |dx| + |dy|.
    Nodes beyond the rectangle continue below it (y >= height): a network too large for the chip is placed first and
    refused with all its violations after.
    """

    @property
    def offsets(self) -> IntArray:
        return np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int64)

    def neighbour(self, nodes: Any, directions: Any) -> IntArray:
        xy = self.position(nodes) + self.offsets[_ints(directions)]
        height = max(self.height, int(xy[..., 1].max(initial=0)))
        inside = (xy >= 0).all(-1) & (xy[..., 0] < self.width) & (xy[..., 1] < height)
        return np.where(inside, self.at(xy), -1)

    def hops(self, a: Any, b: Any) -> IntArray:
        return np.asarray(np.abs(self.position(a) - self.position(b)).sum(axis=-1))

    def paths(self, a: Any, b: Any) -> tuple[IntArray, IntArray]:
        a, b = np.broadcast_arrays(np.atleast_1d(_ints(a)), np.atleast_1d(_ints(b)))
        start, way = self.position(a.ravel()), (self.position(b) - self.position(a)).reshape(-1, 2)
        far, sign = np.abs(way), np.sign(way)
        pair, place = _counted(far.sum(axis=1))
        turned = place >= far[pair, 0]
        x = start[pair, 0] + sign[pair, 0] * np.minimum(place, far[pair, 0])
        y = start[pair, 1] + sign[pair, 1] * np.maximum(place - far[pair, 0], 0)
        direction = np.where(turned, np.where(sign[pair, 1] > 0, 1, 3), np.where(sign[pair, 0] > 0, 0, 2))
        return pair, (y * self.width + x) * self.degree + direction


def _counted(counts: IntArray) -> tuple[IntArray, IntArray]:
    """(k, 0..counts[k]-1) for every k."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if counts.size else counts
    k = np.repeat(np.arange(counts.size), counts)
    return k, np.arange(k.size) - first[k]


@dataclass(frozen=True)
class HexTorus(Fabric):
    """Chips with six links each, on a parallelogram that may wrap around: SpiNNaker.

    Directions, as SpiNNaker numbers its links: 0 east (+1, 0), 1 north-east (+1, +1), 2 north (0, +1), 3 west,
    4 south-west, 5 south. wrap_x, wrap_y: whether opposite sides are joined. present: chips there are, or () for
    all. dead: links (x, y, direction) that do not exist.

    Routes are shortest (breadth first from the source); of several, the one whose last link has the lowest number,
    and so on back to the source, which bends once at most where no chip is missing. On a torus of equal chips hops
    follow from the displacement::

        hops(dx, dy) = min over windings of  max(|dx|, |dy|, |dx - dy|)

    which the breadth-first search reproduces, and which holds on no machine with missing chips.
    """

    wrap_x: bool = True
    wrap_y: bool = True
    present: tuple[tuple[int, int], ...] = ()
    dead: frozenset[tuple[int, int, int]] = frozenset()

    @property
    def offsets(self) -> IntArray:
        return np.array([[1, 0], [1, 1], [0, 1], [-1, 0], [-1, -1], [0, -1]], np.int64)

    @property
    def nodes(self) -> int:
        return len(self.present) or self.width * self.height

    @cached_property
    def _places(self) -> IntArray:
        if self.present:
            chips = np.array(sorted(self.present, key=lambda c: (c[1], c[0])), np.int64)
        else:
            chips = super().position(np.arange(self.width * self.height))
        chips.setflags(write=False)
        return chips

    @cached_property
    def _number(self) -> IntArray:
        """int64[height, width]: node at each place, -1 where there is no chip."""
        number = np.full((self.height, self.width), -1, np.int64)
        number[self._places[:, 1], self._places[:, 0]] = np.arange(len(self._places))
        return number

    def position(self, nodes: Any) -> IntArray:
        nodes = _ints(nodes)
        beyond = np.maximum(nodes - (self.nodes - 1), 0)  # chips that do not exist continue above the last
        xy = self._places[np.minimum(nodes, self.nodes - 1)].copy()
        xy[..., 1] += beyond
        return np.asarray(xy)

    def at(self, xy: Any) -> IntArray:
        xy = _ints(xy)
        over = np.maximum(xy[..., 1] - (self.height - 1), 0)
        found = self._number[np.minimum(xy[..., 1], self.height - 1), xy[..., 0]]
        return np.asarray(np.where(over > 0, self.nodes - 1 + over, found))

    @cached_property
    def _around(self) -> tuple[IntArray, IntArray]:
        """int64[nodes, 6] neighbours, -1 for none: by links that exist, and by geometry alone."""
        xy = self._places[:, None] + self.offsets
        inside = np.ones(xy.shape[:2], bool)
        for axis, (size, wrap) in enumerate(((self.width, self.wrap_x), (self.height, self.wrap_y))):
            inside &= wrap | ((xy[..., axis] >= 0) & (xy[..., axis] < size))
        geometry = np.where(inside, self._number[xy[..., 1] % self.height, xy[..., 0] % self.width], -1)
        there = geometry.copy()
        for x, y, direction in self.dead:
            there[self._number[y, x], direction] = -1
        return there, geometry

    def neighbour(self, nodes: Any, directions: Any) -> IntArray:
        return self._around[0][_ints(nodes), _ints(directions)]

    @property
    def _uniform(self) -> bool:
        """Whether every chip sees the same machine: one search then serves all sources."""
        return self.wrap_x and self.wrap_y and not self.present and not self.dead

    @cached_property
    def _searched(self) -> dict[int, tuple[IntArray, IntArray]]:
        return {}

    def _search(self, source: int) -> tuple[IntArray, IntArray]:
        """Breadth first: int64[nodes] hops from a source, and direction of the last link of each route."""
        if source in self._searched:
            return self._searched[source]
        around = self._around[0]
        hops, last = np.full(self.nodes, -1, np.int64), np.full(self.nodes, -1, np.int64)
        hops[source] = 0
        border = np.array([source])
        while border.size:
            reached = around[border].T  # [6, border]: of several ways into a chip the lowest direction is found first
            direction, at = np.nonzero((reached >= 0) & (hops[reached] < 0))
            node, first = np.unique(reached[direction, at], return_index=True)
            hops[node], last[node] = hops[border[0]] + 1, direction[first]
            border = node
        self._searched[source] = hops, last
        return hops, last

    def _relative(self, a: IntArray, b: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """(row, goal, hops, last): tables [sources, nodes], and where in them each pair is found."""
        if self._uniform:
            goal = self.at((self.position(b) - self.position(a)) % [self.width, self.height])
            hops, last = self._search(0)
            return np.zeros_like(goal), goal, hops[None], last[None]
        sources, row = np.unique(a, return_inverse=True)
        tables = [self._search(int(s)) for s in sources]
        return row.reshape(a.shape), b, np.stack([t[0] for t in tables]), np.stack([t[1] for t in tables])

    def _checked(self, a: Any, b: Any) -> tuple[IntArray, IntArray]:
        a, b = np.broadcast_arrays(_ints(a), _ints(b))
        if a.size and max(a.max(), b.max()) >= self.nodes:
            raise ChipError(f"chip {max(a.max(), b.max())} is not on a machine of {self.nodes} chips; take more boards")
        return a, b

    def hops(self, a: Any, b: Any) -> IntArray:
        a, b = self._checked(a, b)
        if not a.size:
            return np.zeros(a.shape, np.int64)
        row, goal, hops, _ = self._relative(a, b)
        found = hops[row, goal]
        if (found < 0).any():
            k = np.unravel_index(int((found < 0).argmax()), found.shape)
            raise ChipError(f"no path leads from chip {tuple(self.position(a[k]))} to {tuple(self.position(b[k]))}")
        return found

    def paths(self, a: Any, b: Any) -> tuple[IntArray, IntArray]:
        a, b = (x.ravel() for x in self._checked(np.atleast_1d(_ints(a)), np.atleast_1d(_ints(b))))
        pair, _ = _counted(self.hops(a, b))
        link = np.zeros(pair.size, np.int64)
        if not pair.size:
            return pair, link
        row, goal, hops, last = self._relative(a, b)
        shift = self.position(a) if self._uniform else np.zeros((a.size, 2), np.int64)
        size = np.array([self.width, self.height])
        start = np.concatenate([[0], np.cumsum(hops[row, goal])[:-1]])
        k, node = np.arange(a.size), goal
        while True:  # back from the goals, one link at a time
            there = hops[row[k], node] > 0
            k, node = k[there], node[there]
            if not k.size:
                return pair, link
            slot, direction = start[k] + hops[row[k], node] - 1, last[row[k], node]
            node = self._around[1][node, (direction + self.degree // 2) % self.degree]
            origin = self.at((self.position(node) + shift[k]) % size) if self._uniform else node
            link[slot] = origin * self.degree + direction


def hexagon(side: int) -> tuple[tuple[int, int], ...]:
    """The 3 side^2 chips of a board with hexagonal outline; side 4 is SpiNNaker's 48-chip board."""
    grid = [(x, y) for y in range(2 * side) for x in range(2 * side)]
    return tuple((x, y) for x, y in grid if -side < x - y <= side)


def fabric_of(chip: Chip) -> Fabric | None:
    """The fabric that a chip's limits describe; None where they describe none.

    Mesh: ``mesh_width``, ``mesh_height``, ``cores_per_tile`` (1 if left out). Triangular: ``hex_width``,
    ``hex_height``, ``cores_per_chip``, ``hex_chips`` (all if left out; else a `hexagon`), ``hex_wrap`` (1 or 0; 1
    if left out and no chip is missing).

    Raises:
        ChipError: so many chips form no hexagon in that rectangle.
    """
    have = {name: int(q.value) for name, q in chip.limits.items()}
    if "mesh_width" in have and "mesh_height" in have:
        return Mesh(have["mesh_width"], have["mesh_height"], have.get("cores_per_tile", 1))
    if "hex_width" not in have or "hex_height" not in have:
        return None
    width, height = have["hex_width"], have["hex_height"]
    chips = have.get("hex_chips", width * height)
    present = () if chips == width * height else hexagon(width // 2)
    if present and not (chips == len(present) and width == height and width % 2 == 0):
        raise ChipError(f"{chips} chips in {width} x {height} form no hexagon of 3 n^2 chips in 2n x 2n")
    wrap = bool(have.get("hex_wrap", not present))
    return HexTorus(width, height, have["cores_per_chip"], wrap, wrap, present)
