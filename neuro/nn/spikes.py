"""`Spikes`: a tensor of zeros and ones that is kept as bits, an eighth of a byte per neuron and step.

To torch it is a tensor like any other: an operation that does not know it gets the dense values and autograd
goes through. The layers of this package take the bits, or the events made of them, and never see the dense form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree

from neuro.errors import NetworkError
from neuro.nn import bits, kernels

Words = NDArray[np.uint64]
aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Events:
    """Who fires: row r's neurons are index[start[r]:start[r + 1]], rising. start int64[rows + 1]; index uint16
    where n <= 65,536, else uint32."""

    start: NDArray[np.int64]
    index: NDArray[Any]


class Spikes(Tensor):
    """Zeros and ones of shape [time, batch, *shape], as bits.

    words: uint64[rows, ceil(n / 64)] (`neuro.nn.bits`); a row is one step of one sample, rows = time * batch and n
    the neurons of a step in C order. Made by `Spikes.pack` or by a kernel that writes words.

    Raises:
        NetworkError: words that do not have the size that ``shape`` asks for.
    """

    words: Words
    n: int

    @staticmethod
    def __new__(cls, words: Words, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Spikes:
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)

    def __init__(self, words: Words, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        total, rows = math.prod(shape), words.shape[0]
        self.n = total // rows if rows else 0
        if words.dtype != np.uint64 or total != rows * self.n or words.shape[1] != -(-self.n // 64):
            raise NetworkError(f"{words.dtype}{list(words.shape)} are not the bits of spikes of shape {list(shape)}")
        self.words = words

    @staticmethod
    def pack(dense: Tensor, dtype: torch.dtype | None = None) -> Spikes:
        """The bits of [time, batch, *shape]; everything but 0 counts as a spike. dtype: that of ``dense`` if None."""
        flat = np.ascontiguousarray(dense.detach().numpy()).reshape(dense.shape[0] * dense.shape[1], -1)
        words = np.empty((flat.shape[0], -(-flat.shape[1] // 64)), np.uint64)
        bits.pack(flat, words)
        return Spikes(words, tuple(dense.shape), dense.dtype if dtype is None else dtype)

    @staticmethod
    def pack_binary(dense: Tensor, dtype: torch.dtype | None = None) -> Spikes | None:
        """`pack` where ``dense`` has no values but 0 and 1, else None. bool, uint8 or floats."""
        if dense.dtype not in (torch.bool, torch.uint8):
            flat = dense.detach().contiguous().numpy().reshape(-1)
            return Spikes.pack(dense, dtype) if bits.binary(flat) else None
        flat = dense.contiguous().view(torch.uint8).numpy().reshape(-1)
        rows = dense.shape[0] * dense.shape[1]
        n = flat.size // rows if rows else 0
        words, other = np.empty((rows, -(-n // 64)), np.uint64), np.zeros(1, np.uint8)
        threads = torch.get_num_threads()
        kernels.over_rows(bits.pack_bytes, threads, rows, flat.size // 8, flat, n, words, other)
        return None if other[0] else Spikes(words, tuple(dense.shape), dtype or dense.dtype)

    def dense(self) -> Tensor:
        """The same as an ordinary tensor, without history."""
        found = torch.empty((len(self.words), self.n), dtype=self.dtype)
        bits.unpack(self.words, found.numpy())
        return found.view(self.shape)

    def events(self) -> Events:
        """Who fires when; made anew by each call."""
        start = np.empty(len(self.words) + 1, np.int64)
        bits.count(self.words, start)
        index = np.empty(start[-1], np.uint16 if self.n <= 1 << 16 else np.uint32)
        bits.events(self.words, index)
        return Events(start, index)

    def total(self) -> int:
        """How many ones."""
        start = np.empty(len(self.words) + 1, np.int64)
        bits.count(self.words, start)
        return int(start[-1])

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The dense values."""
        return self.dense().numpy()

    def tolist(self) -> list[Any]:
        return self.dense().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.dense().numpy().astype(dtype or self.dense().numpy().dtype)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (Spikes, (self.words, tuple(self.shape), self.dtype))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Spikes(shape={tuple(self.shape)}, ones={self.total()}, dtype={self.dtype})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        known = _KNOWN.get(func)
        if known is not None and isinstance(args[0], Spikes):
            found = known(*args, **kwargs)
            if found is not None:
                return found
        args, kwargs = _pytree.tree_map_only(Spikes, Spikes.dense, (args, kwargs))
        return func(*args, **kwargs)


def _same(x: Spikes) -> Spikes:
    return Spikes(x.words, tuple(x.shape), x.dtype)


def _clone(x: Spikes, **_: Any) -> Spikes:
    return Spikes(x.words.copy(), tuple(x.shape), x.dtype)


def _view(x: Spikes, shape: list[int]) -> Spikes | None:
    """Another shape over the same rows; None where rows would be cut."""
    known = math.prod(d for d in shape if d != -1)
    full = tuple(x.numel() // known if d == -1 else d for d in shape) if known else tuple(shape)
    rows, lead = len(x.words), 1
    for size in full:
        if lead == rows:
            break
        lead *= size
    return Spikes(x.words, full, x.dtype) if lead == rows else None


def _sum(x: Spikes, *, dtype: torch.dtype | None = None) -> Tensor:
    return torch.tensor(x.total(), dtype=dtype or x.dtype)


def _sum_of(x: Spikes, dim: list[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Spikes counted over the first dimension, time: the rate readout, exact. None for any other sum."""
    known = dim is not None and [*dim] in ([0], [-x.dim()]) and not keepdim and dtype in (None, x.dtype)
    if not known or x.dim() < 2 or not x.numel():
        return None
    total = torch.zeros((len(x.words) // x.shape[0], x.n), dtype=x.dtype)
    bits.add_up(x.words, total.numpy())
    return total.view(x.shape[1:])


_KNOWN: dict[Any, Any] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _clone,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum_of,
}
