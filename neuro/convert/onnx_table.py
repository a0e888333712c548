"""The table of ONNX operations: name -> what they are in terms of ours. See https://onnx.ai/onnx/operators.

A row is called with the node's inputs in order (traced, known, or None where left out) and its attributes by name; an
attribute that a row does not take must be one of ``HARMLESS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from neuro.convert import arithmetic
from neuro.convert.arithmetic import Given
from neuro.convert.trace import Refused, Value

Row = Callable[..., Any]
R = TypeVar("R", bound=Row)
ONNX: dict[str, Row] = {}
HARMLESS = ("seed", "ratio", "momentum", "consumed_inputs", "spatial", "storage_order", "saturate", "stash_type")


def row(*names: str) -> Callable[[R], R]:
    def keep(function: R) -> R:
        ONNX.update(dict.fromkeys(names, function))
        return function

    return keep


def supported() -> tuple[str, ...]:
    """Names of ONNX operations that `neuro.convert.from_onnx` takes."""
    return tuple(sorted(ONNX))


def numbers(given: Given | Sequence[int] | None) -> list[int] | None:
    """Whole numbers that are an attribute in some versions and an input in others."""
    if isinstance(given, Value):
        raise Refused("a shape or an axis that depends on the input")
    if given is None:
        return None
    return [int(n) for n in (given.reshape(-1).tolist() if isinstance(given, Tensor) else list(given))]  # type: ignore[arg-type]


def number(given: Given | None) -> float | None:
    if isinstance(given, Value):
        raise Refused("a parameter that depends on the input")
    return None if given is None else float(given)


def known(given: Given | None) -> Tensor | None:
    if isinstance(given, Value):
        raise Refused("weights that depend on the input")
    return None if given is None else arithmetic.tensor_of(given)


def weight_of(given: Given | None) -> Tensor:
    """Weights in the dtype of the file."""
    if not isinstance(given, Tensor):
        raise Refused("weights that depend on the input")
    return given
