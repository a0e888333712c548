"""`to_network`: a quantised graph whose operations between neurons are linear, as a `neuro.ir.Network` for chips.

    net = to_network(graph, "thermometer")
    events = net.encode(x)                     # uint8[steps, batch, ...]: what the network's input is given
    scores = net.decode(raw, unit)             # the graph's answer, from what the network's Output reads

| form | neurons | steps of a sample | equal to the graph |
|---|---|---|---|
| thermometer | one threshold unit per level, no state | 1 | yes, where the chip holds the whole weights |
| levels | `QuantisedReLU` | 1 | yes (Akida: see docs/conversion.md) |
| graded | `Delta`, `SigmaDelta`, `I` | 1 | yes, of rectifiers without levels |
| unfold | integrate-and-fire, held by a clock | depth * levels | yes |
| rate | integrate-and-fire, reset by subtraction | any | no: the certificate says how far |

The answer is read from membranes ("membrane": the last weights are on the chip) or from spikes ("spikes": the graph's
answer is that of neurons, or what is linear behind them is left to `decode`, on the host).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import Quantise
from neuro.convert.wires import Code, Shape
from neuro.errors import ConversionError
from neuro.extend import did_you_mean
from neuro.ir import Network

DT = 1e-3
HOST = "the input is real: quantise(..., input_levels=L) puts levels behind it, or say what it holds by input_levels="


@dataclass(frozen=True, eq=False)
class Lowered:
    """A network, and how its numbers stand for those of a graph.

    network: one input, one output. form: as in `to_network`. steps: of a sample. graph: what it is equal to, where
    ``exact``; its values by name are those of ``codes``. claim: one sentence. weight_bits: that its whole weights need,
    with the sign; 0: weights are real. codes: population of the graph -> what its spikes mean; node: -> its name in
    the network. neurons: how many the network has.
    """

    network: Network
    form: str
    steps: int
    graph: Graph
    exact: bool
    claim: str
    source: str
    codes: Mapping[str, Code]
    node: Mapping[str, str]
    _encode: Callable[[Tensor], NDArray[np.uint8]] = field(repr=False)
    _decode: Callable[[NDArray[np.float64]], Tensor] = field(repr=False)
    weight_bits: int = 0

    def encode(self, x: ArrayLike | Tensor) -> NDArray[np.uint8]:
        """Samples [batch, *shape] as the graph reads them -> uint8[steps, batch, *input].

        Raises:
            ConversionError: another shape.
        """
        samples = torch.as_tensor(np.asarray(x), dtype=torch.float64)
        wanted = self.graph.ops[self.graph.inputs[0]].shape  # type: ignore[attr-defined]
        if tuple(samples.shape[1:]) != tuple(wanted):
            raise ConversionError(f"samples must be [batch, {', '.join(map(str, wanted))}], got {tuple(samples.shape)}")
        return self._encode(samples)

    def decode(self, raw: ArrayLike, unit: float = 1.0) -> NDArray[np.float64]:
        """Scores [batch, *answer] of the graph, from those of the network [batch, n].

        raw: what the Output reads: of `neuro.reference.scores` (unit 1), or of a chip's trace, where the unit is
        what one integer of the membrane that is read is worth (`Program.scale`), 1 for counts.
        """
        read = np.asarray(raw, dtype=np.float64)
        return self._decode(read.reshape(len(read), -1) * unit).numpy()

    def values(self, name: str, sent: NDArray[Any]) -> NDArray[np.float64]:
        """Values [batch, *shape] of a population of the graph, from what its node sent [batch, n] in the step in which
        it answers."""
        return self.codes[name].value(sent).numpy()

    @property
    def neurons(self) -> int:
        """Neurons and value senders of the network."""
        from neuro import ir

        kinds = (ir.Neuron, ir.QuantisedReLU)
        return int(sum(np.prod(self.network.shapes[n]) for n, o in self.network.nodes.items() if isinstance(o, kinds)))


def to_network(
    graph: Graph,
    form: str = "thermometer",
    *,
    readout: str = "auto",
    input_levels: int | None = None,
    input_high: float = 1.0,
    binary_input: bool = True,
    neuron: str = "LIF",
    bias: str = "network",
    steps: int | None = None,
    dt: float = DT,
) -> Lowered:
    """A quantised graph as a network; see the module for the forms.

    Args:
        readout: "membrane", "spikes", or "auto": spikes where the answer is that of neurons, else membranes.
        input_levels: the input holds whole multiples 0..input_levels of input_high / input_levels, or is rounded to
            them; for graphs that do not say so themselves by a `Quantise` behind the input.
        binary_input: "thermometer" only: one input channel per level; False: channels that carry the level, for chips
            that take numbers from outside.
        neuron: "thermometer" only: "LIF" (decay 0: nothing is left of a sample in the next step) or "IF" (a sample
            begins at rest; for chips without a decay, or whose thresholds are exact without one).
        bias: of the answer: "network", or "decode": added by `Lowered.decode`, for chips whose last layer has none.
        steps: "rate" only: of a sample.
        dt: seconds of a step.

    Raises:
        ConversionError: everything in the graph that this form cannot hold, with what it would accept; options out of
            range.
    """
    from neuro.convert.forms import FORMS

    if form not in FORMS:
        raise ConversionError(f"no form {form!r}. {did_you_mean(form, FORMS)}")
    bad = (
        []
        if readout in ("auto", "membrane", "spikes")
        else [f"readout: 'auto', 'membrane' or 'spikes', got {readout!r}"]
    )
    bad += [] if neuron in ("LIF", "IF") else [f"neuron must be 'LIF' or 'IF', got {neuron!r}"]
    bad += [] if bias in ("network", "decode") else [f"bias must be 'network' or 'decode', got {bias!r}"]
    bad += [] if dt > 0 else [f"dt must be positive, got {dt}"]
    if input_levels is not None and not 1 <= input_levels <= 255:
        bad.append(f"input_levels must lie in 1..255, got {input_levels}")
    bad += [] if input_high > 0 else [f"input_high must be positive, got {input_high}"]
    if steps is not None and (steps < 1 or form != "rate"):
        bad.append(f"steps, at least 1, are a choice of form 'rate' alone, got {steps} for {form!r}")
    if len(graph.inputs) != 1:
        bad.append(f"one input is needed, the graph has {list(graph.inputs)}")
    if bad:
        raise ConversionError(f"cannot lower to form '{form}'", bad)
    graph = _given(graph, input_levels, input_high)
    options = Options(form, readout, binary_input, neuron, bias, steps, dt)
    with torch.no_grad():
        return FORMS[form](graph, options)


@dataclass(frozen=True)
class Options:
    """As `to_network` was told."""

    form: str
    readout: str
    binary_input: bool
    neuron: str
    bias: str
    steps: int | None
    dt: float


def _given(graph: Graph, levels: int | None, high: float) -> Graph:
    if levels is None:
        entrance(graph)
        return graph
    name = graph.inputs[0]
    step = torch.tensor(high / levels, dtype=torch.float64)
    return graph.insert(name, f"{name}.events", Quantise(step, 0, levels))


def entrance(graph: Graph) -> str:
    """The `Quantise` that turns the input into events; what stands in front of it (a factor, a shift) is the host's.

    Raises:
        ConversionError: there is none that everything of the input goes through.
    """
    name = graph.inputs[0]
    while not isinstance(graph.ops[name], Quantise):
        users = [n for n in graph.order if name in graph.takes[n]]
        if len(users) != 1 or graph.takes[users[0]] != (name,) or hasattr(graph.ops[users[0]], "weight"):
            raise ConversionError(HOST, [f"'{name}' goes to {users}"])
        name = users[0]
    return name


def refuse(form: str, bad: list[str]) -> None:
    """Raise what was found, if anything was."""
    if bad:
        raise ConversionError(f"this graph cannot be lowered to form '{form}'", list(dict.fromkeys(bad)))


__all__ = ["Lowered", "Options", "Shape", "entrance", "refuse", "to_network"]
