"""`simulate`: what it takes, what it refuses and how it says so. What it computes is tested with the kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuro.errors import SimulationError, UnknownChip
from neuro.events import Events
from neuro.hardware import simulate as module_function
from neuro.hardware.program import Placement, Population, Program, Projection
from neuro.hardware.simulate import simulate

SHAPE = (2, 3, 4)
N, STEPS, BATCH = 24, 6, 5
DT = 1e-3


@pytest.fixture
def program():
    rng = np.random.default_rng(0)
    registers = {"du": 4095, "dv": 300, "vth": 40, "bias_mant": 0, "bias_exp": 0}
    pops = [Population("in", "in", "input", SHAPE), Population("out", "out", "lif", (7,), registers)]
    weight = 2 * rng.integers(-20, 40, (7, N))
    params = {"weight_exp": 0, "num_weight_bits": 8, "sign_mode": 1}
    return Program(
        chip="loihi2",
        dt=DT,
        populations={p.name: p for p in pops},
        projections=(Projection("w", "w", "in", "out", "dense", weight, params),),
        input="in",
        output="out",
        skew={"in": 0, "out": 1},
        scale={},
        readout="count",
        placement=Placement({"out": np.arange(7) // 4}, np.array([[0, 0], [2, 1]])),
    )


@pytest.fixture
def dense():
    return (np.random.default_rng(1).random((STEPS, BATCH, *SHAPE)) < 0.2).astype(np.uint8)


def events_of(dense):
    return [Events.from_dense(dense[:, k], DT) for k in range(dense.shape[1])]


def assert_same(a, b):
    assert a.spikes.keys() == b.spikes.keys()
    assert a.probes.keys() == b.probes.keys()
    for key in a.spikes:
        assert np.array_equal(a.spikes[key], b.spikes[key])
    for key in a.probes:
        assert np.array_equal(a.probes[key], b.probes[key])
    for name in (*a.counters.NAMES, "injected"):
        assert np.array_equal(getattr(a.counters, name), getattr(b.counters, name))
    assert np.array_equal(a.scores, b.scores)
    assert np.array_equal(a.decision, b.decision)


def test_public_name():
    assert module_function is simulate


def test_shapes_and_meaning_of_a_trace(program, dense):
    trace = simulate(program, dense, probes=[("out", "v"), ("out", "u"), ("out", "v")])
    steps = STEPS + program.depth
    assert trace.chip == "loihi2"
    assert trace.dt == DT
    assert trace.steps == steps
    assert trace.spikes["in"].shape == (steps, BATCH, N)
    assert np.array_equal(trace.spikes["in"][:STEPS], dense.reshape(STEPS, BATCH, N))
    assert trace.spikes["out"].shape == (steps, BATCH, 7)
    assert set(trace.probes) == {("out", "v"), ("out", "u")}
    assert trace.probes["out", "v"].dtype == np.int32
    assert trace.counters.synops.shape == (BATCH, steps, 2)
    assert np.array_equal(trace.scores, trace.spikes["out"][program.depth :].sum(axis=0, dtype=np.int64))
    assert np.array_equal(trace.decision, trace.scores.argmax(axis=1))


def test_every_form_of_input_means_the_same(program, dense):
    expected = simulate(program, dense)
    for same in (
        dense.astype(bool),
        dense.astype(np.int64),
        dense.reshape(STEPS, BATCH, N),
        np.asfortranarray(dense),
        events_of(dense),
        tuple(events_of(dense)),
    ):
        assert_same(simulate(program, same), expected)
    one = simulate(program, events_of(dense)[0])
    assert_same(simulate(program, dense[:, 0]), one)
    assert_same(simulate(program, dense[:, 0].reshape(STEPS, N)), one)
    assert_same(simulate(program, [events_of(dense)[0]]), one)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
@pytest.mark.parametrize("record_spikes", [True, False])
def test_cutting_into_batches_changes_nothing(program, dense, batch, record_spikes):
    probes = [("out", "v"), ("out", "a")]
    expected = simulate(program, dense, probes=probes, record_spikes=record_spikes)
    for inputs in (dense, events_of(dense)):
        assert_same(simulate(program, inputs, probes=probes, record_spikes=record_spikes, batch=batch), expected)
    assert (expected.spikes == {}) is not record_spikes


def test_memory_decides_how_many_samples_run_at_a_time(program, dense, monkeypatch):
    import sys

    from neuro.hardware import target

    seen = []
    real = target.load_target("loihi2")

    def run(program, dense, *rest):
        seen.append(dense.shape[1])
        return real.run(program, dense, *rest)

    module = sys.modules["neuro.hardware.simulate"]
    monkeypatch.setattr(module, "load_target", lambda name: replace(real, run=run))
    expected = simulate(program, dense)
    monkeypatch.setattr(module, "ROOM", 1)
    assert_same(simulate(program, dense), expected)
    assert seen == [BATCH] + [1] * BATCH


def refuse(program, inputs, *says, **options):
    with pytest.raises(SimulationError) as caught:
        simulate(program, inputs, **options)
    for text in says:
        assert text in str(caught.value)
    return caught.value


def test_wrong_shape_says_what_it_should_be(program, dense):
    refuse(program, dense[..., :3], "[steps, 2, 3, 4] or [steps, batch, 2, 3, 4]", "(6, 5, 2, 3, 3)")
    refuse(program, np.zeros(4, np.uint8), "got shape (4,)")
    refuse(program, np.array(1, np.uint8), "got shape ()")
    refuse(program, dense[:0], "empty")
    refuse(program, dense[:, :0], "empty")


def test_wrong_values_and_dtypes(program, dense):
    refuse(program, dense.astype(float), "float64", "0 or 1")
    refuse(program, dense * 3, "0..3")
    refuse(program, dense.astype(np.int8) - 1, "-1..0")
    refuse(program, dense.astype(object), "object")
    refuse(program, np.array([["a"]]), "<U1")


def test_wrong_kinds_of_input(program, dense):
    for nonsense in ("events.npz", None, 3, {}, [dense], []):
        refuse(program, nonsense, "must be Events, a sequence of Events or a NumPy array")


def test_events_must_agree_with_each_other_and_with_the_program(program, dense):
    events = events_of(dense)
    refuse(program, [*events, Events.from_dense(dense[:4, 0], DT)], "steps of all samples must be 6", "4")
    refuse(program, Events.from_dense(dense[:, 0, :1], DT), "shape of all samples must be (2, 3, 4)", "(1, 3, 4)")
    refuse(program, Events.from_dense(dense[:, 0], 2e-3), "0.002 s", "0.001 s")
    simulate(program, Events.from_dense(dense[:, 0], DT * (1 + 1e-9)))


def test_unknown_probes_suggest(program, dense):
    refuse(program, dense, "'ouf'", "Did you mean 'out'?", probes=[("ouf", "v")])
    refuse(program, dense, "no population 'in' with a state", probes=[("in", "v")])
    refuse(program, dense, "pair (population, variable)", probes=["out"])
    refuse(program, dense, "cannot probe 'w' of 'out'", "u, v, a", probes=[("out", "w")])


def test_batch_must_be_positive(program, dense):
    for batch in (0, -1, 2.5, True):
        refuse(program, dense, "batch must be a positive number", batch=batch)


def test_all_problems_at_once(program, dense):
    error = refuse(program, dense.astype(float)[..., :3], probes=[("ouf", "v")], batch=0)
    assert len(error.violations) == 4


def test_unknown_chip(program, dense):
    with pytest.raises(UnknownChip, match="loihi2"):
        simulate(replace(program, chip="loihi3"), dense)
