"""Training: a configuration in TOML, one loop with exact resume, losses, quantisation-aware training.

`neuro.train.config.load_config` -> `neuro.train.loop.fit` -> `neuro.results.Run` ->
`neuro.train.evaluate.evaluate`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

_HOME = {  # read in when asked for: who only evaluates needs none of it
    "Config": "neuro.train.config",
    "fit": "neuro.train.loop",
    "load_config": "neuro.train.config",
    "presets": "neuro.train.config",
}

__all__ = ["Config", "fit", "load_config", "presets"]

if TYPE_CHECKING:
    from neuro.train.config import Config, load_config, presets
    from neuro.train.loop import fit


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        setattr(sys.modules[__name__], name, value)
        return value
    raise AttributeError(f"module 'neuro.train' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
