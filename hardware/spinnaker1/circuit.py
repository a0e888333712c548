"""Small networks as a SpiNNaker user draws them: populations of IF_curr_exp, projections with weights and delays,
static or plastic (pair STDP), on cores of SpiNNaker 1 with the integers of sPyNNaker 7.4.1.

Names and units are PyNN's (ms, mV, nA, nF), the one place in axonport that is not in SI: these are the numbers the
machine itself holds, as s16.15. ::

    circuit = Circuit(
        {"in": Population(2), "out": Population(1, IFCurrExp(tau_m=3.0, cm=0.27))},
        (Projection("in", "out", all_to_all(2, 1, weight=6.0, delay=1)),),
    )
    spikes = Session(circuit).run({"in": uint8[steps, 2]})["out"]     # session.py
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import NetworkError
from neuro.extend import did_you_mean
from neuro.hardware.spinnaker1 import fixed
from neuro.hardware.spinnaker1.stdp import PairSTDP

Int64 = NDArray[np.int64]
RECEPTORS = ("excitatory", "inhibitory")


@dataclass(frozen=True)
class IFCurrExp:
    """PyNN's IF_curr_exp: leaky integrate-and-fire, exponential currents. cm nF, tau ms, v mV, i_offset nA.

    v_init None: v_rest. The spike is tested v >= v_thresh; refractory for ceil(tau_refrac / time step) steps."""

    cm: float = 1.0
    tau_m: float = 20.0
    tau_refrac: float = 0.1
    tau_syn_E: float = 5.0  # noqa: N815  # PyNN's name
    tau_syn_I: float = 5.0  # noqa: N815
    v_rest: float = -65.0
    v_reset: float = -65.0
    v_thresh: float = -50.0
    i_offset: float = 0.0
    v_init: float | None = None

    def problems(self) -> list[str]:
        bad = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if not abs(value) < 1 << 16:
                bad.append(f"{f.name} must fit s16.15, below 65536 in magnitude, got {value!r}")
            elif f.name in ("cm", "tau_m", "tau_syn_E", "tau_syn_I") and round(value * fixed.ONE) < 1:
                bad.append(f"{f.name} must be positive in steps of 1/32768, got {value!r}")
            elif f.name == "tau_refrac" and value < 0:
                bad.append(f"tau_refrac must not be negative, got {value!r}")
        return bad


@dataclass(frozen=True)
class Population:
    """``size`` neurons alike; without a cell, a source of the spikes that `Session.run` is given."""

    size: int
    cell: IFCurrExp | None = None


class Connections(NamedTuple):
    """Synapses [n]: pre and post neuron, weight in nA, delay in whole steps."""

    pre: Int64
    post: Int64
    weight: NDArray[np.float64]
    delay: Int64


def from_list(rows: Iterable[tuple[int, int, float, int]] | NDArray[np.float64]) -> Connections:
    """(pre, post, weight, delay) for each synapse; an array [n, 4] will do."""
    given = rows if isinstance(rows, np.ndarray) else [tuple(row) for row in rows]
    table = np.asarray(given, np.float64).reshape(-1, 4)
    return _connections(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def all_to_all(n_pre: int, n_post: int, weight: float, delay: int, allow_self: bool = True) -> Connections:
    """Every pair; without ``allow_self`` not neuron k with neuron k."""
    pre, post = (a.reshape(-1) for a in np.indices((n_pre, n_post)))
    keep = np.ones(pre.size, bool) if allow_self else pre != post
    pre, post = pre[keep], post[keep]
    return _connections(pre, post, np.full(pre.size, weight), np.full(pre.size, delay))


def one_to_one(n: int, weight: float, delay: int, first_pre: int = 0) -> Connections:
    """Neuron first_pre + k with neuron k."""
    k = np.arange(n)
    return _connections(k + first_pre, k, np.full(n, weight), np.full(n, delay))


def _connections(pre: ArrayLike, post: ArrayLike, weight: ArrayLike, delay: ArrayLike) -> Connections:
    delays = np.asarray(delay, np.float64)
    if (delays != np.rint(delays)).any():
        raise NetworkError(f"delays are whole steps, got {delays[delays != np.rint(delays)][0]:g}; round them first")
    return Connections(
        np.asarray(pre).astype(np.int64),
        np.asarray(post).astype(np.int64),
        np.asarray(weight, np.float64),
        delays.astype(np.int64),
    )


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another. With stdp they learn, from the weights given on."""

    source: str
    target: str
    connections: Connections
    receptor: str = "excitatory"
    stdp: PairSTDP | None = None


@dataclass(frozen=True, eq=False)
class Circuit:
    """Populations and projections. time_step in ms.

    Raises:
        NetworkError: everything that means nothing, at once.
    """

    populations: Mapping[str, Population]
    projections: tuple[Projection, ...]
    time_step: float = 1.0

    def __post_init__(self) -> None:
        bad = [] if 1 / fixed.ONE <= self.time_step < 1 << 16 else [f"time_step must be positive, got {self.time_step}"]
        for name, p in self.populations.items():
            if not isinstance(p.size, (int, np.integer)) or p.size < 1:
                bad.append(f"'{name}' needs at least one neuron, got {p.size!r}")
            bad += [f"'{name}': {line}" for line in (p.cell.problems() if p.cell else ())]
        for k, projection in enumerate(self.projections):
            bad += [f"projection {k} ('{projection.source}' -> '{projection.target}'): {line}"
                    for line in _problems(self.populations, projection)]  # fmt: skip
        for name in self.populations:
            learning = {p.stdp for p in self.projections if p.target == name and p.stdp is not None}
            if len(learning) > 1:
                bad.append(f"'{name}' has {len(learning)} learning rules; the neurons of a core keep traces for one")
        if bad:
            raise NetworkError("a circuit cannot be built", bad)
        object.__setattr__(self, "populations", types.MappingProxyType(dict(self.populations)))
        object.__setattr__(self, "projections", tuple(self.projections))

    def rule_of(self, name: str) -> PairSTDP | None:
        """The learning rule of the synapses onto a population."""
        return next((p.stdp for p in self.projections if p.target == name and p.stdp is not None), None)


def _problems(populations: Mapping[str, Population], p: Projection) -> list[str]:
    missing = [name for name in (p.source, p.target) if name not in populations]
    if missing:
        return [f"no population '{name}'. {did_you_mean(name, populations)}" for name in missing]
    bad = [] if p.receptor in RECEPTORS else [f"receptor must be one of {RECEPTORS}, got {p.receptor!r}"]
    if populations[p.target].cell is None:
        bad.append("ends in a source of spikes, which receives nothing")
    c = p.connections
    for what, index, name in (("pre", c.pre, p.source), ("post", c.post, p.target)):
        if index.size and not (index.min() >= 0 and index.max() < populations[name].size):
            bad.append(f"{what} must lie in 0..{populations[name].size - 1}, found {index.min()}..{index.max()}")
    if not np.isfinite(c.weight).all():
        bad.append("weights must be finite")
    elif p.receptor == "excitatory" and c.weight.size and c.weight.min() < 0:
        bad.append(f"an excitatory weight is {c.weight.min():g} nA; make the receptor inhibitory")
    if c.delay.size and c.delay.min() < 1:
        bad.append(f"a delay is {c.delay.min()} steps; a spike arrives one step later at the earliest")
    if p.stdp is not None and c.weight.size and np.abs(c.weight).max() > max(p.stdp.w_max, 0):
        bad.append(f"a plastic weight starts at {np.abs(c.weight).max():g} nA, above w_max {p.stdp.w_max:g}")
    return bad


__all__ = [
    "RECEPTORS",
    "Circuit",
    "Connections",
    "IFCurrExp",
    "PairSTDP",
    "Population",
    "Projection",
    "all_to_all",
    "from_list",
    "one_to_one",
]
