"""Chips: compile a network to one, simulate it bit for bit, estimate what it costs, export it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if __name__ != "neuro.hardware":
    raise ImportError(
        f"this package is neuro.hardware, but was imported as '{__name__}'. "
        "Write 'from neuro.hardware import ...'; the folder lies at the top of the checkout only for its layout."
    )

_HOME = {
    "compile": ("neuro.hardware.compile", "compile"),
    "estimate": ("neuro.hardware.estimate", "estimate"),
    "export": ("neuro.hardware.export", "export"),
    "load_chip": ("neuro.hardware.compile", "load_chip"),
    "predict": ("neuro.hardware.predict", "predict"),
    "simulate": ("neuro.hardware.simulate", "simulate"),
}

__all__ = ["compile", "estimate", "export", "load_chip", "predict", "simulate"]

if TYPE_CHECKING:
    from neuro.hardware.compile import compile, load_chip
    from neuro.hardware.estimate import estimate
    from neuro.hardware.export import export
    from neuro.hardware.predict import predict
    from neuro.hardware.simulate import simulate


class _Package(ModuleType):
    """Keeps `neuro.hardware.compile` the function: Python would bind the submodule of that name over it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME:
        module, attribute = _HOME[name]
        value = getattr(import_module(module), attribute)
        setattr(sys.modules[__name__], name, value)
        return value
    raise AttributeError(f"module 'neuro.hardware' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
