"""`open_door`: a foreign torch module to a `Network`: trace it, write every node, close the loops.

A `Door` is a framework: its neurons by class name, each a function that returns a `Cell`, and what its modules return.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro import ir
from neuro.doors.cell import Cell, Piece, piece
from neuro.doors.layers import FLAT, FLAT_FUNCTIONS, FUNCTIONS, NORMS, folded, norm_of, row
from neuro.doors.trace import trace
from neuro.doors.values import Op, Traced
from neuro.errors import ConversionError, NetworkError, UnsupportedLayer
from neuro.ir import Network, Node
from neuro.shapes import sends_spikes

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Options:
    """What a door's neurons may need to know. dt: seconds per step. precision: see `neuro.doors.cell.below`."""

    dt: float
    rule: str
    precision: str = "float64"
    late_reset: str = "exact"
    overshoot: str = "refuse"


@dataclass(frozen=True)
class Door:
    """A framework. roots: its packages. inside: its classes that are looked into. refused: class -> why, what to do.

    outputs: (slot, tensor) pairs of what a neuron returns, "" its spikes or, without spikes, its membrane, "v" its
    membrane, "state" the rest. fresh: a neuron's state back to the start. whole: order of the axes, where a neuron
    takes all steps at once. loops: of those inside, which keep what they sent for the next step; ``fresh`` resets them.
    """

    name: str
    roots: tuple[str, ...]
    neurons: Mapping[str, Callable[[Any, Options], Cell]]
    outputs: Callable[[Any, Any], list[tuple[str, Tensor]]]
    fresh: Callable[[Any], None]
    whole: Callable[[Any], str | None] = lambda module: None
    refused: Mapping[str, str] = field(default_factory=dict)
    inside: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()

    def neuron(self, module: nn.Module) -> Callable[[Any, Options], Cell] | None:
        """The row of a neuron; None where it is none, or computes something of its own."""
        for cls in type(module).__mro__:
            if self.owns(cls) and cls.__name__ in self.neurons:
                own = next(c for c in type(module).__mro__ if "forward" in vars(c))
                return self.neurons[cls.__name__] if issubclass(cls, own) else None
        return None

    def owns(self, cls: type) -> bool:
        """Whether a class comes from this framework."""
        return cls.__module__.split(".")[0] in self.roots

    def leaf(self, module: nn.Module) -> str | None:
        """See `neuro.doors.trace.Leaf`."""
        cls = type(module)
        if self.neuron(module):
            return "neuron"
        if self.owns(cls) and cls.__name__ in self.refused:
            return f"bad: {self.refused[cls.__name__]}"
        if row(module):
            return "layer"
        if self.owns(cls) and cls.__name__ not in self.inside:
            return f"bad: a layer of {self.name} that is not known here; known: {', '.join(self.neurons)}"
        if cls.__module__.startswith("torch.nn.modules") and not isinstance(module, CONTAINERS):
            known = [t.__name__ for t in _known_layers()]
            return f"bad: no counterpart in a spiking network here; known: {', '.join(known)}"
        return None


def _known_layers() -> list[type]:
    from neuro.doors.layers import LAYERS, VANISHING

    return [*LAYERS, *VANISHING]


def open_door(
    door: Door, module: nn.Module, sample: Any, *, options: Options, axes: str | None = None,
    readout: str | None = None, high: int = 1,
) -> Network:  # fmt: skip
    """See the public functions of the doors."""
    if not isinstance(module, nn.Module):
        raise ConversionError(f"needs a torch module, got {type(module).__name__}")
    if not any(door.neuron(part) for part in module.modules()):
        raise UnsupportedLayer(
            f"no neuron of {door.name} in this module (known: {', '.join(door.neurons)})",
            sorted({f"{type(part).__name__}" for part in module.modules() if not isinstance(part, CONTAINERS)}),
        )
    given = torch.as_tensor(np.asarray(sample) if not isinstance(sample, Tensor) else sample)
    first = next((p for p in [*module.parameters(), *module.buffers()] if p.is_floating_point()), None)
    given = given.to(torch.float32 if first is None else first.dtype)

    def fresh(copied: nn.Module) -> None:
        for part in copied.modules():
            if door.neuron(part) or (door.owns(type(part)) and type(part).__name__ in door.loops):
                door.fresh(part)

    def whole(part: nn.Module) -> str | None:
        return door.whole(part)

    traced = trace(module, given, axes, door.leaf, door.outputs, fresh, whole)
    return _Draft(door, options, traced).network(readout, high)


class _Draft:
    """The network being written."""

    def __init__(self, door: Door, options: Options, traced: Traced):
        self.door, self.options, self.traced = door, options, traced
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str, int]] = []  # (source, target, steps late)
        self.names: dict[int, str] = {}
        self.pieces: dict[int, Piece] = {}
        self.bad: list[str] = list(traced.bad)
        self.metadata: dict[str, str] = {"door": door.name}
        package = sys.modules.get(door.roots[0])
        version = getattr(package, "__version__", None)
        if isinstance(version, str):
            self.metadata["door_version"] = version

    def network(self, readout: str | None, high: int) -> Network:
        if readout is not None and readout not in ir.READOUTS:
            raise NetworkError(f"readout must be one of {ir.READOUTS}, got {readout!r}")
        end = self.traced.output
        ops = _reachable(end.op)
        self.used = {id(op): 0 for op in ops}
        for op in ops:
            for source, _, _ in op.inputs:
                self.used[id(source)] += 1
        self.used[id(end.op)] += 1
        self.bad += [op.name for op in ops if op.kind == "bad"]
        self.flat = _flat(ops)
        for op in ops:
            try:
                self._node(op, high)
            except (ConversionError, NetworkError) as problem:
                self.bad.append(f"'{op.name}' ({_type(op)}): {problem}")
        if self.bad:
            raise UnsupportedLayer(f"this {self.door.name} module cannot become a Network", _once(self.bad))
        for op in ops:
            self._edges(op)
        wants_v = end.slot == "v" or (readout not in (None, "count") and end.op.kind == "neuron")
        sources = self._sends(end.op, "v" if wants_v else end.slot, last=True)
        if self.bad:
            raise UnsupportedLayer(f"this {self.door.name} module cannot become a Network", _once(self.bad))
        output = self._free("output")
        taken = readout or (end.done if end.done else "last" if _last(self.traced) else "sum")
        self.nodes[output] = ir.Output(taken)
        self.edges += [(name, output, late) for name, late in sources]
        if id(end.op) in self.flat:
            self.metadata["output/note"] = f"the module's answer {end.op.shape} is flat here"
        network = self._closed()
        if readout is None and not wants_v and all(sends_spikes(network, s) for s in network.sources(output)):
            network = network.replace_nodes({output: ir.Output("count")})
        return network

    # ------------------------------------------------------------ nodes

    def _node(self, op: Op, high: int) -> None:
        if op.kind in ("bad", "add"):
            return
        if op.kind == "input":
            self.names[id(op)] = self._free("input")
            self.nodes[self.names[id(op)]] = ir.Input(op.shape, high)
            if self.traced.held:
                self.metadata["input"] = "the same in every step"
            return
        if op.kind == "neuron":
            name = self.names[id(op)] = self._free(op.name)
            make = self.door.neuron(op.what)
            assert make is not None
            made = piece(make(op.what, self.options), op.shape, self.options.dt, self.options.rule)
            self.pieces[id(op)] = made
            self.nodes.update({name + suffix: self._raveled(node, op) for suffix, node in made.nodes.items()})
            self.edges += [(name + s, name + d, late) for s, d, late in made.edges]
            if made.note:
                self.metadata[f"{name}/note"] = made.note
            return
        shape = op.inputs[0][0].shape
        source, _, late = op.inputs[0]
        if op.kind == "layer" and isinstance(op.what, NORMS) and self.used[id(source)] == 1 and not late:
            before = self.nodes.get(self.names.get(id(source), ""))
            changed = None if before is None else folded(before, *norm_of(op.what, shape))
            if changed is not None:
                self.names[id(op)] = self.names[id(source)]
                self.nodes[self.names[id(source)]] = changed
                return
        make_layer = row(op.what) if op.kind == "layer" else FUNCTIONS[op.name]
        assert make_layer is not None
        name = self.names[id(op)] = self._free(op.name)
        self.nodes[name] = self._raveled(make_layer(op.what, shape, op.shape), op)

    def _raveled(self, node: Node, op: Op) -> Node:
        """A node whose arrays have the shape [channel, length] of a step, flat."""
        if id(op) not in self.flat or len(op.shape) < 2:
            return node
        arrays = {f.name: getattr(node, f.name) for f in fields(node)}
        flat = {name: a.ravel() for name, a in arrays.items() if isinstance(a, np.ndarray) and a.shape == op.shape}
        return replace(node, **flat)

    def _free(self, name: str) -> str:
        name = name.replace("/", ".") or "layer"
        taken = set(self.nodes) | set(self.names.values())
        number, found = 1, name
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found

    # ------------------------------------------------------------ edges

    def _sends(self, op: Op, slot: str, last: bool = False, flat: bool = False) -> list[tuple[str, int]]:
        """(node, steps late) whose sum is what an op sends. flat: to one that takes vectors."""
        if op.kind == "add":
            flat = flat or id(op) in self.flat
            return [(name, late + more) for o, s, late in op.inputs for name, more in self._sends(o, s, last, flat)]
        name = self.names[id(op)]
        if flat and id(op) not in self.flat and len(op.shape) > 1:
            self.nodes[f"{name}_flat"] = ir.Flatten()
            sent = self._sends(op, slot, last)
            self.edges += [
                (sender, f"{name}_flat", 0) for sender, _ in sent if (sender, f"{name}_flat", 0) not in self.edges
            ]
            return [(f"{name}_flat", late) for _, late in sent]
        if op.kind != "neuron":
            return [(name, 0)]
        made = self.pieces[id(op)]
        if slot == "":
            return [(name + made.fires, 0)]
        membrane = name + made.membrane
        if slot == "v" and (last or not getattr(self.nodes[membrane], "spiking", False)):
            return [(membrane, 0)]
        what = "membrane of a spiking neuron" if slot == "v" else "inner state of a neuron"
        self.bad.append(f"the {what} '{op.name}' is sent on to a layer; only what it fires may be")
        return []

    def _edges(self, op: Op) -> None:
        if op.kind in ("input", "add", "bad"):
            return
        name = self.names[id(op)]
        if op.inputs and self.names.get(id(op.inputs[0][0])) == name:
            return  # folded into the layer before it
        target = name + (self.pieces[id(op)].enters if op.kind == "neuron" else "")
        flattened = id(op) in self.flat
        found: dict[tuple[str, int], int] = {}
        for source, slot, late in op.inputs:
            for sender, more in self._sends(source, slot, flat=flattened):
                found[sender, late + more] = found.get((sender, late + more), 0) + 1
        senders = [sender for sender, _ in found]
        for (sender, late), times in found.items():
            if times > 1:
                helper = self._free(f"{sender}_times_{times}")
                self.nodes[helper] = ir.Scale(np.array(float(times)))
                self.edges += [(sender, helper, 0), (helper, target, late)]
            elif late and senders.count(sender) > 1:
                helper = self._free(f"{sender}_late")
                self.nodes[helper] = ir.Delay(np.array(late))
                self.edges += [(sender, helper, 0), (helper, target, 0)]
            else:
                self.edges.append((sender, target, late))

    def _closed(self) -> Network:
        """The network, with a Delay where an edge is late that closes no loop."""
        self._prune()
        for _ in range(len(self.edges) + 1):
            ordered = sorted(self.edges, key=lambda edge: edge[2] > 0)
            network = Network(
                self.nodes, tuple((s, d) for s, d, _ in ordered), self.options.dt, self.options.rule, self.metadata
            )
            wrong = [(s, d, late) for s, d, late in ordered if late != ((s, d) in network.feedback)]
            if not wrong:
                return network
            source, target, late = wrong[0]
            missing = late - ((source, target) in network.feedback)
            if missing < 0:
                raise UnsupportedLayer("a loop of this module has no step of delay in it", [f"{source} -> {target}"])
            name = self._free(f"{source}_late")
            self.nodes[name] = ir.Delay(np.array(missing))
            self.edges.remove((source, target, late))
            self.edges += [(source, name, 0), (name, target, late - missing)]
        raise UnsupportedLayer("the delays of this module's loops cannot be written")

    def _prune(self) -> None:
        """Take away what leads to no output."""
        wanted = {name for name, node in self.nodes.items() if isinstance(node, ir.Output)}
        todo = list(wanted)
        while todo:
            name = todo.pop()
            for source, target, _ in self.edges:
                if target == name and source not in wanted:
                    wanted.add(source)
                    todo.append(source)
        self.nodes = {name: node for name, node in self.nodes.items() if name in wanted}
        self.edges = [edge for edge in self.edges if edge[0] in wanted and edge[1] in wanted]


def _flat(ops: list[Op]) -> set[int]:
    """Ops whose steps [channel, length] are vectors here: the 1d layers, and what follows them until a Flatten."""
    found: set[int] = set()
    before = -1
    while before != len(found):  # loops need a second look
        before = len(found)
        for op in ops:
            own = isinstance(op.what, FLAT) if op.kind == "layer" else op.kind == "call" and op.name in FLAT_FUNCTIONS
            own = own or (isinstance(op.what, nn.BatchNorm1d) and len(op.shape) == 2)
            if own or (len(op.shape) == 2 and any(id(source) in found for source, _, _ in op.inputs)):
                found.add(id(op))
    return found


def _last(traced: Traced) -> bool:
    """Whether the module returns the last of several steps."""
    end = traced.output
    return end.time is not None and end.lead == 1 and end.time == traced.steps - 1 > 0 and end.op.calls == traced.steps


def _reachable(end: Op) -> list[Op]:
    """What leads to ``end``, sources first where there is no loop."""
    found: list[Op] = []
    seen: set[int] = set()
    stack: list[tuple[Op, int]] = [(end, 0)]
    seen.add(id(end))
    while stack:
        op, k = stack.pop()
        if k < len(op.inputs):
            stack.append((op, k + 1))
            source = op.inputs[k][0]
            if id(source) not in seen:
                seen.add(id(source))
                stack.append((source, 0))
        else:
            found.append(op)
    return found


def _type(op: Op) -> str:
    return type(op.what).__name__ if isinstance(op.what, nn.Module) else op.kind


def _once(messages: list[str]) -> list[str]:
    return list(dict.fromkeys(messages))
