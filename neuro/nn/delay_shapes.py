"""How wide a delay is while it is being learnt: kernels over the steps around it, and how their width shrinks.

A synapse with delay d (steps, real) gives share(n - d) of its weight to what came n steps ago:

    linear    max(0, 1 - |n - d|): the line between the two steps around d
    triangle  max(0, s - |n - d|) / s^2, s = 1 + sigma: DelRec (arXiv:2509.24852); sigma = 0 is "linear"
    gauss     g(n) / (sum_m g(m) + 1e-7), g(n) = exp(-((n - d) / s)^2 / 2), s = sigma + 0.27, over the steps 0..longest:
              DCLS-Delays (Hammouamri et al., ICLR 2024, arXiv:2306.17670)

A wide kernel feels spikes that are far from its delay and has a gradient towards them, a narrow one is what a chip
computes; so sigma starts wide and shrinks (`Sigma`). Of "gauss" what is further than `CUT` s away, less than 4e-5 of
the middle, is left out. At a whole n - d, where a line has a corner, slopes are those of a growing delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import NetworkError

KERNELS = ("linear", "triangle", "gauss")
CUT = 4.5
OFFSET = 0.27  # what DCLS adds to sigma
NOTHING = 1e-7  # what DCLS adds to the sum


@dataclass(frozen=True)
class Kernel:
    """A kernel at a width. sigma: in steps, >= 0; "linear" has none.

    Raises:
        NetworkError: another name, a width that is negative or not finite.
    """

    name: str = "linear"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in KERNELS or not 0 <= self.sigma < math.inf:
            raise NetworkError(f"a kernel is one of {KERNELS} with sigma >= 0, got {self.name!r}, {self.sigma!r}")

    @property
    def width(self) -> float:
        """s of the equations above."""
        return self.sigma + OFFSET if self.name == "gauss" else 1.0 + self.sigma * (self.name == "triangle")

    @property
    def offsets(self) -> range:
        """Steps that count, relative to the whole part of a delay."""
        if self.name == "gauss":
            return range(-math.floor(CUT * self.width), math.ceil(CUT * self.width) + 1)
        return range(1 - math.ceil(self.width), math.ceil(self.width) + 1)

    def reach(self, longest: int) -> int:
        """The step after which nothing arrives."""
        return longest if self.name == "gauss" else longest + self.offsets[-1]

    def raw(self, away: Tensor) -> tuple[Tensor, Tensor]:
        """(share before it is normalised, its slope in the delay) at n - d = away."""
        s = self.width
        if self.name == "gauss":
            g = torch.exp(-0.5 * (away / s) ** 2) * (away.abs() <= CUT * s)
            return g, g * away / (s * s)
        inside = (away > -s) & (away <= s)
        h = (s - away.abs()).clamp(min=0.0) / (s * s)
        slope = torch.where(away > 0, 1.0, -1.0).to(away.dtype) / (s * s)
        return h, torch.where(inside, slope, 0.0)


class Shares:
    """The shares of given delays, step by step, and what of a gradient goes to weights and delays.

    delay: [out, in], in 0..longest. Nothing here is larger than one [out, in] at a time.
    """

    def __init__(self, delay: Tensor, kernel: Kernel, longest: int) -> None:
        self.delay, self.kernel, self.longest = delay, kernel, longest
        self.whole = delay.floor()
        self.total: Tensor | None = None
        self.change: Tensor | None = None
        if kernel.name == "gauss":
            total, change = torch.zeros_like(delay), torch.zeros_like(delay)
            for j in kernel.offsets:
                g, slope = self._raw(self.whole + j)
                total += g
                change += slope
            self.total, self.change = total + NOTHING, change

    def _raw(self, n: Tensor) -> tuple[Tensor, Tensor]:
        g, slope = self.kernel.raw(n - self.delay)
        there = (n >= 0) & (n <= self.kernel.reach(self.longest))
        return g * there, slope * there

    def at(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """(share, slope without what the sum of all adds to it) of step n: a number per synapse, or one for all."""
        g, slope = self._raw(n)
        return (g, slope) if self.total is None else (g / self.total, slope / self.total)

    def gradients(self, weight: Tensor, by_share: Tensor, by_slope: Tensor) -> tuple[Tensor, Tensor]:
        """(to weights, to delays) from sum_n G(n) share(n) and sum_n G(n) slope(n), G(n) what the gradient of the
        output and the input n steps before come to."""
        if self.total is not None and self.change is not None:
            by_slope = by_slope - by_share * self.change / self.total
        return by_share, weight * by_slope


@dataclass(frozen=True)
class Sigma:
    """sigma(epoch) = max(end, start (end / start)^(epoch / (over epochs))): geometric, a pure function of the epoch.

    DCLS: start half the longest delay, end 0.23, over 1/4 of the epochs. DelRec: 10 0.95^(100 epoch / epochs), so
    end 0.059, over 1.
    """

    start: float
    end: float
    over: float

    def __call__(self, epoch: int, epochs: int) -> float:
        if self.start <= self.end or self.over <= 0:
            return self.end
        done = epoch / (self.over * epochs)
        return max(self.end, self.start * math.pow(self.end / self.start, min(done, 1.0)))


@dataclass(frozen=True)
class Plan:
    """How delays are learnt over a run.

    sigma: of the kernel, by epoch. rate: their learning rate over that of the weights; 0 leaves them as they start,
    whole. round_from: share of the epochs after which they are whole, while the gradient passes straight through.
    """

    sigma: Sigma | None = None
    rate: float = 1.0
    round_from: float = 1.0

    def whole(self, epoch: int, epochs: int) -> bool:
        """Whether delays are whole in an epoch."""
        return self.rate == 0 or epoch >= round(self.round_from * epochs)


def shares(delay: Tensor, kernel: Kernel, longest: int, steps: int) -> Iterator[Tensor]:
    """The shares of steps 0, 1, ..., steps - 1, each of the shape of ``delay``, with autograd's gradient."""
    there = min(steps, kernel.reach(longest) + 1)
    raw = [kernel.raw(n - delay)[0] for n in range(kernel.reach(longest) + 1)] if kernel.name == "gauss" else []
    total = sum(raw) + NOTHING if raw else 1.0
    for n in range(there):
        yield raw[n] / total if raw else _line(delay, kernel, n)


def _line(delay: Tensor, kernel: Kernel, n: int) -> Tensor:
    """`Kernel.raw` of "linear" and "triangle" with the slope that it says, also at the corners."""
    share, slope = kernel.raw(n - delay.detach())
    return share + slope * (delay - delay.detach())
