"""`SpikingNetwork`: named layers joined by edges, run over whole samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from neuro import ir
from neuro.errors import NetworkError
from neuro.ir import READOUTS, Edge, Shape
from neuro.nn import plain
from neuro.nn.delay import DelayedLinear
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_recurrent import DelayedRecurrent
from neuro.nn.joined import SERIES, Carry, Chain, Join, find
from neuro.nn.layers import Population, Recurrent, Temporal
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import NORMS, Dropout

INPUT, OUTPUT = "input", "output"


@cache
def _key(name: str) -> str:
    """A name that torch accepts for a submodule: no dot, no attribute of ModuleDict. One to one."""
    key = name.replace("%", "%25").replace(".", "%2E")
    return key + "%" if hasattr(nn.ModuleDict(), key) else key


@dataclass(frozen=True)
class _Stage:
    """Layers that run next: one, a loop of them, or a chain with its join.

    spiking: those of them that send spikes. done: names whose activity nobody needs any more.
    """

    names: tuple[str, ...]
    loop: bool
    join: Join | None
    chain: Chain | None
    spiking: tuple[str, ...]
    done: tuple[str, ...]
    follows: bool = False  # a chain with the same join as the one before, and the only one that listens to that


class SpikingNetwork(nn.Module):
    """Layers and the edges between them. [time, batch, *input_shape] -> [time, batch, *output].

    Layers without memory see time folded into the batch; loops that cannot run over whole time at
    once are stepped. An edge that closes a loop is one step late, as in `neuro.ir`.

    Args:
        layers: name -> module; "input" and "output" are the ends and may not be names.
        edges: (source, target) names; None chains the layers in order. Edges into one layer add up.
        input_shape: of one step. dt: seconds per step.
        readout: how time becomes scores, see `neuro.ir.Output`. "count" of spikes, "sum", "max" or
            "last" of the membrane.
        discretisation: the rule that turns decays into time constants when exported.
        high: the largest value of an input channel in a step, as `neuro.ir.Input.high`.

    Raises:
        NetworkError: unknown names, no path from input to output, unknown readout.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        edges: Iterable[Edge] | None = None,
        *,
        input_shape: Shape,
        dt: float,
        readout: str = "count",
        discretisation: str = "exact",
        high: int = 1,
    ) -> None:
        super().__init__()
        names = list(layers)
        chain = [INPUT, *names, OUTPUT]
        self.edges: tuple[Edge, ...] = tuple(itertools.pairwise(chain) if edges is None else edges)
        known = set(chain)
        bad = [f"edge {edge} names something that is not a layer" for edge in self.edges if not set(edge) <= known]
        bad += [f"'{n}' is the name of an end; rename the layer" for n in names if n in (INPUT, OUTPUT)]
        bad += [] if readout in READOUTS else [f"readout must be one of {READOUTS}, got {readout!r}"]
        if bad:
            raise NetworkError("SpikingNetwork cannot be built", bad)
        self.layers = nn.ModuleDict({_key(n): layers[n] for n in names})
        self.names = tuple(names)
        self.input_shape, self.dt = tuple(input_shape), dt
        self.readout, self.discretisation, self.high = readout, discretisation, high
        self.without_weights: torch.dtype | None = None  # that a network computes in which has no weights to tell it
        # one neuron per layer: the IR's own rules decide on order, loops and what nothing reaches
        stand_ins = {INPUT: ir.Input((1,)), **{n: ir.IF(np.ones(1)) for n in names}, OUTPUT: ir.Output("sum")}
        skeleton = ir.Network(stand_ins, self.edges, self.dt)
        self.order, self.feedback = skeleton.order, skeleton.feedback
        self._groups = _loops(self.order, self.edges)
        self._sources = {d: [s for s, e in self.edges if e == d] for d in (*names, OUTPUT)}
        self._alone = {d: s for s, d in self.edges if self.sources(d) == [s] and self.targets(s) == [d]}
        self._plan: tuple[Any, tuple[_Stage, ...]] | None = None

    def layer(self, name: str) -> nn.Module:
        """A layer by name."""
        return self.layers[_key(name)]

    def replace(self, name: str, layer: nn.Module) -> None:
        """Put another layer in the place of one."""
        self.layers[_key(name)] = layer

    def sources(self, name: str) -> list[str]:
        """Names of what feeds a layer."""
        return list(self._sources.get(name, ()))

    def targets(self, name: str) -> list[str]:
        """Names of what a layer feeds."""
        return [d for s, d in self.edges if s == name]

    def forward(
        self, x: Tensor, record: dict[str, Tensor] | None = None, carry: dict[str, Carry] | None = None
    ) -> Tensor:
        """Run whole samples from rest, or a piece of longer ones.

        Args:
            x: [time, batch, *input_shape], any dtype, or `Spikes`; whole numbers up to 1 become bits.
            record: filled with name -> spikes [time, batch, ...] of every spiking layer.
            carry: an empty dict before the first piece of a sample, then the one that the last piece left; no
                gradient flows from piece to piece, so memory does not grow with the length of the sample.

        Returns:
            What the output sees in each step, [time, batch, ...]: spikes where they are counted,
            otherwise the membrane.

        Raises:
            NetworkError: x has another shape; with carry, a layer that cannot run in pieces, by its type.
        """
        if x.dim() != 2 + len(self.input_shape) or tuple(x.shape[2:]) != self.input_shape:
            raise NetworkError(f"input must be [time, batch, *{self.input_shape}], got {tuple(x.shape)}")
        outputs: dict[str, Tensor] = {INPUT: self._received(x)}
        membranes: dict[str, Tensor] = {}  # of the spiking layers whose v the output reads
        ran, plan = 0, self._planned()
        for k, stage in enumerate(plan):
            names = stage.names
            if ran == 0 and record is None and carry is None:
                ran = self._in_series(plan[k:], outputs)
            if ran:
                ran -= 1
            elif stage.loop:
                self._stepped(names, outputs, membranes, carry)
            elif stage.join is None or not self._joined(stage, outputs, carry):
                for name in names:
                    self._whole(name, outputs, membranes, carry)
            if record is not None:
                record |= {n: outputs[n] for n in stage.spiking if n in outputs}
            for name in stage.done:
                outputs.pop(name, None)  # activity of a layer that nobody needs any more
        return outputs[OUTPUT]

    def _received(self, x: Tensor) -> Tensor:
        """The input in the dtype of the weights, as bits where it has no other values."""
        parameter = next(self.parameters(), None)
        dtype = (self.without_weights or torch.get_default_dtype()) if parameter is None else parameter.dtype
        if isinstance(x, Spikes):
            return x if x.dtype == dtype else Spikes(x.words, tuple(x.shape), dtype)
        if x.dtype in (torch.uint8, torch.bool) and x.device.type == "cpu":
            packed = Spikes.pack_binary(x, dtype)
            if packed is not None:
                return packed
        return x.to(dtype) if parameter is not None or not x.is_floating_point() else x

    def _planned(self) -> tuple[_Stage, ...]:
        """What runs after what; made anew where a layer was exchanged, or somebody began to watch one with a hook."""
        layers = self.layers._modules.values()
        state = tuple((id(m), m is not None and _hooked(m)) for m in layers)
        if self._plan is None or self._plan[0] != state:
            self._plan = (state, self._stages())
        return self._plan[1]

    def _stages(self) -> tuple[_Stage, ...]:
        chains = {names[0]: (join, chain, names) for join, chain, names in self._chains()}
        inside = {name for _, _, names in chains.values() for name in names[1:]}
        last_use = {s: d for group in self._groups for d in group for s in self.sources(d)}
        stages: list[_Stage] = []
        for group in self._groups:
            if group[0] == INPUT or group[0] in inside:
                continue
            loop = len(group) > 1 or (group[0], group[0]) in self.edges
            join, chain, names = (None, None, group) if loop else chains.get(group[0], (None, None, group))
            firing = tuple(n for n in names if n in self.names and spikes(self.layer(n)))
            done = tuple(n for n, by in last_use.items() if by in names)
            follows = bool(stages) and join is not None and stages[-1].join is join
            follows = follows and self._alone.get(names[0]) == stages[-1].names[-1]
            stages.append(_Stage(names, loop, join, chain, firing, done, follows))
        return tuple(stages)

    def _chains(self) -> Iterator[tuple[Join, Chain, tuple[str, ...]]]:
        """What runs as one with what follows it (`neuro.nn.joined`), and the names of its layers.

        A layer that somebody watches with a hook runs by itself.
        """
        for last, before in self._alone.items():
            neurons = self.layers[_key(last)] if last in self.names else None
            if not isinstance(neurons, Temporal) or before not in self.names or self._wants_membrane(last):
                continue
            norm: nn.Module | None = self.layer(before)
            first = self._alone.get(before, INPUT) if isinstance(norm, NORMS) else before
            if first not in self.names:
                continue
            chain = Chain(self.layer(first), None if first == before else norm, neurons)
            watched = [m for m in (chain.synapses, chain.norm, neurons) if m is not None and _hooked(m)]
            join = None if watched else find(chain)
            if join is not None:
                yield join, chain, (first, last) if first == before else (first, before, last)

    def _joined(self, stage: _Stage, outputs: dict[str, Tensor], carry: dict[str, Carry] | None) -> bool:
        """Runs a chain as one; False where its join declines."""
        assert stage.join
        assert stage.chain
        if plain.wanted(outputs[self.sources(stage.names[0])[0]]):
            return False
        memory = None if carry is None else carry.setdefault(stage.names[-1], Carry())
        y = stage.join(stage.chain, _total([outputs[s] for s in self.sources(stage.names[0])]), memory)
        if y is not None:
            outputs[stage.names[-1]] = y
        return y is not None

    def _in_series(self, stages: tuple[_Stage, ...], outputs: dict[str, Tensor]) -> int:
        """Runs the first stage and those that follow it as one where there is a way to; how many it ran."""
        first, *others = stages
        run = SERIES.get(first.join) if first.join else None
        if run is None:
            return 0
        x = [outputs[s] for s in self.sources(first.names[0])]
        if any(map(plain.wanted, x)):
            return 0
        row = [first, *itertools.takewhile(lambda stage: stage.follows, others)]
        found = run(tuple(stage.chain for stage in row if stage.chain), _total(x))
        if found is None:
            return 0
        outputs[row[found[1] - 1].names[-1]] = found[0]
        return found[1]

    def scores(self, trace: Tensor) -> Tensor:
        """[time, batch, ...] as `forward` returns it -> one score per channel, [batch, n]."""
        return read(trace, self.readout).flatten(1)

    def _wants_membrane(self, name: str) -> bool:
        """Whether the output reads v of this layer, not its spikes or messages."""
        layer = self.layer(name)
        sends = spikes(layer) or bool(getattr(layer, "graded", False))
        return self.readout != "count" and (name, OUTPUT) in self.edges and sends

    def _whole(
        self, name: str, outputs: dict[str, Tensor], membranes: dict[str, Tensor], carry: dict[str, Carry] | None
    ) -> None:
        """One layer over whole time."""
        values = {**outputs, **membranes} if name == OUTPUT else outputs
        x = _total([values[s] for s in self.sources(name)])
        if name == OUTPUT:
            outputs[name] = x
            return
        layer = self.layer(name)
        memory = None if carry is None else carry.setdefault(name, Carry())
        if self._wants_membrane(name):
            assert isinstance(layer, (Population, Recurrent, DelayedRecurrent))
            outputs[name], membranes[name] = layer.with_membrane(x, carry=memory)
        elif isinstance(layer, Temporal):
            outputs[name] = layer(x) if memory is None else layer.resume(x, memory)
        elif type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            outputs[name] = x.flatten(2)  # one view: spikes stay bits
        else:
            outputs[name] = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _stepped(
        self,
        group: tuple[str, ...],
        outputs: dict[str, Tensor],
        membranes: dict[str, Tensor],
        carry: dict[str, Carry] | None,
    ) -> None:
        """A loop of layers, one step at a time; members in order of evaluation."""
        feeding = {s for n in group for s in self.sources(n) if s in outputs}
        given = {s: outputs[s] * 1 if isinstance(outputs[s], Spikes) else outputs[s] for s in feeding}  # steps of bits
        steps = next(iter(given.values())).shape[0]
        memory = None if carry is None else carry.setdefault(group[0], Carry())
        states: dict[str, Any] = dict.fromkeys(group)
        if memory is not None and memory.value is not None:
            states, before = memory.value
        else:
            before = self._at_rest(group, next(iter(given.values()))[0])
        traces: dict[str, list[Tensor]] = {n: [] for n in group}
        for t in range(steps):
            now: dict[str, Tensor] = {}
            for name in group:
                x: Tensor | None = None
                for source in self.sources(name):
                    late = (source, name) in self.feedback
                    y = given[source][t] if source in given else (before if late else now)[source]
                    x = y if x is None else x + y
                assert x is not None
                layer = self.layer(name)
                if isinstance(layer, Temporal):
                    now[name], states[name] = layer.step(x, states[name])
                    if self._wants_membrane(name):
                        assert isinstance(layer, (Population, Recurrent, DelayedRecurrent))
                        traces.setdefault(name + "/v", []).append(layer.membrane(states[name]))
                else:
                    now[name] = layer(x)
                traces[name].append(now[name])
            before = now
        if memory is not None:
            memory.value = tree_map_only(Tensor, Tensor.detach, (states, before))
        outputs |= {n: torch.stack(traces[n]) for n in group}
        membranes |= {n: torch.stack(traces[n + "/v"]) for n in group if n + "/v" in traces}

    def _at_rest(self, group: tuple[str, ...], step: Tensor) -> dict[str, Tensor]:
        """What the members of a loop have sent before step 0: memory zero, the rest what follows from that."""

        @cache
        def shaped(name: str) -> Tensor:
            """Something of the shape that a layer sends; only that."""
            if name == INPUT:
                return sent(INPUT)
            x = _total([shaped(s) for s in self.sources(name) if (s, name) not in self.feedback])
            layer = self.layer(name)
            return layer.step(x, None)[0] if isinstance(layer, Temporal) else layer(x)

        @cache
        def sent(name: str) -> Tensor:
            if name == INPUT:
                return torch.zeros((step.shape[0], *self.input_shape), dtype=step.dtype, device=step.device)
            layer = self.layer(name)
            if isinstance(layer, (DelayedLinear, DelayLinear)):
                return layer.step(torch.zeros_like(_total([shaped(s) for s in self.sources(name)])), None)[0]
            if isinstance(layer, Temporal) and not isinstance(layer, Dropout):
                return torch.zeros_like(shaped(name))
            x = _total([sent(s) for s in self.sources(name)])
            return layer.step(x, None)[0] if isinstance(layer, Dropout) else layer(x)

        return {s: sent(s) for s, d in self.feedback if s in group and d in group}


def _total(parts: list[Tensor]) -> Tensor:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)


def spikes(layer: nn.Module) -> bool:
    """Whether a layer sends spikes."""
    return bool(getattr(layer, "spiking", False))


def read(trace: Tensor, readout: str) -> Tensor:
    """Time becomes a score: [time, batch, ...] -> [batch, ...]."""
    if readout == "max":
        return trace.amax(0)
    return trace[-1] if readout == "last" else trace.sum(0)


def _loops(order: tuple[str, ...], edges: tuple[Edge, ...]) -> tuple[tuple[str, ...], ...]:
    """Strongly connected components in order of evaluation, each in that order too."""
    follow = {n: {d for s, d in edges if s == n} for n in order}

    def reach(name: str) -> set[str]:
        seen: set[str] = set()
        todo = [name]
        while todo:
            for target in follow[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    reached = {n: reach(n) for n in order}
    groups: list[tuple[str, ...]] = []
    done: set[str] = set()
    for name in order:
        if name not in done:
            group = tuple(m for m in order if m == name or (m in reached[name] and name in reached[m]))
            groups.append(group)
            done |= set(group)
    return _sorted(groups, edges)


def _sorted(groups: list[tuple[str, ...]], edges: tuple[Edge, ...]) -> tuple[tuple[str, ...], ...]:
    """Groups such that each comes after all that feed it."""
    home = {n: g for g in groups for n in g}
    done: list[tuple[str, ...]] = []
    while len(done) < len(groups):
        for group in groups:
            feeds = {home[s] for s, d in edges if d in group and home[s] != group}
            if group not in done and all(f in done for f in feeds):
                done.append(group)
    return tuple(done)
