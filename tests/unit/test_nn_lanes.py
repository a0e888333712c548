"""64 numbers as one value of a compiled loop: the same as NumPy, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError
from numpy.typing import NDArray

from neuro.jit import kernel
from neuro.nn import dense_kernels as dk
from neuro.nn.dense import Lists
from neuro.nn.lanes import alike, lanes, larger, over, pick, put, size_of, word
from neuro.nn.spikes import Spikes

A = NDArray[Any]


@kernel
def everything(a: A, row: int, column: int, number: float, out: A, words: A) -> None:
    """A step of everything there is, on two stretches of a matrix."""
    x, y = lanes(a, row, column), lanes(a, row + 1, column + 3)
    found = over(x, y)
    words[0] = word(found)
    put(out, 0, 2, x + y)
    put(out, 1, 2, x - y)
    put(out, 2, 2, x * y)
    put(out, 3, 2, x / y)
    put(out, 4, 2, pick(found, x, alike(number, y)))
    put(out, 5, 2, larger(x, y))
    put(out, 6, 2, size_of(x))
    for _ in range(3):
        x = x * y + x
    put(out, 7, 2, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_is_what_numpy_does(dtype: Any) -> None:
    a = np.random.default_rng(2).normal(size=(5, 80)).astype(dtype)
    a[2, 7:11] = a[3, 10:14]  # equal is not larger
    out, words = np.full((8, 70), 7, dtype), np.zeros(1, np.uint64)
    by_hand, bits = out.copy(), words.copy()
    everything(a, 2, 4, 0.1, out, words)
    everything.py_func(a, 2, 4, 0.1, by_hand, bits)  # type: ignore[attr-defined]
    assert words == bits
    assert 0 < int(words[0]).bit_count() < 64
    assert np.array_equal(out, by_hand)
    assert (out[:, :2] == 7).all()
    assert (out[:, 66:] == 7).all()


def test_other_arrays_are_refused() -> None:
    @kernel
    def read(a: A, out: A) -> None:
        put(out, 0, 0, lanes(a, 0, 0))

    good = np.zeros((2, 64), np.float32)
    read(good, good.copy())
    for a, out in ((good[:, ::2], good), (good[0], good), (good.astype(np.int32), good), (good, good.astype(float))):
        with pytest.raises((TypeError, TypingError), match=r"C order|of their kind"):
            read(a, out)


@pytest.mark.parametrize("n", [1, 60, 64, 130, 700])
@pytest.mark.parametrize("rate", [0.0, 0.004, 0.05, 0.3, 1.0])
def test_padded_lists_name_who_fires_and_nobody_else(n: int, rate: float) -> None:
    x = np.random.default_rng(n).random((37, n)) < rate
    words = Spikes.pack(torch.from_numpy(x[None])).words
    start = np.empty(len(words) + 1, np.int64)
    dk.starts(words, start)
    index = Lists.of(words, n, start).index
    pieces = np.full(len(index) + 8, 9, index.dtype)  # the same in three jobs, whatever order they run in
    for first, last in ((20, 37), (7, 20), (0, 7)):
        dk.lists(first, last, words, start, n, pieces)
    assert np.array_equal(index, pieces[:-8])
    assert (pieces[-8:] == 9).all()
    for r, row in enumerate(x):
        found = index[start[r] : start[r + 1]]
        own = np.flatnonzero(row)
        assert len(found) == -(-len(own) // dk.PAD) * dk.PAD
        assert np.array_equal(found[: len(own)], own)
        assert (found[len(own) :] == n).all()
