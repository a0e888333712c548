"""ONNX files as graphs: equal to ONNX's own reference; files that lie about sizes or reach outside are refused."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axon_strangers import strangers

pytest.importorskip("onnx", reason="needs onnx: pip install 'axonport[convert]'")

from onnx import TensorProto, helper, numpy_helper, save_model
from onnx.reference import ReferenceEvaluator

from neuro.convert.from_onnx import from_onnx, supported
from neuro.convert.ops import Function
from neuro.errors import ConversionError, FormatError, UnsupportedLayer

RNG = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return np.abs(array(*shape)) + 0.5


def made(nodes: list[Any], held: dict[str, np.ndarray], shape: list[Any], version: int = 21, out: str = "y") -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info(out, TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(v, n) for n, v in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)


def node(kind: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def same(model: Any, path: Path, batch: int, *shape: int) -> None:
    save_model(model, str(path))
    x = array(batch, *shape)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]
    got = from_onnx(path).run(torch.from_numpy(x)).numpy()
    assert got.shape == wanted.shape
    single = ["Gelu", "HardSigmoid", "HardSwish", "Erf"]  # attributes, or all of it, in float32 there
    rtol = 1e-5 if any(n.op_type in single for n in model.graph.node) else 1e-9
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol / 10)


W = {"w": array(6, 2, 3, 3), "b": array(6), "d": array(4, 1, 3, 3), "t": array(4, 2, 2, 2)}
M = {"m": array(5, 7), "n": array(7, 5), "v": array(7)}
I64 = np.int64
CASES: dict[str, tuple[str, list[Any], dict[str, Any], dict[str, np.ndarray], tuple[int, ...]]] = {
    # name: (operation, inputs after x, attributes, constants, shape without the batch)
    "conv_grouped": ("Conv", ["w", "b"], {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}, W, (4, 6, 5)),
    "conv_depthwise": ("Conv", ["d"], {"group": 4, "dilations": [2, 2]}, W, (4, 7, 7)),
    "conv_uneven": ("Conv", ["d"], {"group": 4, "pads": [0, 1, 2, 0]}, W, (4, 6, 6)),
    "conv_same": ("Conv", ["d"], {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, W, (4, 6, 6)),
    "transposed": ("ConvTranspose", ["t"], {"strides": [2, 2]}, W, (4, 3, 3)),
    "gemm": ("Gemm", ["m", "v"], {}, M, (5,)),
    "gemm_scaled": ("Gemm", ["n", "v"], {"transB": 1, "alpha": 0.5, "beta": 2.0}, M, (5,)),
    "matmul": ("MatMul", ["m"], {}, M, (3, 5)),
    "add": ("Add", ["v"], {}, M, (2, 7)),
    "sub": ("Sub", ["v"], {}, M, (2, 7)),
    "mul": ("Mul", ["v"], {}, M, (2, 7)),
    "div": ("Div", ["v"], {}, M, (2, 7)),
    "pow": ("Pow", ["p"], {}, {"p": np.array(2.0)}, (3,)),
    "clip": ("Clip", ["l", "h"], {}, {"l": np.array(-0.3), "h": np.array(0.6)}, (9,)),
    "relu": ("Relu", [], {}, {}, (9,)),
    "leaky": ("LeakyRelu", [], {"alpha": 0.2}, {}, (9,)),
    "prelu": ("PRelu", ["s"], {}, {"s": array(9)}, (9,)),
    "elu": ("Elu", [], {"alpha": 0.4}, {}, (9,)),
    "hard_sigmoid": ("HardSigmoid", [], {}, {}, (9,)),
    "hard_swish": ("HardSwish", [], {}, {}, (9,)),
    "sigmoid": ("Sigmoid", [], {}, {}, (9,)),
    "tanh": ("Tanh", [], {}, {}, (9,)),
    "softplus": ("Softplus", [], {}, {}, (9,)),
    "gelu": ("Gelu", [], {}, {}, (9,)),
    "batch_norm": ("BatchNormalization", ["g", "g", "g", "q"], {}, {"g": array(4), "q": positive(4)}, (4, 3, 3)),
    "layer_norm": ("LayerNormalization", ["g", "h"], {"axis": -1}, {"g": array(5), "h": array(5)}, (3, 5)),
    "instance_norm": ("InstanceNormalization", ["g", "h"], {}, {"g": array(4), "h": positive(4)}, (4, 3, 3)),
    "max_pool": ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}, (2, 7, 7)),
    "average_pool": ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, {}, (2, 6, 6)),
    "global_pool": ("GlobalAveragePool", [], {}, {}, (2, 6, 5)),
    "global_max": ("GlobalMaxPool", [], {}, {}, (2, 6, 5)),
    "flatten": ("Flatten", [], {}, {}, (2, 3, 4)),
    "reshape": ("Reshape", ["s"], {}, {"s": np.array([0, -1, 4], I64)}, (2, 3, 4)),
    "transpose": ("Transpose", [], {"perm": [0, 3, 1, 2]}, {}, (2, 3, 4)),
    "concat": ("Concat", ["x"], {"axis": -1}, {}, (2, 3)),
    "slice": (
        "Slice",
        ["a", "e", "i", "s"],
        {},
        {n: np.array(v, I64) for n, v in {"a": [1, -1], "e": [9, -9], "i": [1, 2], "s": [1, -1]}.items()},
        (4, 5),
    ),
    "gather": ("Gather", ["i"], {"axis": 1}, {"i": np.array(2, I64)}, (4, 5)),
    "gather_several": ("Gather", ["i"], {"axis": 2}, {"i": np.array([4, 0, 0], I64)}, (4, 5)),
    "squeeze": ("Squeeze", ["i"], {}, {"i": np.array([1], I64)}, (1, 5)),
    "unsqueeze": ("Unsqueeze", ["i"], {}, {"i": np.array([1, 3], I64)}, (4, 5)),
    "expand": ("Expand", ["i"], {}, {"i": np.array([1, 4, 1], I64)}, (1, 5)),
    "tile": ("Tile", ["i"], {}, {"i": np.array([1, 2, 3], I64)}, (2, 5)),
    "pad": ("Pad", ["i"], {}, {"i": np.array([0, 1, 0, 0, 0, 2], I64)}, (2, 5)),
    "softmax": ("Softmax", [], {"axis": 1}, {}, (4, 5)),
    "log_softmax": ("LogSoftmax", [], {}, {}, (4, 5)),
    "mean": ("ReduceMean", ["i"], {"keepdims": 0}, {"i": np.array([1, 2], I64)}, (4, 5, 2)),
    "sum": ("ReduceSum", ["i"], {}, {"i": np.array([-1], I64)}, (4, 5)),
    "largest": ("ReduceMax", ["i"], {}, {"i": np.array([-1], I64)}, (4, 5)),
    "maximum": ("Max", ["v"], {}, M, (7,)),
    "minimum": ("Min", ["v"], {}, M, (7,)),
    "resize": (
        "Resize",
        ["", "f"],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"f": np.array([1, 1, 2, 3], np.float32)},
        (2, 3, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", ["N", 1])
def test_operations_equal_the_reference(name: str, batch: Any, tmp_path: Path) -> None:
    kind, inputs, attributes, held, shape = CASES[name]
    used = {n: v for n, v in held.items() if n in inputs}
    model = made([node(kind, "x", *inputs, **attributes)], used, [batch, *shape])
    same(model, tmp_path / "net.onnx", 2 if batch == "N" else 1, *shape)


def test_where_and_split(tmp_path: Path) -> None:
    held = {"m": np.array([True, False, True, False]), "c": np.array(2.5)}
    nodes = [
        node("Split", "x", outputs=("a", "b"), axis=1, num_outputs=2),
        node("Where", "m", "a", "c", outputs=("d",)),
        node("Where", "m", "b", "d"),
    ]
    same(made(nodes, held, ["N", 8]), tmp_path / "net.onnx", 3, 8)


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    held = {"zero": np.array(0, I64), "rest": np.array([-1], I64), "axis": np.array([0], I64)}
    nodes = [
        node("Shape", "x", outputs=("s",)),
        node("Gather", "s", "zero", outputs=("n",)),
        node("Unsqueeze", "n", "axis", outputs=("n1",)),
        node("Concat", "n1", "rest", outputs=("to",), axis=0),
        node("Reshape", "x", "to"),
    ]
    same(made(nodes, held, ["N", 2, 3]), tmp_path / "net.onnx", 4, 2, 3)


def test_written_out_gelu_and_silu_are_recognised(tmp_path: Path) -> None:
    held = {"r": np.array(2.0**0.5), "one": np.array(1.0), "half": np.array(0.5)}
    nodes = [
        node("Div", "x", "r", outputs=("a",)),
        node("Erf", "a", outputs=("e",)),
        node("Add", "e", "one", outputs=("f",)),
        node("Mul", "x", "half", outputs=("h",)),
        node("Mul", "h", "f", outputs=("g",)),
        node("Sigmoid", "g", outputs=("i",)),
        node("Mul", "i", "g"),
    ]
    path = tmp_path / "net.onnx"
    same(made(nodes, held, ["N", 6]), path, 4, 6)
    assert [o.name for o in from_onnx(path).ops.values() if isinstance(o, Function)] == ["gelu", "silu"]


@pytest.mark.parametrize("name", ["lenet", "resnet_a", "mobilenet", "vit", "gpt"])
@pytest.mark.parametrize("open_batch", [True, False])
def test_files_of_torch_equal_torch(name: str, open_batch: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'axonport[test]'")
    module, sample = strangers()[name]
    module.eval()
    path = tmp_path / "net.onnx"
    batch = torch.export.Dim("batch")
    dynamic = tuple({0: batch} for _ in sample) if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, sample, str(path), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    graph = from_onnx(path)
    new = tuple(
        torch.randn(len(x), *x.shape[1:], generator=torch.Generator().manual_seed(4), dtype=x.dtype) for x in sample
    )
    with torch.no_grad():
        rtol = 1e-6 if name in ("mobilenet", "gpt") else 1e-9  # constants that the exporter writes as float32
        assert torch.allclose(graph.run(*new), module(*new), rtol=rtol, atol=rtol / 10)


def test_everything_that_is_not_taken_is_named_at_once(tmp_path: Path) -> None:
    nodes = [
        node("Det", "x", outputs=("a",)),
        node("Relu", "x", outputs=("r",)),
        node("CumSum", "r", "i", outputs=("b",)),
        node("Multinomial", "r", outputs=("c",)),
        node("Add", "b", "a"),
    ]
    save_model(made(nodes, {"i": np.array(1, I64)}, ["N", 3, 3]), str(tmp_path / "net.onnx"))
    with pytest.raises(UnsupportedLayer) as caught:
        from_onnx(tmp_path / "net.onnx")
    assert len(caught.value.violations) == 3
    assert all(name in str(caught.value) for name in ("Det", "CumSum", "Multinomial"))
    assert {"Conv", "Gemm", "LayerNormalization"} <= set(supported())


def external(path: Path, location: str, length: int = 48, shape: tuple[int, ...] = (2, 3)) -> None:
    model = made([node("MatMul", "x", "w")], {"w": array(2, 3)}, ["N", 2])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend(shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def test_external_data_of_the_folder_are_read_and_others_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "net.onnx"
    weights = array(2, 3)
    (folder / "weights.bin").write_bytes(weights.tobytes())
    external(path, "weights.bin")
    x = array(4, 2)
    np.testing.assert_allclose(from_onnx(path).run(torch.from_numpy(x)).numpy(), x @ weights)
    (tmp_path / "secret.bin").write_bytes(weights.tobytes())
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "link.bin", "", "absent.bin", "."):
        external(path, location)
        with pytest.raises(FormatError, match="'w'"):
            from_onnx(path)


@pytest.mark.parametrize(
    ("length", "shape"),
    [(8, (2, 3)), (48, (2, 4)), (48, (1 << 40, 1 << 10)), (1 << 62, (1 << 59,)), (48, (-2, -3)), (400, (5, 10))],
)
def test_sizes_that_lie_are_refused_before_anything_is_allocated(
    length: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    external(tmp_path / "net.onnx", "weights.bin", length, shape)
    with pytest.raises(FormatError):
        from_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("nodes", "held"),
    [
        ([node("ConstantOfShape", "s", outputs=("c",)), node("Add", "x", "c")], {"s": np.array([1 << 20] * 2, I64)}),
        ([node("Expand", "a", "s", outputs=("c",)), node("Add", "x", "c")],
         {"a": array(1), "s": np.array([1 << 40], I64)}),
        ([node("Mul", "a", "b", outputs=("c",)), node("Add", "x", "c")], {"a": array(20000, 1), "b": array(1, 20000)}),
        ([node("Tile", "x", "s")], {"s": np.array([1, 1 << 31], I64)}),
        ([node("Expand", "x", "s")], {"s": np.array([1, 1 << 20, 1 << 20, 1], I64)}),
        ([node("Range", "a", "l", "d", outputs=("c",)), node("Add", "x", "c")],
         {"a": np.array(0.0), "l": np.array(1e12), "d": np.array(1.0)}),
        ([node("Pad", "x", "p")], {"p": np.array([0, 0, 0, 1 << 40], I64)}),
    ],
)  # fmt: skip
def test_small_files_that_would_grow_are_refused(nodes: list[Any], held: dict[str, np.ndarray], tmp_path: Path) -> None:
    save_model(made(nodes, held, ["N", 2]), str(tmp_path / "net.onnx"))
    with pytest.raises(ConversionError):
        from_onnx(tmp_path / "net.onnx")


def test_not_onnx(tmp_path: Path) -> None:
    for content in (b"", b"not onnx at all", bytes(RNG.integers(0, 256, 2000, dtype=np.uint8))):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(FormatError):
            from_onnx(tmp_path / "net.onnx")
    with pytest.raises(FormatError):
        from_onnx(tmp_path / "absent.onnx")


def test_open_sizes_and_answers_must_be_said(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save_model(made([node("Relu", "x")], {}, ["N", "length"]), str(path))
    with pytest.raises(ConversionError, match="shapes="):
        from_onnx(path)
    assert from_onnx(path, shapes={"x": (5,)}).run(torch.ones(2, 5, dtype=torch.float64)).shape == (2, 5)
    with pytest.raises(ConversionError, match="no answer 'z'"):
        from_onnx(path, shapes={"x": (5,)}, output="z")
    save_model(made([node("Relu", "x")], {}, ["N", 1 << 40]), str(path))
    with pytest.raises(ConversionError, match="numbers"):
        from_onnx(path)
