"""`Held`: what populations with coefficients share: one number for all neurons or one each, some of them trained."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.nn.joined import Carry
from neuro.nn.layers import Population, Value


class Held(Population):
    """Coefficients by name. Fixed ones are float64 buffers, cast to the currents' dtype where they meet them.

    A decay (``DECAYS``, in [0, 1)) is trained as sigmoid(w), a positive number (``POSITIVE``) as exp(w), all others
    as they are. learn: those that are trained, out of ``LEARNABLE``.

    Raises:
        NetworkError: values that are NaN, infinite or outside of their range, unknown names in learn; all of them.
    """

    DECAYS: ClassVar[tuple[str, ...]] = ()
    POSITIVE: ClassVar[tuple[str, ...]] = ()
    LEARNABLE: ClassVar[tuple[str, ...]] = ()

    def __init__(self, values: dict[str, Value], learn: tuple[str, ...] = (), problems: list[str] | None = None):
        super().__init__()
        tensors = {name: torch.from_numpy(np.array(value, np.float64)) for name, value in values.items()}
        bad = self._problems(tensors, tuple(learn)) + (problems or [])
        if bad:
            raise NetworkError(f"{type(self).__name__} cannot be built", bad)
        self.learn = tuple(learn)
        for name, value in tensors.items():
            if name in learn:
                start = torch.logit(value) if name in self.DECAYS else value.log() if name in self.POSITIVE else value
                self.register_parameter(f"{name}_learnt", nn.Parameter(start.to(torch.get_default_dtype())))
            else:
                self.register_buffer(f"{name}_fixed", value)

    def _problems(self, values: dict[str, Tensor], learn: tuple[str, ...]) -> list[str]:
        bad = [f"{n} holds values that are NaN or infinite" for n, v in values.items() if not v.isfinite().all()]
        unknown = [n for n in learn if n not in self.LEARNABLE]
        bad += [f"learn may hold {self.LEARNABLE}, got {unknown}"] if unknown else []
        for name, value in values.items():
            if name in self.DECAYS and not ((value >= 0) & (value < 1)).all():
                bad.append(f"{name} must lie in [0, 1), it spans {value.min():g}..{value.max():g}")
            elif name in self.DECAYS and name in learn and not (value > 0).all():
                bad.append(f"{name} must be above 0 to be learnt")
            if name in self.POSITIVE and not (value > 0).all():
                bad.append(f"{name} must be positive, the smallest is {value.min():g}")
        return bad

    def value(self, name: str) -> Tensor:
        """A coefficient by name."""
        if name not in self.learn:
            return self.get_buffer(f"{name}_fixed")
        learnt: Tensor = getattr(self, f"{name}_learnt")  # not get_parameter: torch.func puts tensors in their place
        if name in self.DECAYS:
            return torch.sigmoid(learnt)
        return learnt.exp() if name in self.POSITIVE else learnt

    def forward(self, current: Tensor) -> Tensor:
        """What the population sends, [time, batch, ...] like the current."""
        return self.run(current, membrane=False)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        """`forward` from the state in ``carry``, one as `step` returns it, which it replaces."""
        return self.run(x, carry=carry, membrane=False)[0]

    def membrane(self, state: Any) -> Tensor:
        """v after the reset, of a state that `step` returned."""
        v: Tensor = state.v
        return v

    def _shown(self) -> dict[str, object]:
        """Further settings for `repr`."""
        return {}

    def extra_repr(self) -> str:
        names = [n.removesuffix("_fixed") for n, _ in self.named_buffers(recurse=False)]
        with torch.no_grad():
            parts = [f"{n}={self.value(n).mean():.4g}" for n in (*names, *self.learn)]
        parts += [f"{n}={v!r}" for n, v in self._shown().items()]
        return ", ".join(parts + [f"learn={self.learn}"] * bool(self.learn))
