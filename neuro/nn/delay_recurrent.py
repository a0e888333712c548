"""`DelayedRecurrent`: neurons that listen to themselves, each synapse with a delay of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from neuro.errors import NetworkError
from neuro.nn import delay_loop_kernels as loops
from neuro.nn import plain
from neuro.nn.delay import DelayedLinear
from neuro.nn.delay_events import late as arriving
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_shapes import Kernel, Shares
from neuro.nn.delay_wide import wide
from neuro.nn.joined import Carry
from neuro.nn.kernels import over_rows
from neuro.nn.layers import Population, Temporal
from neuro.nn.spikes import Spikes

A = NDArray[Any]
MOST_ROWS = 1 << 31  # a place is 32 bits


class DelayedRecurrent(Temporal):
    """A neuron layer whose spikes return to it: current x[t] + sum_j W[i, j] s_j(t - 1 - d[i, j]), as DelRec
    (arXiv:2509.24852). The step that every loop takes comes on top of the delay; d = 0 is `Recurrent`.

    Args:
        neuron: a spiking `Neuron` or `adaptive.AdLIF`.
        recurrent: `DelayLinear` n -> n whose delays are learnt, of any kind and kernel, or `DelayedLinear` with
            fixed ones; without bias.

    Forwards each spike is sent into the steps to come, backwards its synapses fetch the gradient from there. Neurons
    are those of their own step function, so this is slower than `Recurrent`, which has loops of its own.

    Raises:
        NetworkError: the neuron does not spike; the recurrence is not n -> n, or has a bias.
    """

    spiking = True

    def __init__(self, neuron: Population, recurrent: DelayLinear | DelayedLinear) -> None:
        super().__init__()
        out, n = recurrent.weight.shape
        bad = [] if neuron.spiking else [f"{type(neuron).__name__} does not spike"]
        bad += [] if out == n else [f"the recurrence goes from {n} to {out} neurons"]
        bad += [] if recurrent.bias is None else ["the recurrence has a bias; put it into the layer in front"]
        if bad:
            raise NetworkError("DelayedRecurrent cannot be built", bad)
        self.neuron = neuron
        self.recurrent = recurrent

    def forward(self, current: Tensor) -> Tensor:
        """`Spikes` [time, batch, n]."""
        return self._run(current, None)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from the state in ``carry``, one as `step` returns it, which it replaces."""
        return self._run(x, carry)[0]

    def with_membrane(self, current: Tensor, *, carry: Carry | None = None) -> tuple[Tensor, Tensor]:
        """(spikes, v after the reset), both [time, batch, n]."""
        return self._run(current, carry)

    def membrane(self, state: Any) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        return self.neuron.membrane(state[0])

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """state: (the neurons', spikes of the step before, those before them, latest first)."""
        inner, sent, before = (None, torch.zeros_like(x), None) if state is None else state
        back, past = self.recurrent.step(sent, before)
        spikes, inner = self.neuron.step(x + back, inner)
        return spikes, (inner, spikes, past)

    def _run(self, x: Tensor, carry: Carry | None) -> tuple[Tensor, Tensor]:
        if self.neuron.grid is not None:
            raise NetworkError("recurrent delays cannot be trained on a chip's integers; leave out quantise")
        state = None if carry is None else carry.value
        if plain.wanted(x) or x.numel() == 0:
            return self._stepped(x, carry, state)
        if isinstance(x, Spikes):
            x = x * 1
        weight, delay, kernel, longest = self._synapses()
        inner, past = (None, []) if state is None else (state[0], [state[1], *(state[2] or [])])
        reach = kernel.reach(longest)
        call = _Call(self.neuron, kernel, longest, inner, past[: reach + 1])
        s, v = _Loop.apply(x, weight, delay, call, *self.neuron.parameters())  # type: ignore[no-untyped-call]
        if carry is not None:
            dense = s.dense()
            sent = [dense[t].detach() for t in range(len(x) - 1, max(-1, len(x) - 2 - reach), -1)]
            sent += past[: max(0, reach + 1 - len(sent))]
            carry.value = (call.state, sent[0], sent[1:])
        return s, v

    def _stepped(self, x: Tensor, carry: Carry | None, state: Any) -> tuple[Tensor, Tensor]:
        outputs, membranes = [], []
        for current in x * 1 if isinstance(x, Spikes) else x:
            s, state = self.step(current, state)
            outputs.append(s)
            membranes.append(self.membrane(state))
        if carry is not None:
            carry.value = tree_map_only(Tensor, Tensor.detach, state)
        return (torch.stack(outputs), torch.stack(membranes)) if outputs else (x, x)

    def _synapses(self) -> tuple[Tensor, Tensor, Kernel, int]:
        """(weight [n, n], delay of the same shape, kernel, longest delay)."""
        layer = self.recurrent
        if isinstance(layer, DelayLinear):
            return layer.weight, layer.steps().expand_as(layer.weight), layer.shape(), layer.max_delay
        steps = layer.get_buffer("delay_steps")
        return layer.weight, steps.to(layer.weight.dtype), Kernel(), int(steps.max())


@dataclass
class _Call:
    """What of a run is not a tensor. state: of the neurons, before and, once it has run, after it. past: spikes of
    the steps before, latest first."""

    neuron: Population
    kernel: Kernel
    longest: int
    state: Any
    past: list[Tensor]


class _Tables:
    """The synapses as `delay_loop_kernels` wants them, target by source; `turned`, source by target."""

    def __init__(self, weight: Tensor, delay: Tensor, call: _Call) -> None:
        shares = Shares(delay, call.kernel, call.longest)
        base = (shares.whole + call.kernel.offsets[0]).clamp(min=0.0)
        taps = []
        for m in range(len(call.kernel.offsets)):
            share, _ = shares.at(base + m)
            taps.append(share * weight)
        while len(taps) > 1 and not taps[-1].any():  # whole delays have one step only
            taps.pop()
        self.n = len(weight)
        self.table, self.base = torch.stack(taps), base.long()
        self.rows = int(self.base.max()) + len(taps)

    def as_is(self) -> tuple[A, A]:
        """(table, place) for `fetch`."""
        place = self.base * self.n + torch.arange(self.n)[:, None]
        return self.table.contiguous().numpy(), place.numpy().astype(np.uint32)

    def turned(self) -> tuple[A, A]:
        """(table, place) for `send`."""
        place = self.base.t() * self.n + torch.arange(self.n)
        return self.table.transpose(1, 2).contiguous().numpy(), place.contiguous().numpy().astype(np.uint32)


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, delay: Tensor, call: _Call, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, batch, n = x.shape
        tables = _Tables(weight.detach(), delay.detach().to(weight.dtype), call)
        table, place = tables.turned()
        lead, threads = len(call.past), torch.get_num_threads()
        late = torch.zeros(batch, lead + steps + tables.rows, n, dtype=weight.dtype)
        if late[0].numel() >= MOST_ROWS:
            raise NetworkError(f"{steps} steps of {n} neurons are too many for recurrent delays in one piece")
        late[:, lead : lead + steps] = x.detach().transpose(0, 1)
        flat = late.view(batch, -1).numpy()

        def send(t: int, spikes: Tensor) -> None:
            """The spikes of step t."""
            rows = spikes.detach().contiguous().numpy()
            over_rows(loops.send, threads, batch, batch * n * n // 8, lead + t + 1, rows, table, place, flat)

        for q, spikes in enumerate(call.past):
            send(-1 - q, spikes.to(weight.dtype))
        s, v = torch.empty(steps, batch, n, dtype=weight.dtype), torch.empty(steps, batch, n, dtype=weight.dtype)
        state, states = call.state, []
        for t in range(steps):
            states.append(state)
            s[t], state = call.neuron.step(late[:, lead + t], state)
            v[t] = call.neuron.membrane(state)
            send(t, s[t])
        ctx.call, ctx.states, ctx.parameters = call, states, parameters
        ctx.save_for_backward(late[:, lead : lead + steps], s, weight, delay)
        ctx.tables = tables
        ctx.set_materialize_grads(False)
        call.state = state
        return Spikes.pack(s, weight.dtype), v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        current, s, weight, delay = ctx.saved_tensors
        call: _Call = ctx.call
        g_s, g_v = (None if g is None else (g * 1 if isinstance(g, Spikes) else g) for g in grads)
        steps, batch, n = s.shape
        table, place = ctx.tables.as_is()
        threads = torch.get_num_threads()
        late = torch.zeros(batch, steps + ctx.tables.rows, n, dtype=weight.dtype)  # gradients of the currents
        flat = late.view(batch, -1).numpy()
        trained = [p for p in ctx.parameters if p.requires_grad]
        sums = [torch.zeros_like(p) for p in trained]
        back: list[Tensor] | None = None  # gradients of the state behind this step
        fetched = torch.empty(batch, n, dtype=weight.dtype)
        for t in range(steps - 1, -1, -1):
            over_rows(loops.fetch, threads, batch, batch * n * n, t + 1, flat, table, place, fetched.numpy())
            d_s = fetched if g_s is None else fetched + g_s[t]
            found = _through(call, current[:, t], ctx.states[t], trained, d_s, None if g_v is None else g_v[t], back)
            late[:, t], back, more = found
            sums = [total + part for total, part in zip(sums, more, strict=True)]
        d_w = d_d = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            d_w, d_d = _to_synapses(ctx, late[:, :steps], s, weight, delay)
        by_parameter = {id(p): total for p, total in zip(trained, sums, strict=True)}
        d_x = late[:, :steps].transpose(0, 1) if ctx.needs_input_grad[0] else None
        return d_x, d_w, d_d, None, *(by_parameter.get(id(p)) for p in ctx.parameters)


def _through(
    call: _Call,
    current: Tensor,
    state: Any,
    trained: list[Tensor],
    d_s: Tensor,
    d_v: Tensor | None,
    back: list[Tensor] | None,
) -> tuple[Tensor, list[Tensor] | None, list[Tensor]]:
    """Gradients of one step of the neurons: to the current, to the state before, to the parameters."""
    flat, spec = tree_flatten(state)
    with torch.enable_grad():
        into = current.detach().requires_grad_()
        leaves = [] if state is None else [a.detach().requires_grad_() for a in flat]
        s, then = call.neuron.step(into, None if state is None else tree_unflatten(leaves, spec))
        outputs: list[Tensor] = [s]
        weights: list[Tensor] = [d_s]
        if d_v is not None:
            outputs.append(call.neuron.membrane(then))
            weights.append(d_v)
        if back is not None:
            outputs += tree_flatten(then)[0]
            weights += back
    pairs = [(y, g) for y, g in zip(outputs, weights, strict=True) if y.requires_grad]
    wanted = [into, *leaves, *trained]
    found = torch.autograd.grad([y for y, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
    whole = [torch.zeros_like(a) if g is None else g for a, g in zip(wanted, found, strict=True)]
    after = whole[1 : 1 + len(leaves)]
    return whole[0], after if leaves else None, whole[1 + len(leaves) :]


def _to_synapses(
    ctx: Any, late: Tensor, s: Tensor, weight: Tensor, delay: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weights and delays: those of a layer without recurrence that sees the spikes one step later.

    late: [batch, steps, n], the gradient of the currents.
    """
    call: _Call = ctx.call
    before = [p.to(weight.dtype) for p in call.past]
    sent = torch.cat([before[0][None] if before else torch.zeros_like(s[:1]), s[:-1]])
    past = torch.stack(before[:0:-1]) if len(before) > 1 else None
    with torch.enable_grad():
        w, d = weight.detach().requires_grad_(), delay.detach().requires_grad_()
        if call.kernel.name == "linear":
            y = arriving(Spikes.pack(sent), w, d, call.longest, past)
        else:
            y = wide(Spikes.pack(sent), w, d, call.kernel, call.longest, past)
        found = torch.autograd.grad(y, [w, d], late.transpose(0, 1).contiguous())
    return found[0], found[1] if ctx.needs_input_grad[2] else None


__all__ = ["DelayedRecurrent"]
