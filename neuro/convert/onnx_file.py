"""ONNX files read without trust: sizes are checked before anything is allocated, weights outside of the file are taken
from its own folder only, and no code is run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.convert.trace import MOST
from neuro.errors import FormatError
from neuro.extend import require

LARGEST = 1 << 31  # bytes of the file; what protobuf holds
OLDEST = 9  # opset


def read(path: str | Path) -> Any:
    """The model of a file, its external weights not read yet.

    Raises:
        FormatError: no such file, too large, not ONNX, or of operations before opset 9.
        MissingExtra: onnx is not installed.
    """
    onnx = require("onnx", "convert")
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as cause:
        raise FormatError(f"{path} cannot be read: {cause}") from cause
    if size > LARGEST:
        raise FormatError(f"{path} has {size} bytes, {LARGEST} are allowed; keep its weights as external data")
    try:
        model = onnx.load(str(path), load_external_data=False)
        version = {o.domain: o.version for o in model.opset_import}.get("", 0)
    except Exception as cause:  # protobuf has errors of its own, by implementation
        raise FormatError(f"{path} is not an ONNX file: {cause}") from cause
    if not model.graph.node:
        raise FormatError(f"{path} is not an ONNX file, or has no operations")
    if version < OLDEST:
        raise FormatError(f"{path} is of opset {version}; {OLDEST} or newer is needed (onnx.version_converter)")
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return model


def opset(model: Any) -> int:
    return int({o.domain: o.version for o in model.opset_import}.get("", OLDEST))


def weights(model: Any, folder: Path) -> dict[str, Tensor]:
    """Initial values by name.

    Raises:
        FormatError: data outside of the folder, missing, of another size than their shapes, or too large; all of them.
    """
    found, bad = {}, []
    for proto in model.graph.initializer:
        try:
            found[proto.name] = tensor(proto, folder)
        except FormatError as cause:
            bad.append(f"'{proto.name}': {cause}")
    if model.graph.sparse_initializer:
        bad.append("sparse weights are not taken; make them dense")
    if bad:
        raise FormatError("weights that cannot be read", bad)
    return found


def tensor(proto: Any, folder: Path) -> Tensor:
    """One tensor of a file.

    Raises:
        FormatError: see `weights`.
    """
    from onnx import TensorProto, helper, numpy_helper

    shape = tuple(proto.dims)
    if min(shape, default=0) < 0 or math.prod(shape) > MOST:
        raise FormatError(f"its shape {shape} is impossible, or has more than {MOST} numbers")
    try:
        if proto.data_location == TensorProto.EXTERNAL:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(proto.data_type))
            array = _external(proto, folder, dtype, shape)
        else:
            array = numpy_helper.to_array(proto)
        return torch.from_numpy(np.array(array))  # a copy that may be written
    except (ValueError, TypeError, KeyError) as cause:
        raise FormatError(f"it cannot be read: {cause}") from cause


def _external(proto: Any, folder: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    said = {each.key: each.value for each in proto.external_data}
    location = said.get("location", "")
    home = folder.resolve()
    path = (home / location).resolve()  # symbolic links are followed before the folder is compared
    if not location or Path(location).is_absolute() or home not in path.parents or not path.is_file():
        raise FormatError(f"its data are at {location!r}: no file of the model's own folder")
    offset, wanted = int(said.get("offset", 0)), math.prod(shape) * dtype.itemsize
    length = int(said.get("length", wanted))
    if length != wanted or offset < 0 or offset + wanted > path.stat().st_size:
        raise FormatError(f"its shape {shape} needs {wanted} bytes at {offset} of {location!r}, there are {length}")
    with open(path, "rb") as file:
        file.seek(offset)
        return np.frombuffer(file.read(wanted), dtype.newbyteorder("<")).reshape(shape).astype(dtype)
