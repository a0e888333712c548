"""From the ``[[layers]]`` of a configuration to a `SpikingNetwork`, one row per layer type.

Initial weights come from a generator seeded with (seed, number of the layer), so a layer's start does
not depend on what is before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from neuro.errors import BadConfig, NetworkError
from neuro.extend import did_you_mean
from neuro.ir import ADAPTATIONS, MAX_DELAY_STEPS, RESETS, Shape
from neuro.nn.adaptive import AdLIF
from neuro.nn.delay import Delay, DelayedLinear, Taps
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.delay_recurrent import DelayedRecurrent
from neuro.nn.few_levels import LEVELS, FewConv2d, FewLinear
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Population, Recurrent, Temporal, decays
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import SpikingNetwork
from neuro.nn.quantised import MOST_BITS, QuantisedConv2d, QuantisedLinear, QuantisedReLU
from neuro.nn.stateless import AvgPool2d, Dropout, ScaleNorm, SumPool2d
from neuro.nn.surrogate import SURROGATES, surrogate
from neuro.tables import read_table
from neuro.train.build_beyond import BEYOND
from neuro.train.delays import DelayConfig
from neuro.train.seeds import generator

STREAM_INIT = 1  # of neuro.train.seeds


def _at_least(problems: list[str], least: float, **values: float | None) -> list[str]:
    return problems + [
        f"{n} is {v}, it must be at least {least:g}" for n, v in values.items() if v is not None and v < least
    ]


@dataclass(frozen=True)
class FewConfig:
    """Weights of two or three values from the start (`neuro.nn.few_levels`). levels: "binary" or "ternary". each: a
    scale per output. affine: with an offset, that of a shared count of input spikes."""

    levels: str = "ternary"
    each: bool = False
    affine: bool = False

    def problems(self) -> list[str]:
        return (
            [] if self.levels in LEVELS else [f"levels '{self.levels}' is unknown. {did_you_mean(self.levels, LEVELS)}"]
        )

    @property
    def options(self) -> dict[str, Any]:
        return {"levels": self.levels, "each": self.each, "affine": self.affine}


@dataclass(frozen=True)
class LinearSpec:
    """init: weights are N(0, init^2 / fan_in); left out: uniform within +-1/sqrt(fan_in), as torch.

    max_delay: each synapse gets a fixed random delay of 0..max_delay steps. delay: delays that are learnt, a table of
    `neuro.train.delays.DelayConfig`.
    bits: weights run on a symmetric grid of so many bits from the start, 0 for real weights.
    window: the inputs are so many taps of the same channels (see "taps"), and the weights of the later taps start
    as minus the mean of the first's: the sum over a window that slides. 1 for inputs of any kind.
    fan_in: the largest number of inputs of one output, in blocks that share theirs (`neuro.nn.masked.windows`).
    few: binary or ternary weights from the start, a table of `FewConfig`.
    """

    out: int
    bias: bool = False
    init: float | None = None
    max_delay: int = 0
    window: int = 1
    bits: int = 0
    fan_in: int | None = None
    delay: DelayConfig | None = None
    few: FewConfig | None = None

    def problems(self) -> list[str]:
        bad = _at_least(_at_least([], 1, out=self.out, window=self.window), 0, init=self.init, max_delay=self.max_delay)
        bad = _at_least(bad, 1, fan_in=self.fan_in)
        given = [self.max_delay > 0, self.bits > 0, *(x is not None for x in (self.fan_in, self.delay, self.few))]
        if sum(given) > 1:
            bad.append("of bits, max_delay, delay, fan_in and few only one can be had")
        if self.window > 1 and self.fan_in is not None:
            bad.append("window and fan_in cannot be had together")
        return bad + _bits_problems(self.bits)

    def build(self, shape: Shape, rng: torch.Generator) -> nn.Module:
        if len(shape) != 1:
            raise NetworkError(f"a linear layer wants a vector, gets {shape}; put a flatten in front")
        if shape[0] % self.window:
            raise NetworkError(f"{shape[0]} inputs are not {self.window} taps of as many channels")
        layer: Any
        if self.max_delay:
            steps = torch.randint(0, self.max_delay + 1, (self.out, shape[0]), generator=rng)
            layer = DelayedLinear(steps.numpy(), self.bias)
        elif self.delay is not None:
            layer = self.delay.build(shape[0], self.out, self.bias, rng)
        elif self.bits:
            layer = QuantisedLinear(shape[0], self.out, self.bias, bits=self.bits)
        elif self.few is not None:
            layer = FewLinear(shape[0], self.out, self.bias, **self.few.options)
        elif self.fan_in is not None:
            layer = MaskedLinear(shape[0], self.out, self.bias, self.fan_in)
        else:
            layer = _empty(nn.Linear, shape[0], self.out, self.bias)
        channels = shape[0] // self.window
        _start(layer.weight, min(channels, self.fan_in or channels), self.init, rng)
        with torch.no_grad():
            for k in range(1, self.window):
                first = layer.weight[:, :channels]
                layer.weight[:, k * channels : (k + 1) * channels] = first / (1 - self.window)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ConvSpec:
    """2-D convolution; init, bits and few as in `LinearSpec`, fan_in is that of one output.

    line: the kernel is one row high, along the width alone, where alone stride and padding count too: for what has one
    axis, such as the bands of a spectrum.
    """

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    line: bool = False
    groups: int = 1
    bias: bool = False
    init: float | None = None
    bits: int = 0
    few: FewConfig | None = None

    def problems(self) -> list[str]:
        bad = ["of bits and few only one can be had"] if self.bits and self.few is not None else []
        bad = _at_least(bad, 1, out=self.out, kernel=self.kernel, stride=self.stride, groups=self.groups)
        return _at_least(bad, 0, padding=self.padding, init=self.init) + _bits_problems(self.bits)

    def build(self, shape: Shape, rng: torch.Generator) -> nn.Module:
        if len(shape) != 3:
            raise NetworkError(f"a convolution wants (channel, height, width), gets {shape}")
        if shape[0] % self.groups or self.out % self.groups:
            raise NetworkError(f"groups = {self.groups} must divide {shape[0]} input and {self.out} output channels")
        height, down, above = (1, 1, 0) if self.line else (self.kernel, self.stride, self.padding)
        across = ((height, self.kernel), (down, self.stride), (above, self.padding))
        geometry = (shape[0], self.out, *across, 1, self.groups, self.bias)
        layer: Any
        if self.bits:
            layer = QuantisedConv2d(*geometry, bits=self.bits)
        elif self.few is not None:
            layer = FewConv2d(*geometry, **self.few.options)
        else:
            layer = _empty(nn.Conv2d, *geometry)
        _start(layer.weight, shape[0] // self.groups * height * self.kernel, self.init, rng)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer  # type: ignore[no-any-return]


def _bits_problems(bits: int) -> list[str]:
    return [] if bits == 0 or 2 <= bits <= MOST_BITS else [f"bits is {bits}, allowed 2..{MOST_BITS}, or 0 for none"]


@dataclass(frozen=True)
class QuantisedReLUSpec:
    """A rectifier that sends one of levels + 1 values up to ``top``: its step is top / levels.

    Behind a norm, whose scale is trained, a top of about 3 holds nearly all values.
    """

    levels: int
    top: float = 3.0

    def problems(self) -> list[str]:
        return _at_least([], 1, levels=self.levels) + ([] if self.top > 0 else ["top must be positive"])


@dataclass(frozen=True)
class NormSpec:
    """Batch norm. start: initial scale. shift: False divides by the root mean square and subtracts nothing,
    so that nothing but a factor is left to fold: no bias arises."""

    start: float = 1.0
    shift: bool = True

    def build(self, shape: Shape, rng: torch.Generator) -> nn.Module:
        if not self.shift:
            return ScaleNorm(shape[0], self.start)
        layer = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0])
        nn.init.constant_(layer.weight, self.start)
        return layer


@dataclass(frozen=True)
class NeuronSpec:
    """Decays per step (alpha, beta) or time constants in seconds (tau_syn, tau_mem).

    learn: which of alpha, beta, v_threshold are trained; one value per neuron with ``each``.
    recurrent: spikes return to the layer one step later, initial weights N(0, recurrent_init^2 / n), from at most
    recurrent_fan_in neurons, in blocks that share theirs (`neuro.nn.masked.windows`). recurrent_delay: so many steps
    more, learnt, a table of `neuro.train.delays.DelayConfig`.
    """

    alpha: float | None = None
    beta: float | None = None
    tau_syn: float | None = None
    tau_mem: float | None = None
    v_threshold: float = 1.0
    v_reset: float = 0.0
    reset: str = "hard"
    detach: bool = False
    surrogate: str = "fast_sigmoid"
    surrogate_alpha: float | None = None
    learn: tuple[str, ...] = ()
    each: bool = False
    recurrent: bool = False
    recurrent_init: float = 0.5
    recurrent_fan_in: int | None = None
    recurrent_delay: DelayConfig | None = None

    def problems(self) -> list[str]:
        bad = []
        if self.recurrent_delay is not None and (not self.recurrent or self.recurrent_fan_in is not None):
            bad.append("recurrent_delay needs recurrent = true, and excludes recurrent_fan_in")
        if self.surrogate not in SURROGATES:
            bad.append(f"surrogate '{self.surrogate}' is unknown. {did_you_mean(self.surrogate, SURROGATES)}")
        if self.reset not in RESETS:
            bad.append(f"reset must be one of {RESETS}, got '{self.reset}'")
        for decay, tau in (("alpha", "tau_syn"), ("beta", "tau_mem")):
            if getattr(self, decay) is not None and getattr(self, tau) is not None:
                bad.append(f"{decay} and {tau} say the same; give one")
        bad += [f"{n} must be positive" for n in ("tau_syn", "tau_mem", "v_threshold", "surrogate_alpha")
                if getattr(self, n) is not None and not getattr(self, n) > 0]  # fmt: skip
        return bad

    def make(self, cls: type[Neuron], shape: Shape, dt: float, rng: torch.Generator) -> nn.Module:
        options: dict[str, Any] = {}
        if cls.leaky:
            if self.beta is None and self.tau_mem is None:
                raise NetworkError("needs beta, or tau_mem in seconds")
            options["beta"] = self.beta if self.tau_mem is None else decays(self.tau_mem, dt)["beta"]
        if cls.synapse:
            if self.alpha is None and self.tau_syn is None:
                raise NetworkError("needs alpha, or tau_syn in seconds")
            options["alpha"] = self.alpha if self.tau_syn is None else decays(self.tau_syn, dt)["beta"]
        taken = {"alpha": cls.synapse, "tau_syn": cls.synapse, "beta": cls.leaky, "tau_mem": cls.leaky}
        unused = [n for n, used in taken.items() if not used and getattr(self, n) is not None]
        if unused:
            raise NetworkError(f"has no {' or '.join(unused)}")
        if cls.spiking:
            options |= {"v_threshold": self.v_threshold, "v_reset": self.v_reset, "reset": self.reset}
        if self.each:
            options = {n: v if isinstance(v, str) else torch.full(shape, v).numpy() for n, v in options.items()}
        chosen = surrogate(self.surrogate, self.surrogate_alpha)
        return self.looped(cls(**options, detach=self.detach, surrogate=chosen, learn=self.learn), shape, rng)

    def looped(self, neuron: Population, shape: Shape, rng: torch.Generator) -> nn.Module:
        """The neurons, listening to themselves if they are to."""
        if not self.recurrent:
            return neuron
        if len(shape) != 1:
            raise NetworkError(f"recurrence wants a vector of neurons, gets {shape}")
        if self.recurrent_delay is not None:
            back = self.recurrent_delay.build(shape[0], shape[0], False, rng)
            _start(back.weight, shape[0], self.recurrent_init, rng)
            return DelayedRecurrent(neuron, back)
        layer = Recurrent(neuron, shape[0])
        if self.recurrent_fan_in is not None:
            layer.recurrent = MaskedLinear(shape[0], shape[0], False, self.recurrent_fan_in)
        _start(layer.recurrent.weight, min(shape[0], self.recurrent_fan_in or shape[0]), self.recurrent_init, rng)
        return layer


@dataclass(frozen=True)
class AdaptiveSpec(NeuronSpec):
    """`NeuronSpec` of `neuro.nn.AdLIF`: also rho or tau_adapt, a, b, adaptation ("symplectic", "euler", "threshold").

    a, b: per step, what the membrane and a spike add to w, which is taken from the membrane or raises the threshold.
    learn: which of beta, rho, a, b, v_threshold.
    """

    rho: float | None = None
    tau_adapt: float | None = None
    a: float = 0.0
    b: float = 0.0
    adaptation: str = "symplectic"

    def problems(self) -> list[str]:
        bad = super().problems()
        if self.adaptation not in ADAPTATIONS:
            bad.append(f"adaptation must be one of {ADAPTATIONS}, got '{self.adaptation}'")
        if (self.rho is None) == (self.tau_adapt is None):
            bad.append("needs either rho, or tau_adapt in seconds")
        if (self.beta is None) == (self.tau_mem is None):
            bad.append("needs either beta, or tau_mem in seconds")
        bad += [f"has no {n}" for n in ("alpha", "tau_syn") if getattr(self, n) is not None]
        return bad + (["tau_adapt must be positive"] if self.tau_adapt is not None and self.tau_adapt <= 0 else [])

    def build(self, shape: Shape, dt: float, rng: torch.Generator) -> nn.Module:
        options: dict[str, Any] = {n: getattr(self, n) for n in ("a", "b", "v_threshold", "v_reset")}
        options["beta"] = self.beta if self.tau_mem is None else decays(self.tau_mem, dt)["beta"]
        options["rho"] = self.rho if self.tau_adapt is None else decays(self.tau_adapt, dt)["beta"]
        if self.each:
            options = {n: torch.full(shape, v).numpy() for n, v in options.items()}
        chosen = surrogate(self.surrogate, self.surrogate_alpha)
        neuron = AdLIF(**options, adaptation=self.adaptation, reset=self.reset, detach=self.detach, surrogate=chosen,
                       learn=self.learn)  # fmt: skip
        return self.looped(neuron, shape, rng)


@dataclass(frozen=True)
class PoolSpec:
    """Pooling windows; stride defaults to the window."""

    kernel: int
    stride: int | None = None
    padding: int = 0

    def problems(self) -> list[str]:
        return _at_least(_at_least([], 1, kernel=self.kernel, stride=self.stride), 0, padding=self.padding)


@dataclass(frozen=True)
class DropoutSpec:
    """Drops the same neurons in all steps of a sample, with probability p."""

    p: float

    def problems(self) -> list[str]:
        return [] if 0 <= self.p < 1 else [f"p is {self.p}, it must lie in [0, 1)"]


@dataclass(frozen=True)
class DelaySpec:
    """All channels ``steps`` steps later."""

    steps: int

    def problems(self) -> list[str]:
        return _at_least([], 0, steps=self.steps)


@dataclass(frozen=True)
class TapsSpec:
    """Each channel at several delays, side by side: the first tap of all channels, then the second, and so on. Of a
    feature map too: a convolution behind it has a kernel over time."""

    steps: tuple[int, ...]

    def problems(self) -> list[str]:
        good = self.steps and min(self.steps) >= 0 and max(self.steps) <= MAX_DELAY_STEPS
        return [] if good else [f"steps must be one or more delays in 0..{MAX_DELAY_STEPS}, got {list(self.steps)}"]

    def build(self, shape: Shape) -> nn.Module:
        if len(shape) not in (1, 3):
            raise NetworkError(f"taps want a vector or (channel, height, width), get {shape}")
        return Taps(self.steps, shape)


@dataclass(frozen=True)
class FlattenSpec:
    """A step becomes a vector."""


Build = Callable[[Any, Shape, float, torch.Generator], nn.Module]


def _neuron(cls: type[Neuron]) -> tuple[type, Build]:
    return NeuronSpec, lambda spec, shape, dt, rng: spec.make(cls, shape, dt, rng)


def _built(spec: type) -> tuple[type, Build]:
    return spec, lambda given, shape, dt, rng: given.build(shape, rng)


def _pool(cls: type[SumPool2d]) -> tuple[type, Build]:
    return PoolSpec, lambda spec, shape, dt, rng: cls(spec.kernel, spec.stride, spec.padding)


LAYERS: Mapping[str, tuple[type, Build]] = {
    "linear": _built(LinearSpec),
    "conv": _built(ConvSpec),
    "batch_norm": _built(NormSpec),
    "flatten": (FlattenSpec, lambda *_: nn.Flatten()),
    "sum_pool": _pool(SumPool2d),
    "avg_pool": _pool(AvgPool2d),
    "max_pool": (PoolSpec, lambda spec, *_: nn.MaxPool2d(spec.kernel, spec.stride, spec.padding)),
    "quantised_relu": (QuantisedReLUSpec, lambda spec, *_: QuantisedReLU(spec.top / spec.levels, spec.levels)),
    "dropout": (DropoutSpec, lambda spec, *_: Dropout(spec.p)),
    "delay": (DelaySpec, lambda spec, *_: Delay(spec.steps)),
    "taps": (TapsSpec, lambda spec, shape, *_: spec.build(shape)),
    "if": _neuron(IF),
    "lif": _neuron(LIF),
    "cuba_lif": _neuron(CubaLIF),
    "adlif": (AdaptiveSpec, lambda spec, shape, dt, rng: spec.build(shape, dt, rng)),
    "li": _neuron(LI),
    "cuba_li": _neuron(CubaLI),
    **BEYOND,
}


def read_layers(rows: tuple[Mapping[str, Any], ...], bad: list[str]) -> list[tuple[str, str, Any]]:
    """(name, type, spec) of every layer; problems go to ``bad``."""
    found: list[tuple[str, str, Any]] = []
    names: set[str] = set()
    for number, row in enumerate(rows):
        where = f"layers[{number}]"
        kind = row.get("type")
        if not isinstance(kind, str) or kind not in LAYERS:
            bad.append(f"{where}.type {kind!r} is unknown. {did_you_mean(str(kind), LAYERS)}")
            continue
        name = row.get("name", f"{number}_{kind}")
        if not isinstance(name, str) or not name or name in names or name in ("input", "output"):
            bad.append(f"{where}.name must be a new name, not 'input' or 'output', got {name!r}")
            continue
        names.add(name)
        spec = read_table(LAYERS[kind][0], {k: v for k, v in row.items() if k not in ("type", "name")}, where, bad)
        if spec is not None:
            found.append((name, kind, spec))
    return found


def build(
    rows: tuple[Mapping[str, Any], ...],
    input_shape: Shape,
    dt: float,
    readout: str,
    seed: int,
    classes: int,
    high: int = 1,
) -> SpikingNetwork:
    """The network of a configuration, freshly initialised. high: the largest value of an input channel in a step.

    Raises:
        BadConfig: layers that cannot follow each other, or an end that is not one score per class; all
            that can be found.
    """
    bad: list[str] = []
    specs = read_layers(rows, bad)
    layers: dict[str, nn.Module] = {}
    x = torch.zeros((1, *input_shape))
    for number, (name, kind, spec) in enumerate(specs if not bad else []):
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # layers start at random in torch's way before we start them in ours
                layer = LAYERS[kind][1](spec, tuple(x.shape[1:]), dt, generator(seed, STREAM_INIT, number))
            layers[name] = layer
            if not isinstance(layer, Temporal):
                with torch.no_grad():
                    x = layer.eval()(x)
                layer.train()
            elif isinstance(layer, (DelayedLinear, DelayLinear)):
                x = torch.zeros((1, layer.weight.shape[0]))
            elif isinstance(layer, Taps):
                x = layer.step(x, None)[0]
        except (NetworkError, RuntimeError) as problem:  # torch refuses a window larger than its input this way
            bad.append(f"layers[{number}] ({kind}): {problem}")
            break
    if not bad and x[0].numel() != classes:
        bad.append(f"the last layer has {x[0].numel()} channels, the data have {classes} classes")
    spiking = bool(layers) and getattr(list(layers.values())[-1], "spiking", False)
    if not bad and readout == "count" and not spiking:
        bad.append("readout 'count' needs a spiking last layer; use 'sum', 'max' or 'last' with li or cuba_li")
    if bad:
        raise BadConfig("layers", bad)
    network = SpikingNetwork(layers, input_shape=input_shape, dt=dt, readout=readout, high=high)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # laid out so, convolutions run a quarter faster on CPUs
            layer.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=torch.channels_last))
    return network


def _empty(kind: type[nn.Module], *geometry: Any) -> Any:
    """A layer whose numbers are still to be written. `torch.nn.utils.skip_init` reads in half of torch's compiler for
    it, 0.4 s (measured)."""
    layer = kind(*geometry, device="meta")
    for name, p in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(torch.empty(p.shape)))
    return layer


def _start(weight: Tensor, fan_in: int, init: float | None, rng: torch.Generator) -> None:
    with torch.no_grad():
        if init is None:
            weight.uniform_(-1.0 / math.sqrt(fan_in), 1.0 / math.sqrt(fan_in), generator=rng)
        else:
            weight.normal_(0.0, init / math.sqrt(fan_in), generator=rng)


def layer_options(kind: str) -> tuple[str, ...]:
    """Names that a layer type takes in TOML."""
    return tuple(f.name for f in fields(LAYERS[kind][0]))
