"""What one place of a `neuro.convert.graph.Graph` computes. Values are torch tensors, batch first: [batch, *shape].

Three kinds, and everything else follows from which one an operation is:

- **linear** (apart from a constant): passes increments on as they are. On a chip it is synapses.
- **neurons**, `Quantise` alone: where events are made. What they are (one spike for a level, a signed spike, a
  graded message) is the choice of a recipe, not of the graph.
- **free**: any other function f. Of a value that grows by messages it sends f(X[t]) - f(X[t-1]) (the
  temporal-difference operator), which adds up to f(X[t]) exactly.

Frozen dataclasses whose tensors and plain values are all there is to save; `OPS` names them.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as fn
from torch import Tensor

from neuro.errors import ConversionError

OPS: dict[str, type[Op]] = {}


def op(cls: type[Op]) -> type[Op]:
    """Registers an operation under its class name, so that graphs with it can be saved."""
    OPS[cls.__name__] = cls
    return cls


@dataclass(frozen=True, eq=False)
class Op:
    """Base. arity: how many values it takes, -1 for one or more. linear: see the module."""

    arity: ClassVar[int] = 1
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bad = self.problems()
        if bad:
            raise ConversionError(f"{type(self).__name__} cannot be built", bad)

    def problems(self) -> list[str]:
        """What is wrong with the fields, all of it."""
        return []

    def value(self, *x: Tensor) -> Tensor:
        """The result for values [batch, ...]."""
        raise NotImplementedError(type(self).__name__)


@op
@dataclass(frozen=True, eq=False)
class Input(Op):
    """Where values enter. shape: without the batch."""

    arity: ClassVar[int] = 0
    shape: tuple[int, ...] = ()


@op
@dataclass(frozen=True, eq=False)
class Constant(Op):
    """A value that does not depend on the input (a class token, positions, stored memories). No batch axis."""

    arity: ClassVar[int] = 0
    data: Tensor

    def value(self, *x: Tensor) -> Tensor:
        return self.data[None]


@op
@dataclass(frozen=True, eq=False)
class Linear(Op):
    """y = x weight^T + bias on the last axis. weight: [out, in]; bias: [out] or None."""

    linear: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor | None = None

    def value(self, *x: Tensor) -> Tensor:
        return fn.linear(x[0], self.weight, self.bias)


@op
@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Cross-correlation in one or two dimensions, zero padding. weight: [out, in / groups, *kernel]; tuples are one
    number per dimension."""

    linear: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    def problems(self) -> list[str]:
        dims = self.weight.ndim - 2
        bad = [] if dims in (1, 2) else [f"weight must have one or two dimensions of space, got {self.weight.shape}"]
        for name in ("stride", "padding", "dilation"):
            if len(getattr(self, name)) != dims:
                bad.append(f"{name} must have {dims} numbers, got {getattr(self, name)}")
        return bad

    def value(self, *x: Tensor) -> Tensor:
        run = fn.conv1d if self.weight.ndim == 3 else fn.conv2d
        return run(x[0], self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@op
@dataclass(frozen=True, eq=False)
class Affine(Op):
    """y = scale x + shift, each of a shape that broadcasts against [batch, ...] without the batch (batch norm folded,
    a bias, a factor)."""

    linear: ClassVar[bool] = True
    scale: Tensor
    shift: Tensor | None = None

    def value(self, *x: Tensor) -> Tensor:
        y = x[0] * self.scale
        return y if self.shift is None else y + self.shift


@op
@dataclass(frozen=True, eq=False)
class Add(Op):
    """Sum of its values, broadcast. signs: +1 or -1 each, all +1 where empty."""

    arity: ClassVar[int] = -1
    linear: ClassVar[bool] = True
    signs: tuple[int, ...] = ()

    def value(self, *x: Tensor) -> Tensor:
        signs = self.signs or (1,) * len(x)
        total = x[0] if signs[0] > 0 else -x[0]
        for sign, each in zip(signs[1:], x[1:], strict=True):
            total = total + each if sign > 0 else total - each
        return total


@op
@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Side by side along an axis; axis counts the batch as 0."""

    arity: ClassVar[int] = -1
    linear: ClassVar[bool] = True
    axis: int = 1

    def value(self, *x: Tensor) -> Tensor:
        most = max(len(each) for each in x)  # constants have a batch of 1
        return torch.cat([each.expand(most, *each.shape[1:]) for each in x], self.axis)


@op
@dataclass(frozen=True, eq=False)
class AvgPool(Op):
    """Mean over windows of [batch, channel, *space], as torch with count_include_pad."""

    linear: ClassVar[bool] = True
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = (0, 0)

    def value(self, *x: Tensor) -> Tensor:
        run = fn.avg_pool1d if len(self.kernel_size) == 1 else fn.avg_pool2d
        return run(x[0], self.kernel_size, self.stride, self.padding)


@op
@dataclass(frozen=True, eq=False)
class Mean(Op):
    """Mean over axes, which count the batch as 0."""

    linear: ClassVar[bool] = True
    axes: tuple[int, ...]
    keepdim: bool = False

    def value(self, *x: Tensor) -> Tensor:
        return x[0].mean(self.axes, self.keepdim)


@op
@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """Row-major reshape. shape: without the batch; one entry may be -1."""

    linear: ClassVar[bool] = True
    shape: tuple[int, ...]

    def value(self, *x: Tensor) -> Tensor:
        return x[0].reshape(len(x[0]), *self.shape)


@op
@dataclass(frozen=True, eq=False)
class Permute(Op):
    """Axes in another order; they count the batch, which stays first: axes[0] = 0."""

    linear: ClassVar[bool] = True
    axes: tuple[int, ...]

    def value(self, *x: Tensor) -> Tensor:
        return x[0].permute(self.axes)


@op
@dataclass(frozen=True, eq=False)
class Slice(Op):
    """x[..., start:stop:step, ...] along an axis that counts the batch as 0; ``drop``: one entry, without its axis."""

    linear: ClassVar[bool] = True
    axis: int
    start: int
    stop: int
    step: int = 1
    drop: bool = False

    def value(self, *x: Tensor) -> Tensor:
        index: list[slice] = [slice(None)] * self.axis + [slice(self.start, self.stop, self.step)]
        y = x[0][tuple(index)]
        return y.squeeze(self.axis) if self.drop else y


@op
@dataclass(frozen=True, eq=False)
class Quantise(Op):
    """A population of neurons: y = step clip(floor(x / step + 1/2), low, high); halves round up.

    step: a positive scalar, or a tensor that broadcasts against a value without its batch. low <= 0 <= high: whole
    numbers of levels; low = 0 is a quantised rectifier.
    """

    step: Tensor
    low: int
    high: int

    def problems(self) -> list[str]:
        bad = [] if bool((self.step > 0).all()) else [f"step must be positive, the smallest is {self.step.min():g}"]
        if not self.low <= 0 < self.high:
            bad.append(f"levels must be low <= 0 < high, got {self.low}..{self.high}")
        return bad

    def levels(self, x: Tensor) -> Tensor:
        """The whole numbers low..high, in the dtype of x."""
        return torch.floor(x / self.step + 0.5).clamp(self.low, self.high)

    def value(self, *x: Tensor) -> Tensor:
        return self.step * self.levels(x[0])


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = types.MappingProxyType(
    {
        "relu": fn.relu,
        "relu6": fn.relu6,
        "gelu": fn.gelu,
        "gelu_tanh": lambda x: fn.gelu(x, approximate="tanh"),
        "silu": fn.silu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "exp": torch.exp,
        "softplus": fn.softplus,
        "elu": fn.elu,
        "hardtanh": fn.hardtanh,
        "square": torch.square,
        "reciprocal": torch.reciprocal,
        "abs": torch.abs,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "erf": torch.erf,
        "sin": torch.sin,
        "cos": torch.cos,
    }
)


@op
@dataclass(frozen=True, eq=False)
class Function(Op):
    """An element-wise function of `FUNCTIONS` by name."""

    name: str

    def problems(self) -> list[str]:
        known = ", ".join(FUNCTIONS)
        return [] if self.name in FUNCTIONS else [f"function {self.name!r} is unknown. Known: {known}"]

    def value(self, *x: Tensor) -> Tensor:
        return FUNCTIONS[self.name](x[0])


@op
@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """Largest value of each window of [batch, channel, *space]; padding never wins."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = (0, 0)

    def value(self, *x: Tensor) -> Tensor:
        run = fn.max_pool1d if len(self.kernel_size) == 1 else fn.max_pool2d
        return run(x[0], self.kernel_size, self.stride, self.padding)


@op
@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """exp(beta x) normalised along an axis."""

    axis: int = -1
    beta: float = 1.0

    def value(self, *x: Tensor) -> Tensor:
        return torch.softmax(self.beta * x[0], self.axis)


@op
@dataclass(frozen=True, eq=False)
class LayerNorm(Op):
    """Normalised over the last axes, those of ``shape``; then weight and bias, both of that shape or None."""

    shape: tuple[int, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5

    def value(self, *x: Tensor) -> Tensor:
        return fn.layer_norm(x[0], self.shape, self.weight, self.bias, self.eps)


@op
@dataclass(frozen=True, eq=False)
class Product(Op):
    """a b element by element, broadcast."""

    arity: ClassVar[int] = 2

    def value(self, *x: Tensor) -> Tensor:
        return x[0] * x[1]


@op
@dataclass(frozen=True, eq=False)
class MatMul(Op):
    """a @ b over the last two axes, batched over the others; ``transposed``: a @ b^T."""

    arity: ClassVar[int] = 2
    transposed: bool = False

    def value(self, *x: Tensor) -> Tensor:
        return x[0] @ (x[1].transpose(-1, -2) if self.transposed else x[1])
