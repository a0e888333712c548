"""A binomial number from one 32-bit random number: a table of chances."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def binomial_chances(n: int, p: float) -> tuple[int, NDArray[np.uint32]]:
    """(least, table): for x uniform in 0..2^32-1, least + sum(x >= table) is Binomial(n, p), each of its
    probabilities to within 2^-32."""
    if p <= 0:
        return 0, np.zeros(0, np.uint32)
    if p >= 1:
        return n, np.zeros(0, np.uint32)
    spread = 8 * math.sqrt(n * p * (1 - p)) + 40  # beyond it less than 2^-32 of a chance
    low, high = max(0, math.floor(n * p - spread)), min(n, math.ceil(n * p + spread))
    k = range(low, high + 1)
    norm = math.lgamma(n + 1)
    log = [norm - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p) for i in k]
    below = np.rint(np.cumsum(np.exp(log)) * 2.0**32).astype(np.int64)
    least = low + int((below == 0).sum())  # what never comes
    return least, below[(below > 0) & (below < 1 << 32)].astype(np.uint32)
