"""`from_state_dict`: a file of weights and the name of an architecture, as a graph. No code of the file is run.

graph = from_state_dict("net.safetensors", "lenet5")
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from neuro.convert.architectures import ARCHITECTURES
from neuro.convert.from_torch import from_torch
from neuro.convert.graph import Graph
from neuro.convert.trace import MOST
from neuro.errors import ConversionError, FormatError
from neuro.extend import did_you_mean

WRAPPED = ("state_dict", "model_state_dict", "model", "net")  # what checkpoints call the state dict in them
PREFIX = "module."  # of torch's DataParallel
OPTIONAL = "num_batches_tracked"


def from_state_dict(path: str | Path, architecture: str, *, sample: tuple[int, ...] | None = None) -> Graph:
    """The graph of an architecture with a file's weights.

    Args:
        path: .safetensors, or .pt/.pth with a state dict, which torch reads with weights_only=True.
        architecture: a name of `neuro.convert.architectures`.
        sample: shape of one input without the batch, where it is not what the shapes of the weights imply.

    Raises:
        ConversionError: no such architecture; names that are missing, unknown, or of other shapes, all of them.
        FormatError: a file that cannot be read, holds other things than tensors, or would have to run code.
    """
    if architecture not in ARCHITECTURES:
        raise ConversionError(f"no architecture '{architecture}'. {did_you_mean(architecture, ARCHITECTURES)}")
    state = read_state(path)
    shapes = {n: tuple(t.shape) for n, t in state.items()}
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    try:
        with torch.device("meta"):  # two shapes of the file may multiply to what does not fit anywhere
            module, shape = ARCHITECTURES[architecture](shapes, sample)
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as cause:
        if isinstance(cause, ConversionError):
            raise
        raise ConversionError(f"the file's names and shapes make no '{architecture}': {cause}") from cause
    _match(module, state, architecture)
    module = module.to_empty(device="cpu").to(dtype)
    module.load_state_dict(state, strict=False)
    if math.prod(shape) > MOST:
        raise ConversionError(f"an input of shape {shape} has more than {MOST} numbers")
    return from_torch(module, torch.zeros(1, *shape, dtype=dtype))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors of a file, in its order; safetensors keep none, so theirs are in the order of their names.

    Raises:
        FormatError: see `from_state_dict`.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} does not exist")
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    bad = [f"'{n}' is a {type(t).__name__}" for n, t in state.items() if not isinstance(t, Tensor)]
    if bad or not state:
        raise FormatError(f"{path} is no state dict", bad or ["it is empty"])
    if all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): t for name, t in state.items()}
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys(), key=_natural)}
    except (SafetensorError, OSError) as cause:
        raise FormatError(f"{path} cannot be read: {cause}") from cause


def _natural(name: str) -> list[tuple[int, str]]:
    """layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,9})", name)]


def _pickled(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:  # a pickle that wants more than tensors, a zip that is none, ...
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise FormatError(
            f"{path} cannot be read without running code of it: {first}. Save the state dict alone: "
            "torch.save(model.state_dict(), path)"
        ) from cause
    for name in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise FormatError(f"{path} holds a {type(found).__name__}, not a state dict")
    return {str(name): value for name, value in found.items()}


def _match(module: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    wanted = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    bad = [f"'{n}' {shape} is missing" for n, shape in wanted.items() if n not in state and not n.endswith(OPTIONAL)]
    for name, tensor in state.items():
        if name not in wanted:
            bad.append(f"'{name}' {tuple(tensor.shape)} has no place. {did_you_mean(name, wanted)}")
        elif tuple(tensor.shape) != wanted[name]:
            bad.append(f"'{name}' is {tuple(tensor.shape)}, {wanted[name]} is needed")
    if bad:
        raise ConversionError(f"the file does not fit '{architecture}'", bad)
