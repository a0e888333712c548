"""What a learning rule is: a choice of how the gradients of a batch are found.

`RULES` names them. A configuration says ``[rule] kind = "sltt"``, code says ``rule("sltt", steps=4)``; both get the
same object. The loop, the loss, the optimiser and the network stay what they are, so rules can be exchanged, and
what wraps a rule (`neuro.learn.hlop`) wraps any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from neuro.errors import BadConfig
from neuro.extend import did_you_mean
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.tables import read_table

LossOf = Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]]
Watch = Callable[[str, Tensor], None]

# kind -> where its class is; rules load when they are chosen
RULES: dict[str, str] = {
    "bptt": "neuro.learn.bptt:BPTT",
    "sltt": "neuro.learn.sltt:SLTT",
    "ottt": "neuro.learn.ottt:OTTT",
    "eprop": "neuro.learn.eprop:EProp",
    "decolle": "neuro.learn.decolle:DECOLLE",
    "dsr": "neuro.learn.dsr:DSR",
    "eventprop": "neuro.learn.eventprop:EventProp",
}


@dataclass(frozen=True)
class Learnt:
    """loss: without the penalty. scores: of the readout over the whole sample, [batch, classes]. fired: spikes of each
    recorded layer."""

    loss: float
    scores: Tensor
    fired: dict[str, float]


class Rule(Protocol):
    """A frozen dataclass of its options, with ``problems()`` and `backward`.

    integers: whether it goes on where weights and state are a chip's integers (``[quantise]``).
    """

    integers: ClassVar[bool]

    def problems(self) -> list[str]:
        """What is wrong with the options, all of it."""
        ...

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """Adds the gradients of a batch to the parameters' ``grad``; the optimiser is the caller's.

        Args:
            model: in training mode; the same parameters afterwards.
            x: [time, batch, *input_shape], dense or `Spikes`.
            loss_of: (trace [steps, batch, ...], spikes by layer) -> (loss, penalty), of the whole sample, or of a
                stretch of it as if it were one; a rule that goes in stretches counts each by its share of the steps.
            rng: for rules that draw; one that draws without it raises.
            watch: called with the name of each layer with weights and what its weight gradient is a product with,
                [rows, *inputs of a step], no gradient: the input at each step and sample for "bptt", its trace for
                "ottt". Rows of one call belong together, a layer may be seen in several calls.

        Raises:
            NetworkError: a network that the rule is not defined on, naming the layers.
        """
        ...


def rule(kind: str, **options: Any) -> Rule:
    """A rule by name.

    Raises:
        BadConfig: unknown name or options, values that mean nothing, all of them.
    """
    bad: list[str] = []
    made = read_rule({"kind": kind, **options}, bad)
    if made is None or bad:
        raise BadConfig("the learning rule cannot be used", bad)
    return made


def read_rule(table: Mapping[str, Any], bad: list[str]) -> Rule | None:
    """The rule of a ``[rule]`` table; problems go to ``bad``, None where there are any."""
    kind = table.get("kind", "bptt")
    if not isinstance(kind, str) or kind not in RULES:
        bad.append(f"rule.kind {kind!r} is unknown. {did_you_mean(str(kind), RULES)}")
        return None
    module, name = RULES[kind].split(":")
    cls = getattr(import_module(module), name)
    made: Rule | None = read_table(cls, {k: v for k, v in table.items() if k != "kind"}, "rule", bad)
    return made


def pieces(x: Tensor, steps: int) -> Iterator[Tensor]:
    """x[0:steps], x[steps:2 steps] and so on; `Spikes` stay bits."""
    batch = x.shape[1]
    for begin in range(0, len(x), steps):
        end = min(begin + steps, len(x))
        if isinstance(x, Spikes):
            yield Spikes(x.words[begin * batch : end * batch], (end - begin, *x.shape[1:]), x.dtype)
        else:
            yield x[begin:end]


def joined(before: Tensor | None, now: Tensor, readout: str) -> Tensor:
    """Scores of two stretches of time as those of both."""
    if before is None or readout == "last":
        return now
    return torch.maximum(before, now) if readout == "max" else before + now
