"""`follow`: what torch functions between the layers of a traced module do to the tensors that are followed.

Views, copies and casts are the same value; slices of time are a step of it; stacked steps are all of it; sums of two
values are edges into the same node; constants that multiply are a Scale. What is left is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.doors.trace import Tracer
from neuro.doors.values import ASK, Unclear, Value

SAME = {
    *("contiguous", "clone", "detach", "detach_", "to", "float", "double", "data", "requires_grad_", "type_as", "cpu"),
    *("dropout", "dropout2d", "feature_dropout", "alpha_dropout", "type", "alias"),
}
CONSTANT = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones"),
    *("new_empty", "new_full", "new_tensor", "eq", "__eq__", "ne", "__ne__", "isnan", "isinf", "isfinite"),
}
VIEWS = {"flatten", "reshape", "view", "unflatten", "squeeze", "reshape_as", "view_as"}
ADD = {"add", "__add__", "__radd__", "add_", "__iadd__"}
SUBTRACT = {"sub", "__sub__", "subtract", "sub_", "__isub__"}
MULTIPLY = {"mul", "__mul__", "__rmul__", "multiply", "mul_", "__imul__", "div", "__truediv__", "true_divide", "div_",
            "__itruediv__", "divide"}  # fmt: skip
ANSWERS = SAME | VIEWS | MULTIPLY | {"softmax", "log_softmax", "argmax", "max", "topk", "sum", "mean", "__getitem__"}
Follow = Callable[[Tracer, Any, Any, Any, list[Value]], None]


def follow(tracer: Tracer, func: Any, args: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    """Note in the tracer's table what ``out`` is."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        name = func.__self__.__name__
    if name == "__setitem__":
        return _stored(tracer, args, values)
    if name in CONSTANT or not _any_tensor(out):
        return None
    if name == "sum" and args and id(args[0]) in tracer.stacked:
        return _stack_summed(tracer, args, kwargs, out)
    done = next((v for v in values if v.done), None)
    if done is not None:
        same = {(v.op, v.slot) for v in values} == {(done.op, done.slot)}
        if not (same and (name in ANSWERS or (name in ADD and len(values) > 1))):
            return tracer.bad(f"{name} of what is summed over time; a network's answer ends there", values, out)
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                tracer.table[id(tensor)] = (tensor, done)
        return None
    row = FOLLOW.get(name)
    if row is None:
        return tracer.bad(f"torch's {name} has no counterpart here", values, out)
    return row(tracer, (name, args), kwargs, out, values)


def _any_tensor(out: Any) -> bool:
    return isinstance(out, Tensor) or (isinstance(out, (tuple, list)) and any(isinstance(t, Tensor) for t in out))


def _note(tracer: Tracer, out: Tensor, value: Value) -> None:
    tracer.table[id(out)] = (out, value)


def _same(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _note(tracer, out, values[0])


def _stored(tracer: Tracer, args: Any, values: list[Value]) -> None:
    """recording[t] = step."""
    target, index, stored = args
    value = tracer.known(stored)
    if value is not None and isinstance(index, int) and value.lead == 1:
        _note(tracer, target, replace(value, time=None, lead=2, order="TB"))


def _slice(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _, (tensor, index, *_) = call
    value = values[0]
    index = index if isinstance(index, tuple) else (index,)
    whole = [i for i in index if isinstance(i, slice) and i == slice(None)]
    at = [
        k for k, i in enumerate(index) if isinstance(i, (int, np.integer)) or (isinstance(i, Tensor) and i.dim() == 0)
    ]
    if value.order == "?" and len(at) == 1 and len(whole) == len(index) - 1 and at[0] < 2:
        value = tracer.settle("TB" if at[0] == 0 else "BT")
    axis = {"TB": 0, "BT": 1}.get(value.order)
    if value.lead == 2 and at == [axis] and len(whole) == len(index) - 1:
        time = int(index[at[0]])
        time += tracer.sizes[0] if time < 0 else 0
        return _note(tracer, out, replace(value, time=time, lead=1, order="B"))
    if len(whole) == len(index) or out.shape == tensor.shape:
        return _note(tracer, out, value)
    return tracer.bad(f"a slice [{', '.join(map(str, index))}] that is not one step", values, out)


def _unbind(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _, args = call
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    value = values[0]
    if value.order == "?" and axis in (0, 1):
        value = tracer.settle("TB" if axis == 0 else "BT")
    if value.lead == 2 and axis == {"TB": 0, "BT": 1}.get(value.order):
        for time, step in enumerate(out):
            _note(tracer, step, replace(value, time=time, lead=1, order="B"))
    else:
        tracer.bad("unbind along an axis that is not time", values, out)


def _stack(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _, args = call
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    steps = [tracer.known(t) for t in args[0]]
    first = values[0]
    ops = {v.op for v in steps if v is not None}
    at_start = len(ops) == 1 and all(v is None or v.op is first.op for v in steps)
    if at_start and axis in (0, 1) and first.lead == 1:
        tracer.sizes = (len(args[0]), tracer.sizes[1])
        return _note(tracer, out, replace(first, time=None, lead=2, order="TB" if axis == 0 else "BT"))
    if axis == 0 and len(values) == len(args[0]) and all(v.lead == 1 and not v.done for v in values):
        tracer.stacked[id(out)] = (out, values)  # perhaps their sum is all that is wanted
    return tracer.bad("stack of things that are not the steps of one layer", values, out)


def _stack_summed(tracer: Tracer, args: Any, kwargs: Any, out: Any) -> None:
    """torch.stack((x, y)).sum(0): how Norse's RecurrentSequential adds."""
    _, values = tracer.stacked[id(args[0])]
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if axis != 0:
        return tracer.bad("sum of a stack along another axis", values, out)
    tracer.put("add", "add", "add", None, values, out, 1)
    return None


def _swap(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    name, (tensor, *axes) = call
    value = values[0]
    order = list(range(tensor.dim()))
    if name in ("permute",):
        given = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        order = [int(k) % tensor.dim() for k in given]
    else:
        a, b = (int(k) % tensor.dim() for k in (*axes, *kwargs.values()))
        order[a], order[b] = order[b], order[a]
    if order == list(range(tensor.dim())):
        return _note(tracer, out, value)
    if value.order == "?":
        raise Unclear(ASK.format(tuple(tracer.given.shape)))
    if value.lead == 2 and order == [1, 0, *range(2, tensor.dim())]:
        return _note(tracer, out, replace(value, order="BT" if value.order == "TB" else "TB"))
    return tracer.bad(f"{name} of the axes of a step", values, out)


def _view(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    name, (tensor, *rest) = call
    value = values[0]
    if value.order == "?":
        start = kwargs.get("start_dim", rest[0] if rest and isinstance(rest[0], int) else 0)
        if name == "flatten" and start in (1, 2):
            value = tracer.settle("B" if start == 1 else "TB")
        elif name != "flatten" and out.dim() == 2 and out.shape[0] == tensor.shape[0]:
            value = tracer.settle("B")
        elif out.shape == tensor.shape:
            return _note(tracer, out, value)
        else:
            raise Unclear(ASK.format(tuple(tensor.shape)))
    return tracer.reshaped(value, tensor, out)


def _unsqueeze(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _, (_, *rest) = call
    axis = kwargs.get("dim", rest[0] if rest else None)
    value = tracer.settle("B") if values[0].order == "?" else values[0]
    if axis == 0 and value.lead == 1 and value.time is None:
        return _note(tracer, out, replace(value, lead=2, order="TB"))
    return tracer.bad("unsqueeze of a step", values, out)


def _repeat(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    """The same input in every step: x.unsqueeze(0).repeat(steps, 1, ...)."""
    _, (tensor, *_) = call
    value = values[0]
    if value.lead == 2 and value.order == "TB" and out.shape[1:] == tensor.shape[1:] and tensor.shape[0] == 1:
        tracer.sizes = (out.shape[0], out.shape[1])
        return _note(tracer, out, value)
    return tracer.bad("repeat other than over time", values, out)


def _add(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value], factor: float = 1.0) -> None:
    name, (left, right, *_) = call
    factor *= float(kwargs.get("alpha", 1))
    known = [tracer.known(x) if isinstance(x, Tensor) else None for x in (left, right)]
    a, b = known
    if a is not None and b is not None:
        same = a.op is b.op and a.slot == b.slot
        if factor == 1 and same and (a.time != b.time or (a.time is None and left is not right and a.lead == 1)):
            return _note(tracer, out, replace(b, done="sum", time=None))
        if factor != 1:
            b = _scaled(tracer, b, factor, right)
        a, b = (replace(v, order=next((w.order for w in (a, b) if w.lead == 2), "B")) for v in (a, b))
        tracer.put("add", "add", "add", None, [a, b], out, max(a.lead, b.lead))
        return None
    value = known[0] or known[1]
    assert value is not None
    other = right if known[1] is None else left
    zero = bool((other == 0).all()) if isinstance(other, Tensor) else other == 0
    if factor != 1 and known[1] is not None:
        value = _scaled(tracer, value, factor, out)
    if zero:
        return _note(tracer, out, value)
    return tracer.bad(f"{name} of a constant; put it into the bias of a layer", [value], out)


def _subtract(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    _add(tracer, call, kwargs, out, values, factor=-1.0)


def _scaled(tracer: Tracer, value: Value, factor: float, out: Tensor) -> Value:
    kept = torch.empty_like(out)
    return tracer.put("call", ("scale", factor), "scale", np.float64(factor), [value], kept, value.lead)


def _multiply(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    name, (left, right, *_) = call
    known = [tracer.known(x) if isinstance(x, Tensor) else None for x in (left, right)]
    divides = "div" in name
    if (known[0] is not None and known[1] is not None) or (divides and known[0] is None):
        return tracer.bad(f"{name} of two values; only constants multiply", values, out)
    value, other = (known[0], right) if known[0] is not None else (known[1], left)
    assert value is not None
    if value.order == "?":
        raise Unclear(ASK.format(tuple(tracer.given.shape)))
    array: Any = np.asarray(other.detach().double().cpu().numpy() if isinstance(other, Tensor) else np.float64(other))
    if divides:
        array = 1.0 / array
    while array.ndim > len(value.op.shape) and array.shape[0] == 1:
        array = array[0]
    if array.size == 1 and float(np.asarray(array).item()) == 1.0:
        return _note(tracer, out, value)
    key = ("scale", array.tobytes(), array.shape)
    try:
        whole = array if array.size == 1 else np.broadcast_to(array, tuple(out.shape[value.lead :]))
    except ValueError:
        return tracer.bad(f"{name} by a constant that differs within time or batch", values, out)
    tracer.put("call", key, "scale", np.array(whole), [value], out, value.lead)
    return None


def _over_time(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
    name, (_, *rest) = call
    axis = kwargs.get("dim", kwargs.get("axis", rest[0] if rest else None))
    value = values[0]
    whole = {"TB": (0, [0]), "BT": (1, [1])}.get(value.order, ())
    if value.lead != 2 or axis not in whole:
        return tracer.bad(f"{name} along axes other than time", values, out)
    taken = "max" if "max" in name else "sum"
    for tensor in out if isinstance(out, tuple) else (out,):
        _note(tracer, tensor, replace(value, done=taken, lead=1, order="B"))
    return None


def _functional(names: tuple[str, ...]) -> Follow:
    """A layer called as a function: its arguments by name, as torch has them."""

    def row(tracer: Tracer, call: Any, kwargs: Any, out: Any, values: list[Value]) -> None:
        name, args = call
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        value = tracer.known(given.get("input"))
        if value is None:
            return tracer.bad(f"{name} with weights that follow from the input", values, out)
        tensor = given.pop("input")
        if value.order == "?":
            plain = {"linear": 2, "conv1d": 3, "avg_pool1d": 3}.get(name, 4)
            if tensor.dim() != plain:
                raise Unclear(ASK.format(tuple(tracer.given.shape)))
            value = tracer.settle("B")
        key = (name, *(id(v) if isinstance(v, Tensor) else v for _, v in sorted(given.items())))
        tracer.kept.append(given)  # so that no other tensor gets the same identity
        tracer.put("call", key, name, given, [value], out, value.lead)
        return None

    return row


_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_POOL = ("input", "kernel_size", "stride", "padding")
FOLLOW: dict[str, Follow] = {
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(ADD, _add),
    **dict.fromkeys(SUBTRACT, _subtract),
    **dict.fromkeys(MULTIPLY, _multiply),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "permute"), _swap),
    **dict.fromkeys(("sum", "mean", "max", "amax"), _over_time),
    "__getitem__": _slice,
    "select": lambda tracer, call, kwargs, out, values: _slice(
        tracer, ("select", (call[1][0], (*[slice(None)] * call[1][1], call[1][2]))), kwargs, out, values
    ),
    "unbind": _unbind,
    "stack": _stack,
    "unsqueeze": _unsqueeze,
    "repeat": _repeat,
    "expand": _repeat,
    "linear": _functional(("input", "weight", "bias")),
    "conv1d": _functional(_CONV),
    "conv2d": _functional(_CONV),
    "avg_pool1d": _functional((*_POOL, "ceil_mode", "count_include_pad")),
    "avg_pool2d": _functional((*_POOL, "ceil_mode", "count_include_pad", "divisor_override")),
    "max_pool2d": _functional((*_POOL, "dilation", "ceil_mode", "return_indices")),
}
