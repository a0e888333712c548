"""`Trace`: what a simulated chip did, and the only input of energy and latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Counters:
    """Events per sample, step and core: int64[batch, steps, cores].

    synops: synapses that a spike reached. updates: neurons updated. spikes: spikes sent.
    packets: messages of spiking neurons, one per target core, the own core included; input events send none
    (see injected); on a multicast fabric one per spike. hops: links they cross, 0 within a core.
    memory: bytes of synapse memory read. injected: int64[batch, steps], input events that enter the chip from outside.
    """

    synops: NDArray[np.int64]
    updates: NDArray[np.int64]
    spikes: NDArray[np.int64]
    packets: NDArray[np.int64]
    hops: NDArray[np.int64]
    memory: NDArray[np.int64]
    injected: NDArray[np.int64]

    NAMES = ("synops", "updates", "spikes", "packets", "hops", "memory")

    def totals(self) -> dict[str, float]:
        """Mean per sample of each counter."""
        table = {n: float(getattr(self, n).sum(axis=(1, 2)).mean()) for n in (*self.NAMES,)}
        table["injected"] = float(self.injected.sum(axis=1).mean())
        return table


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of a sample on a chip whose time goes by layers, not by steps.

    kind: kernel as the chip's file names it, "conv3x3". events: int64[batch] (or one number), non-zero input values of
    the layer in all steps. filters: output channels (neurons of a dense layer). units: processors that share the layer.
    passes: how often the layer runs in a sample, once for every frame.
    """

    kind: str
    events: NDArray[np.int64] | float
    filters: int
    units: int = 1
    passes: int = 1


@dataclass(frozen=True, eq=False)
class Trace:
    """Result of simulating a batch.

    spikes: population -> uint8[steps, batch, n], the input population included; int32 where messages carry values.
    probes: (population, variable) -> int32[steps, batch, n], after reset, where asked for.
    decision: int64[batch] class per sample. scores: int64[batch, classes], what decided.
    stages: layer -> `Stage`, on chips whose time goes by layers; empty elsewhere.
    steps covers the sample plus the pipeline depth of the program.
    """

    chip: str
    dt: float
    spikes: Mapping[str, NDArray[np.uint8] | NDArray[np.int32]]
    probes: Mapping[tuple[str, str], NDArray[np.int32]]
    counters: Counters
    scores: NDArray[np.int64]
    decision: NDArray[np.int64] = field(init=False)
    stages: Mapping[str, Stage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision", self.scores.argmax(axis=1).astype(np.int64))

    @property
    def steps(self) -> int:
        return int(self.counters.injected.shape[1])

    def plot(self, sample: int = 0) -> NDArray[Any]:
        """Rasters of one sample of the batch: matplotlib axes, one for each population."""
        from neuro.object_plots import trace

        return trace(self, sample)
