"""What the parts of `neuro.nn.conv` share: sizes and order of weights, the way to go, threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.nn import kernels
from neuro.nn.conv_geometry import Geometry, geometry
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.spikes import Spikes

A = NDArray[Any]
# Nanoseconds on one core at 2.6 GHz with AVX-512 (tests/bench/bench_conv.py): a run of weights, a multiply-add of a
# run, a multiply-add of torch's dense convolution.
NS_RUN, NS_SPARSE, NS_DENSE = 5.0, 1 / 14, 1 / 60


@dataclass(frozen=True)
class Job:
    """What of a call is not a tensor. neurons None: the currents are the result."""

    conv: nn.Conv2d
    norm: nn.Module | None
    neurons: Neuron | None
    carry: Carry | None

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups


def share(function: Callable[..., None], count: int, size: int, *arguments: Any, room: Any = None) -> None:
    """function(first, last, *room, *arguments) over 0..count - 1 in threads. size: elements in all; room(): arrays of
    a thread's own."""
    threads = torch.get_num_threads()
    parts = max(1, min(threads, count, size // kernels.WORTH_A_THREAD))
    ends = [count * k // parts for k in range(parts + 1)]
    own = [(a, b, *(room() if room else ()), *arguments) for a, b in itertools.pairwise(ends)]
    jobs = [kernels._pool(threads).submit(function, *each) for each in own[1:]]
    try:
        function(*own[0])  # the caller works too
    finally:
        for job in jobs:
            job.result()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty` with NumPy's memory, which is in huge pages where it is much."""
    return torch.from_numpy(np.empty(shape, torch.empty(0, dtype=dtype).numpy().dtype))


@dataclass(frozen=True)
class Layout:
    """Sizes as the kernels take them, and weights as they do: [group, in of a group, tap, out of a group]."""

    geo: Geometry
    groups: int
    inputs: int  # of a group
    each: int  # outputs of a group

    @staticmethod
    def of(conv: nn.Conv2d, shape: tuple[int, ...]) -> Layout:
        pairs = [(int(v[0]), int(v[1])) for v in (conv.kernel_size, conv.stride, conv.padding, conv.dilation)]
        geo = geometry((shape[3], shape[4]), *pairs, conv.groups > 1)
        return Layout(geo, conv.groups, conv.in_channels // conv.groups, conv.out_channels // conv.groups)

    @property
    def out(self) -> int:
        return self.groups * self.each

    @property
    def places(self) -> int:
        return self.geo.size[0] * self.geo.size[1]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self._kind, *self.geo.tables, len(self.geo.order), self.out, self.each, self.inputs

    @property
    def _kind(self) -> A:
        """Of each neuron and, the last, of nobody."""
        return np.append(np.tile(self.geo.kind, self.groups * self.inputs), np.uint8(self.geo.kinds))

    def room(self) -> list[A]:
        """For the spikes of a row, sorted by kind; a thread's own."""
        kinds, neurons = self.geo.kinds + 1, len(self.geo.kind) * self.groups * self.inputs
        return [np.empty((kinds, max(neurons, 4)), np.uint32), np.empty(kinds, np.uint64)]

    def pack(self, weight: Tensor, factor: float) -> A:
        by_tap = weight.detach().reshape(self.groups, self.each, self.inputs, -1).permute(0, 2, 3, 1)
        return by_tap[:, :, torch.from_numpy(self.geo.order)].mul_(factor).contiguous().view(-1).numpy()

    def unpack(self, flat: Tensor, like: Tensor) -> Tensor:
        by_tap = flat.view(self.groups, self.inputs, len(self.geo.order), self.each)
        rank = torch.from_numpy(np.argsort(self.geo.order))
        return by_tap[:, :, rank].permute(0, 3, 1, 2).reshape(like.shape)

    def sparse(self, spikes: Spikes, size: int) -> bool:
        """Whether events are cheaper than a dense convolution by ``size`` weights: a function of the number of
        spikes and of constants."""
        pixels = len(self.geo.start) - 1
        adds = float(self.geo.count.sum(dtype=np.int64)) / pixels * self.each
        per_spike = NS_RUN * len(self.geo.place) / pixels + NS_SPARSE * adds
        return spikes.total() * per_spike < NS_DENSE * len(spikes.words) * self.places * size
