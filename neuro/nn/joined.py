"""A layer without memory and the neurons behind it, run as one: what lies between them is never stored.

`SpikingNetwork` looks for synapses (a Linear, a Conv2d, ...), perhaps a norm, and neurons that follow each other
and nobody else; a pair of types that is registered here runs as one call. Whatever is not registered, or is
declined, runs layer by layer with the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Chain:
    """synapses -> norm (may be None) -> neurons, each the only one that the next listens to."""

    synapses: nn.Module
    norm: nn.Module | None
    neurons: nn.Module


@dataclass
class Carry:
    """What a layer remembers between two pieces of one long sample: read at the start of a piece and replaced at its
    end, detached. None: rest. Neurons: `neuro.nn.neurons.State`."""

    value: Any = None


Join = Callable[[Chain, Tensor, Carry | None], Tensor | None]
JOINS: dict[tuple[type[nn.Module], type[nn.Module]], Join] = {}


def joins(synapses: type[nn.Module], neurons: type[nn.Module]) -> Callable[[Join], Join]:
    """Decorator: run(chain, x [time, batch, *], carry of the neurons) -> what chain.neurons(...) returns, or None to
    decline (a norm it does not know, an unusual setting). Subclasses of ``neurons`` are meant too, those of
    ``synapses`` are not:
    they may compute something else."""

    def register(run: Join) -> Join:
        JOINS[synapses, neurons] = run
        return run

    return register


Series = Callable[[tuple[Chain, ...], Tensor], tuple[Tensor, int] | None]
SERIES: dict[Join, Series] = {}


def in_series(join: Join) -> Callable[[Series], Series]:
    """Decorator: run(chains, x), for chains that all have this join, each the only one that the next listens to. From
    rest; returns (what the last one that it ran sends, how many ran), or None to decline."""

    def register(run: Series) -> Series:
        SERIES[join] = run
        return run

    return register


def find(chain: Chain) -> Join | None:
    """The join for the types of a chain."""
    kinds = type(chain.neurons).__mro__
    return next((JOINS[type(chain.synapses), k] for k in kinds if (type(chain.synapses), k) in JOINS), None)
