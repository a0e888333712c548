"""`follow`: what a rule makes of weights between spike trains that are given. The rule alone, without neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import SimulationError
from neuro.plasticity.kernels import follow_steps
from neuro.plasticity.rules import Rule, parts_of
from neuro.plasticity.state import law_of, memory_of, synapses_of

Reals = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Followed:
    """weights: float64, as given, after the last step. kept: float64[k, ...], weights after every so many steps.
    eligibility: as weights, after the last step (0 without reward)."""

    weights: Reals
    kept: Reals
    eligibility: Reals


def follow(
    rule: Rule,
    pre: ArrayLike,
    post: ArrayLike,
    weights: ArrayLike,
    *,
    dt: float = 1e-3,
    delay: ArrayLike = 0,
    reward: ArrayLike = 0.0,
    synapses: tuple[ArrayLike, ArrayLike] | None = None,
    every: int = 0,
) -> Followed:
    """Weights after spikes, by the rule's definition (`neuro.plasticity.rules`), in float64.

    Args:
        pre, post: uint8[steps, sources] and [steps, targets] of 0 and 1.
        weights: [sources, targets], each pair joined; with ``synapses`` [n].
        dt: seconds of a step. delay: steps, for all or as weights. reward: for each step, or one number.
        synapses: sources and targets, int64[n] each.
        every: keep the weights after every so many steps; 0 keeps none.

    Raises:
        SimulationError: arrays that do not go together, everything at once.
        NetworkError: weights outside of the rule's bounds, neurons that are not there.
    """
    x, y = _spikes("pre", pre), _spikes("post", post)
    w = np.asarray(weights, np.float64)
    if synapses is None:
        source, target = (a.reshape(-1).astype(np.int64) for a in np.indices((x.shape[1], y.shape[1])))
        wanted: tuple[int, ...] = (x.shape[1], y.shape[1])
    else:
        source, target = (np.asarray(a, np.int64).reshape(-1) for a in synapses)
        wanted = (source.size,)
    bad = []
    if len(x) != len(y):
        bad.append(f"pre and post must have the same number of steps, got {len(x)} and {len(y)}")
    if source.size != target.size:
        bad.append(f"sources and targets of the synapses must be as many, got {source.size} and {target.size}")
    if w.shape != wanted:
        bad.append(f"weights must be {list(wanted)}, got {list(w.shape)}")
    late = np.asarray(delay)
    if late.dtype.kind not in "iu" or late.shape not in ((), w.shape):
        bad.append(f"delay must be whole steps, one or {list(w.shape)}, got {late.dtype} {list(late.shape)}")
    given = np.asarray(reward, np.float64)
    if given.shape not in ((), (len(x),)) or not np.isfinite(given).all():
        bad.append(f"reward must be finite, one number or [{len(x)}], got {list(given.shape)}")
    if given.any() and parts_of(rule)[1] is None:
        bad.append(f"a {type(rule).__name__} takes no reward; wrap it in RewardSTDP")
    if every < 0 or every != int(every):
        bad.append(f"every must be a whole number of steps, 0 or more, got {every!r}")
    if bad:
        raise SimulationError("a rule cannot follow this", bad)
    delays = np.broadcast_to(late.astype(np.int64), w.shape).reshape(-1)
    syn, order = synapses_of(rule, x.shape[1], y.shape[1], source, target, delays)
    memory = memory_of(rule, syn, w.reshape(-1)[order])
    kept = np.zeros((len(x) // every if every else 0, w.size))
    pays = np.broadcast_to(given, (len(x),)).copy()
    law: Any = law_of(rule, dt)
    follow_steps(law, syn, memory, 0, pays, *_lists(x), *_lists(y), every, kept)
    back = np.argsort(order)
    c = memory.eligible * np.exp(law.keep * (max(len(x) - 1, 0) - memory.since))
    return Followed(memory.weight[back].reshape(w.shape), kept[:, back].reshape(-1, *w.shape), c[back].reshape(w.shape))


def _spikes(name: str, given: ArrayLike) -> NDArray[Any]:
    dense = np.asarray(given)
    if dense.ndim != 2 or dense.dtype.kind not in "bui" or (dense.size and (dense.min() < 0 or dense.max() > 1)):
        raise SimulationError(f"{name} must be [steps, neurons] of 0 and 1, got {dense.dtype} {list(dense.shape)}")
    return dense


def _lists(dense: NDArray[Any]) -> tuple[Ints, Ints]:
    step, neuron = np.nonzero(dense)
    return np.searchsorted(step, np.arange(len(dense) + 1)).astype(np.int64), neuron.astype(np.int64)


__all__ = ["Followed", "follow"]
