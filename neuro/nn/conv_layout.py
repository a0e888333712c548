"""What the parts of `neuro.nn.conv` share: sizes and order of weights, the way to go, threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.nn import kernels
from neuro.nn.conv_geometry import Geometry, geometry
from neuro.nn.conv_products import ROWS
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.pages import lined
from neuro.nn.pool import pool
from neuro.nn.spikes import Spikes

A = NDArray[Any]
CHUNK_BYTES = 1 << 19  # of gradients in float32 that wait in cache for the spikes that read them
# Nanoseconds on one core at 2.6 GHz with AVX-512 (tests/bench/bench_conv.py): a run of weights, a multiply-add of a
# run, a multiply-add of torch's dense convolution.
NS_RUN, NS_SPARSE, NS_DENSE = 5.0, 1 / 14, 1 / 60
# Weights of a tap from which on a place adds up in registers (2 x 24 channels: twice as slow, 24 x 48: faster).
MANY = 512


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
    a thread's own.

    The caller, who works too, does a thirty-second of all more than the others: they begin later by as long as a
    thread takes to wake up (a fiftieth of a training step, measured)."""
    threads = torch.get_num_threads()
    parts = max(1, min(threads, count, size // kernels.WORTH_A_THREAD))
    more = count // 32 if parts > 1 else 0
    ends = [0, *(count * k // parts + more * (parts - k) // (parts - 1) for k in range(1, parts)), count]
    own = [(a, b, *(room() if room else ()), *arguments) for a, b in itertools.pairwise(ends)]
    jobs = [pool(threads).submit(function, *each) for each in own[1:]]
    try:
        function(*own[0])  # the caller works too
    finally:
        for job in jobs:
            job.result()


@lru_cache(64)
def by_sample(steps: int, batch: int) -> A:
    """Rows time * batch + sample, int64, sample by sample: whoever has a stretch of these has all steps of samples, as
    neurons need them, and finds them in a cache of its own in every pass."""
    return np.ascontiguousarray(np.arange(steps * batch).reshape(steps, batch).T).reshape(-1)


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty` with NumPy's memory: in huge pages where it is much. It begins with a line of the cache."""
    return torch.from_numpy(lined(shape, torch.empty(0, dtype=dtype).numpy().dtype))


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
        return _layout(geo, conv.groups, conv.in_channels // conv.groups, conv.out_channels // conv.groups)

    @property
    def out(self) -> int:
        return self.groups * self.each

    @property
    def places(self) -> int:
        return self.geo.size[0] * self.geo.size[1]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As `conv_passes.by_place` takes them, or `by_spike`."""
        if self.in_registers:
            return self._by_place
        return self._kind, *self.geo.tables, len(self.geo.order), self.out, self.each, self.inputs

    @cached_property
    def _kind(self) -> A:
        """Of each neuron and, the last, of nobody."""
        return np.append(np.tile(self.geo.kind, self.groups * self.inputs), np.uint8(self.geo.kinds))

    @cached_property
    def gathered(self) -> tuple[Any, ...]:
        """As `conv_passes.backward` takes it."""
        channels = np.arange(self.groups * self.inputs, dtype=np.uint32)[:, None]
        geo, alone = self.geo, len(self.geo.place) == 0
        bucket = channels * np.uint32(len(geo.model)) + geo.group
        first = np.zeros_like(geo.group) if alone else geo.place[np.minimum(geo.start[:-1], len(geo.place) - 1)]
        origin = channels // np.uint32(self.inputs) * np.uint32(self.each) + first * np.uint32(self.out)
        chunk = max(1, CHUNK_BYTES // (4 * self.places * self.out * ROWS)) * ROWS
        sizes = len(geo.order), self.out, self.each, chunk
        return bucket.reshape(-1), origin.reshape(-1), geo.model, *geo.tables, *sizes

    def lists(self, rows: int, wanted: bool) -> list[A]:
        """Room for the spikes of ``rows`` rows, or of a chunk, sorted by bucket; a thread's own. Empty: not wanted."""
        chunk = min(self.gathered[-1], rows) if wanted else 0
        most = chunk * len(self.geo.kind) * self.groups * self.inputs
        buckets = len(self.geo.model) * self.groups * self.inputs
        return [np.empty(2 * most, np.uint32), np.empty(most, np.uint32), np.empty(buckets, np.uint64)]

    @cached_property
    def _by_place(self) -> tuple[A, ...]:
        place, tap, pixel, count = self.geo.reach.astype(np.int64).T.copy()
        start = np.searchsorted(place, np.arange(self.places + 1))
        channel, pixels = (a.reshape(-1).astype(np.uint32) for a in np.indices((self.inputs, len(self.geo.kind))))
        origin = (channel * np.uint32(len(self.geo.order)) + pixels) * np.uint32(self.each)
        return pixels, origin, start, pixel, pixel + count, (tap - pixel) * self.each

    @property
    def in_registers(self) -> bool:
        """Whether a place that is finished before the next one is cheaper than a spike that is."""
        return self.groups == 1 and self.inputs * self.each >= MANY

    def room_of_rows(self) -> list[A]:
        """For the spikes of a row, sorted by pixel, or by kind; a thread's own."""
        pixels = len(self.geo.kind)
        n = pixels * self.inputs * self.groups
        if self.in_registers:
            return [np.empty(2 * n, np.uint32), np.empty(n, np.uint32), np.empty(pixels + 1, np.uint64)]
        kinds = self.geo.kinds + 1
        return [np.empty((kinds, max(n, 4)), np.uint32), np.empty(kinds, np.uint64)]

    @cached_property
    def bits(self) -> A:
        """The bit of each neuron of a row [place, channel] of spikes: those lie in the order of channels."""
        count = self.places * self.out
        return np.ascontiguousarray(np.arange(count, dtype=np.uint32).reshape(self.out, -1).T).reshape(-1)

    @cached_property
    def _per_spike(self) -> float:
        """Nanoseconds."""
        pixels = len(self.geo.start) - 1
        adds = float(self.geo.count.sum(dtype=np.int64)) / pixels * self.each
        return NS_RUN * len(self.geo.place) / pixels + NS_SPARSE * adds

    def packing(self, weight: Tensor, factor: float) -> tuple[Any, ...]:
        """[group, out of a group, in of a group, tap], factor, order of taps, and the table where the weights go:
        [group, in, tap, out], in C order where a place adds up in registers."""
        held = weight.detach().contiguous().view(self.groups, self.each, self.inputs, -1).numpy()
        table = lined((self.groups, self.inputs, len(self.geo.order), self.each), held.dtype)
        order = np.arange(table.shape[2]) if self.in_registers else self.geo.order
        return held, held.dtype.type(factor), order, table

    def sparse(self, spikes: Spikes, size: int) -> bool:
        """Whether events are cheaper than a dense convolution by ``size`` weights: a function of the number of
        spikes and of constants."""
        return spikes.total() * self._per_spike < NS_DENSE * len(spikes.words) * self.places * size


@lru_cache(64)
def _layout(*sizes: Any) -> Layout:
    """One of each, for what it keeps."""
    return Layout(*sizes)
