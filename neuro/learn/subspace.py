"""`Subspace`: lateral neurons that learn, by Hebbian and anti-Hebbian updates alone, which directions a layer uses.

Lateral weights H [rows, n] read a layer's input x and answer into it (Xiao et al. 2024, arXiv:2402.11984):

    y = H x,  x' = H^T y,  dH = mean over samples of y (x - x')^T

y x^T strengthens what fires together, -y x'^T weakens what the answer already explains: Oja's subspace rule, whose
fixed points are orthonormal bases of the directions with the most energy. No gradient, nothing but what a lateral
synapse sees. x is divided by the root of a running mean of |x|^2, a gain control, so that one rate serves pixels and
sparse spikes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuro.errors import NetworkError

CLIP = 10.0  # of an element of dH, after the authors' code
MEMORY = 0.9  # of the momentum, and of the gain control


class Subspace:
    """Rows that are frozen, whose span is protected, and rows that still learn.

    Args:
        n: inputs of the layer. rate: of an update. repeats: updates for each batch of rows.
        burst: lateral neurons that answer with spikes: y is rounded to multiples of limit / burst within +-limit, in
            units of the normalised input; 0 for real numbers.
        limit: the largest answer of a spiking lateral neuron.
    """

    def __init__(
        self,
        n: int,
        *,
        rate: float = 2.0,
        repeats: int = 5,
        burst: int = 0,
        limit: float = 20.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.n, self.rate, self.repeats, self.burst, self.limit = n, rate, repeats, burst, limit
        self.rows = torch.zeros(0, n, dtype=dtype or torch.get_default_dtype())
        self.frozen = 0
        self._speed = torch.zeros_like(self.rows)  # of the rows that learn
        self._energy, self._weight = 0.0, 0.0
        self.explained = torch.zeros(2, dtype=torch.float64)  # energy left unexplained, and all, of late

    @property
    def basis(self) -> Tensor:
        """The frozen rows, [frozen, n], orthonormal."""
        return self.rows[: self.frozen]

    def grow(self, count: int, x: Tensor | None = None, *, rng: torch.Generator) -> None:
        """Recruits ``count`` lateral neurons, as many as there is room for.

        x: [samples, n], inputs that they start from: each takes what is left of one sample, as a single Hebbian step
        from zero would make it; without x, and where x has too few directions, from a random direction.
        """
        count = min(count, self.n - len(self.rows))
        if count <= 0:
            return
        start = torch.randn(count, self.n, generator=rng, dtype=self.rows.dtype) * 1e-3 / math.sqrt(self.n)
        if x is not None and len(x):
            chosen = torch.randperm(len(x), generator=rng)[:count]
            seen = x[chosen].to(start.dtype)
            start[: len(chosen)] += seen / seen.square().sum(1).mean().sqrt().clamp(min=1e-12)
        new = _orthonormal(start, self.rows)
        self.rows = torch.cat([self.rows, new])
        self._speed = torch.zeros_like(self.rows[self.frozen :])

    def learn(self, x: Tensor) -> None:
        """Updates the rows that are not frozen. x: [samples, n].

        Raises:
            NetworkError: x has another width.
        """
        if x.dim() != 2 or x.shape[1] != self.n:
            raise NetworkError(f"a subspace of {self.n} inputs cannot learn from {tuple(x.shape)}")
        x = x.to(self.rows.dtype)
        energy = float(x.square().sum(1).mean()) if len(x) else 0.0
        if not energy > 0:
            return  # nobody fired
        self._energy = MEMORY * self._energy + (1 - MEMORY) * energy
        self._weight = MEMORY * self._weight + (1 - MEMORY)
        x = x / math.sqrt(max(self._energy / self._weight, energy))  # a loud batch must not overshoot
        old = self.basis
        # what frozen rows answer does not change while the others learn
        left = x - self._answer(x @ old.T) @ old if self.frozen else x
        for _ in range(self.repeats if len(self.rows) > self.frozen else 0):
            new = self.rows[self.frozen :]
            y = self._answer(x @ new.T)
            change = (y.T @ (left - y @ new) / len(x)).clamp_(-CLIP, CLIP)
            self._speed.mul_(MEMORY).add_(change, alpha=1 - MEMORY)
            new.add_(self._speed, alpha=self.rate)
        new = self.rows[self.frozen :]
        rest = left - (x @ new.T) @ new
        self.explained.mul_(MEMORY).add_(
            torch.tensor([float(rest.square().sum()), float(x.square().sum())], dtype=torch.float64)
        )

    @property
    def residual(self) -> float:
        """Share of the inputs' energy, of late, that no row explains; 1 before anything was seen."""
        left, whole = self.explained.tolist()
        return left / whole if whole > 0 else 1.0

    def keep(self, x: Tensor, share: float) -> None:
        """Lets go of rows that still learn once the others explain this share of the energy of x, [samples, n].

        The rows turn within their span until their answers are uncorrelated, as Sanger's rule would turn them, and
        those that answer least go.
        """
        new = _orthonormal(self.rows[self.frozen :], self.basis)
        whole = float(x.square().sum())
        if not len(new) or not whole > 0:
            return
        values, turn = torch.linalg.eigh((new @ x.T) @ (x @ new.T))
        before = float((x @ self.basis.T).square().sum()) / whole
        held = before + values.flip(0).clamp(min=0).cumsum(0) / whole
        count = 0 if before >= share else min(len(new), int((held < share).sum()) + 1)
        self.rows = torch.cat([self.basis, turn.flip(1).T[:count] @ new])
        self._speed = torch.zeros_like(self.rows[self.frozen :])

    def merge(self) -> None:
        """Freezes all rows, as an orthonormal basis of their span."""
        if len(self.rows) > self.frozen:
            self.rows = torch.cat([self.basis, _orthonormal(self.rows[self.frozen :], self.basis)])
        self.frozen = len(self.rows)
        self._speed = self._speed[:0]
        self.explained.zero_()
        self._energy = self._weight = 0.0

    def project(self, gradient: Tensor) -> Tensor:
        """gradient [out, n] without its part in the frozen span: what was learnt keeps its answers."""
        return gradient - (gradient @ self.basis.T) @ self.basis if self.frozen else gradient

    def _answer(self, y: Tensor) -> Tensor:
        """Lateral neurons' answers, as bursts of spikes where they spike."""
        if not self.burst:
            return y
        step = self.limit / self.burst
        return (y.clamp(-self.limit, self.limit) / step).round() * step

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs to go on."""
        numbers = torch.tensor([self.frozen, self._energy, self._weight], dtype=torch.float64)
        return {"rows": self.rows, "speed": self._speed, "explained": self.explained, "numbers": numbers}

    def load(self, state: dict[str, Tensor]) -> None:
        """Back to a `state`."""
        self.rows, self._speed = state["rows"].clone(), state["speed"].clone()
        self.explained = state["explained"].clone()
        frozen, self._energy, self._weight = state["numbers"].tolist()
        self.frozen = int(frozen)


def _orthonormal(rows: Tensor, beside: Tensor) -> Tensor:
    """An orthonormal basis of the span of rows, orthogonal to the orthonormal ``beside``; as many as there are."""
    found, others = rows.double(), beside.double()
    for _ in range(3):  # again for what rounding left, and for directions that QR made up where rows depend
        found = torch.linalg.qr((found - (found @ others.T) @ others).T).Q.T
    return found.to(rows.dtype)
