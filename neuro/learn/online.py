"""What the rules that are local in time share: the network with its past cut off, run in stretches.

`shadow` is a network of the same layers (the same parameters, nothing copied) in which populations are `Cut`: forwards
the same, backwards without the edges from step to step. `stretches` runs it piece by piece, states carried, so that
the graph is never longer than a stretch.

A delay is no memory of a neuron but a way that a spike takes, so its gradient passes. Where a network has delays, the
graph of a stretch begins as many steps earlier as its longest way is late, run anew from the state that was there:
exact, for up to twice the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn.rule import Learnt, LossOf, Watch, joined, pieces
from neuro.learn.watch import synapses, watched
from neuro.nn import cut_joins  # noqa: F401  # how weights and what is cut off run as one
from neuro.nn.adaptive import AdLIF
from neuro.nn.cut import Cut
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron, Recurrent, Temporal
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork, read
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import NORMS, Dropout

DELAYS = (Delay, Taps, DelayedLinear, DelayLinear)
Exchange = Callable[[str, nn.Module], nn.Module]


def layers(model: SpikingNetwork) -> dict[str, nn.Module]:
    """name -> layer, in the order that they were given in."""
    return {name: model.layer(name) for name in model.names}


def refuse(rule: str, bad: dict[str, str]) -> None:
    """Raises where a rule is not defined on a network. bad: layer -> why.

    Raises:
        NetworkError: each layer by name.
    """
    if bad:
        found = [f"'{name}': {why}" for name, why in bad.items()]
        raise NetworkError(f"rule '{rule}' is not defined on this network; choose another rule or change it", found)


def problems(model: SpikingNetwork) -> dict[str, str]:
    """Layers whose past cannot be cut off, and why."""
    bad = {}
    for name, layer in layers(model).items():
        inner = layer.neuron if isinstance(layer, Recurrent) else layer
        known = (Neuron, AdLIF, Dropout, *DELAYS)
        if isinstance(inner, Temporal) and not isinstance(inner, known):
            bad[name] = f"the memory of a {type(inner).__name__} cannot be cut off"
    for source, target in model.feedback:
        bad[target] = f"hears '{source}' one step late, in a loop over layers; use Recurrent"
    return bad


class Seer:
    """Tells a `Watch` of the rows of the stretch that learns, and of no others."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch, self.skip, self.live = watch, 0, True

    def __call__(self, name: str, rows: Tensor) -> None:
        if self.watch is not None and self.live:
            dense = rows.clone() if isinstance(rows, Spikes) and self.skip else rows
            self.watch(name, dense[self.skip :] if self.skip else dense)

    def of(self, name: str) -> Callable[[Tensor], None] | None:
        """For one layer; rows come as [time, batch, ...]."""
        return None if self.watch is None else lambda x: self(name, x.detach().flatten(0, 1))


class _Seen(Temporal):
    """A delay whose input is watched: hooks do not see a layer that runs in pieces."""

    def __init__(self, layer: Temporal, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.layer, self.see = layer, see

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        self.see(x)
        return self.layer.resume(x, carry)


def shadow(model: SpikingNetwork, exchange: Exchange | None = None, seer: Seer | None = None) -> SpikingNetwork:
    """The same network with populations cut off from their past. exchange: name, layer -> what else takes its place."""
    seer = Seer(None) if seer is None else seer

    def of(name: str, layer: nn.Module) -> nn.Module:
        layer = layer if exchange is None else exchange(name, layer)
        see = seer.of(name)
        if isinstance(layer, (DelayedLinear, DelayLinear)) and see is not None:
            return _Seen(layer, see)
        if isinstance(layer, (Neuron, AdLIF, Recurrent)):
            return Cut(layer, see=seer.of(f"{name}.recurrent"))
        return layer

    made = SpikingNetwork(
        {name: of(name, layer) for name, layer in layers(model).items()}, model.edges, input_shape=model.input_shape,
        dt=model.dt, readout=model.readout, discretisation=model.discretisation, high=model.high,
    )  # fmt: skip
    made.training = model.training
    return made


def heads(rule: str, model: SpikingNetwork) -> dict[str, str]:
    """population -> the Linear or Conv2d in front of it, of rules that need the two together.

    Raises:
        NetworkError: populations and weights that do not come in pairs, norms of a batch, delays, `problems`.
    """
    bad, found = problems(model), {}
    for name, layer in layers(model).items():
        if isinstance(layer, NORMS):
            bad[name] = "a norm of the batch: its statistics are not those of one step; leave it out"
        elif isinstance(layer, DELAYS):
            bad[name] = f"a {type(layer).__name__}: traces of delayed inputs are not defined here"
        elif isinstance(layer, (Neuron, AdLIF, Recurrent)):
            sources = model.sources(name)
            before = model.layer(sources[0]) if len(sources) == 1 and sources[0] != INPUT else None
            if not isinstance(before, (nn.Linear, nn.Conv2d)) or model.targets(sources[0]) != [name]:
                bad.setdefault(name, "needs a Linear or Conv2d of its own in front of it")
            elif model.readout != "count" and getattr(layer, "spiking", False) and (name, OUTPUT) in model.edges:
                bad[name] = "spikes, but its membrane is read; use a leaky integrator, or readout 'count'"
            else:
                found[name] = sources[0]
    refuse(rule, bad)
    return found


@contextmanager
def watched_rest(model: SpikingNetwork, heads: dict[str, str], watch: Watch | None) -> Iterator[None]:
    """Watches weights with no population behind them, whose gradient is a product with their inputs."""
    rest = [] if watch is None else [n for n in synapses(model) if n not in heads.values()]
    with ExitStack() as hooks:
        for name in rest:
            hooks.callback(model.layer(name).register_forward_pre_hook(_see(watch, name)).remove)
        yield


def _see(watch: Watch | None, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def see(layer: nn.Module, given: tuple[Any, ...]) -> None:
        assert watch is not None
        watch(name, given[0].detach())

    return see


def lateness(model: SpikingNetwork) -> int:
    """Steps that the longest way from input to output is late."""
    late = {INPUT: 0}
    for name in model.order:
        if name == INPUT:
            continue
        before = max((late.get(s, 0) for s in model.sources(name)), default=0)
        layer = model.layer(name) if name != OUTPUT else None
        late[name] = before + (_longest(layer) if isinstance(layer, DELAYS) else 0)
    return late[OUTPUT]


def _longest(layer: nn.Module) -> int:
    if isinstance(layer, DelayLinear):
        return layer.max_delay + 1
    return int(layer.get_buffer("delay_steps" if isinstance(layer, DelayedLinear) else "steps").max())


@dataclass(frozen=True)
class Stretch:
    """What the network did in a stretch of steps. trace [steps, batch, ...]; spikes by layer; share of all steps."""

    trace: Tensor
    spikes: dict[str, Tensor]
    share: float


Parts = Iterator[Stretch]


def stretches(
    model: SpikingNetwork,
    x: Tensor,
    steps: int,
    *,
    late: int = 0,
    learns: Callable[[int], bool] | None = None,
    seer: Seer | None = None,
) -> Parts:
    """Run a sample in pieces of ``steps``, from rest, states carried.

    late: steps of the past that the graph of a piece holds too (`lateness`). learns: whether a piece, by its number,
    is run with a graph; all are where left out. seer: as `shadow` got it.
    """
    behind = -(-late // steps)  # whole pieces
    carries: list[dict[str, Carry]] = [{}]  # the last of them starts the next piece
    whole = list(pieces(x, steps))
    for number, piece in enumerate(whole):
        live = learns is None or learns(number)
        lead = min(number, behind) if live else 0
        start = carries[len(carries) - 1 - lead]
        carry = {name: Carry(held.value) for name, held in start.items()}
        given = _together(whole[number - lead : number + 1])
        skip = lead * steps
        spikes: dict[str, Tensor] = {}
        if seer is not None:
            seer.skip, seer.live = skip * x.shape[1], live
        hooks = watched(model, seer) if seer is not None and seer.watch is not None else nullcontext()
        with torch.enable_grad() if live else torch.no_grad(), hooks:
            trace = model(given, spikes, carry)
        carries = [*carries, carry][-(behind + 1) :]
        if skip:
            trace, spikes = trace[skip:], {name: s[skip:] for name, s in spikes.items()}
        yield Stretch(trace, spikes, len(piece) / len(x))


def _together(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(p, Spikes) for p in parts):
        words = np.concatenate([p.words for p in parts if isinstance(p, Spikes)])
        return Spikes(words, (sum(len(p) for p in parts), *parts[0].shape[1:]), parts[0].dtype)
    return torch.cat(parts)


def learn(parts: Parts, model: SpikingNetwork, loss_of: LossOf, after: Callable[[], None] | None = None) -> Learnt:
    """Adds up the gradients of stretches, each by its share of the steps. after: called behind each."""
    loss, scores, fired = 0.0, None, dict[str, float]()
    for part in parts:
        error, penalty = loss_of(part.trace, part.spikes)
        if part.trace.requires_grad:
            ((error + penalty) * part.share).backward()  # type: ignore[no-untyped-call]
            if after is not None:
                after()
        loss += float(error.detach()) * part.share
        scores = joined(scores, read(part.trace.detach(), model.readout).flatten(1), model.readout)
        for name, s in part.spikes.items():
            fired[name] = fired.get(name, 0.0) + float(s.detach().sum(dtype=torch.float64))
    assert scores is not None
    return Learnt(loss, scores, fired)
