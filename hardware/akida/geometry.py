"""Sizes of one Akida layer: convolution, then max-pool, then global sum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuro.hardware.program import Population, Program, Projection

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def slid(size: Pair, kernel: Pair, stride: Pair, pads: Sides) -> Pair:
    """Positions of a window; incomplete ones are dropped. May be 0 or less."""
    h = (size[0] + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    w = (size[1] + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    return h, w


@dataclass(frozen=True)
class Geometry:
    """One projection as a convolution; a matrix is one of 1 x 1 over an image of one pixel."""

    channels: int
    size: Pair
    out: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pads: Sides = (0, 0, 0, 0)
    groups: int = 1

    @property
    def image(self) -> Pair:
        """Height and width of what the convolution gives."""
        return slid(self.size, self.kernel, self.stride, self.pads)

    def pooled(self, population: Population) -> Pair:
        """Height and width after the max-pool."""
        if "pool_kernel" not in population.params:
            return self.image
        kernel, stride, pads = pool_of(population)
        return slid(self.image, kernel, stride, pads)

    def before_gap(self, population: Population) -> int:
        """Positions per channel in front of the global sum."""
        return math.prod(self.pooled(population))

    def after(self, population: Population) -> Geometry:
        """What the layer sends, as a geometry of which only channels and size count."""
        size = (1, 1) if population.params.get("gap", np.array(0)) else self.pooled(population)
        return Geometry(self.out, size, self.out)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *self.size)


def pool_of(population: Population) -> tuple[Pair, Pair, Sides]:
    """Kernel, stride and pads of a population that has a max-pool."""
    kernel, stride = (tuple(int(n) for n in population.params[name]) for name in ("pool_kernel", "pool_stride"))
    pads = tuple(int(n) for n in population.params.get("pool_pads", np.zeros(4, np.int64)))
    return kernel, stride, pads  # type: ignore[return-value]


def geometry_of(program: Program, projection: Projection) -> Geometry:
    """The geometry of a projection of a program."""
    return geometry(program.populations[projection.source], projection)


def geometry(source: Population, projection: Projection) -> Geometry:
    """The geometry of a projection from ``source``."""
    weight = projection.weight_q
    if projection.kind == "dense":
        return Geometry(weight.shape[1], (1, 1), weight.shape[0])
    stride, pads = (tuple(int(n) for n in projection.params[name]) for name in ("stride", "pads"))
    groups = int(projection.params["groups"])
    channels, height, width = source.shape
    return Geometry(channels, (height, width), weight.shape[0], weight.shape[2:], stride, pads, groups)  # type: ignore[arg-type]
