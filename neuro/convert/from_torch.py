"""`from_torch`: a torch module, whoever wrote it, as a graph.

    graph = from_torch(module, sample)

torch.export runs the module's own Python once and writes down every tensor operation (functional calls, residual sums,
parameters used as constants, a layer used twice), in about a hundred names. Rows of `neuro.convert.aten_table` say
what each is in terms of ours; operations that do not depend on the input are computed. The module is not changed.

The graph is compared with the module before it is returned, on the sample and on a batch of another size.
"""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuro.convert import aten_arithmetic, aten_axes, aten_layers, aten_reduce  # noqa: F401  # register their rows
from neuro.convert.aten_table import ATEN, REMEDIES
from neuro.convert.fuse import fused
from neuro.convert.graph import Graph
from neuro.convert.trace import MOST, Refused, Tracer, Value
from neuro.errors import ConversionError, UnsupportedLayer

BATCH = 3  # while tracing: no size that layers have by accident, so that a batch that moves is seen
MANY = ("MultiheadAttention", "Transformer", "GRU", "LSTM", "RNN")  # torch's own layers of several operations
UNROLLED = ("einsum", "lstm", "gru", "rnn_tanh", "rnn_relu")  # exchanged for what they consist of


def from_torch(module: nn.Module, sample: Tensor | tuple[Tensor, ...], *, output: int | str | None = None) -> Graph:
    """The graph of what a module computes in evaluation.

    Args:
        module: anything that torch.export can trace: the flow of its Python must not depend on values.
        sample: one input [batch, ...], or several, as the module's forward takes them. dtype: that of the parameters.
        output: which answer, where the module returns several: a position, or a key.

    Raises:
        UnsupportedLayer: operations that have no place in a graph: all of them, and where they are.
        ConversionError: the module cannot be traced or copied, answers whole numbers, or differs from its graph.
    """
    inputs = (sample,) if isinstance(sample, Tensor) else tuple(sample)
    _check(inputs)
    try:
        own = copy.deepcopy(module).eval()
    except (RuntimeError, TypeError, NotImplementedError) as cause:
        raise ConversionError(f"the module cannot be copied, and is not to be changed: {cause}") from cause
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    traced = tuple(x.detach()[torch.arange(BATCH) % len(x)] for x in inputs)
    graph = walk(functional(_exported(own, traced)), BATCH, output, inputs[0].dtype)
    compare(own, graph, inputs, output, (min(len(inputs[0]), 8), 2))
    return graph


def supported() -> tuple[str, ...]:
    """Names of torch's operations that are taken."""
    return tuple(sorted(ATEN))


def _check(inputs: tuple[Tensor, ...]) -> None:
    bad = []
    for k, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            bad.append(f"input {k} is a {type(x).__name__}, not a tensor")
        elif x.ndim < 1 or not len(x):
            bad.append(f"input {k} must be [batch, ...] with at least one sample, got {tuple(x.shape)}")
        elif not x.is_floating_point():
            bad.append(f"input {k} holds {x.dtype}; networks take real numbers. {REMEDIES['embedding']}")
        elif x.numel() // len(x) * BATCH > MOST:
            bad.append(f"input {k} has {x.numel() // len(x)} numbers per sample, {MOST // BATCH} are allowed")
    if not inputs:
        bad.append("there is no sample")
    if bad:
        raise ConversionError("the sample cannot be used", bad)


def _exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        raise ConversionError(f"tracing modules needs torch 2.6 or newer, this is {torch.__version__}")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about torch's own insides
        try:
            return torch.export.export(module, inputs, strict=False)
        except Exception as cause:  # whatever the module's own code, or torch's, raises
            first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise ConversionError(
                f"{type(module).__name__} cannot be traced: {type(cause).__name__}: {first}. What a module does must "
                "not depend on values (use torch.where), and it must take tensors [batch, ...] of any batch"
            ) from cause


def functional(program: Any) -> Any:
    """An exported program without writes in place, its high-level operations kept."""
    table: Any = torch.export.default_decompositions()
    kept = {o: how for o, how in table.items() if o._schema.name.removeprefix("aten::") in UNROLLED}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(kept)


def walk(program: Any, size: int, output: int | str | None, dtype: torch.dtype) -> Graph:
    """The graph of an exported program. size: of its batch, or any where that is open.

    Raises:
        UnsupportedLayer: see `from_torch`.
    """
    g = Tracer(size)
    known = _known(program)
    names = _names(program.graph.nodes)
    bad: list[str] = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name not in known:
                known[node.name] = g.input(node.name, node.meta["val"].shape)
        elif node.op == "call_function":
            g.hint = names.get(node.name, node.name)
            try:
                known[node.name] = _call(g, node, known)
            except Refused as cause:
                bad.append(f"'{g.hint}' ({_title(node)}): {cause}")
                known[node.name] = Unknown()
        elif node.op != "output":
            bad.append(f"'{node.name}' ({node.op}): not an operation")
    if bad:
        raise UnsupportedLayer("operations that have no place in a graph", dict.fromkeys(bad))
    return _answer(g, program, known, output, dtype)


class Unknown:
    """What an operation that was refused would have given; what depends on it is not judged, its name is."""


def _call(g: Tracer, node: Any, known: Mapping[str, Any]) -> Any:
    args, named = _values((node.args, node.kwargs), known)
    flat = list(_leaves((args, named)))
    if node.target is operator.getitem:
        return args[0] if isinstance(args[0], Unknown) else args[0][args[1]]
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        if getattr(node.target, "__module__", "") in ("_operator", "math") and not any(map(_traced, flat)):
            return node.target(*args, **named)  # arithmetic of sizes
        raise Refused("not an operation of torch")
    name = schema.name.removeprefix("aten::")
    random = torch.Tag.nondeterministic_seeded in node.target.tags  # and those that are so in training only
    if random and not name.endswith("dropout") and name != "scaled_dot_product_attention":
        raise Refused(REMEDIES["bernoulli"])
    if not any(map(_traced, flat)):
        with torch.no_grad():
            return node.target(*args, **named)
    if name not in ATEN:
        raise Refused(REMEDIES.get(name, "neuro.convert.from_torch.supported() lists what is taken"))
    if any(isinstance(v, Unknown) for v in flat):
        return Unknown()
    return ATEN[name](g, **_bound(schema, args, named, ATEN[name]))


def _traced(value: Any) -> bool:
    return isinstance(value, (Value, Unknown))


def _bound(schema: Any, args: Any, named: Mapping[str, Any], row: Any) -> dict[str, Any]:
    """Arguments by name; those that the row does not take must have their defaults."""
    taken = inspect.signature(row).parameters
    every = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    bound: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments):
        if place < len(args):
            value = args[place]
        elif argument.name in named:
            value = named[argument.name]
        else:
            if not argument.has_default_value():
                raise Refused(f"{argument.name} is missing")
            continue
        name = "x" if argument.name in ("self", "input") else argument.name
        if name in taken or every:
            bound[name] = value
        elif not (argument.has_default_value() and value == argument.default_value) and value is not None:
            raise Refused(f"{name}={value}")
    return bound


def _values(given: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(given, torch.fx.Node):
        return known[given.name]
    if isinstance(given, (list, tuple)):
        return (
            type(given)(_values(v, known) for v in given)
            if type(given) in (list, tuple)
            else [_values(v, known) for v in given]
        )
    if isinstance(given, Mapping):
        return {k: _values(v, known) for k, v in given.items()}
    return given


def _leaves(given: Any) -> Iterable[Any]:
    if isinstance(given, (list, tuple)):
        for each in given:
            yield from _leaves(each)
    elif isinstance(given, Mapping):
        yield from _leaves(list(given.values()))
    else:
        yield given


def _known(program: Any) -> dict[str, Any]:
    """Parameters, buffers and constants by the names that the exported program has for them."""
    from torch.export.graph_signature import InputKind

    found: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            held = program.constants if spec.target in program.constants else program.state_dict
            found[spec.arg.name] = held[spec.target].detach()
        elif spec.kind is not InputKind.USER_INPUT:
            raise UnsupportedLayer(f"'{spec.arg.name}' is {spec.kind.name}; a graph takes tensors")
    return found


def _names(nodes: Iterable[Any]) -> dict[str, str]:
    """node -> the qualified name of the layer that it belongs to, and the operation where it has several."""
    found = {}
    for node in nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        if node.op != "call_function" or not stack:
            continue
        where, kind = stack[-1]
        kind = kind if isinstance(kind, str) else kind.__qualname__
        short = _title(node)
        own = kind.startswith("torch.nn.modules") and not any(many in kind for many in MANY)
        found[node.name] = where if own and where else f"{where}.{short}" if where else short
    return found


def _title(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return str(node.target) if schema is None else schema.name.removeprefix("aten::")


def _answer(g: Tracer, program: Any, known: Mapping[str, Any], output: int | str | None, dtype: torch.dtype) -> Graph:
    returned = next(n for n in program.graph.nodes if n.op == "output").args[0]
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    listed = [_values(v, known) for v, kind in zip(returned, kinds, strict=True) if kind == "USER_OUTPUT"]
    answers = torch.utils._pytree.tree_unflatten(listed, program.call_spec.out_spec)
    answer = pick(answers, output)
    if not isinstance(answer, Value):
        raise ConversionError(f"the answer does not depend on the input, it is {type(answer).__name__}")
    if not answer.plain:
        raise ConversionError(f"the answer {answer.shape} must have the batch as its first axis, alone")
    return fused(g.graph(answer, {"from": "torch"}).to(dtype))


def pick(answers: Any, output: int | str | None) -> Any:
    """The one answer, or that which was asked for.

    Raises:
        ConversionError: several answers, none chosen; or no such answer.
    """
    if isinstance(answers, (list, tuple)):
        options: dict[Any, Any] = dict(enumerate(answers))
    elif isinstance(answers, Mapping):
        options = dict(answers)
    else:
        options = {0: answers}
    if output is None and len(options) == 1:
        return next(iter(options.values()))
    if output not in options:
        said = f"{len(options)} values" if output is None else f"no {output!r}"
        raise ConversionError(f"the module returns {said}; choose with output=: one of {list(options)}")
    return options[output]


def compare(
    module: Any, graph: Graph, inputs: tuple[Tensor, ...], output: int | str | None, counts: Iterable[int]
) -> None:
    """The graph against the module, on some sizes of batch.

    Raises:
        ConversionError: they differ by more than rounding.
    """
    for count in dict.fromkeys(counts):
        some = tuple(x.detach()[torch.arange(count) % len(x)] for x in inputs)
        with torch.no_grad():
            try:
                wanted = pick(module(*some), output)
            except Exception as cause:  # whatever the module's own code raises
                raise ConversionError(f"the module cannot take a batch of {count}: {cause}") from cause
            got = graph.run(*some)
        eps = torch.finfo(wanted.dtype).eps if wanted.is_floating_point() else 0.0
        close = wanted.shape == got.shape and torch.allclose(got, wanted.to(got.dtype), rtol=eps**0.5, atol=eps**0.6)
        if not close:
            apart = "another shape" if wanted.shape != got.shape else f"{(got - wanted).abs().max():.3g}"
            raise ConversionError(
                f"the graph differs from the module on a batch of {count} ({apart}). Does its answer depend on the "
                f"size of the batch, on random numbers, or on what it was asked before?"
            )
