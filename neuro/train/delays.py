"""Delays that are learnt: the ``delay`` table of a layer, what a chip can hold, and what happens to them in a run.

[[layers]]
type = "linear"
out = 128
delay = { max = 30, kernel = "triangle", sigma = 5.0 }
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from neuro.extend import did_you_mean
from neuro.ir import MAX_DELAY_STEPS
from neuro.nn.delay_linear import KINDS, DelayLinear
from neuro.nn.delay_shapes import KERNELS, Plan, Sigma

# The longest delay of a synapse in steps of a `Network`, 0 where there are none; the chips' own tables are
# neuro/hardware/chips/*.toml, limits.delay_steps, where the sources are (a test holds the two together).
LONGEST: Mapping[str, int] = MappingProxyType(
    {
        "loihi1": 62,
        "loihi2": 62,  # netx clips longer ones; Lava's own ring buffer would hold 63
        "truenorth": 14,  # 15 ticks, of which every spike takes one
        "spinnaker1": 15,  # 16 slots, of which every spike takes one; longer ones go through delay extensions
        "spinnaker2": 7,
        "akida1": 0,
        "akida2": 0,
    }
)
EXTENDED = ("spinnaker1",)  # holds longer delays too, at a price
SIGMA_END = {"gauss": 0.23, "triangle": 0.059}  # of DCLS and of DelRec


@dataclass(frozen=True)
class DelayConfig:
    """Delays of a layer, learnt with its weights.

    max: the longest, in steps; the chip's where left out. chip: one whose limit max must keep. kind: "synaptic",
    "axonal" or "dendritic". kernel: "linear", "triangle" or "gauss" (`neuro.nn.delay_shapes`); of the last two, sigma
    falls from ``sigma`` (left out: max / 2) to sigma_end over the share sigma_over of the epochs. rate: learning rate
    over that of the weights; 0 leaves delays as they start, rounded: the control. round_from: share of the epochs
    after which delays are whole and the gradient passes straight through; at the end they are rounded anyway.
    start: delays start uniformly between these two; left out: 0 and max.
    """

    max: int | None = None
    chip: str | None = None
    kind: str = "synaptic"
    kernel: str = "linear"
    sigma: float | None = None
    sigma_end: float | None = None
    sigma_over: float = 0.25
    rate: float = 20.0
    round_from: float = 0.8
    start: tuple[float, ...] = ()

    def problems(self) -> list[str]:
        bad = []
        for name, value, known in (("kind", self.kind, KINDS), ("kernel", self.kernel, KERNELS)):
            bad += [] if value in known else [f"{name} '{value}' is unknown. {did_you_mean(value, known)}"]
        if self.chip is not None and self.chip not in LONGEST:
            bad.append(f"chip '{self.chip}' is unknown. {did_you_mean(self.chip, LONGEST)}")
        elif self.chip is not None and LONGEST[self.chip] == 0:
            bad.append(f"chip '{self.chip}' has no delays")
        elif self.chip is None and self.max is None:
            bad.append("max is missing, and no chip is named whose limit it could be")
        elif self.max is not None and not 1 <= self.max <= self._most:
            where = f"what {self.chip} holds" if self.chip and self._most < MAX_DELAY_STEPS else "allowed"
            bad.append(f"max is {self.max} steps, {where}: 1..{self._most}")
        if self.kernel == "linear" and not self.sigma is self.sigma_end is None:
            bad.append("kernel 'linear' has no sigma")
        low = [n for n in ("sigma", "sigma_end", "rate") if getattr(self, n) is not None and getattr(self, n) < 0]
        bad += [f"{n} must not be negative" for n in low]
        bad += [
            f"{n} is {getattr(self, n)}, it must lie in [0, 1]"
            for n in ("sigma_over", "round_from")
            if not 0 <= getattr(self, n) <= 1
        ]
        if (
            not bad
            and self.start
            and not (len(self.start) == 2 and 0 <= self.start[0] <= self.start[1] <= self.longest)
        ):
            bad.append(f"start must be two delays, rising, in 0..{self.longest}, got {list(self.start)}")
        return bad

    @property
    def _most(self) -> int:
        return MAX_DELAY_STEPS if self.chip is None or self.chip in EXTENDED else LONGEST[self.chip]

    @property
    def longest(self) -> int:
        """In steps."""
        return self.max if self.max is not None else LONGEST[self.chip or ""]

    @property
    def plan(self) -> Plan:
        """What a layer needs to know."""
        sigma = None
        if self.kernel != "linear":
            start = self.longest / 2 if self.sigma is None else self.sigma
            end = SIGMA_END[self.kernel] if self.sigma_end is None else self.sigma_end
            sigma = Sigma(start, end, self.sigma_over)
        return Plan(sigma, self.rate, self.round_from)

    def build(self, inputs: int, out: int, bias: bool, rng: torch.Generator) -> DelayLinear:
        """The layer, its delays started; the caller starts its weights."""
        made = DelayLinear(inputs, out, self.longest, bias=bias, kind=self.kind, kernel=self.kernel, plan=self.plan)
        low, high = self.start or (0.0, float(self.longest))
        with torch.no_grad():
            made.delay.uniform_(low, high, generator=rng)
            if self.rate == 0:
                made.delay.round_()
        made.delay.requires_grad_(self.rate > 0)
        made.settle(0, 1)
        return made


def learnt(model: nn.Module) -> list[DelayLinear]:
    """The layers with delays that are learnt."""
    return [m for m in model.modules() if isinstance(m, DelayLinear)]


def settle(models: Iterable[nn.Module], epoch: int, epochs: int) -> bool:
    """Width and rounding of all delays in an epoch; True where some are whole from this epoch on."""
    rounds = False
    for layer in (layer for model in models for layer in learnt(model)):
        layer.settle(epoch, epochs)
        rounds |= layer.rounding and epoch > 0 and not layer.plan.whole(epoch - 1, epochs)
    return rounds


def clamp(model: nn.Module) -> None:
    """Delays that a step of the optimiser took out of their range go back to its bound."""
    for layer in learnt(model):
        layer.clamp_()


def round_all(model: nn.Module) -> None:
    """From here on every delay counts as the nearest whole one: what is exported."""
    for layer in learnt(model):
        layer.rounding = True
