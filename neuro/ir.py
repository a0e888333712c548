"""`Network`: the one object that every part of axonport reads or writes.

A network is a frozen graph of nodes in plain NumPy and SI units, with an explicit time step
``dt`` (seconds) and an explicit discretisation rule. Its meaning is `neuro.reference.run`;
the update equations are written once, in the docstrings below.

Time. At step t every node is evaluated in topological order, so a feed-forward path costs no
step. An edge that closes a loop (found by a depth-first walk from the inputs, edges in declared
order) delivers what its source sent one step earlier; `Network.feedback` lists these edges.

Spikes are 0 or 1, held for one step. A neuron fires when v > v_threshold, strictly, after the
update; then ``reset`` says what happens: ``"hard"`` sets v = v_reset, ``"subtract"`` takes
v_threshold off v.

State starts at zero: v = i = 0, and before step 0 every input, neuron and delay has sent zero. What a
node without state has sent then follows from that (an Affine its bias), so it does not matter which
edge of a loop is the late one.

``a`` and ``b`` below are the decays of synapse and membrane over one step, made in one place,
`neuro.discretise.decay`: exp(-dt/tau) under the rule "exact" (Rotter & Diesmann 1999, exact for
input held constant over a step), 1 - dt/tau under "euler" (explicit Euler).

The node types mirror NIR (Pedersen et al. 2024, Nature Communications 15:8122).
"""

from __future__ import annotations

import itertools
import math
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from neuro.errors import NetworkError, ShapeMismatch, UnknownNode

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Shape = tuple[int, ...]
Edge = tuple[str, str]

RULES = ("exact", "euler")
RESETS = ("hard", "subtract")
MAX_DELAY_STEPS = 1 << 20  # a delay line longer than this is a mistake in units, not a model
MAX_CHANNELS = 1 << 24  # of one node and step (128 MiB of float64): more is a mistake, not a layer
MAX_WINDOW = 1 << 12  # of kernel, stride, padding and dilation: no sensor has more pixels in a row
# what foreign arrays (ragged lists, tensors that need a gradient, masked or lazy ones) raise when read
_UNREADABLE = (TypeError, ValueError, OverflowError, RuntimeError)


def _frozen(value: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # what does not fit float64 becomes inf, which the caller refuses
        array: NDArray[Any] = np.array(value, dtype=dtype)  # always a copy: nobody else may hold a writable view
    array.setflags(write=False)
    return array


def _one_of(value: object, allowed: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in allowed


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. Arrays are float64 (delays int64), read-only, checked by `problems`."""

    _ints: ClassVar[tuple[str, ...]] = ()
    _positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        bad: list[str] = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "Array":
                self._set(f.name, self._number(f.name, value, bad))
            elif f.type == "IntArray" or (f.type == "IntArray | None" and value is not None):
                self._set(f.name, self._steps(f.name, value, bad))
        if not bad:
            bad += self.problems()
        if bad:
            raise NetworkError(f"{type(self).__name__} cannot be built", bad)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, value: ArrayLike, bad: list[str]) -> Array | None:
        try:
            raw = np.asarray(value)
            if raw.dtype.kind not in "buif":
                raise TypeError(f"dtype {raw.dtype}")
            array = _frozen(raw, np.float64)
        except _UNREADABLE as cause:
            bad.append(f"{name} must be an array of real numbers, got {type(value).__name__} ({cause})")
            return None
        if array.size == 0:
            bad.append(f"{name} is empty (shape {array.shape}); give at least one value")
        elif not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            bad.append(f"{name} holds {count} value(s) that are NaN or infinite; all must be finite")
        elif name in self._positive and not (array > 0).all():
            bad.append(f"{name} must be positive, the smallest is {array.min():g}")
        return array

    def _steps(self, name: str, value: ArrayLike, bad: list[str]) -> IntArray | None:
        try:
            raw = np.asarray(value)
            if raw.dtype.kind not in "buif":
                raise TypeError(f"dtype {raw.dtype}")
            if not np.isfinite(raw).all() or not np.array_equal(raw, np.rint(raw)):
                raise ValueError("some are fractional, NaN or infinite")
        except _UNREADABLE as cause:
            bad.append(f"{name} must hold whole numbers of steps ({cause}); round it first")
            return None
        if raw.size == 0:
            bad.append(f"{name} is empty (shape {raw.shape}); give at least one value")
        elif raw.min() < 0 or raw.max() > MAX_DELAY_STEPS:  # before the cast, which would wrap
            bad.append(
                f"{name} must lie in 0..{MAX_DELAY_STEPS} steps, found {raw.min()}..{raw.max()}; "
                "a spike cannot arrive before it was sent"
            )
        else:
            return _frozen(raw, np.int64)
        return None

    def problems(self) -> list[str]:
        """Everything wrong with this node alone, one sentence each."""
        return []

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # pickle and deepcopy hand back writable arrays
            self._set(name, _frozen(value, value.dtype) if isinstance(value, np.ndarray) else value)


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) > 0
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in shape)
    )


def too_large(shape: Shape) -> list[str]:
    """A complaint if one step of this shape is beyond `MAX_CHANNELS`; checked before anything is allocated."""
    if math.prod(shape) <= MAX_CHANNELS:
        return []
    return [f"shape {shape} has {math.prod(shape)} channels, at most {MAX_CHANNELS} are allowed in a node"]


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Where events enter. ``shape`` is that of one step, e.g. (12,) or (2, 34, 34)."""

    shape: Shape

    def problems(self) -> list[str]:
        if not _is_shape(self.shape):
            return [f"shape must be a tuple of positive integers, got {self.shape!r}"]
        self._set("shape", tuple(int(n) for n in self.shape))
        return too_large(self.shape)


READOUTS = ("count", "sum", "max", "last")


@dataclass(frozen=True, eq=False)
class Output(Node):
    """Where answers leave. ``readout`` says how time becomes one score per channel.

    "count": number of spikes, of a source that spikes (perhaps through a Flatten or a Delay).
    "sum", "max", "last": of the source's membrane v (after the reset) over the steps of a sample;
    of what the source sends, where it has no membrane. The decision is the argmax, lowest index on a tie.
    """

    readout: str = "count"

    def problems(self) -> list[str]:
        return [] if _one_of(self.readout, READOUTS) else [f"readout must be one of {READOUTS}, got {self.readout!r}"]


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y[t, o] = sum_i weight[o, i] x[t - delay_steps[o, i], i].

    weight: [out, in]. delay_steps: int64[out, in] whole steps per synapse, or None for none.
    """

    weight: Array
    delay_steps: IntArray | None = None

    def problems(self) -> list[str]:
        bad = []
        if self.weight.ndim != 2:
            bad.append(f"weight must be [out, in], got shape {self.weight.shape}")
        if self.delay_steps is not None and self.delay_steps.shape != self.weight.shape:
            bad.append(f"delay_steps {self.delay_steps.shape} must have weight's shape {self.weight.shape}")
        return bad


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """`Linear` plus bias[o] in every step. bias: [out]."""

    bias: Array = field(kw_only=True)

    def problems(self) -> list[str]:
        bad = super().problems()
        if self.weight.ndim == 2 and self.bias.shape != (self.weight.shape[0],):
            bad.append(f"bias must be [{self.weight.shape[0]}], got shape {self.bias.shape}")
        return bad


def _pair(value: object) -> tuple[int, int]:
    """An int or a pair of ints, as torch and NIR write kernel sizes; (-1, -1) if it is neither."""
    try:
        array = np.atleast_1d(np.asarray(value))
    except _UNREADABLE:
        return (-1, -1)
    if array.dtype.kind not in "iu" or array.ndim != 1 or array.size not in (1, 2):
        return (-1, -1)
    if array.max() > MAX_WINDOW:
        return (-1, -1)
    return (int(array[0]), int(array[-1]))


@dataclass(frozen=True, eq=False)
class Conv2d(Node):
    """2-D cross-correlation of x [in, height, width] with zero padding, plus bias.

    weight: [out, in / groups, kernel_h, kernel_w]. stride, padding, dilation: (h, w). bias: [out].
    """

    weight: Array
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: Array = field(default_factory=lambda: np.zeros(1))

    def problems(self) -> list[str]:
        bad = []
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            given = getattr(self, name)
            self._set(name, _pair(given))
            if min(getattr(self, name)) < least:
                bad.append(f"{name} must be one or two integers in {least}..{MAX_WINDOW}, got {given!r}")
        if self.weight.ndim != 4:
            bad.append(f"weight must be [out, in / groups, kernel_h, kernel_w], got {self.weight.shape}")
            return bad
        out = self.weight.shape[0]
        if not isinstance(self.groups, (int, np.integer)) or self.groups < 1 or out % int(self.groups):
            bad.append(f"groups must be a positive divisor of {out} output channels, got {self.groups!r}")
        else:
            self._set("groups", int(self.groups))
        if self.bias.size == 1:
            self._set("bias", _frozen(np.full(out, self.bias.item()), np.float64))
        if self.bias.shape != (out,):
            bad.append(f"bias must be [{out}], got shape {self.bias.shape}")
        return bad


@dataclass(frozen=True, eq=False)
class _Pool2d(Node):
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def problems(self) -> list[str]:
        bad = []
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            given = getattr(self, name)
            self._set(name, _pair(given))
            if min(getattr(self, name)) < least:
                bad.append(f"{name} must be one or two integers in {least}..{MAX_WINDOW}, got {given!r}")
        return bad


@dataclass(frozen=True, eq=False)
class SumPool2d(_Pool2d):
    """Sum over windows of x [channel, height, width]; windows that stick out are dropped."""


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Pool2d):
    """`SumPool2d` divided by the window's area (padding counts, as torch's default)."""


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """Row-major reshape of one step to a vector."""


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """y = scale * x, element by element. scale: the shape of x, or a scalar."""

    scale: Array


@dataclass(frozen=True, eq=False)
class Delay(Node):
    """y[t] = x[t - steps]. steps: int64 whole steps per channel (axonal delay), or a scalar."""

    steps: IntArray


def expand(values: NDArray[Any], shape: Shape, what: str) -> NDArray[Any]:
    """``values`` broadcast to ``shape`` if they are one value, or have its axes with some of length 1.

    numpy's rule of leading axes is not used: [4] beside [2, 4, 4] would be per column, which nobody means.

    Raises:
        ShapeMismatch: neither.
    """
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape)
    if values.ndim == len(shape) and all(n in (1, m) for n, m in zip(values.shape, shape, strict=True)):
        return np.broadcast_to(values, shape)
    raise ShapeMismatch(f"{what} shape {values.shape}, input has {shape}")


@dataclass(frozen=True, eq=False)
class Neuron(Node):
    """Base of nodes with state. Parameters broadcast to one value per neuron."""

    _positive: ClassVar[tuple[str, ...]] = ("tau_mem", "tau_syn")
    spiking: ClassVar[bool] = False

    @property
    def shape(self) -> Shape:
        """Shape of the population: that of its parameters."""
        return np.broadcast_shapes(*(getattr(self, n).shape for n in self._parameters()))

    @classmethod
    def _parameters(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.type == "Array")

    def problems(self) -> list[str]:
        try:
            shape = self.shape
        except ValueError:
            given = ", ".join(f"{n} {getattr(self, n).shape}" for n in self._parameters())
            return [f"parameters do not broadcast to one shape: {given}"]
        if too_large(shape):
            return too_large(shape)
        for name in self._parameters():
            self._set(name, _frozen(np.broadcast_to(getattr(self, name), shape), np.float64))
        reset = getattr(self, "reset", "hard")
        return [] if _one_of(reset, RESETS) else [f"reset must be one of {RESETS}, got {reset!r}"]

    def expand(self, shape: Shape) -> Neuron:
        """The same neuron with one value per neuron of ``shape``: from scalars, from one value for all
        (any number of axes of length 1), or from parameters like [channel, 1, 1].

        Raises:
            ShapeMismatch: the parameters have another shape.
        """
        return replace(self, **{n: expand(getattr(self, n), shape, "parameters have") for n in self._parameters()})


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """Integrate-and-fire: v[t] = v[t-1] + r x[t].

    ``r`` acts per step, not per second, as every simulator that reads NIR has it.
    """

    spiking: ClassVar[bool] = True
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]  # scalars become arrays in __post_init__
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: str = "hard"


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """Leaky integrator: v[t] = b v[t-1] + (1 - b) (v_leak + r x[t]). tau_mem in seconds."""

    tau_mem: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Leaky integrate-and-fire: `LI`, then spike and reset. tau_mem in seconds."""

    spiking: ClassVar[bool] = True
    tau_mem: Array
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    reset: str = "hard"


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """Current-based leaky integrator, the synapse first, in the same step:

    i[t] = a i[t-1] + (1 - a) w_in x[t];  v[t] = b v[t-1] + (1 - b) (v_leak + r i[t]).
    """

    tau_syn: Array
    tau_mem: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """Current-based leaky integrate-and-fire: `CubaLI`, then spike and reset (i is not reset)."""

    spiking: ClassVar[bool] = True
    tau_syn: Array
    tau_mem: Array
    v_threshold: Array
    r: Array = 1.0  # type: ignore[assignment]
    v_leak: Array = 0.0  # type: ignore[assignment]
    v_reset: Array = 0.0  # type: ignore[assignment]
    w_in: Array = 1.0  # type: ignore[assignment]
    reset: str = "hard"


NODE_TYPES: Mapping[str, type[Node]] = types.MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
            *(Input, Output, Linear, Affine, Conv2d, SumPool2d, AvgPool2d, Flatten, Scale, Delay),
            *(IF, LI, LIF, CubaLI, CubaLIF),
        )
    }
)


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen graph of nodes.

    Args:
        nodes: name -> node, in declared order.
        edges: (source, destination) pairs; several edges into one node add up.
        dt: length of a step in seconds.
        discretisation: "exact" or "euler", see the module docstring.
        metadata: strings that travel with the network and its files, e.g. class names. A key
            "node/key" belongs to that node.

    Raises:
        NetworkError: with every violation at once (`ShapeMismatch`, `UnknownNode`,
            `CyclicWithoutDelay` where all violations are of that kind). Among them: "euler" with a
            time constant shorter than dt, where the step would overshoot.

    Attributes set on construction: ``shapes`` (name -> shape of what the node sends in one step),
    ``order`` (names in the order of evaluation), ``feedback`` (edges one step late).
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    dt: float
    discretisation: str = "exact"
    metadata: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(init=False)
    order: tuple[str, ...] = field(init=False)
    feedback: frozenset[Edge] = field(init=False)
    _into: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)
    _out_of: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from neuro import discretise as _discretise  # here: both need the node types above
        from neuro import shapes as _shapes

        bad: list[str] = []
        if isinstance(self.dt, bool) or not isinstance(self.dt, (int, float, np.floating, np.integer)):
            bad.append(f"dt must be a number of seconds, got {self.dt!r}")
        elif not 0 < self.dt < sys.float_info.max:
            bad.append(f"dt must be positive and finite, got {self.dt!r} s")
        if not _one_of(self.discretisation, RULES):
            bad.append(f"discretisation must be one of {RULES}, got {self.discretisation!r}")
        if not isinstance(self.nodes, Mapping) or not self.nodes:
            raise NetworkError("network has no nodes", bad)
        for name, node in self.nodes.items():
            if not isinstance(name, str) or not name:
                bad.append(f"a node's name must be a non-empty string, got {name!r}")
            if NODE_TYPES.get(type(node).__name__) is not type(node):
                bad.append(f"'{name}' is a {type(node).__name__}, not one of {', '.join(NODE_TYPES)}")
        if not isinstance(self.metadata, Mapping) or not all(
            isinstance(text, str) for pair in self.metadata.items() for text in pair
        ):
            bad.append(f"metadata must map strings to strings, got {self.metadata!r:.200}")
        edges = self._pairs(bad)
        if bad:
            raise NetworkError("network cannot be built", bad)
        missing = [
            f"edge {edge} names '{end}', which is not a node" for edge in edges for end in edge if end not in self.nodes
        ]
        if missing:
            raise UnknownNode("network cannot be built", missing)
        object.__setattr__(self, "dt", float(self.dt))
        object.__setattr__(self, "edges", edges)
        for end, table in ((1, "_into"), (0, "_out_of")):
            found: dict[str, list[str]] = {name: [] for name in self.nodes}
            for edge in edges:
                found[edge[end]].append(edge[1 - end])
            object.__setattr__(self, table, {name: tuple(others) for name, others in found.items()})
        object.__setattr__(self, "metadata", types.MappingProxyType(dict(self.metadata)))
        _shapes.settle(self)
        _discretise.check(self)

    def _pairs(self, bad: list[str]) -> tuple[Edge, ...]:
        edges: list[Edge] = []
        try:
            for edge in self.edges:
                source, target = edge
                if isinstance(edge, str) or not (isinstance(source, str) and isinstance(target, str)):
                    raise TypeError(f"not a pair of names: {edge!r}")
                edges.append((source, target))
        except (TypeError, ValueError) as cause:
            bad.append(f"edges must be (source, target) pairs of node names ({cause})")
        twice = sorted({e for e in edges if edges.count(e) > 1}) if len(set(edges)) < len(edges) else []
        bad += [f"edge {edge} is listed twice; put the factor into the weights" for edge in twice]
        return tuple(edges)

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes with an edge into ``name``, in declared order."""
        return self._into[name]

    def targets(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` has an edge into, in declared order."""
        return self._out_of[name]

    def of(self, *kinds: type[Node]) -> tuple[str, ...]:
        """Names of all nodes of the given types, in order of evaluation."""
        return tuple(n for n in self.order if isinstance(self.nodes[n], kinds))

    @property
    def input(self) -> str:
        """Name of the only input.

        Raises:
            NetworkError: there is not exactly one.
        """
        return self._only(Input)

    @property
    def output(self) -> str:
        """Name of the only output.

        Raises:
            NetworkError: there is not exactly one.
        """
        return self._only(Output)

    def _only(self, kind: type[Node]) -> str:
        names = self.of(kind)
        if len(names) != 1:
            raise NetworkError(f"needs exactly one {kind.__name__}, this network has {len(names)}: {names}")
        return names[0]

    def replace_nodes(self, changed: Mapping[str, Node]) -> Network:
        """A network with some nodes exchanged, validated anew."""
        return Network({**self.nodes, **changed}, self.edges, self.dt, self.discretisation, self.metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (dict(self.nodes), self.edges, self.dt, self.discretisation, dict(self.metadata))

    def __repr__(self) -> str:
        lines = [f"Network({len(self.nodes)} nodes, dt={self.dt:g} s, {self.discretisation})"]
        for name in self.order:
            node = self.nodes[name]
            into = ", ".join(s + (" (z^-1)" if (s, name) in self.feedback else "") for s in self.sources(name))
            lines.append(f"  {name}: {type(node).__name__} {self.shapes[name]}" + (f" <- {into}" if into else ""))
        return "\n".join(lines)


def chain(nodes: Mapping[str, Node] | Iterable[tuple[str, Node]], dt: float, **options: Any) -> Network:
    """A feed-forward `Network` whose nodes follow each other in the given order.

    Raises:
        NetworkError: as `Network`; a name that is given twice.
    """
    try:
        pairs = list(nodes.items()) if isinstance(nodes, Mapping) else [(name, node) for name, node in nodes]
        table = dict(pairs)
    except (TypeError, ValueError) as cause:
        raise NetworkError("a chain is a mapping, or pairs, of names and nodes", [str(cause)]) from cause
    names = [name for name, _ in pairs]
    if len(table) < len(names):
        raise NetworkError(f"names must differ, got {names}")
    return Network(table, tuple(itertools.pairwise(names)), dt, **options)


__all__ = [
    "IF",
    "LI",
    "LIF",
    "MAX_CHANNELS",
    "MAX_DELAY_STEPS",
    "MAX_WINDOW",
    "NODE_TYPES",
    "READOUTS",
    "RESETS",
    "RULES",
    "Affine",
    "Array",
    "AvgPool2d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "Edge",
    "Flatten",
    "Input",
    "IntArray",
    "Linear",
    "Network",
    "Neuron",
    "Node",
    "Output",
    "Scale",
    "Shape",
    "SumPool2d",
    "chain",
    "expand",
    "too_large",
]
