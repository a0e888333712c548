"""Short runs as vectors, and a convolution whose pixels are of more kinds than are told apart."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from neuro.jit import kernel
from neuro.nn import conv_geometry
from neuro.nn.conv_function import convolve
from neuro.nn.conv_geometry import geometry
from neuro.nn.conv_layout import Job
from neuro.nn.conv_products import add_product
from neuro.nn.conv_vectors import add_run, fetch, moments, sum_places, sum_runs
from neuro.nn.spikes import Spikes

A = NDArray[Any]


@kernel
def added(to: A, a: int, add: A, b: int, n: int) -> None:
    fetch(add, b, n)
    add_run(to, a, add, b, n)


@kernel
def summed(row: A, one: A, two: A) -> None:
    moments(row, one, two)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_of_every_length_are_added_where_they_belong(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for n in (*range(36), 63, 72, 100):
        to, add = rng.random(110).astype(dtype), rng.random(110).astype(dtype)
        expected = to.copy()
        expected[3 : 3 + n] += add[7 : 7 + n]
        added(to, 3, add, 7, n)
        assert np.array_equal(to, expected)


@kernel
def gathered(to: A, a: int, add: A, at: A, first: int, last: int, shift: int, n: int) -> None:
    sum_runs(to, a, add, at, first, last, shift, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_that_end_in_one_place_add_up_in_order(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    at = rng.integers(0, 900, 12).astype(np.uint32)
    for n, (first, last) in itertools.product((1, 7, 8, 24, 72, 127, 128, 300), ((0, 0), (3, 4), (2, 12))):
        to, add = rng.random(310).astype(dtype), rng.random(1300).astype(dtype)
        expected = to.copy()
        for k in at[first:last]:
            expected[3 : 3 + n] += add[k + 5 : k + 5 + n]
        gathered(to, 3, add, at, first, last, 5, n)
        assert np.array_equal(to, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 7, 8, 16, 24, 43])
def test_moments_are_sums_over_places_in_order(dtype: Any, channels: int) -> None:
    row = np.random.default_rng(channels).normal(size=(9, channels)).astype(dtype)
    one, two = np.full(channels, 7.0), np.full(channels, 7.0)
    summed(row.reshape(-1), one, two)
    wide = row.astype(np.float64)
    assert np.array_equal(one, np.add.accumulate(wide)[-1])
    np.testing.assert_allclose(two, (wide * wide).sum(0), rtol=1e-14)


@pytest.mark.parametrize("sizes", [((7, 6), (3, 2), (2, 1), (1, 1), (1, 1)), ((9, 8), (3, 4), (1, 2), (2, 0), (2, 1))])
def test_places_and_pixels_tell_the_same_story(sizes: Any) -> None:
    geo = geometry(*sizes, False)
    taps = {int(j): int(t) for j, t in enumerate(geo.order)}
    from_pixels = {
        (int(geo.place[k]) + i, taps[int(geo.tap[k]) + i], p)
        for p in range(len(geo.kind))
        for k in range(geo.start[p], geo.start[p + 1])
        for i in range(int(geo.count[k]))
    }
    for p, g in enumerate(geo.group):
        mine, other = (slice(int(geo.start[q]), int(geo.start[q + 1])) for q in (p, int(geo.model[g])))
        assert np.array_equal(geo.tap[mine], geo.tap[other])
        assert np.array_equal(geo.count[mine], geo.count[other])
        assert len(set((geo.place[mine].astype(int) - geo.place[other]).tolist())) <= 1
    from_places = {(int(a) + 0, int(t) + i, int(p) + i) for a, t, p, c in geo.reach for i in range(int(c))}
    assert from_pixels == from_places


def test_pixels_of_many_kinds_share_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        conv = nn.Conv2d(2, 3, 5, 2, 2, bias=False).double()
    x = torch.from_numpy(np.random.default_rng(2).random((2, 2, 2, 12, 11)) < 0.2).double()
    expected = conv(x.flatten(0, 1)).unflatten(0, (2, 2))
    monkeypatch.setattr(conv_geometry, "KINDS", 2)
    geometry.cache_clear()
    try:
        assert geometry((12, 11), (5, 5), (2, 2), (2, 2), (1, 1), False).kinds == 2
        found = convolve(Job(conv, None, None, None), Spikes.pack(x), conv.weight, None)
    finally:
        geometry.cache_clear()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@kernel
def multiplied(c: A, a: int, d: A, b: int, w: A, e: int, order: A, first: int, last: int, n: int) -> None:
    add_product(c, a, d, b, w, e, order, first, last, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_every_width_are_added_where_they_belong(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    c, d, w = (rng.normal(size=s).astype(dtype) for s in ((21, 110), (21, 9), (5, 107)))
    order = rng.permutation(21)
    for n, (first, last) in itertools.product((0, 1, 7, 8, 24, 31, 48, 71, 101), ((2, 2), (2, 10), (1, 20), (3, 8))):
        found = c.copy()
        multiplied(found, 3, d, 2, w, 4, order, first, last, n)
        expected, rows = c.copy(), order[first:last]
        expected[rows, 3 : 3 + n] += d[rows, 2:7] @ w[:, 4 : 4 + n]
        np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-6)
        one_by_one = c.copy()
        for r in range(first, last):
            multiplied(one_by_one, 3, d, 2, w, 4, order, r, r + 1, n)
        assert np.array_equal(found, one_by_one)  # whatever rows are beside


@kernel
def by_places(to: A, bias: A, add: A, at: A, many: A, start: A, first: A, last: A, shift: A) -> None:
    sum_places(to, bias, add, at, many, start, first, last, shift)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 24, 43, 96, 130, 301])
def test_places_add_up_in_registers_and_in_order(dtype: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    bias, add, to = rng.random(n).astype(dtype), rng.random(2000).astype(dtype), np.zeros(4 * n, dtype)
    at, many = rng.integers(50, 900, 12).astype(np.uint32), np.array([0, 3, 3, 7, 12], np.uint64)
    tables = [[0, 2, 2, 3, 5], [0, 2, 1, 0, 3], [2, 4, 2, 1, 4], [5, -50, 0, 9, 700]]
    by_places(to, bias, add, at, many, *(np.array(t, np.int64) for t in tables))
    expected = []
    for place in range(4):
        total = bias.copy()
        for j in range(tables[0][place], tables[0][place + 1]):
            for k in at[int(many[tables[1][j]]) : int(many[tables[2][j]])]:
                total += add[int(k) + tables[3][j] : int(k) + tables[3][j] + n]
        expected.append(total)
    assert np.array_equal(to, np.concatenate(expected))
