"""`Config`: everything that decides a training run, read from TOML, frozen, checked as a whole.

``neuro/presets/*.toml`` are examples. Unknown keys, wrong types and impossible values are reported
together, with the nearest known name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuro.errors import BadConfig
from neuro.extend import did_you_mean
from neuro.ir import MAX_HIGH, READOUTS
from neuro.learn.rule import Rule, read_rule
from neuro.nn.grid import Formats
from neuro.nn.levels import Levels
from neuro.tables import plain, read_table
from neuro.train.build import read_layers
from neuro.train.losses import LOSSES
from neuro.train.noise import NoiseConfig
from neuro.train.prune import PruneConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parents[1] / "presets"
MOST_STEPS = 1 << 20


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    dataset: a registered data set. steps, dt: the grid, dt in seconds; the data set's own where left
    out. train_on: "train" keeps the data set's validation split out, "all" trains on every recording.
    options: of the data set. vary: options redrawn in every epoch for training only (they need a data
    set with options seed and epoch). augment: fields of `neuro.datasets.transforms.Augment`.
    limit: use the first recordings only. path: files in the data set's layout instead of its own.
    high: events of a step and channel are counted up to this, 1..255; 1 for spikes.
    """

    dataset: str
    path: str | None = None
    steps: int | None = None
    dt: float | None = None
    train_on: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Any] = field(default_factory=dict)
    augment: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    high: int = 1

    def problems(self) -> list[str]:
        bad = [] if 1 <= self.high <= MAX_HIGH else [f"high is {self.high}, allowed 1..{MAX_HIGH}"]
        if self.train_on not in ("train", "all"):
            bad.append(f"train_on must be 'train' or 'all', got '{self.train_on}'")
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            bad.append(f"steps is {self.steps}, allowed 1..{MOST_STEPS}")
        if self.dt is not None and self.dt <= 0:
            bad.append(f"dt is {self.dt}, it must be positive seconds")
        if self.limit is not None and self.limit < 1:
            bad.append(f"limit is {self.limit}, it must be at least 1")
        return bad


@dataclass(frozen=True)
class LossConfig:
    """Loss on the output, and on the hidden layers' spikes; see `neuro.train.losses`.

    scale: logits = scale x score, where scores of "count" and "sum" are means over time.
    mean_spikes, many, many_above, few, few_below: the regulariser, in spikes per neuron and sample.
    """

    kind: str = "cross_entropy"
    scale: float = 1.0
    label_smoothing: float = 0.0
    mean_spikes: float = 0.0
    many: float = 0.0
    many_above: float = 30.0
    few: float = 0.0
    few_below: float = 1.0

    def problems(self) -> list[str]:
        bad = [] if self.kind in LOSSES else [f"kind '{self.kind}' is unknown. {did_you_mean(self.kind, LOSSES)}"]
        if not 0 <= self.label_smoothing < 1:
            bad.append(f"label_smoothing is {self.label_smoothing}, it must lie in [0, 1)")
        names = ("mean_spikes", "many", "many_above", "few", "few_below")
        return bad + [f"{n} must not be negative" for n in names if getattr(self, n) < 0]


@dataclass(frozen=True)
class OptimiserConfig:
    """kind: "adamw" or "sgd". lr: the highest rate; weight_decay: of matrices and kernels only.

    schedule: "constant", "cosine" or "one_cycle". warmup: share of the run that rises from lr * start
    to lr ("one_cycle" along a cosine, the others along a line); then down to lr * final.
    clip: largest norm of the gradient, 0 for none. ema: weight of the past in an exponential mean of
    the weights, which is then what counts; 0 for none.
    """

    kind: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    warmup: float = 0.1
    start: float = 0.1
    final: float = 1e-3
    clip: float = 0.0
    ema: float = 0.0

    def problems(self) -> list[str]:
        bad = []
        for name, allowed in (("kind", ("adamw", "sgd")), ("schedule", ("constant", "cosine", "one_cycle"))):
            if getattr(self, name) not in allowed:
                bad.append(f"{name} '{getattr(self, name)}' is unknown. {did_you_mean(getattr(self, name), allowed)}")
        if self.lr <= 0:
            bad.append(f"lr is {self.lr}, it must be positive")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            bad.append(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        for name in ("warmup", "start", "final"):
            if not 0 <= getattr(self, name) <= 1:
                bad.append(f"{name} is {getattr(self, name)}, it must lie in [0, 1]")
        for name in ("momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                bad.append(f"{name} is {getattr(self, name)}, it must lie in [0, 1)")
        return bad + [f"{n} must not be negative" for n in ("weight_decay", "clip") if getattr(self, n) < 0]


@dataclass(frozen=True)
class TrainConfig:
    """epochs, batch_size. keep: "last", or "best" on the validation split. patience: epochs without a
    better validation loss before stopping, 0 for never. recalibrate: batches over which the statistics
    of norms are measured anew before weights are frozen or exported, 0 for none. threads: of torch and
    the kernels, 0 for all cores; recorded, and the same again when a run resumes. truncate: steps of the pieces that
    samples are trained in, without gradients between them (`neuro.learn.bptt`); 0 for whole samples."""

    epochs: int = 30
    batch_size: int = 32
    keep: str = "last"
    patience: int = 0
    drop_last: bool = False
    recalibrate: int = 0
    threads: int = 0
    truncate: int = 0

    def problems(self) -> list[str]:
        bad = [] if self.keep in ("last", "best") else [f"keep must be 'last' or 'best', got '{self.keep}'"]
        bad += [f"{n} must be at least 1" for n in ("epochs", "batch_size") if getattr(self, n) < 1]
        return bad + [
            f"{n} must not be negative"
            for n in ("patience", "recalibrate", "threads", "truncate")
            if getattr(self, n) < 0
        ]


@dataclass(frozen=True)
class Format:
    """A chip's number format; the same fields as `neuro.hardware.chip.NumberFormat`."""

    bits: int
    low: int
    high: int
    step: int = 1
    signed: bool = True

    def problems(self) -> list[str]:
        good = self.low <= 0 < self.high and self.step >= 1 and self.bits >= 1
        return [] if good else ["needs low <= 0 < high, step >= 1, bits >= 1"]


FORMATS = ("weight", "weight_conv", "decay", "threshold", "bias")


@dataclass(frozen=True)
class QuantiseConfig:
    """Quantisation-aware training from epoch round(start x epochs) on, with lr x ``lr``.

    Either the number formats of a chip, all five, see `neuro.nn.grid.Formats`. state: whether u and v run on the
    chip's integers too. Or ``axons``, the values of the axons that each input has on a chip with typed axons:
    [1, -1] is trinary; see `neuro.nn.levels.Levels` for it and for unit.
    """

    weight: Format | None = None
    weight_conv: Format | None = None
    decay: Format | None = None
    threshold: Format | None = None
    bias: Format | None = None
    axons: tuple[int, ...] = ()
    unit: float = 1.0 / 64
    fraction: int = 64
    limit: int = 1 << 23
    exponent: int = 7
    start: float = 0.8
    lr: float = 1.0
    state: bool = True

    def problems(self) -> list[str]:
        bad = [] if 0 <= self.start <= 1 else [f"start is {self.start}, it must lie in [0, 1]"]
        bad += [] if self.lr > 0 else [f"lr is {self.lr}, it must be positive"]
        given = [n for n in FORMATS if getattr(self, n) is not None]
        if self.axons:
            bad += [f"{n} and axons exclude each other" for n in given]
            bad += Levels(self.axons, self.unit).problems()
        else:
            bad += [f"{n} is missing" for n in FORMATS if n not in given]
        return bad + [f"{n} must be at least 1" for n in ("fraction", "limit", "exponent") if getattr(self, n) < 1]

    @property
    def formats(self) -> Formats | Levels:
        """What the grid needs to know."""
        if self.axons:
            return Levels(self.axons, self.unit)
        assert self.weight
        assert self.weight_conv
        assert self.decay
        assert self.threshold
        assert self.bias
        return Formats(
            self.weight,
            self.weight_conv,
            self.decay,
            self.threshold,
            self.bias,
            self.fraction,
            self.limit,
            self.exponent,
        )


@dataclass(frozen=True)
class Config:
    """One training run. layers: tables with a ``type``, see `neuro.train.build.LAYERS`. rule: a table with the ``kind``
    of the learning rule and its options, see `neuro.learn.RULES`; backpropagation through time where left out. noise,
    prune: see `neuro.train.noise` and `neuro.train.prune`."""

    name: str
    data: DataConfig
    layers: tuple[Any, ...]
    readout: str = "sum"
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    rule: Mapping[str, Any] = field(default_factory=dict)
    quantise: QuantiseConfig | None = None
    noise: NoiseConfig | None = None
    prune: PruneConfig | None = None

    @property
    def learning(self) -> Rule:
        """The learning rule."""
        truncate = {"truncate": self.train.truncate} if self.train.truncate else {}
        made = read_rule({**self.rule, **truncate}, [])
        assert made is not None  # `problems` has seen it
        return made

    def problems(self) -> list[str]:
        bad: list[str] = []
        if not all(isinstance(row, Mapping) for row in self.layers) or not self.layers:
            bad.append("layers must be one or more tables with a type")
        else:
            read_layers(self.layers, bad)
        if self.quantise and any(isinstance(row, Mapping) and row.get("recurrent_delay") for row in self.layers):
            bad.append(
                "recurrent_delay is not trained on a chip's integers; leave out quantise, and compile the network"
            )
        if self.quantise and any(isinstance(row, Mapping) and row.get("few") for row in self.layers):
            bad.append(
                "weights on few levels are not put on a chip's grid; leave out quantise, and compile the network"
            )
        if self.prune:
            tables = [row for row in self.layers if isinstance(row, Mapping)]
            learnt = any(row.get("delay") or row.get("recurrent_delay") for row in tables)
            start = self.quantise.start if self.quantise else None
            bad += self.prune.problems_of_run(self.train.epochs, start, learnt)
        if self.noise and self.noise.spike_drop and self.rule.get("kind") == "dsr":
            bad.append("noise.spike_drop differs from step to step, rule 'dsr' knows rates only; choose another rule")
        if self.readout not in READOUTS:
            bad.append(f"readout must be one of {READOUTS}, got '{self.readout}'")
        if self.seed < 0:
            bad.append(f"seed is {self.seed}, it must not be negative")
        kind = self.rule.get("kind", "bptt")
        chosen = read_rule(self.rule, bad)
        if chosen is not None and self.quantise is not None and not chosen.integers:
            bad.append(f"rule.kind '{kind}' trains real weights; leave out quantise")
        if self.train.truncate and (kind != "bptt" or "truncate" in self.rule):
            bad.append("train.truncate is that of rule.kind 'bptt'; give one of the two")
        if self.train.truncate and (self.loss.many or self.loss.few):
            bad.append("loss.many and loss.few count the spikes of whole samples; they exclude train.truncate")
        if self.data.train_on == "all" and (self.train.patience or self.train.keep == "best"):
            bad.append("train.patience and train.keep = 'best' need a validation split; set data.train_on = 'train'")
        return bad

    def to_table(self) -> dict[str, Any]:
        """The table that `from_table` reads back."""
        table = plain(self)
        assert isinstance(table, dict)
        return table

    @classmethod
    def from_table(cls, table: object, source: str = "configuration") -> Config:
        """A configuration from a table.

        Raises:
            BadConfig: every unknown key, wrong type and impossible value.
        """
        bad: list[str] = []
        made = read_table(cls, table, "", bad)
        if bad or made is None:
            raise BadConfig(f"{source} cannot be used", bad)
        return made

    def with_changes(self, **changes: Any) -> Config:
        """A copy with fields changed by dotted name: ``with_changes(**{"train.epochs": 3})``.

        Raises:
            BadConfig: as `from_table`.
        """
        table = self.to_table()
        for name, value in changes.items():
            *path, last = name.split(".")
            place = table
            for part in path:
                place = place.setdefault(part, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        return Config.from_table(table, "changed configuration")


def presets() -> tuple[str, ...]:
    """Names of the configurations that come with axonport."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load_config(preset_or_path: str | Path) -> Config:
    """A preset by name, or a TOML file by path.

    Raises:
        BadConfig: no such preset or file, no TOML, or values that cannot be used, all of them.
    """
    path = Path(preset_or_path)
    if path.suffix != ".toml" and len(path.parts) == 1 and not path.is_file():
        if path.name not in presets():
            raise BadConfig(f"no preset '{path}', and no such file. {did_you_mean(path.name, presets())}")
        path = PRESETS / f"{path.name}.toml"
    try:
        text = path.read_bytes().decode("utf-8")
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise BadConfig(f"{path} is not TOML: {cause}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise BadConfig(f"{path} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    return Config.from_table(table, str(path))


__all__ = [
    "Config",
    "DataConfig",
    "Format",
    "LossConfig",
    "NoiseConfig",
    "OptimiserConfig",
    "PruneConfig",
    "QuantiseConfig",
    "TrainConfig",
    "load_config",
    "presets",
]
