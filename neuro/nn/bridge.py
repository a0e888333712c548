"""torch module <-> `Network`, one row per layer type.

A trained neuron is v = beta v + W s; the IR has v = b v + (1 - b) r x. The bridge sets
r = gain / (1 - b) and w_in = gain_syn / (1 - a), so weights cross unchanged and both sides compute the
same membrane. Everything crosses in float64. Fake-quantised weights cross as what they stand for,
batch norm is folded into the layer before it, dropout vanishes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro import discretise, ir
from neuro.errors import ConversionError, NetworkError, UnsupportedLayer
from neuro.ir import Array, Edge, Network, Node, Shape
from neuro.nn import bridge_beyond as beyond
from neuro.nn.adaptive import COEFFICIENTS, AdLIF
from neuro.nn.bridge_beyond import array as _array
from neuro.nn.bridge_beyond import constant
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_recurrent import DelayedRecurrent
from neuro.nn.grid import GridLayer
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Recurrent
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork
from neuro.nn.quantised import QuantisedReLU, QuantisedWeights
from neuro.nn.stateless import NORMS, AvgPool2d, Dropout, Scale, SumPool2d, affine_of

VANISHING = (Dropout, nn.Dropout, nn.Dropout2d, nn.Identity)


# ---------------------------------------------------------------- module -> Network


@dataclass
class _Draft:
    """The network being written. late: (weight node, neuron) pairs that close a recurrence."""

    dt: float
    rule: str
    nodes: dict[str, Node] = field(default_factory=dict)
    inner: dict[str, list[Edge]] = field(default_factory=dict)  # by the layer that needs them
    norms: dict[str, nn.Module] = field(default_factory=dict)  # batch norm behind a weight layer
    sends: dict[str, str] = field(default_factory=dict)  # of a layer that is two nodes, the one that sends its spikes
    enters: dict[str, str] = field(default_factory=dict)  # of a layer that is two nodes, the one that listens
    bad: list[str] = field(default_factory=list)


def to_network(
    module: nn.Module,
    input_shape: Shape | None = None,
    dt: float | None = None,
    readout: str | None = None,
    discretisation: str | None = None,
    high: int | None = None,
) -> Network:
    """The `Network` that a module computes in evaluation mode.

    Args:
        module: a `SpikingNetwork`, or an nn.Sequential of layers that have a row here.
        input_shape, dt, readout, discretisation, high: taken from a `SpikingNetwork` where None; a Sequential
            needs input_shape and dt. high: the largest value of an input channel in a step.

    Raises:
        UnsupportedLayer: layers without a counterpart, all of them.
        NetworkError: what results is no valid network.
    """
    if not isinstance(module, SpikingNetwork):
        module = _wrap(module, input_shape, dt)
    net: SpikingNetwork = copy.deepcopy(module).double().eval()
    draft = _Draft(net.dt if dt is None else dt, discretisation or net.discretisation)
    edges = _without_vanishing(net, draft)
    kept = [n for n in net.names if any(n in edge for edge in edges)]
    with torch.no_grad():
        for name in kept:
            if isinstance(net.layer(name), NORMS):
                continue  # it could not be folded, and that is said already
            row = _row(_EXPORT, net.layer(name))
            if row is None:
                draft.bad.append(f"'{name}' is a {type(net.layer(name)).__name__}, which has no place in a Network")
                continue
            try:
                row(draft, name, net.layer(name))
            except (ConversionError, NetworkError) as problem:
                draft.bad.append(f"'{name}' ({type(net.layer(name)).__name__}): {problem}")
    if draft.bad:
        raise UnsupportedLayer(f"cannot become a Network (supported: {supported()})", draft.bad)
    all_edges: list[Edge] = []
    for source, target in edges:
        all_edges += draft.inner.pop(source, [])  # a recurrence closes before the layer is left
        reads_v = target == OUTPUT and (readout or net.readout) != "count"
        all_edges.append((source if reads_v else draft.sends.get(source, source), draft.enters.get(target, target)))
    shape = net.input_shape if input_shape is None else tuple(input_shape)
    enters = ir.Input(shape, net.high if high is None else high)
    nodes = {INPUT: enters, **draft.nodes, OUTPUT: ir.Output(readout or net.readout)}
    return Network(nodes, tuple(all_edges), draft.dt, draft.rule)


def supported() -> str:
    """Names of the layer types that can become a Network."""
    types = [t.__name__ for t in (*_EXPORT, *NORMS, *VANISHING)]
    return ", ".join(dict.fromkeys(types))


def _wrap(module: nn.Module, input_shape: Shape | None, dt: float | None) -> SpikingNetwork:
    if input_shape is None or dt is None:
        raise NetworkError("a module that is no SpikingNetwork needs input_shape and dt (seconds)")
    layers = dict(_flat("", module)) if isinstance(module, nn.Sequential) else {"layer": module}
    return SpikingNetwork({n or "layer": m for n, m in layers.items()}, input_shape=tuple(input_shape), dt=dt)


def _flat(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        return [(prefix, module)]
    return [row for name, child in module.named_children() for row in _flat(f"{prefix}.{name}".lstrip("."), child)]


def _without_vanishing(net: SpikingNetwork, draft: _Draft) -> list[Edge]:
    """Edges with dropout and batch norm taken out; what is folded is noted in ``draft.norms``."""
    edges = list(net.edges)
    for name in net.names:
        layer = net.layer(name)
        if isinstance(layer, NORMS):
            before = [s for s, d in edges if d == name]
            behind = [d for s, d in edges if s in before]
            weighted = [
                s
                for s in before
                if s != INPUT and isinstance(net.layer(s), (nn.Linear, nn.Conv2d, DelayedLinear, DelayLinear))
            ]
            if len(before) != 1 or behind != [name] or not weighted or before[0] in draft.norms:
                draft.bad.append(f"'{name}' ({type(layer).__name__}) must directly follow one Linear or Conv2d alone")
                continue
            draft.norms[before[0]] = layer
        elif not isinstance(layer, VANISHING):
            continue
        sources, targets = [s for s, d in edges if d == name], [d for s, d in edges if s == name]
        at = min(i for i, edge in enumerate(edges) if name in edge)
        joined = [(s, d) for s in sources for d in targets]
        edges = [e for e in edges[:at] if name not in e] + joined + [e for e in edges[at:] if name not in e]
    return edges


def _row(table: dict[Any, Any], layer: object) -> Any:
    return next((table[t] for t in type(layer).__mro__ if t in table), None)


def _real(layer: Any) -> tuple[Tensor, Tensor | None]:
    """(weight, bias); what the integers stand for where a layer is on a grid."""
    stands_for = isinstance(layer, (GridLayer, MaskedLinear, QuantisedWeights))
    return layer.real() if stands_for else (layer.weight, layer.bias)


def _folded(draft: _Draft, name: str, weight: Tensor, bias: Tensor | None) -> tuple[Array, Array | None]:
    """Weight and bias with the norm behind them folded in: factor W, factor b + shift."""
    if name not in draft.norms:
        return _array(weight), None if bias is None else _array(bias)
    factor, shift = affine_of(draft.norms[name])
    if bias is not None:
        shift = bias * factor + (0.0 if shift is None else shift)
    return _array(weight * factor.view(-1, *[1] * (weight.dim() - 1))), None if shift is None else _array(shift)


def _linear(draft: _Draft, name: str, layer: nn.Linear | DelayedLinear) -> None:
    weight, bias = _folded(draft, name, *_real(layer))
    steps = layer.get_buffer("delay_steps").numpy() if isinstance(layer, DelayedLinear) else None
    draft.nodes[name] = ir.Linear(weight, steps) if bias is None else ir.Affine(weight, steps, bias=bias)


def _delay_linear(draft: _Draft, name: str, layer: DelayLinear) -> None:
    steps = layer.steps()
    if not torch.equal(steps, steps.round()):
        raise ConversionError("a Network's delays are whole steps; set rounding=True, or put layer.rounded() here")
    _linear(draft, name, layer.rounded())


def _conv(draft: _Draft, name: str, layer: nn.Conv2d) -> None:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ConversionError(f"padding must be numbers and zeros, got {layer.padding!r}, '{layer.padding_mode}'")
    weight, bias = _folded(draft, name, *_real(layer))
    bias = np.zeros(weight.shape[0]) if bias is None else bias
    draft.nodes[name] = ir.Conv2d(weight, layer.stride, layer.padding, layer.dilation, layer.groups, bias)  # type: ignore[arg-type]


def _torch_avg_pool(draft: _Draft, name: str, layer: nn.AvgPool2d) -> None:
    if layer.ceil_mode or not layer.count_include_pad or layer.divisor_override:
        raise ConversionError("needs ceil_mode=False, count_include_pad=True, no divisor_override")
    draft.nodes[name] = ir.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]


def _pool(draft: _Draft, name: str, layer: SumPool2d) -> None:
    kind = ir.AvgPool2d if isinstance(layer, AvgPool2d) else ir.SumPool2d
    draft.nodes[name] = kind(layer.kernel_size, layer.stride, layer.padding)


def _max_pool(draft: _Draft, name: str, layer: nn.MaxPool2d) -> None:
    if layer.ceil_mode or layer.return_indices or layer.dilation not in (1, (1, 1)):
        raise ConversionError("needs ceil_mode=False, return_indices=False, dilation=1")
    draft.nodes[name] = ir.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]


def _quantised_relu(draft: _Draft, name: str, layer: QuantisedReLU) -> None:
    draft.nodes[name] = ir.QuantisedReLU(_array(layer.get_buffer("step")), layer.levels)


def _flatten(draft: _Draft, name: str, layer: nn.Flatten) -> None:
    if layer.start_dim != 1 or layer.end_dim != -1:
        raise ConversionError("flattens part of a step only; use nn.Flatten()")
    draft.nodes[name] = ir.Flatten()


def _scale(draft: _Draft, name: str, layer: Scale) -> None:
    draft.nodes[name] = ir.Scale(_array(layer.get_buffer("scale")))


def _delay(draft: _Draft, name: str, layer: Delay) -> None:
    draft.nodes[name] = ir.Delay(layer.get_buffer("steps").numpy())


def _taps(draft: _Draft, name: str, layer: Taps) -> None:
    steps = layer.get_buffer("steps").numpy()
    n, copies = layer.shape[0], np.tile(np.eye(layer.shape[0]), (len(steps), 1))
    late = np.repeat(steps, n)
    if len(layer.shape) == 1:
        draft.nodes[name] = ir.Linear(copies, late[:, None].repeat(n, 1))
        return
    draft.nodes[f"{name}_copies"] = ir.Conv2d(
        copies[:, :, None, None], (1, 1), (0, 0), (1, 1), 1, np.zeros(len(copies))
    )
    shape = (len(late), *layer.shape[1:])
    draft.nodes[name] = ir.Delay(np.broadcast_to(late[:, None, None], shape).copy())
    draft.enters[name] = f"{name}_copies"
    draft.inner[name] = [(f"{name}_copies", name)]


def _recurrent(draft: _Draft, name: str, layer: Recurrent) -> None:
    _row(_EXPORT, layer.neuron)(draft, name, layer.neuron)
    weight = f"{name}_recurrent"
    draft.nodes[weight] = ir.Linear(_array(_real(layer.recurrent)[0]))
    draft.inner[name] = [*draft.inner.get(name, []), (draft.sends.get(name, name), weight), (weight, name)]


def _delayed_recurrent(draft: _Draft, name: str, layer: DelayedRecurrent) -> None:
    _row(_EXPORT, layer.neuron)(draft, name, layer.neuron)
    weight = f"{name}_recurrent"
    _row(_EXPORT, layer.recurrent)(draft, weight, layer.recurrent)
    draft.inner[name] = [*draft.inner.get(name, []), (draft.sends.get(name, name), weight), (weight, name)]


def _neuron(draft: _Draft, name: str, layer: Neuron) -> None:
    c = {n: _array(layer.settled(n)) for n in ("alpha", "gain_syn", "beta", "gain", "drive", "v_threshold", "v_reset")}
    given: dict[str, Any] = {}
    if layer.spiking:
        given = {"v_threshold": c["v_threshold"], "v_reset": c["v_reset"], "reset": layer.reset}
    if isinstance(layer, IF):
        if c["drive"].any():
            raise ConversionError("an IF has no constant drive; put a bias into the layer before it")
        draft.nodes[name] = ir.IF(r=c["gain"] * c["gain_syn"], **given)
        return
    given["tau_mem"], left = constant(c["beta"], draft.dt, draft.rule)
    given["v_leak"] = c["drive"] / left
    if isinstance(layer, (CubaLI, CubaLIF)):
        given["r"] = c["gain"] / left
        given["tau_syn"], left = constant(c["alpha"], draft.dt, draft.rule)
        given["w_in"] = c["gain_syn"] / left
    else:
        given["r"] = c["gain"] * c["gain_syn"] / left
    draft.nodes[name] = _NODE[type(layer)](**given)


def _adaptive(draft: _Draft, name: str, layer: AdLIF) -> None:
    c = {n: _array(layer.value(n)) for n in COEFFICIENTS}
    tau_mem, left = constant(c["beta"], draft.dt, draft.rule)
    tau_adapt, kept = constant(c["rho"], draft.dt, draft.rule)
    scale = kept if layer.adaptation == "threshold" else kept * left  # there w is measured in v, here in currents
    draft.nodes[name] = ir.AdaptiveLIF(
        tau_mem, tau_adapt, c["v_threshold"], c["a"] / scale, c["b"] / scale, r=c["gain"] / left,
        v_leak=c["drive"] / left, v_reset=c["v_reset"], reset=layer.reset, adaptation=layer.adaptation,
    )  # fmt: skip


_NODE: dict[type[Neuron], Callable[..., Node]] = {LIF: ir.LIF, LI: ir.LI, CubaLIF: ir.CubaLIF, CubaLI: ir.CubaLI}
_EXPORT: dict[type[nn.Module], Callable[[_Draft, str, Any], None]] = {
    nn.Linear: _linear,
    DelayedLinear: _linear,
    DelayLinear: _delay_linear,
    nn.Conv2d: _conv,
    nn.AvgPool2d: _torch_avg_pool,
    AvgPool2d: _pool,
    SumPool2d: _pool,
    nn.MaxPool2d: _max_pool,
    QuantisedReLU: _quantised_relu,
    nn.Flatten: _flatten,
    Scale: _scale,
    Delay: _delay,
    Taps: _taps,
    Recurrent: _recurrent,
    DelayedRecurrent: _delayed_recurrent,
    IF: _neuron,
    LIF: _neuron,
    LI: _neuron,
    CubaLIF: _neuron,
    CubaLI: _neuron,
    AdLIF: _adaptive,
    **beyond.EXPORT,
}


# ---------------------------------------------------------------- Network -> module


def without_layer(network: Network) -> list[str]:
    """Nodes that no layer here computes, a sentence each."""
    return [
        f"'{name}' is a {type(node).__name__}, which no layer here computes: it can be compiled, not trained"
        for name, node in network.nodes.items()
        if type(node) not in _IMPORT and not isinstance(node, (ir.Input, ir.Output))
    ]


def to_module(network: Network, dtype: torch.dtype = torch.float32, **neuron_options: Any) -> SpikingNetwork:
    """A trainable module that computes a network; weights become parameters.

    Args:
        dtype: of weights and of the computation. neuron_options: surrogate, detach for every neuron.

    Raises:
        NetworkError: the network has not exactly one input and one output.
        UnsupportedLayer: nodes that no layer here computes, all of them.
    """
    strange = without_layer(network)
    if strange:
        raise UnsupportedLayer("this network cannot become a module", strange)
    ends = {network.input: INPUT, network.output: OUTPUT}
    taken = {INPUT, OUTPUT} - set(ends)
    names = {n: ends.get(n, f"{n}_layer" if n in (INPUT, OUTPUT) and n in taken else n) for n in network.nodes}
    loops = _recurrences(network)
    layers: dict[str, nn.Module] = {}
    for name in network.order:
        node = network.nodes[name]
        if name in ends or name in loops.values():
            continue
        layer = _IMPORT[type(node)](node, network, dtype, neuron_options)
        if name in loops:
            weight = network.nodes[loops[name]]
            assert isinstance(weight, ir.Linear)
            layer = _listening(layer, weight, dtype)
        layers[names[name]] = layer
    inside = {(n, w) for n, w in loops.items()} | {(w, n) for n, w in loops.items()}
    edges = [(names[s], names[d]) for s, d in network.edges if (s, d) not in inside]
    output, source = network.nodes[network.output], network.nodes[network.input]
    assert isinstance(output, ir.Output)
    assert isinstance(source, ir.Input)
    made = SpikingNetwork(
        layers,
        edges,
        input_shape=network.shapes[network.input],
        dt=network.dt,
        readout=output.readout,
        discretisation=network.discretisation,
        high=source.high,
    )
    made.without_weights = dtype
    return made


def _listening(neuron: Any, weight: ir.Linear, dtype: torch.dtype) -> nn.Module:
    """A neuron layer whose spikes return to it."""
    with torch.random.fork_rng(devices=[]):  # its weights start at random, and are replaced at once
        if weight.delay_steps is None:
            layer: Any = Recurrent(neuron, len(weight.weight))
        else:
            layer = DelayedRecurrent(neuron, DelayedLinear(weight.delay_steps))
    _weights(layer.recurrent, weight, dtype)
    return layer  # type: ignore[no-any-return]


def _recurrences(network: Network) -> dict[str, str]:
    """Neuron -> the Linear, with delays or without, that returns its spikes to it and does nothing else."""
    found: dict[str, str] = {}
    for source, target in sorted(network.feedback):
        node, neuron = network.nodes[source], network.nodes[target]
        simple = type(node) is ir.Linear and getattr(neuron, "spiking", False)
        alone = network.sources(source) == (target,) and network.targets(source) == (target,)
        # a neuron that nothing else feeds, or that sits on a larger loop, keeps its Linear as a layer
        if simple and alone and target not in found and len(network.sources(target)) > 1:
            found[target] = source
    return found


def _empty(kind: type[nn.Module], *shape: Any) -> nn.Module:
    """A layer whose weights are about to be set: no random numbers are drawn for them, nor is there room for them.

    `torch.nn.utils.skip_init` makes the room, and reads in half of torch's compiler for it, 0.4 s (measured)."""
    return kind(*shape, device="meta")


def _weights(layer: Any, node: Any, dtype: torch.dtype) -> nn.Module:
    """``layer`` with a node's weight and bias, in ``dtype``."""
    layer.weight = nn.Parameter(torch.from_numpy(np.array(node.weight)).to(dtype))
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.from_numpy(np.array(node.bias)).to(dtype))
    assert isinstance(layer, nn.Module)
    return layer


def _import_linear(node: ir.Linear, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    bias = isinstance(node, ir.Affine)
    if node.delay_steps is not None:
        with torch.random.fork_rng(devices=[]):
            layer = DelayedLinear(node.delay_steps, bias)
        return _weights(layer, node, dtype)
    out, inputs = node.weight.shape
    return _weights(_empty(nn.Linear, inputs, out, bias), node, dtype)


def _import_conv(node: ir.Conv2d, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    out, per_group, *kernel = node.weight.shape
    shape = (per_group * node.groups, out, tuple(kernel), node.stride, node.padding, node.dilation, node.groups)
    return _weights(_empty(nn.Conv2d, *shape), node, dtype)


def _import_neuron(node: ir.Neuron, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    c = discretise.coefficients(node, network.dt, network.discretisation)
    given = {"alpha": c.alpha, "gain_syn": c.gain_syn, "beta": c.beta, "gain": c.gain_mem, "drive": c.drive}
    if node.spiking:
        given |= {"v_threshold": node.v_threshold, "v_reset": node.v_reset}  # type: ignore[attr-defined]
        options = {"reset": node.reset, **options}  # type: ignore[attr-defined]
    uniform: dict[str, Any] = {n: v.flat[0] if (v == v.flat[0]).all() else v for n, v in given.items()}
    return _LAYER[type(node)](**uniform, **options)


def _import_adaptive(node: ir.AdaptiveLIF, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    c = discretise.coefficients(node, network.dt, network.discretisation)
    rho, a, b = discretise.adaptation(node, network.dt, network.discretisation)
    scale = 1.0 if node.adaptation == "threshold" else 1.0 - c.beta
    given = {"beta": c.beta, "rho": rho, "a": scale * a, "b": scale * b, "gain": c.gain_mem, "drive": c.drive}
    given |= {"v_threshold": node.v_threshold, "v_reset": node.v_reset}
    uniform: dict[str, Any] = {n: v.flat[0] if (v == v.flat[0]).all() else v for n, v in given.items()}
    return AdLIF(**uniform, **{"reset": node.reset, "adaptation": node.adaptation, **options})


def _import_avg(node: ir.AvgPool2d, *_: Any) -> nn.Module:
    return AvgPool2d(node.kernel_size, node.stride, node.padding)


def _import_sum(node: ir.SumPool2d, *_: Any) -> nn.Module:
    return SumPool2d(node.kernel_size, node.stride, node.padding)


def _import_max(node: ir.MaxPool2d, *_: Any) -> nn.Module:
    return nn.MaxPool2d(node.kernel_size, node.stride, node.padding)


def _import_quantised(node: ir.QuantisedReLU, network: Network, dtype: torch.dtype, _: Any) -> nn.Module:
    uniform = (node.step == node.step.flat[0]).all()
    return QuantisedReLU(node.step.flat[0] if uniform else node.step, node.levels)


def _import_scale(node: ir.Scale, network: Network, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
    return Scale(node.scale).to(dtype)


_LAYER: dict[type[Node], type[Neuron]] = {
    ir.IF: IF,
    ir.LI: LI,
    ir.LIF: LIF,
    ir.CubaLI: CubaLI,
    ir.CubaLIF: CubaLIF,
}
_IMPORT: dict[type[Node], Callable[..., Any]] = {
    ir.Linear: _import_linear,
    ir.Affine: _import_linear,
    ir.Conv2d: _import_conv,
    ir.SumPool2d: _import_sum,
    ir.AvgPool2d: _import_avg,
    ir.MaxPool2d: _import_max,
    ir.QuantisedReLU: _import_quantised,
    ir.Flatten: lambda node, *_: nn.Flatten(),
    ir.Scale: _import_scale,
    ir.Delay: lambda node, *_: Delay(node.steps),
    **dict.fromkeys(_LAYER, _import_neuron),
    ir.AdaptiveLIF: _import_adaptive,
    **beyond.IMPORT,
}
