"""EventProp on a grid of time: gradients through spike times, without a surrogate.

A neuron fires when its membrane reaches the threshold, so the time of a spike, unlike its presence, has a derivative
(Wunderlich & Pehle 2021, Sci. Rep. 11:12829; with delays: Meszaros et al. 2025, Nat. Commun. 16:10422). Here the
adjoint of that paper runs on the grid and with the coefficients of the network that is trained, backwards in time,
for i[t] = alpha i[t-1] + gain_syn x[t], u[t] = beta v[t-1] + gain i[t] + drive (`neuro.nn.neurons`)::

    mu[t] = beta mu[t+1] + dL/dv[t]        membrane; a readout alone has the last term
    j[t]  = alpha j[t+1] + gain mu[t]      current
    g[t]  = gain_syn j[t]                  what one more unit of x[t] would change in the loss
    at a spike, in the place of mu:  mu <- (mu after - dL/dt) / up,   all per step,
      up    = gain i[t] + drive - (1 - beta) v_threshold              slope of the membrane there, positive
      after = gain i[t] + drive - (1 - beta) v_reset                  and behind the reset
      dL/dt = sum over its synapses of w (g[a+1] - g[a]),  a = t + delay when it arrives
    dL/dw = sum over spikes of g[a];  dL/d(delay) = w sum over spikes of (g[a+1] - g[a])

With mu = -tau_mem lamV, j = -tau_syn lamI and steps that become short this is `neuro.learn.eventprop_exact`, whose
gradients are exact; here they are off by the order of a step, and so is the simulation that they are of. What
is kept of the forward pass are the spikes and one number for each. Nothing is computed per step that a spike does
not ask for, but the states of the neurons.

The number of spikes has no such derivative, and neurons that are silent get none of the loss: networks must start
active and stay so, by the penalty on spike counts. How it enters is ours: dL/dn of a neuron goes to its membrane, over
v_threshold - v_reset, at each of its spikes, and from there back to the spike before; in a silent one to the step at
which its membrane was highest, as in the tempotron (Guetig & Sompolinsky 2006, Nat. Neurosci. 9:420).

A loss of the mean of an output over time hardly depends on when spikes arrive: what a spike adds to it is the same at
any time. Use a loss of the trace, ``loss.kind = "per_step_cross_entropy"``, or ``decay`` below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.errors import NetworkError
from neuro.learn import eventprop_kernels as loops
from neuro.learn.eventprop_layers import Stage, stages
from neuro.learn.rule import Learnt, LossOf, Watch, pieces
from neuro.nn import bits
from neuro.nn.joined import Carry
from neuro.nn.kernels import over_rows
from neuro.nn.network import SpikingNetwork, read
from neuro.nn.spikes import Events, Spikes

A = NDArray[Any]
GROUPS = 4  # of samples, each with sums of its own; fixed, so that threads do not change the order of sums
NAMES = ("alpha", "gain_syn", "beta", "gain", "v_threshold", "v_reset")


@dataclass(frozen=True)
class EventProp:
    """slope: ``up`` counts as at least so much of v_threshold - v_reset per step; a membrane that only just arrives
    makes steep gradients. 0 for the equations as they stand.

    decay: the loss sees the output's trace times c exp(-decay t / steps), of mean 1: early spikes count more, and
    their time gets a gradient from losses of a mean (Nowotny et al. 2025, Neuromorph. Comput. Eng. 5:014001).
    tile: steps whose activity is dense at a time, forwards and backwards.

    Chains of Linear (masked, quantised weights too), `DelayedLinear` or `DelayLinear` and IF, LIF or CubaLIF, feed
    forward or `Recurrent`, that end in LI or CubaLI; real, or on a chip's integers (`neuro.nn.grid`), whose rounding
    gradients pass straight through. Decays and thresholds stay as they are.
    """

    integers: ClassVar[bool] = True  # whether it goes on where weights and state are a chip's integers

    slope: float = 0.05
    decay: float = 0.0
    tile: int = 32

    def problems(self) -> list[str]:
        given = {"slope": self.slope, "decay": self.decay}
        bad = [
            f"{n} is {v}, it must be a number that is not negative" for n, v in given.items() if not 0 <= v < math.inf
        ]
        return bad + ([] if self.tile >= 1 else [f"tile is {self.tile}, it must be at least 1"])

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. x: zeros and ones.

        Raises:
            NetworkError: also where the penalty depends on when spikes come, or x is no spikes.
        """
        chain = stages(model)
        with torch.no_grad():
            runs, trace = _forward(chain, _spikes(x, chain[0].weight.dtype), self.tile, watch)
        trace.requires_grad_()
        fired: dict[str, Tensor] = {run.stage.name: run.recorded() for run in runs[:-1]}
        shaped = trace * _shape(self.decay, trace) if self.decay else trace
        error, penalty = loss_of(shaped, fired)
        wanted = (trace, *fired.values())
        found = torch.autograd.grad(error + penalty, wanted, allow_unused=True)
        g, counts = found[0], found[1:]
        runs[-1].g = (torch.zeros_like(trace) if g is None else g).contiguous().numpy()
        for run, count in zip(runs[:-1], counts, strict=True):
            run.count = _per_sample(count, run.stage.name)
        _backward(runs, self)
        scores = read(trace.detach(), model.readout).flatten(1)
        totals = {n: float(s.detach().sum(dtype=torch.float64)) for n, s in fired.items()}
        return Learnt(float(error.detach()), scores, totals)


@dataclass
class Tile:
    """What is kept of some steps of a layer. arrived: spikes that enter it; events: its own, rise: of each."""

    t0: int
    t1: int
    arrived: Events
    events: Events
    rise: A


@dataclass
class Run:
    """A layer and what its forward pass left behind."""

    stage: Stage
    batch: int
    tiles: list[Tile] = field(default_factory=list)
    words: list[A] = field(default_factory=list)
    before: A = field(default_factory=lambda: np.empty(0))
    best: A = field(default_factory=lambda: np.empty(0))
    peak: A = field(default_factory=lambda: np.empty(0, np.int32))
    fired: A = field(default_factory=lambda: np.empty(0, np.uint8))
    g: A = field(default_factory=lambda: np.empty((0, 0, 0)))
    count: A | None = None

    def recorded(self) -> Spikes:
        """The spikes of the whole sample, for a penalty to be a function of."""
        words = np.concatenate(self.words)
        s = Spikes(words, (len(words) // self.batch, self.batch, self.stage.n), self.stage.weight.dtype)
        s.requires_grad_()
        return s


def _spikes(x: Tensor, dtype: torch.dtype) -> Spikes:
    if not isinstance(x, Spikes):
        dense = x.detach().contiguous()
        flat = (dense.view(torch.uint8) if dense.dtype == torch.bool else dense).numpy().reshape(-1)
        if not bits.binary(flat):
            raise NetworkError("EventProp wants spikes; the input has values besides 0 and 1. Set data.high = 1")
        x = Spikes.pack(dense, dtype)
    return Spikes(x.words, (x.shape[0], x.shape[1], math.prod(x.shape[2:])), dtype)


def _shape(decay: float, trace: Tensor) -> Tensor:
    t = torch.arange(len(trace), dtype=trace.dtype)
    w = torch.exp(-decay * t / len(trace))
    return (w / w.mean()).view(-1, *[1] * (trace.dim() - 1))


def _per_sample(count: Tensor | None, name: str) -> A | None:
    """The gradient to spikes as one to their number, [batch, n]."""
    if count is None:
        return None
    if count.stride(0) != 0 and not bool((count == count[:1]).all()):
        raise NetworkError(f"EventProp takes penalties on the number of spikes; that on '{name}' asks when they come")
    return count[0].detach().contiguous().numpy()


def _forward(chain: list[Stage], x: Spikes, tile: int, watch: Watch | None) -> tuple[list[Run], Tensor]:
    batch = x.shape[1]
    runs = [Run(stage, batch) for stage in chain]
    carries = [(Carry(), Carry()) for _ in chain]
    traces = []
    t0 = 0
    for part in pieces(x, tile):
        y: Tensor = part
        assert isinstance(part, Spikes)
        arrived = part.events()
        for run, (late, state) in zip(runs, carries, strict=True):
            if watch is not None:
                watch(run.stage.entrance, y.flatten(0, 1))
            assert isinstance(y, Spikes)
            y, v = run.stage.run(y, arrived, late, state)
            events, rise = arrived, np.empty(0, v.numpy().dtype)
            if run.stage.spiking:
                assert isinstance(y, Spikes)
                run.words.append(y.words)
                events = y.events()
                rise = _rises(run, t0, events, v)
            run.tiles.append(Tile(t0, t0 + len(part), arrived, events, rise))
            arrived = events
        traces.append(v)
        t0 += len(part)
    return runs, torch.cat(traces)


def _rises(run: Run, t0: int, events: Events, v: Tensor) -> A:
    shape, c, dtype = (run.batch, run.stage.n), run.stage.coefficients, v.numpy().dtype
    if not run.tiles:
        run.before = np.zeros(shape, dtype)
        run.best, run.peak = np.full(shape, -np.inf, dtype), np.zeros(shape, np.int32)
        run.fired = np.zeros(shape, np.uint8)
    rise = np.empty(len(events.index), dtype)
    over_rows(
        loops.rises, torch.get_num_threads(), run.batch, v.numel(), t0, events.start, events.index, v.numpy(),
        c["beta"], c["v_threshold"], c["v_reset"], run.stage.subtract, run.before, rise, run.best, run.peak, run.fired,
    )  # fmt: skip
    return rise


@dataclass
class _Adjoint:
    """A layer while time runs backwards."""

    run: Run
    width: int
    reach: int
    arrays: dict[str, A]

    @staticmethod
    def of(run: Run, tile: int, groups: int) -> _Adjoint:
        stage, batch = run.stage, run.batch
        dtype = stage.weight.detach().numpy().dtype
        width = -(-stage.n // loops.LANES) * loops.LANES
        reach = 2 + stage.longest
        inputs = stage.weight.shape[1]
        a = {n: np.zeros((batch, width), dtype) for n in ("mu", "more", "di", "room")}
        a["dx"] = np.zeros((batch, tile + reach, width), dtype)
        a["part"] = np.zeros((max(batch, groups), loops.LANES), dtype)
        a["weight"] = _turned(stage.weight, width)
        a["near"] = np.zeros((groups, inputs, width), dtype)
        a["d_bias"] = np.zeros((batch, stage.n) if stage.bias is not None else (0, 0), dtype)
        a["back"] = np.zeros((0, 0), dtype)
        if stage.loop is not None:
            a["back"] = _turned(stage.loop, width)
            a["d_back"] = np.zeros((groups, stage.n, width), dtype)
        if stage.delay is not None:
            a["far"] = np.zeros_like(a["near"])
            lanes = np.arange(width, dtype=np.int64)
            a["place"] = (_turned(stage.delay.detach().floor().long(), width) * width + lanes).astype(np.uint32)
        a["count"] = np.zeros((0, 0), dtype) if run.count is None else run.count.astype(dtype, copy=False)
        if run.count is not None and run.best.size:  # one that fires has its penalty at its spikes
            run.peak[run.fired != 0] = -1  # no step
        return _Adjoint(run, width, reach, a)


def _turned(weight: Tensor, width: int) -> A:
    """W^T, [in, width], filled up with zeros."""
    w = weight.detach().numpy()
    out = np.zeros((w.shape[1], width), w.dtype)
    out[:, : len(w)] = w.T
    return out


def _backward(runs: list[Run], rule: EventProp) -> None:
    batch, threads = runs[0].batch, torch.get_num_threads()
    groups = min(GROUPS, batch)
    bounds = np.array([batch * k // groups for k in range(groups + 1)], np.int64)
    longest = max((t.t1 - t.t0 for t in runs[0].tiles), default=1)
    layers = [_Adjoint.of(run, longest, groups) for run in runs]
    none = np.empty(0, layers[0].arrays["mu"].dtype)
    for number in range(len(runs[0].tiles) - 1, -1, -1):
        shift = none
        for layer in reversed(layers):
            run, a = layer.run, layer.arrays
            stage, c, tile = run.stage, run.stage.coefficients, run.tiles[number]
            t0, t1, steps = tile.t0, tile.t1, tile.t1 - tile.t0
            _slide(a["dx"], steps, layer.reach)
            work = batch * steps * layer.width
            least = none.dtype.type(rule.slope)
            own = tile.events if stage.spiking else _nobody(tile.arrived)
            peak = run.peak if run.count is not None else _NO_PEAK
            over_rows(
                loops.neurons, threads, batch, work, t0, t1, batch, own.start, own.index, tile.rise, shift,
                a["back"], run.g.astype(none.dtype, copy=False), a["count"], peak, least,
                *(c[n] for n in NAMES), a["mu"], a["more"], a["di"], a["d_bias"], a["dx"], a["room"], a["part"],
            )  # fmt: skip
            head = (bounds, t0, t1, batch)
            if stage.loop is not None:
                over_rows(
                    loops.synapses, threads, groups, work, *head, own.start, own.index, 1, a["dx"], a["back"],
                    a["d_back"], none, a["room"], a["part"],
                )  # fmt: skip
            came = tile.arrived
            shift = np.zeros(len(came.index) if layer is not layers[0] else 0, none.dtype)
            if stage.delay is None:
                over_rows(
                    loops.synapses, threads, groups, work, *head, came.start, came.index, 0, a["dx"], a["weight"],
                    a["near"], shift, a["room"], a["part"],
                )  # fmt: skip
            else:
                over_rows(
                    loops.delayed, threads, groups, work, *head, came.start, came.index, a["dx"], a["weight"],
                    a["place"], a["near"], a["far"], shift, a["part"],
                )  # fmt: skip
    for layer in layers:
        _hand_over(layer)


_NO_PEAK = np.empty((0, 0), np.int32)


def _nobody(like: Events) -> Events:
    return Events(np.zeros_like(like.start), like.index[:0])


def _slide(dx: A, steps: int, reach: int) -> None:
    """What was the beginning of the tile behind this one lies behind this one."""
    dx[:, steps : steps + reach] = dx[:, :reach].copy()


def _hand_over(layer: _Adjoint) -> None:
    """Sums over groups, into the graph that made weights and delays of the parameters."""
    stage, a = layer.run.stage, layer.arrays
    n = stage.n

    def total(name: str) -> Tensor:
        return torch.from_numpy(a[name].sum(0)[:, :n]).t()

    pairs: list[tuple[Tensor, Tensor]] = []
    near = total("near")
    if stage.delay is None:
        pairs.append((stage.weight, near))
    else:
        far, f = total("far"), (stage.delay - stage.delay.floor()).detach()
        pairs.append((stage.weight, near + f.to(near.dtype) * (far - near)))
        if stage.delay.requires_grad:
            pairs.append((stage.delay, stage.weight.detach() * (far - near)))
    if stage.bias is not None:
        pairs.append((stage.bias, torch.from_numpy(a["d_bias"].sum(0))))
    if stage.loop is not None:
        pairs.append((stage.loop, total("d_back")))
    pairs = [(p, g.contiguous()) for p, g in pairs if p.requires_grad]
    if pairs:
        torch.autograd.backward([p for p, _ in pairs], [g for _, g in pairs])
