"""The table of torch's operations (ATEN, as torch.export writes them): name -> what they are in terms of ours.

A row is called with the arguments by their names in torch's schema ("self" and "input" are x); traced ones are `Value`,
others are what they are. An argument that a row does not name must have its default, otherwise it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Row = Callable[..., Any]
R = TypeVar("R", bound=Row)
ATEN: dict[str, Row] = {}
REMEDIES = {
    "embedding": "give the network the embedded values instead of whole numbers",
    "native_dropout": "a dropout that is active in evaluation (training=True); use training=self.training",
    "dropout": "a dropout that is active in evaluation (training=True); use training=self.training",
    "lstm": "unroll it over time in the module",
    "bernoulli": "a random operation has no place in a graph",
    "instance_norm": "use batch norm or group norm",
    "index_put": "write the new value with torch.cat or torch.where",
    "_native_batch_norm_legit": "a batch norm that measures its batch in evaluation; track_running_stats=True",
    "native_batch_norm": "a batch norm that measures its batch in evaluation; track_running_stats=True",
    "argmax": "leave the decision to the caller: return the scores",
    "topk": "leave the decision to the caller, or see neuro.convert.families for mixtures of experts",
    "sort": "leave the decision to the caller: return the scores",
}


def row(*names: str) -> Callable[[R], R]:
    def keep(function: R) -> R:
        ATEN.update(dict.fromkeys(names, function))
        return function

    return keep
