"""Spikes as bits, and bits as events: the compiled loops under `neuro.nn.spikes` (neuro.jit).

Neuron k of a row is bit k % 64 of word k // 64; bits beyond the last neuron are 0. A row is one step of one sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel, piece, set_bytes, wide

A = NDArray[Any]
U = np.uint64


@piece
def ones(word: np.uint64) -> np.int64:
    """How many bits of a word are set."""
    w = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    w = (w & np.uint64(0x3333333333333333)) + ((w >> np.uint64(2)) & np.uint64(0x3333333333333333))
    w = (w + (w >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((w * np.uint64(0x0101010101010101)) >> np.uint64(56))


@piece
def lowest(word: np.uint64) -> np.int64:
    """The place of the lowest set bit of a word that is not 0."""
    return ones((word & (~word + np.uint64(1))) - np.uint64(1))


@kernel
def pack(dense: A, words: A) -> None:
    """dense [rows, n] of 0 and anything else -> words [rows, ceil(n / 64)]."""
    rows, n = np.uint64(dense.shape[0]), np.uint64(dense.shape[1])
    whole, wide = n // np.uint64(64), np.uint64(64)
    for r in range(rows):
        for w in range(whole):  # of known length: vectors
            word, first = np.uint64(0), np.uint64(w) * wide
            for k in range(wide):
                word |= np.uint64(dense[r, first + np.uint64(k)] != 0) << np.uint64(k)
            words[r, w] = word
        if n % wide:
            word, first = np.uint64(0), whole * wide
            for k in range(n % wide):
                word |= np.uint64(dense[r, first + np.uint64(k)] != 0) << np.uint64(k)
            words[r, whole] = word


@kernel
def binary(values: A) -> bool:
    """Whether all values [n] are 0 or 1; stops early where they are not."""
    zero, one = values.dtype.type(0), values.dtype.type(1)
    for begin in range(0, values.size, 4096):
        other = np.int64(0)
        for value in values[begin : min(begin + 4096, values.size)]:
            other += np.int64(value != zero) & np.int64(value != one)
        if other:
            return False
    return True


@kernel
def pack_bytes(first: int, last: int, flat: A, n: int, words: A, other: A) -> None:
    """Rows first..last - 1 of flat uint8[rows * n] -> words [rows, ceil(n / 64)]; other [1] becomes 1 where a value is
    neither 0 nor 1, and the rest of the rows is left out."""
    wide()
    size, full = U(n), U(64)
    for r in range(U(first), U(last)):
        begin, end = U(r) * size, U(r) * size + size
        beyond = np.uint8(0)
        for k in range(begin, end):
            beyond |= flat[k] >> np.uint8(1)
        if beyond:
            other[0] = 1
            return
        for w in range(U(words.shape[1])):
            at = begin + U(w) * full
            if at + full <= end:
                words[r, w] = set_bytes(flat, at)
            elif at + full <= U(flat.size):
                words[r, w] = set_bytes(flat, at) & ((U(1) << (end - at)) - U(1))
            else:
                word = U(0)
                for k in range(at, end):
                    word |= U(flat[k]) << (U(k) - at)
                words[r, w] = word


@kernel
def unpack(words: A, dense: A) -> None:
    """words -> dense [rows, n] of 0 and 1."""
    rows, n = dense.shape
    one, zero = dense.dtype.type(1), dense.dtype.type(0)
    for r in range(rows):
        row = dense[r]
        for w in range(words.shape[1]):
            word = words[r, w]
            first = w * 64
            for k in range(first, min(first + 64, n)):
                row[k] = one if (word >> np.uint64(k - first)) & np.uint64(1) else zero


@kernel
def count(words: A, start: A) -> None:
    """start [rows + 1]: how many spikes the rows before each one hold."""
    total = np.int64(0)
    for r in range(words.shape[0]):
        start[r] = total
        for w in range(words.shape[1]):
            total += ones(words[r, w])
    start[words.shape[0]] = total


@kernel
def events(words: A, index: A) -> None:
    """index [spikes]: the neurons that fire, row by row in rising order."""
    at = np.int64(0)
    for r in range(words.shape[0]):
        for w in range(words.shape[1]):
            word = words[r, w]
            while word:
                index[at] = np.int64(64) * w + lowest(word)
                at += 1
                word &= word - np.uint64(1)


@kernel
def add_up(words: A, total: A) -> None:
    """total [group, n], zeros at first: how often each neuron fires, over rows r, r + group, r + 2 group, ..."""
    one, g = total.dtype.type(1), np.int64(0)
    for r in range(words.shape[0]):
        for w in range(words.shape[1]):
            word = words[r, w]
            while word:
                total[g, np.int64(64) * w + lowest(word)] += one
                word &= word - np.uint64(1)
        g = g + 1 if g + 1 < total.shape[0] else np.int64(0)
