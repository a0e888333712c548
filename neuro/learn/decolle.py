"""DECOLLE: every layer learns from a readout of its own, fixed and random; no error passes from layer to layer.

Kaiser, Mostafa & Neftci 2020 (Front. Neurosci. 14:424). With P the trace of a layer's inputs through synapse and
membrane (double-exponential for `CubaLIF`, as theirs), h the surrogate's derivative and G random and fixed::

    y[t] = G s[t]       dL/dW = sum over t of (G^T dL/dy[t]) h(u[t] - v_threshold) P[t]^T

L is the loss that trains the network, put on y; the layers' losses add up. The last weights, in front of the output,
have no neurons that spike behind them and learn from the output itself.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuro.learn import online
from neuro.learn.ottt import traced
from neuro.learn.rule import Learnt, LossOf, Watch, joined
from neuro.learn.watch import synapses
from neuro.nn.network import OUTPUT, SpikingNetwork, read


@dataclass(frozen=True)
class DECOLLE:
    """stretch: steps that are run and judged together. scale: G is N(0, scale^2 / n). seed: of G."""

    integers: ClassVar[bool] = False  # whether it goes on where weights and state are a chip's integers

    stretch: int = 10
    scale: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        bad = [] if self.stretch >= 1 else [f"stretch is {self.stretch}, it must be at least 1"]
        return bad + ([] if self.scale > 0 else [f"scale is {self.scale}, it must be positive"])

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. watch: the traces. Loss and scores are those of the network's output.

        Raises:
            NetworkError: as `neuro.learn.ottt`.
        """
        heads = online.heads("decolle", model)
        online.refuse("decolle", _problems(model, heads))
        made = online.shadow(model, traced(heads, watch, alone=True))
        ends = {name for name, target in model.edges if target == OUTPUT}
        loss, scores, fired = 0.0, None, dict[str, float]()
        for part in online.stretches(made, x, self.stretch):
            error, penalty = loss_of(part.trace, part.spikes)
            total = error + penalty
            for name, s in part.spikes.items():
                if name not in ends:
                    y = s.flatten(2) @ self.readout(name, s[0, 0].numel(), part.trace).t()
                    total = total + loss_of(y.view(*y.shape[:2], *part.trace.shape[2:]), {})[0]
            (total * part.share).backward()  # type: ignore[no-untyped-call]
            loss += float(error.detach()) * part.share
            scores = joined(scores, read(part.trace.detach(), model.readout).flatten(1), model.readout)
            for name, s in part.spikes.items():
                fired[name] = fired.get(name, 0.0) + float(s.detach().sum(dtype=torch.float64))
        assert scores is not None
        return Learnt(loss, scores, fired)

    def readout(self, name: str, n: int, trace: Tensor) -> Tensor:
        """G of a layer, [outputs, n]: follows from seed, name and sizes."""
        scale: float = self.scale / n**0.5
        return fixed(self.seed, name, trace[0, 0].numel(), n, trace.dtype) * scale


def _problems(model: SpikingNetwork, heads: dict[str, str]) -> dict[str, str]:
    """Layers that would learn nothing."""
    bad = {name: "weights without neurons behind them" for name in synapses(model) if name not in heads.values()}
    for name in heads:
        if not getattr(model.layer(name), "spiking", False) and (name, OUTPUT) not in model.edges:
            bad[name] = "does not spike, so there is no local readout, and no loss from above"
    return bad


def fixed(seed: int, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers [rows, columns] that follow from seed, name and sizes."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name} {rows} {columns}".encode()))
    return torch.randn((rows, columns), generator=generator, dtype=torch.float64).to(dtype)
