"""Three energies side by side: counts of an ANN from shapes, sums by hand, and which way each bias points."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neuro import chain, deploy, ir
from neuro.events import EventSet
from neuro.hardware import compile as compile_network
from neuro.hardware import estimate, load_chip, simulate
from neuro.hardware.baseline import EVERY_STEP, ONE_PASS, SPIKING, ann_counts, compare, process, sends_values, table
from neuro.hardware.estimate import Range

RNG = np.random.default_rng(5)
NETWORK = ir.Network(
    {
        "in": ir.Input((2, 8, 8)),
        "c": ir.Conv2d(RNG.normal(size=(4, 2, 3, 3)), padding=(1, 1), stride=(2, 2)),
        "a": ir.LIF(tau_mem=np.full((4, 4, 4), 20e-3), v_threshold=1.0),
        "flat": ir.Flatten(),
        "w": ir.Affine(RNG.normal(size=(5, 64)), bias=np.zeros(5)),
        "b": ir.LIF(tau_mem=np.full(5, 20e-3), v_threshold=1.0),
        "out": ir.Output("count"),
    },
    (("in", "c"), ("c", "a"), ("a", "flat"), ("flat", "w"), ("w", "b"), ("b", "out")),
    1e-3,
)


def row(found: dict, what: str) -> dict:
    return next(r for r in found["rows"] if r["what"] == what)


def test_an_ann_of_the_same_shape_is_counted() -> None:
    counts, unknown = ann_counts(NETWORK)
    assert counts == {
        "macs": 4 * 2 * 9 * 16 + 5 * 64,
        "neurons": 64 + 5,
        "weights": 4 * 2 * 9 + 5 * 64,
        "activations": 2 * 64 + 64 + 5,
        "inputs": 2 * 64,
    }
    assert unknown == []


def test_the_naive_count_is_the_literatures() -> None:
    found = table(NETWORK, {"synops": 1000.0, "updates": 50.0}, 10, Range(1.0, 2.0, 3.0), load_chip("loihi2"))
    assert row(found, SPIKING)["naive_j"]["nominal"] == pytest.approx(1000 * 0.9e-12)
    macs = 4 * 2 * 9 * 16 + 5 * 64
    assert row(found, ONE_PASS)["naive_j"]["nominal"] == pytest.approx(macs * 4.6e-12)
    assert row(found, EVERY_STEP)["naive_j"]["nominal"] == pytest.approx(10 * macs * 4.6e-12)


def test_memory_is_read_at_the_price_of_the_smallest_that_holds_it() -> None:
    found = table(NETWORK, {"synops": 1000.0, "updates": 50.0}, 10, None, load_chip("loihi2"))
    snn = row(found, SPIKING)["memory_j"]
    arithmetic = 1000 * 0.1e-12 + 50 * 3.2e-12
    assert snn["nominal"] == pytest.approx(arithmetic + (1000 * 72 + 50 * 64) / 64 * 10e-12)  # fits 8 kB: 10 pJ
    assert snn["low"] == pytest.approx(arithmetic + (1000 * 8 + 50 * 64) / 64 * 10e-12)
    assert snn["high"] == pytest.approx(arithmetic + (1000 * 3 + 50 * 2) * 10e-12)
    big = ir.Network(
        {
            "in": ir.Input((600,)),
            "w": ir.Linear(np.ones((2000, 600))),
            "n": ir.IF(v_threshold=np.ones(2000)),
            "out": ir.Output(),
        },
        (("in", "w"), ("w", "n"), ("n", "out")),
        1e-3,
    )
    found = table(big, {"synops": 1000.0, "updates": 0.0}, 1, None, load_chip("loihi2"))
    assert row(found, SPIKING)["memory_j"]["nominal"] == pytest.approx(1000 * 0.1e-12 + 1000 * 72 / 64 * 1.95e-9)


def test_the_chips_column_is_its_own_table() -> None:
    chip = load_chip("loihi2")
    found = table(NETWORK, {"synops": 1000.0, "updates": 50.0}, 10, Range(1.0, 2.0, 3.0), chip)
    assert row(found, SPIKING)["chip_j"] == {"low": 1.0, "nominal": 2.0, "high": 3.0}
    macs = 4 * 2 * 9 * 16 + 5 * 64
    each = macs * chip.energy["synop"].value + 69 * chip.energy["update"].value
    assert row(found, ONE_PASS)["chip_j"]["nominal"] == pytest.approx(each)
    assert row(found, EVERY_STEP)["chip_j"]["nominal"] == pytest.approx(10 * each)


def test_an_ann_pays_for_its_inputs_where_the_chip_charges_for_them() -> None:
    price = load_chip("loihi1").energy
    found = table(NETWORK, {"synops": 1.0}, 10, None, load_chip("loihi1"))
    macs = 4 * 2 * 9 * 16 + 5 * 64
    wanted = macs * price["synop"].value + 69 * price["update"].value + 128 * price["injection"].value
    assert row(found, ONE_PASS)["chip_j"]["nominal"] == pytest.approx(wanted)


def test_deploy_reports_the_three_energies() -> None:
    labels = np.repeat(np.arange(3), 2)
    times = np.tile(np.arange(10, dtype=np.float32) * 1e-3 + 1e-4, 6)
    data = EventSet(
        times,
        np.repeat(labels, 10).astype(np.int32),
        np.arange(7) * 10,
        labels,
        np.arange(6),
        (3,),
        0.012,
        ("a", "b", "c"),
        "toy",
    )
    nodes = {"in": ir.Input((3,)), "fc": ir.Linear(np.eye(3)), "n": ir.IF(v_threshold=0.5), "out": ir.Output("count")}
    report = deploy(chain(nodes, dt=1e-3), data, certify_samples=0).chips["loihi2"]
    found = json.loads(json.dumps(report.baseline, allow_nan=False))
    assert [r["what"] for r in found["rows"]] == [SPIKING, ONE_PASS, EVERY_STEP]
    assert row(found, SPIKING)["counts"]["synops"] == report.counters["synops"] == 10
    assert row(found, SPIKING)["chip_j"]["nominal"] == report.energy_j["nominal"]
    assert row(found, EVERY_STEP)["counts"]["macs"] == 9 * report.estimate["steps"]


def test_a_simulated_network_is_compared_and_said_plainly() -> None:
    program = compile_network(NETWORK, "loihi2")
    dense = (np.random.default_rng(2).random((20, 3, 128)) < 0.2).astype(np.uint8)
    trace = simulate(program, dense)
    found = compare(NETWORK, trace, program)
    event = estimate(trace, program).energy_j
    assert event is not None
    assert row(found, SPIKING)["chip_j"] == event.to_json()
    assert row(found, SPIKING)["counts"]["synops"] == trace.counters.totals()["synops"]
    text = json.dumps(found, allow_nan=False)
    assert "no column is the energy of an inference" in text
    assert {"horowitz2014"} <= {s["source"] for s in found["sources"]}
    for r in found["rows"]:
        for column in ("naive_j", "memory_j", "chip_j"):
            assert 0 < r[column]["low"] <= r[column]["nominal"] <= r[column]["high"]


def test_messages_with_values_are_multiplied() -> None:
    counted = ir.Network(
        {"in": ir.Input((4,), high=15), "w": ir.Linear(np.ones((2, 4))), "n": ir.IF(v_threshold=9.0), "o": ir.Output()},
        (("in", "w"), ("w", "n"), ("n", "o")),
        1e-3,
    )
    assert sends_values(counted)
    assert not sends_values(NETWORK)
    found = table(counted, {"synops": 10.0, "updates": 2.0}, 1, None, load_chip("loihi2"))
    assert row(found, SPIKING)["naive_j"]["nominal"] == pytest.approx(10 * 4.6e-12)
    assert any("carry values" in note for note in found["notes"])


def test_the_process_has_the_figures_that_are_quoted_everywhere() -> None:
    e = process().energy
    assert e["add_float32"].value == 0.9e-12
    assert e["add_float32"].value + e["multiply_float32"].value == pytest.approx(4.6e-12)
    assert {q.source for q in e.values()} == {"horowitz2014"}
