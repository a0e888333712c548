"""axonport: one spiking network, every neuromorphic chip, proven.

The short public list. Everything here loads on first use, so ``import neuro`` stays fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Threads of torch's OpenMP that have nothing to do else spin for milliseconds on cores that our own threads want: an
# epoch of the N-MNIST preset took 1.17 s on 2 cores and takes 0.86 s so (digits 0.63 and 0.44 s). Read when torch is
# loaded, so it takes effect where neuro is imported first (`neuro.nn.pool` sees to the others); what the user has set
# stays. Some 30 us of spinning are left: an optimiser's many short loops follow each other faster than a thread wakes
# up (4 % of an epoch).
TORCH_CAME_FIRST = "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOME = {
    "EventSet": "neuro.events",
    "Events": "neuro.events",
    "Network": "neuro.ir",
    "NeuroError": "neuro.errors",
    "chain": "neuro.ir",
    "convert_model": "neuro.conversion",
    "deploy": "neuro.deployment",
    "evaluate": "neuro.train.evaluate",
    "fit": "neuro.train.loop",
    "from_lavadl": "neuro.doors.lavadl",
    "from_nir": "neuro.doors.nir_door",
    "from_norse": "neuro.doors.norse",
    "from_sinabs": "neuro.doors.sinabs",
    "from_snntorch": "neuro.doors.snntorch",
    "from_spikingjelly": "neuro.doors.spikingjelly",
    "load": "neuro.nir",
    "load_dataset": "neuro.datasets.source:load",
    "save": "neuro.nir",
    "simulate": "neuro.simulate",
}

__all__ = [
    "EventSet",
    "Events",
    "Network",
    "NeuroError",
    "__version__",
    "chain",
    "convert_model",
    "deploy",
    "evaluate",
    "fit",
    "from_lavadl",
    "from_nir",
    "from_norse",
    "from_sinabs",
    "from_snntorch",
    "from_spikingjelly",
    "load",
    "load_dataset",
    "save",
    "simulate",
]

if TYPE_CHECKING:
    from neuro.conversion import convert_model
    from neuro.datasets.source import load as load_dataset
    from neuro.deployment import deploy
    from neuro.doors.lavadl import from_lavadl
    from neuro.doors.nir_door import from_nir
    from neuro.doors.norse import from_norse
    from neuro.doors.sinabs import from_sinabs
    from neuro.doors.snntorch import from_snntorch
    from neuro.doors.spikingjelly import from_spikingjelly
    from neuro.errors import NeuroError
    from neuro.events import Events, EventSet
    from neuro.ir import Network, chain
    from neuro.nir import load, save
    from neuro.simulate import simulate
    from neuro.train.evaluate import evaluate
    from neuro.train.loop import fit

    __version__: str

# A checkout without symbolic links (Windows, core.symlinks=false) has a small text file in their place.
for _link in ("hardware", "datasets"):
    if (Path(__file__).parent / _link).is_file():
        raise ImportError(
            f"neuro/{_link} is a file, but must be a link to ../{_link}. "
            "Run: git config core.symlinks true && git checkout -- neuro"
        )


class _Package(ModuleType):
    """Keeps `neuro.simulate` the function: Python would bind the submodule of that name over it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("axonport")
    if name in _HOME:
        module, _, attribute = _HOME[name].partition(":")
        value = getattr(import_module(module), attribute or name)
        setattr(sys.modules[__name__], name, value)
        return value
    raise AttributeError(f"module 'neuro' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
