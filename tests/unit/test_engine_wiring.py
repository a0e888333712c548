"""Who is joined to whom, random numbers, and chances, against what they are defined by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuro.engine.chances import binomial_chances
from neuro.engine.circuit import (
    LIF,
    Circuit,
    Drive,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    Normal,
    OneToOne,
    Pairs,
    Poisson,
    Population,
    Projection,
    Uniform,
)
from neuro.engine.philox import draw_block, philox
from neuro.engine.simulation import Simulation

CELL = LIF(10e-3, 1.0)
N, M = 500, 700


def wired(rule, weight=1.0, delay=0.0, threads: int = 1, seed: int = 0, sizes=(N, M)):
    populations = {"a": Population(sizes[0], CELL), "b": Population(sizes[1], CELL)}
    made = Simulation(Circuit(populations, [Projection("a", "b", rule, weight, delay)], seed=seed), threads=threads)
    return made.connections(0)


@pytest.mark.parametrize(
    ("counter", "key", "numbers"),
    [  # Random123's own known answers, kat_vectors, philox4x32 of 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_as_published(counter: str, key: str, numbers: str) -> None:
    words = [np.uint64(int(w, 16)) for w in (counter + " " + key).split()]
    assert [int(x) for x in philox(*words)] == [int(w, 16) for w in numbers.split()]


def test_blocks_are_philox() -> None:
    out = np.zeros(64, np.uint32)
    draw_block(out, 5, (7 << 32) + 9, 11, -3)
    seed = (1 << 64) - 3
    for q in range(16):
        words = (5 * 16 + q, 9, 11, (7 << 2) | 3, seed & 0xFFFFFFFF, seed >> 32)
        np.testing.assert_array_equal(out[q::16], [int(x) for x in philox(*map(np.uint64, words))])


@pytest.mark.parametrize(
    ("n", "p"), [(1, 0.3), (20, 0.004), (1000, 0.002), (3000, 0.5), (100_000, 1e-3), (5, 0.0), (5, 1.0)]
)
def test_chances_are_binomial(n: int, p: float) -> None:
    least, table = binomial_chances(n, p)
    assert (np.diff(table.astype(np.int64)) >= 0).all()
    mean = least + (1 - table / 2**32).sum()  # E sum(x >= c) over uniform x
    odd = (2 * np.arange(len(table)) + 1) * (1 - table / 2**32)
    variance = odd.sum() - (mean - least) ** 2
    assert mean == pytest.approx(n * p, rel=1e-6, abs=1e-7)
    assert variance == pytest.approx(n * p * (1 - p), rel=1e-4, abs=1e-6)
    if 0 < p < 1 and n < 2000 and not least:
        below = np.cumsum([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(len(table))])
        np.testing.assert_allclose(table / 2**32, below, atol=2**-31)


def test_fixed_probability() -> None:
    source, target, _, _ = wired(FixedProbability(0.1))
    assert abs(source.size - 0.1 * N * M) < 5 * math.sqrt(0.09 * N * M)
    assert np.unique(source * M + target).size == source.size
    for index, size, other in ((source, N, M), (target, M, N)):
        degrees = np.bincount(index, minlength=size)
        assert np.var(degrees) == pytest.approx(0.09 * other, rel=0.3)
    assert wired(FixedProbability(0.0))[0].size == 0
    assert wired(FixedProbability(1.0))[0].size == N * M


def test_degrees() -> None:
    source, target, _, _ = wired(FixedInDegree(40))
    assert (np.bincount(target, minlength=M) == 40).all()
    assert np.var(np.bincount(source, minlength=N)) == pytest.approx(40 * M / N, rel=0.3)
    source, target, _, _ = wired(FixedOutDegree(40))
    assert (np.bincount(source, minlength=N) == 40).all()
    assert np.var(np.bincount(target, minlength=M)) == pytest.approx(40 * N / M, rel=0.3)


def test_one_to_one() -> None:
    source, target, _, _ = wired(OneToOne(), sizes=(N, N))
    np.testing.assert_array_equal(source, np.arange(N))
    np.testing.assert_array_equal(target, np.arange(N))


@pytest.mark.parametrize("rule", [FixedProbability(0.5, False), FixedInDegree(60, False), FixedOutDegree(60, False)])
def test_nobody_is_joined_to_itself(rule) -> None:
    source, target, _, _ = wired(rule, sizes=(80, 80))
    assert source.size > 2000
    assert (source != target).all()
    assert {(0, 1), (1, 0), (79, 78), (78, 79)} & set(zip(source.tolist(), target.tolist(), strict=True))


def test_values() -> None:
    _, _, weight, delay = wired(FixedProbability(0.3), Normal(2.0, 0.5, 1.0), Uniform(5e-4, 20e-4))
    below = (weight == 1.0).mean()
    assert below == pytest.approx(0.0228, abs=0.003)  # Phi(-2)
    assert weight[weight > 1].mean() == pytest.approx(2.0 + 0.5 * 0.05399 / 0.97725, abs=0.01)
    assert np.bincount(delay, minlength=21)[5:21] / delay.size == pytest.approx(
        [1 / 30] + [1 / 15] * 14 + [1 / 30], abs=0.004
    )


def test_pairs_are_kept_as_given() -> None:
    rng = np.random.default_rng(1)
    s, t = rng.integers(0, N, 3000), rng.integers(0, M, 3000)
    w, d = rng.normal(size=3000).astype(np.float32), rng.integers(0, 255, 3000)
    want = sorted(zip(s.tolist(), t.tolist(), w.tolist(), d.tolist(), strict=True))
    for threads in (1, 3):
        got = wired(Pairs(s, t), w, d * 1e-4, threads)
        assert sorted(zip(*(a.tolist() for a in got), strict=True)) == want


@pytest.mark.parametrize("rule", [FixedProbability(0.05), FixedInDegree(9), FixedOutDegree(11)])
@pytest.mark.parametrize("delay", [3e-4, Uniform(0.0, 8e-4)])
def test_synapses_do_not_depend_on_threads(rule, delay) -> None:
    found = []
    for threads in (1, 2, 5):
        got = wired(rule, Uniform(-1.0, 1.0), delay, threads, seed=2**63 + 5)
        found.append(sorted(zip(*(a.tolist() for a in got), strict=True)))
    assert found[0] == found[1] == found[2]
    other = wired(rule, Uniform(-1.0, 1.0), delay, 1, seed=1)
    assert found[0] != sorted(zip(*(a.tolist() for a in other), strict=True))


def test_large_populations_have_wide_targets() -> None:
    made = Simulation(
        Circuit(
            {"a": Population(40, CELL), "b": Population(300_000, CELL)},
            [Projection("a", "b", FixedOutDegree(500), 1.0)],
        ),
        threads=1,
    )
    assert made.built.pools.target.dtype == np.uint32
    _, target, _, _ = made.connections(0)
    assert target.max() > 290_000
    assert abs(target.mean() / 150_000 - 1) < 0.05
    assert made.bytes_per_synapse < 4.1


def test_sources_and_drives_have_their_rates() -> None:
    silent = LIF(10e-3, 1e9)
    circuit = Circuit(
        {"p": Population(1000, Poisson(50.0)), "d": Population(1000, silent)},
        drives=[Drive("d", 20.0, 0.5, 30)],
        dt=1e-3,
    )
    made = Simulation(circuit, threads=2)
    got = made.run(1000, probes={("d", "v"): np.arange(1000)})
    assert got.counts["p"] == pytest.approx(50_000, abs=5 * math.sqrt(50_000))
    v, keep = got.probes["d", "v"], math.exp(-0.1)
    drawn = (v[1:] / keep - v[:-1]) / 0.5  # v' = keep (v + x)
    assert np.abs(drawn - np.rint(drawn)).max() < 1e-3
    assert drawn.mean() == pytest.approx(0.6, rel=0.01)
    assert drawn.var() == pytest.approx(0.6 * 0.98, rel=0.01)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.15
    pairs = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(pairs) < 0.005
