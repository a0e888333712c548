"""`Thinned`: what dropout leaves of spikes, as bits and one factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree

from neuro.nn.spikes import Spikes

aten: Any = torch.ops.aten


class Thinned(Tensor):
    """factor * spikes, elements of value 0 and ``factor``. To torch a tensor like any other, as `Spikes`.

    Layers that know it put the factor into their weights: fl(w * factor) is what a dense product would add up.
    """

    spikes: Spikes
    factor: float

    @staticmethod
    def __new__(cls, spikes: Spikes, factor: float) -> Thinned:
        return torch.Tensor._make_wrapper_subclass(cls, tuple(spikes.shape), dtype=spikes.dtype)

    def __init__(self, spikes: Spikes, factor: float) -> None:
        self.spikes, self.factor = spikes, factor

    def dense(self) -> Tensor:
        """The same as an ordinary tensor, without history."""
        return self.spikes.dense().mul_(self.factor)

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The dense values."""
        return self.dense().numpy()

    def tolist(self) -> list[Any]:
        return self.dense().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.dense().numpy()
        return found.astype(dtype or found.dtype)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (Thinned, (self.spikes, self.factor))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Thinned({self.spikes!r}, factor={self.factor:.6g})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in _LIKE_SPIKES and isinstance(args[0], Thinned):
            found = func(args[0].spikes, *args[1:], **(kwargs or {}))
            if isinstance(found, Spikes):
                return Thinned(found, args[0].factor)
        args, kwargs = _pytree.tree_map_only(Thinned, Thinned.dense, (args, kwargs or {}))
        return func(*args, **kwargs)


_LIKE_SPIKES = (
    aten.detach.default,
    aten.alias.default,
    aten.clone.default,
    aten.view.default,
    aten._unsafe_view.default,
)


def thin(x: Spikes, keep: Tensor, factor: float) -> Tensor:
    """factor * keep * x; keep: bool[1, batch, *shape], the same in all steps."""
    found: Tensor = _Thin.apply(x, keep, factor)  # type: ignore[no-untyped-call]
    return found


class _Thin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Spikes, keep: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.factor = factor
        mask = Spikes.pack(keep).words  # [batch, words of a row]
        words = (x.words.reshape(-1, *mask.shape) & mask).reshape(x.words.shape)
        return Thinned(Spikes(np.ascontiguousarray(words), tuple(x.shape), x.dtype), factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (keep,), (g,) = ctx.saved_tensors, grads
        scale = torch.empty_strided((1, *g.shape[1:]), g.stride(), dtype=g.dtype)  # lies in memory as g does
        scale.copy_(keep).mul_(ctx.factor)
        return g * scale, None, None
