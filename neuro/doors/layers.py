"""Layers without state, by type: torch's modules and functions, as nodes of `neuro.ir`.

nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d where it takes the whole image, nn.Flatten, batch
norm in evaluation mode (a weight per channel, folded into the layer before it where that feeds nothing else), dropout
and identity, which vanish. Subclasses that compute something else are looked into, not believed.

A `Network` knows vectors and images [channel, height, width], no lines [channel, length]. nn.Conv1d and nn.AvgPool1d
are matrices over the flattened step, of at most `MATRIX` weights; what follows them is flat until a layer of torch
flattens it (`FLAT`). So is what nn.BatchNorm1d makes of a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro import ir
from neuro.errors import ConversionError
from neuro.ir import Array, Node, Shape

VANISHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MATRIX = 1 << 22  # weights of a Conv1d that is written as a matrix: 32 MB
Make = Callable[[Any, Shape, Shape], Node]  # (module or arguments, shape in, shape out)


def numbers(tensor: Any) -> Array:
    """float64 values of a tensor or number."""
    values: Array = np.asarray(
        tensor.detach().double().cpu().numpy() if isinstance(tensor, Tensor) else tensor, np.float64
    )
    return values


def alone(module: nn.Module) -> bool:
    """Whether a module lets everything through in evaluation mode."""
    return isinstance(module, VANISHING)


def row(module: nn.Module) -> Make | None:
    """How to write a module, or None where it is none of these, or computes something of its own."""
    for cls in type(module).__mro__:
        if cls in LAYERS or cls in VANISHING:
            own = next(c for c in type(module).__mro__ if "forward" in vars(c))
            wrapped = own.__module__.startswith("spikingjelly.activation_based.layer")
            if own is not cls and not issubclass(cls, own) and not wrapped:
                return None
            make: Make = LAYERS.get(cls, _vanished)
            return make
    return None


def _vanished(module: Any, shape: Shape, out: Shape) -> Node:
    raise AssertionError("it has no node")


def _linear(weight: Any, bias: Any, shape: Shape) -> Node:
    if len(shape) != 1:
        raise ConversionError(f"a Linear over the last axis of a step of shape {shape}; flatten it first")
    return ir.Linear(numbers(weight)) if bias is None else ir.Affine(numbers(weight), bias=numbers(bias))


def _conv(weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Node:
    if padding == "valid":
        padding = (0, 0)
    if padding == "same":
        reach = [(k - 1) * d for k, d in zip(weight.shape[2:], _two(dilation), strict=True)]
        if any(n % 2 for n in reach):
            raise ConversionError(f"padding 'same' of a kernel of {tuple(weight.shape[2:])} differs by side")
        padding = (reach[0] // 2, reach[1] // 2)
    given = numbers(weight)
    return ir.Conv2d(given, _two(stride), _two(padding), _two(dilation), groups,
                     np.zeros(len(given)) if bias is None else numbers(bias))  # fmt: skip


def _two(value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return (int(pair[0]), int(pair[-1]))


def _line(linear: Callable[[Tensor], Tensor], bias: Any, shape: Shape, out: Shape, kind: str) -> Node:
    """A linear map of [channel, length] as a matrix, found from what it does to each unit vector."""
    if len(shape) != 2:
        raise ConversionError(f"a {kind} of a step of shape {shape}; [channel, length] is needed")
    columns, rows = math.prod(shape), math.prod(out)
    if columns * rows > MATRIX:
        raise ConversionError(
            f"a {kind} from {shape} to {out} is a matrix of {columns * rows:,} weights here, at most {MATRIX:,}; write "
            "it as the 2d layer with a kernel of (1, k) over steps of [channel, 1, length]"
        )
    with torch.no_grad(), torch._C.DisableTorchFunction():
        weight = linear(torch.eye(columns, dtype=torch.float64).reshape(columns, *shape)).reshape(columns, rows)
    weights = np.ascontiguousarray(weight.numpy().T)
    return ir.Linear(weights) if bias is None else ir.Affine(weights, bias=np.repeat(numbers(bias), out[-1]))


def _conv1d(given: Mapping[str, Any], shape: Shape, out: Shape) -> Node:
    kernel = given["weight"].detach().double()
    names = ("stride", "padding", "dilation", "groups")
    more = {name: given[name] for name in names if name in given}
    return _line(lambda x: functional.conv1d(x, kernel, None, **more), given.get("bias"), shape, out, "Conv1d")


def _conv1d_module(module: nn.Conv1d, shape: Shape, out: Shape) -> Node:
    if module.padding_mode != "zeros":
        raise ConversionError(f"padding_mode must be 'zeros', got {module.padding_mode!r}")
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")
    return _conv1d({name: getattr(module, name) for name in names}, shape, out)


def _avg1d(given: Mapping[str, Any], shape: Shape, out: Shape) -> Node:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    more = {name: given[name] for name in names if name in given}
    return _line(lambda x: functional.avg_pool1d(x, **more), None, shape, out, "AvgPool1d")


def _conv_module(module: nn.Conv2d, shape: Shape, out: Shape) -> Node:
    if module.padding_mode != "zeros":
        raise ConversionError(f"padding_mode must be 'zeros', got {module.padding_mode!r}")
    return _conv(module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)


def _avg(given: Mapping[str, Any], shape: Shape, out: Shape) -> Node:
    if given.get("ceil_mode") or not given.get("count_include_pad", True) or given.get("divisor_override"):
        raise ConversionError("needs ceil_mode=False, count_include_pad=True, no divisor_override")
    kernel = _two(given["kernel_size"])
    return ir.AvgPool2d(kernel, _two(given.get("stride") or kernel), _two(given.get("padding", 0)))


def _max(given: Mapping[str, Any], shape: Shape, out: Shape) -> Node:
    if given.get("ceil_mode") or given.get("return_indices") or _two(given.get("dilation", 1)) != (1, 1):
        raise ConversionError("needs ceil_mode=False, return_indices=False, dilation=1")
    kernel = _two(given["kernel_size"])
    return ir.MaxPool2d(kernel, _two(given.get("stride") or kernel), _two(given.get("padding", 0)))


def _lp(module: nn.LPPool2d, shape: Shape, out: Shape) -> Node:
    """LPPool2d of norm 1 is a sum; sinabs' SumPool2d is one."""
    if module.norm_type != 1 or module.ceil_mode:
        raise ConversionError("needs norm_type=1 (a sum) and ceil_mode=False")
    kernel = _two(module.kernel_size)
    return ir.SumPool2d(kernel, _two(module.stride or kernel))


def _adaptive(module: nn.AdaptiveAvgPool2d, shape: Shape, out: Shape) -> Node:
    if tuple(out[1:]) != (1, 1):
        raise ConversionError("only of the whole image (output size 1)")
    return ir.AvgPool2d(shape[1:], shape[1:])  # type: ignore[arg-type]


def norm_of(module: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape) -> tuple[Array, Array]:
    """(factor, shift) per channel: y = factor x + shift; per value of a step [channel, length], which is flat here."""
    if module.running_mean is None or module.running_var is None:
        raise ConversionError("needs running statistics (track_running_stats=True)")
    factor = 1.0 / np.sqrt(numbers(module.running_var) + module.eps)
    if module.weight is not None:
        factor = factor * numbers(module.weight)
    shift = -numbers(module.running_mean) * factor
    if module.bias is not None:
        shift = shift + numbers(module.bias)
    times = shape[1] if len(shape) == 2 else 1
    return np.repeat(factor, times), np.repeat(shift, times)


def folded(node: Node, factor: Array, shift: Array) -> Node | None:
    """The weight layer with what follows it worked in; None if it is no weight layer."""
    if isinstance(node, ir.Conv2d):
        weight = node.weight * factor[:, None, None, None]
        return ir.Conv2d(weight, node.stride, node.padding, node.dilation, node.groups, node.bias * factor + shift)
    if type(node) in (ir.Linear, ir.Affine) and getattr(node, "delay_steps", None) is None:
        bias = node.bias * factor if isinstance(node, ir.Affine) else 0.0
        return ir.Affine(node.weight * factor[:, None], bias=bias + shift)  # type: ignore[attr-defined]
    return None


def _norm(module: Any, shape: Shape, out: Shape) -> Node:
    factor, shift = norm_of(module, shape)
    if len(shape) == 3:
        return ir.Conv2d(factor[:, None, None, None], groups=len(factor), bias=shift)
    if len(shape) < 3 and len(factor) <= MATRIX**0.5:
        return ir.Affine(np.diag(factor), bias=shift)
    raise ConversionError(f"of a step of shape {shape}")


LAYERS: dict[type[nn.Module], Make] = {
    nn.Linear: lambda m, shape, out: _linear(m.weight, m.bias, shape),
    nn.Conv1d: _conv1d_module,
    nn.Conv2d: _conv_module,
    nn.AvgPool1d: lambda m, shape, out: _avg1d(vars(m), shape, out),
    nn.AvgPool2d: lambda m, shape, out: _avg(vars(m), shape, out),
    nn.MaxPool2d: lambda m, shape, out: _max(vars(m), shape, out),
    nn.LPPool2d: _lp,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.Flatten: _vanished,
}
FUNCTIONS: dict[str, Make] = {
    "linear": lambda a, shape, out: _linear(a["weight"], a.get("bias"), shape),
    "conv2d": lambda a, shape, out: _conv(
        a["weight"], a.get("bias"), a.get("stride", 1), a.get("padding", 0), a.get("dilation", 1), a.get("groups", 1)
    ),
    "conv1d": _conv1d,
    "avg_pool1d": _avg1d,
    "avg_pool2d": _avg,
    "max_pool2d": _max,
    "flatten": lambda a, shape, out: ir.Flatten(),
    "scale": lambda a, shape, out: ir.Scale(a),
}
FLAT = (nn.Conv1d, nn.AvgPool1d)  # after these a step is flat here
FLAT_FUNCTIONS = ("conv1d", "avg_pool1d")
