"""`network_of`: whatever a user has, as a `Network`: by its type, from one table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from neuro.doors.values import Unclear
from neuro.errors import ConversionError
from neuro.ir import Network
from neuro.nn.bridge import to_network
from neuro.nn.network import SpikingNetwork

DOORS = {
    "snntorch": "from_snntorch",
    "norse": "from_norse",
    "spikingjelly": "from_spikingjelly",
    "sinabs": "from_sinabs",
}
FILES = {".nir": ("nir_door", "from_nir"), ".net": ("lavadl", "from_lavadl")}


def network_of(model: Any, sample: Any, dt: float, **options: Any) -> Network:
    """A `Network`, a `SpikingNetwork`, a file (.nir, .net) or a module of a framework with a door, as a `Network`.

    Args:
        sample: [time, batch, ...], some input. dt: seconds per step, of what has none. options: of the door.

    Raises:
        ConversionError: nothing here reads such an object; what the door raises.
    """
    if isinstance(model, Network):
        return model
    if isinstance(model, SpikingNetwork):
        return to_network(model)
    if isinstance(model, (str, Path)) and Path(model).suffix in FILES:
        home, name = FILES[Path(model).suffix]
        opened: Network = getattr(importlib.import_module(f"neuro.doors.{home}"), name)(model, **options)
        return opened
    if not isinstance(model, nn.Module):
        kinds = f"a Network, a torch module of {', '.join(DOORS)}, or a file ({', '.join(FILES)})"
        raise ConversionError(f"needs {kinds}, got {type(model).__name__}")
    framework = door_of(model)
    door = getattr(importlib.import_module(f"neuro.doors.{framework}"), DOORS[framework])
    return _opened(door, model, np.asarray(sample), {"dt": dt, **options})


def door_of(module: nn.Module) -> str:
    """Name of the framework whose neurons a module has.

    Raises:
        ConversionError: none of those with a door, or several.
    """
    roots = {type(part).__module__.partition(".")[0] for part in module.modules()} & set(DOORS)
    neurons = {
        root
        for root in roots
        if any(importlib.import_module(f"neuro.doors.{root}").DOOR.neuron(part) for part in module.modules())
    }
    if len(neurons or roots) != 1:
        said = f"neurons of {' and '.join(sorted(neurons))}" if neurons else "no neuron that a door knows"
        raise ConversionError(
            f"this module has {said}; doors: {', '.join(DOORS)}. A network without spikes: neuro.convert"
        )
    return (neurons or roots).pop()


def _opened(door: Any, module: nn.Module, sample: Any, options: Mapping[str, Any]) -> Network:
    """The sample as what the module takes: all steps, batch first where its neurons want that, or one step."""
    from neuro.doors.sinabs import DOOR as SINABS

    if "axes" in options:
        whole = {"TB": sample, "BT": np.moveaxis(sample, 0, 1), "B": sample[0]}
        network: Network = door(module, whole.get(options["axes"], sample), **options)
        return network
    if any(SINABS.neuron(part) for part in module.modules()):
        network = door(module, np.moveaxis(sample, 0, 1), **options)
        return network
    try:
        network = door(module, sample, **options)
    except (Unclear, ConversionError) as first:
        try:
            network = door(module, sample[0], **options)  # a module of one step
        except ConversionError:
            raise first from None
    return network
