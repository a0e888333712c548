"""Laws: Akida's compiled kernels, the same code without the compiler, and unbounded Python integers agree."""

from __future__ import annotations

import axon_akida as akida
import numpy as np
import pytest
from axon_interpreted import interpreted
from axon_vectors import differences

from neuro.hardware.akida import plain
from neuro.hardware.akida.kernels import run

WANTED = ("tie", "negative tie", "high", "low", "shift left", "on the threshold", "top code", "code between",
          "beyond 30 bits", "lut", "gap", "pool_kernel", "max_value")  # fmt: skip


def assert_equal_to_integers(seed, side=9):
    case = akida.from_seed(seed, side)
    (p, s), (p_plain, s_plain) = akida.both(*case)
    assert not differences("potential", p, p_plain)
    assert not differences("value", s, s_plain)
    akida.note(case, p, s)


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_any_layer_equals_unbounded_integers(first):
    for seed in range(first, first + 100):
        assert_equal_to_integers(seed)


def test_the_draw_reaches_every_end():
    akida.SEEN.clear()
    for seed in range(300):
        assert_equal_to_integers(seed)
    assert all(akida.SEEN[what] > 5 for what in WANTED), akida.SEEN


@pytest.mark.slow
def test_a_million_updates_reach_every_end():
    akida.SEEN.clear()
    seed = 10_000
    while akida.SEEN["values"] < 1_000_000:
        assert_equal_to_integers(seed, side=40)
        seed += 1
    print(f"{seed - 10_000} layers, {dict(akida.SEEN)}")
    assert all(akida.SEEN[what] > 500 for what in WANTED), akida.SEEN


def assert_three_agree(seed, side):
    case = akida.wide_from_seed(seed, side)
    compiled, plain_ = akida.both(*case)
    for name, ours, theirs, python in zip("ps", compiled, plain_, akida.interpreted(case), strict=True):
        assert not differences(name, ours, theirs)
        assert not differences(name, ours, python)
    akida.note(case, *compiled)


def test_compiled_interpreted_and_plain_agree():
    for seed in range(12):
        assert_three_agree(seed, 12)


@pytest.mark.slow
def test_a_million_values_of_compiled_interpreted_and_plain():
    akida.SEEN.clear()
    seed = 100
    while akida.SEEN["values"] < 1_000_000:
        assert_three_agree(seed, 60)
        seed += 1
    wanted = ("tie", "negative tie", "high", "low", "on the threshold", "top code", "code between")
    assert all(akida.SEEN[what] > 500 for what in wanted), akida.SEEN
    assert akida.SEEN["shift left"] > 5  # channels


@pytest.mark.parametrize("seed", range(9))
def test_a_program_equals_unbounded_integers(seed):
    program, dense = akida.program_from_seed(seed)
    trace = run(program, dense, tuple((n, "p") for n in "abcd"))
    for t in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            theirs = plain.frame(program, dense[t, b])
            for (name, variable), values in theirs.items():
                ours = trace.spikes[name] if variable == "s" else trace.probes[name, "p"]
                assert not differences(f"{name} {variable}", ours[t, b], values)
    over = {"sum": np.sum, "max": np.max, "last": lambda a, axis: a[-1]}[program.readout]
    assert np.array_equal(trace.scores, over(trace.spikes["d"].astype(np.int64), axis=0))


def test_the_compiler_changes_nothing():
    """Every kernel as plain Python, in a process of its own."""
    compiled = [f"{seed} {akida.digest(akida.answers(seed))}" for seed in range(8)]
    assert interpreted("axon_akida.py", "answers", *range(8)) == compiled


@pytest.mark.slow
def test_the_compiler_changes_nothing_in_a_million_values():
    """The layers of test_a_million_updates_reach_every_end."""
    values, seed, compiled = 0, 10_000, []
    while values < 1_000_000:
        p, s = akida.layer(seed)
        compiled.append(f"{seed} {akida.digest([p, s])}")
        values, seed = values + s.size, seed + 1
    print(f"{seed - 10_000} layers, {values} values")
    assert interpreted("axon_akida.py", "layer", *range(10_000, seed)) == compiled


@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_change_nothing(threads, monkeypatch):
    import numba

    wanted = akida.digest(akida.answers(3))
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", int(threads))
    assert akida.digest(akida.answers(3)) == wanted
