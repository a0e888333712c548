"""`trace`: what a torch module computes, as a graph of one step, found by running it once on a sample.

A copy of the module runs in evaluation mode. Modules that a door or `neuro.doors.layers` knows are leaves: hooks note
which tensors enter and leave them. Between them a torch function mode follows the tensors: slices of time, reshapes,
sums, pools, stacking of recordings. A loop over time calls the same layers again and again; a neuron's k-th call is
step k, and a tensor's step is that of the latest thing it depends on. Two calls of a layer are the same node of the
graph where they see the same node; an edge is as many steps late as its ends are apart.

The user's module is not touched: the copy shares no tensor with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuro.doors.values import ASK, MEANT, Op, Traced, Unclear, Value, detached, parts, tensors
from neuro.errors import ConversionError
from neuro.ir import Shape

AXES = ("TB", "BT", "B")
RUNS = 3  # of a module that computes one step: the second and third show what it remembers


Leaf = Callable[[nn.Module], str | None]  # "neuron", "layer", "bad: why", or None: look inside
Outputs = Callable[[nn.Module, Any], "list[tuple[str, Tensor]]"]


def trace(
    module: nn.Module,
    sample: Tensor,
    axes: str | None,
    leaf: Leaf,
    outputs: Outputs,
    fresh: Callable[[nn.Module], None],
    whole: Callable[[nn.Module], str | None],
) -> Traced:
    """Run a copy of a module and return its graph.

    Args:
        sample: float tensor. axes: what its first axes are, "TB", "BT" or "B" (one step, or the same in every step);
            None to find out. leaf: how to treat a module. outputs: tensors that leave a neuron, by slot. fresh: put
            the neurons' states back. whole: of a neuron that takes all steps at once, the order of its axes.

    Raises:
        Unclear: axes is None and the module does not say.
        ConversionError: the module fails on the sample, or returns nothing that follows from it.
    """
    if axes is not None and axes not in AXES:
        raise ConversionError(f"axes must be one of {AXES}, got {axes!r}")
    tracer = Tracer(detached(module), leaf, outputs, fresh, whole, axes)
    first = tracer.run(sample, None)
    if tracer.most_calls() > 1 or tracer.axes != "B" or tracer.seen_whole:
        return tracer.finish(first, held=tracer.axes == "B" and tracer.most_calls() > 1)
    again = Tracer(detached(module), leaf, outputs, fresh, whole, "B")
    for time in range(RUNS):
        result = again.run(sample, time)
    return again.finish(result, held=False)


class Tracer(TorchFunctionMode):
    """Follows tensors by identity while the module runs."""

    def __init__(self, module: nn.Module, leaf: Leaf, outputs: Outputs, fresh: Any, whole: Any, axes: str | None):
        super().__init__()
        self.module, self.leaf, self.outputs, self.whole, self.axes = module, leaf, outputs, whole, axes
        if axes is None:  # neurons that take all steps at once say what the sample is
            orders = {whole(part) for part in module.modules() if leaf(part) == "neuron"}
            self.axes = {"TB": "TB", "BT": "BT", "flat": "B"}.get(orders.pop() or "") if len(orders) == 1 else None
        self.names = {id(part): name or "layer" for name, part in module.named_modules()}
        self.table: dict[int, tuple[Tensor, Value]] = {}
        self.ops: dict[Any, Op] = {}
        self.input = Op("input", "input")
        self.depth = 0
        self.sizes: tuple[int, int] = (0, 0)  # steps, batch
        self.seen_whole = False
        self.kept: list[Any] = []
        self.stacked: dict[int, tuple[Tensor, Any]] = {}  # of different values, until they are summed
        self.messages: list[str] = []
        fresh(module)

    # ------------------------------------------------------------ running

    def run(self, sample: Tensor, time: int | None) -> Any:
        x = sample.detach().clone()
        self.given = x
        self._say_input(x, time)
        handles = []
        for part in self.module.modules():
            kind = self.leaf(part)
            if kind is not None:
                handles.append(part.register_forward_pre_hook(self._enter))
                handles.append(part.register_forward_hook(self._leave, with_kwargs=True))
        try:
            with torch.no_grad(), self:
                return self.module(x)
        except (ConversionError, MemoryError):
            raise
        except Exception as cause:  # whatever the user's module raises is about the sample
            raise ConversionError(
                f"the module fails on a sample of shape {tuple(sample.shape)}: {type(cause).__name__}: {cause}"
            ) from cause
        finally:
            for handle in handles:
                handle.remove()

    def _say_input(self, x: Tensor, time: int | None) -> None:
        if self.axes is None:
            self.table[id(x)] = (x, Value(self.input, lead=0, order="?"))
            return
        lead = 1 if self.axes == "B" else 2
        if x.dim() <= lead:
            raise ConversionError(f"axes={self.axes!r} needs more axes than the sample's {tuple(x.shape)}")
        self.input.shape = tuple(x.shape[lead:])
        if lead == 2:
            self.sizes = (x.shape[0], x.shape[1]) if self.axes == "TB" else (x.shape[1], x.shape[0])
        else:
            self.sizes = (1, x.shape[0])
        self.table[id(x)] = (x, Value(self.input, time=time, lead=lead, order=self.axes))

    def settle(self, axes: str) -> Value:
        """The sample's axes are known now."""
        self.axes = axes
        self._say_input(self.given, None)
        return self.table[id(self.given)][1]

    def most_calls(self) -> int:
        return max((op.calls for op in self.ops.values() if op.kind == "neuron"), default=0)

    def finish(self, result: Any, held: bool) -> Traced:
        found = [self.table[id(t)][1] for t in tensors(result) if id(t) in self.table]
        if not found:
            raise ConversionError("the module returns nothing that follows from its input; does it detach to numpy?")
        steps = self.sizes[0] if self.axes != "B" else self.most_calls()
        return Traced(self.input, found[0], list(dict.fromkeys(self.messages)), held, steps)

    # ------------------------------------------------------------ leaves

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.depth += 1

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.depth -= 1
        if self.depth:
            return
        kind = self.leaf(module) or ""
        taken = list(tensors([args, kwargs]))
        value = self.known(taken[0]) if taken else None
        if value is None:
            if kind == "neuron" and any(self.known(t) for t in taken):
                self.messages.append(f"'{self.names[id(module)]}' ({type(module).__name__}) takes an input that does "
                                     "not follow from the sample")  # fmt: skip
            return
        with torch._C.DisableTorchFunction():
            if kind == "neuron":
                self._neuron(module, value, taken, out)
            elif kind == "layer":
                self._layer(module, value, taken[0], out)
            else:
                self.bad(f"'{self.names[id(module)]}' ({type(module).__name__}): {kind.removeprefix('bad: ')}",
                          [value], out)  # fmt: skip

    def _neuron(self, module: nn.Module, value: Value, taken: list[Tensor], out: Any) -> None:
        name = self.names[id(module)]
        said = f"'{name}' ({type(module).__name__})"
        order = self.whole(module)  # of the axes of all steps at once: "TB", "BT", "flat" (one axis for both), or None
        if value.order == "?":
            value = self.settle("B" if order in (None, "flat") else order)
        if value.done:
            self.bad(f"{said} takes what is already summed over time", [value], out)
            return
        op = self.ops.setdefault(id(module), Op("neuron", name, module))
        time, lag = None, 0
        if order is not None:
            self.seen_whole = True
            if value.lead != (1 if order == "flat" else 2) or (value.lead == 2 and value.order != order):
                got = value.order if value.lead == 2 else "one step"
                self.messages.append(f"{said} takes all steps at once, {MEANT[order]}, but gets {got}; say axes=")
        else:
            if value.lead == 2:
                self.messages.append(f"{said} takes one step, but gets all at once; set its step mode, or loop")
            time = op.calls
            lag = 0 if value.time is None else time - value.time
            if lag < 0:
                self.messages.append(f"{said} is called less than once a step, so it has no step of its own")
        self._check_state(op, taken[1:], time)
        wired = ((value.op, value.slot, max(lag, 0)),)
        # the first step may miss what comes from the step before it, nothing else may change
        missing = op.calls == 1 and not parts(op.inputs) <= parts(wired)
        if missing or (op.calls > 1 and op.inputs != wired):
            self.messages.append(
                f"{said} is wired differently from step to step; a layer with memory cannot serve twice"
            )
        op.inputs = wired
        op.calls += 1
        for slot, tensor in self.outputs(module, out):
            lead = value.lead if slot != "state" else 1
            op.shape = tuple(tensor.shape[lead:]) if slot == "" else op.shape
            self.table[id(tensor)] = (tensor, Value(op, slot, time, lead, value.order))

    def _check_state(self, op: Op, states: list[Tensor], time: int | None) -> None:
        for tensor in states:
            known = self.known(tensor)
            if known is None:
                if tensor.is_floating_point() and bool((tensor != 0).any()):
                    self.messages.append(f"'{op.name}' starts from a state that is not zero")
            elif known.op is not op or (time is not None and known.time != time - 1):
                self.messages.append(f"'{op.name}': its state is changed between two steps; only its own may return")

    def _layer(self, module: nn.Module, value: Value, tensor: Tensor, out: Any) -> None:
        from neuro.doors.layers import alone

        if value.order == "?":
            image = isinstance(module, (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, nn.BatchNorm2d, nn.LPPool2d))
            line = isinstance(module, (nn.Conv1d, nn.AvgPool1d))
            if getattr(module, "step_mode", "s") == "m":
                value = self.settle("TB")
            elif tensor.dim() == (4 if image else 3 if line else 2 if isinstance(module, nn.Linear) else 0):
                value = self.settle("B")
            elif isinstance(module, nn.Flatten) and module.start_dim in (1, 2):
                value = self.settle("B" if module.start_dim == 1 else "TB")
            elif isinstance(module, (nn.Identity, nn.Dropout)):
                self.table[id(out)] = (out, value)
                return
            else:
                raise Unclear(ASK.format(tuple(self.given.shape)))
        if value.done and not alone(module):
            said = f"'{self.names[id(module)]}' ({type(module).__name__})"
            self.bad(f"{said} takes what is summed over time; put it before the sum, it is linear", [value], out)
            return
        if alone(module):
            self.table[id(out)] = (out, value)
        elif isinstance(module, nn.Flatten):
            self.reshaped(value, tensor, out)
        else:
            self.put("layer", id(module), self.names[id(module)], module, [value], out, value.lead)

    # ------------------------------------------------------------ between them

    def known(self, tensor: Any) -> Value | None:
        found = self.table.get(id(tensor))
        return found[1] if found else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from neuro.doors.functions import follow

        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        values = [v for t in tensors([args, kwargs]) if (v := self.known(t)) is not None]
        out = func(*args, **kwargs)
        if values:
            with torch._C.DisableTorchFunction():
                follow(self, func, args, kwargs, out, values)
        return out

    def put(self, kind: str, key: Any, name: str, what: Any, values: list[Value], out: Any, lead: int,
             shape: Shape | None = None) -> Value:  # fmt: skip
        """The node that does ``key`` to these values, new or known; ``out`` is what it sends."""
        times = [v.time for v in values if v.time is not None]
        time = max(times) if times else None
        inputs = tuple((v.op, v.slot, 0 if v.time is None or time is None else time - v.time) for v in values)
        whole = (kind, key, tuple((id(o), s, lag) for o, s, lag in inputs))
        op = self.ops.get(whole)
        if op is None:
            op = self.ops[whole] = Op(kind, name, what, inputs)
            op.shape = tuple(out.shape[lead:]) if shape is None else shape
        op.calls += 1
        value = Value(op, "", time, lead, values[0].order)
        self.table[id(out)] = (out, value)
        return value

    def bad(self, message: str, values: list[Value], out: Any) -> None:
        op = self.ops.setdefault(("bad", message), Op("bad", message, None, tuple((v.op, v.slot, 0) for v in values)))
        for tensor in tensors(out):
            op.shape = op.shape or tuple(tensor.shape[values[0].lead :])
            self.table[id(tensor)] = (tensor, Value(op, "", values[0].time, values[0].lead, values[0].order))

    def reshaped(self, value: Value, tensor: Tensor, out: Tensor) -> None:
        """A view: of the leading axes alone, or of one step to a vector."""
        steps, batch = self.sizes
        step, new = tuple(tensor.shape[value.lead :]), tuple(out.shape)
        pair = (steps, batch) if value.order != "BT" else (batch, steps)
        leads: list[tuple[int, tuple[int, ...]]] = [(2, pair)] if value.lead == 2 else []
        leads += [(1, (tensor.shape[0],)), (1, (steps * batch,)), (2, pair)]
        length = 1
        for n in step:
            length *= n
        for lead, dims in leads:
            if new[:lead] != dims:
                continue
            if new[lead:] == step:
                self.table[id(out)] = (out, replace(value, lead=lead))
                return
            if new[lead:] == (length,):
                self.put("call", "flatten", "flatten", None, [replace(value, lead=lead)], out, lead)
                return
        self.bad(f"a reshape from {tuple(tensor.shape)} to {new}; one step may only be flattened", [value], out)
