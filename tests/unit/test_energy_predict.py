"""`predict`: plain counters against sums worked out by hand; regimes, machines, layers, sets, refusals, wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import BadChipFile, ChipError, UnknownChip
from neuro.hardware import predict
from neuro.hardware.chip import Chip, Quantity, read_chip
from neuro.hardware.estimate import BOUNDARIES
from neuro.hardware.predict import Stage


def q(value: float, unit: str, *includes: str) -> Quantity:
    return Quantity(value, value / 2, value * 2, unit, "somebody", "assumed", includes=includes)


def chip(**changed: object) -> Chip:
    energy = {
        n: q(v, "J") for n, v in (("synop", 2.0), ("update", 3.0), ("packet", 7.0), ("hop_up", 5.0), ("hop", 1.0))
    }
    time = {n: q(v, "s") for n, v in (("synop", 0.5), ("update", 0.25), ("barrier", 1.0), ("tick", 100.0))}
    power = {n: q(v, "W") for n, v in (("boot_idle", 10.0), ("loaded_idle", 20.0), ("core_active", 0.5))}
    limits = {"cores": Quantity(4, 4, 4, "1", "somebody", "published")}
    given = {"energy": energy, "time": time, "power": power, "limits": limits, "formats": {}, "not_modelled": ()}
    return Chip("toy", "made up", **{**given, **changed})  # type: ignore[arg-type]


COUNTS = {"synops": 100.0, "updates": 40.0, "packets": 5.0, "hops_up": 2.0, "hops": 3.0}
EVENTS = 100 * 2.0 + 40 * 3.0 + 5 * 7.0 + 2 * 5.0 + 3 * 1.0


def nominal(e: object, name: str) -> float:
    r = e.boundaries[name]  # type: ignore[attr-defined]
    assert r is not None
    return float(r.nominal)


def test_four_boundaries_with_a_measured_time() -> None:
    e = predict(chip(), COUNTS, steps=10, time_s=3.0, cores=2)
    assert nominal(e, "events") == pytest.approx(EVENTS)
    assert nominal(e, "above_loaded_idle") == pytest.approx(EVENTS)
    assert nominal(e, "above_boot_idle") == pytest.approx(EVENTS + 3 * (20 + 2 * 0.5))
    assert nominal(e, "total") == pytest.approx(EVENTS + 3 * (10 + 20 + 2 * 0.5))
    low, high = e.boundaries["events"].low, e.boundaries["events"].high  # type: ignore[union-attr]
    assert (low, high) == (pytest.approx(EVENTS / 2), pytest.approx(EVENTS * 2))
    assert e.time == "given"
    assert e.latency_s is not None
    assert (e.latency_s.low, e.latency_s.high) == (3.0, 3.0)
    assert any("host_io_s" in line for line in e.not_modelled)


def test_special_kinds_fall_back_to_the_common_price() -> None:
    assert nominal(predict(chip(), {"hops_up": 1}, time_s=1.0), "events") == pytest.approx(5.0)
    assert nominal(predict(chip(), {"hops_sideways": 1}, time_s=1.0), "events") == pytest.approx(1.0)
    assert nominal(predict(chip(), {"synops_conv": 1}, time_s=1.0), "events") == pytest.approx(2.0)


def test_predicted_time_is_even_unless_the_busiest_core_is_given() -> None:
    even = predict(chip(), COUNTS, steps=10, cores=2)
    assert even.latency_s is not None
    assert even.latency_s.nominal == pytest.approx((100 * 0.5 + 40 * 0.25) / 2 + 10 * 1.0)
    assert any("share evenly" in line for line in even.not_modelled)
    worst = predict(chip(), COUNTS, steps=10, cores=2, busiest={"synops": 100.0, "updates": 20.0})
    assert worst.latency_s is not None
    assert worst.latency_s.nominal == pytest.approx(100 * 0.5 + 20 * 0.25 + 10 * 1.0)
    assert not any("share evenly" in line for line in worst.not_modelled)


def test_a_tick_is_waited_for() -> None:
    e = predict(chip(), COUNTS, steps=10, regime="real-time")
    assert e.latency_s is not None
    assert e.latency_s.nominal == pytest.approx(1000.0)
    assert e.late == 0.0
    hurried = predict(chip(), COUNTS, steps=10, regime="real-time", dt_s=1.5)
    assert hurried.latency_s is not None
    assert hurried.latency_s.nominal == pytest.approx(100 * 0.5 + 40 * 0.25 + 10)
    assert hurried.late == 1.0


def test_chips_cores_and_boards_multiply_static_power() -> None:
    assert nominal(predict(chip(), {}, time_s=1.0, cores=9), "total") == pytest.approx(3 * 30 + 9 * 0.5)
    assert nominal(predict(chip(), {}, time_s=1.0, chips=5), "total") == pytest.approx(5 * 30)
    board = chip(power={"board_static": q(22.0, "W")})
    assert nominal(predict(board, {}, time_s=2.0, boards=3), "total") == pytest.approx(2 * 3 * 22)
    e = predict(board, {}, time_s=2.0, boards=3)
    assert e.boundaries["above_boot_idle"] is None
    assert "not told apart" in e.reasons["above_boot_idle"]


def test_a_host_is_predicted_only_where_it_is_known() -> None:
    unknown = predict(chip(), COUNTS, steps=10, regime="host-driven")
    assert unknown.latency_s is None
    assert unknown.boundaries["total"] is None
    assert unknown.to_json()["boundaries"]["total"]["reason"] == "host-bound, not predicted"
    assert nominal(unknown, "events") == pytest.approx(EVENTS)
    known = dict(chip().time) | {"injection": q(0.1, "s"), "host_round_trip": q(4.0, "s")}
    e = predict(chip(time=known), {**COUNTS, "injected": 30.0}, steps=10, regime="host-driven")
    assert e.latency_s is not None
    assert e.latency_s.nominal == pytest.approx(100 * 0.5 + 40 * 0.25 + 10 * 1.0 + 30 * 0.1 + 10 * 4.0)
    once = predict(chip(time=known), {**COUNTS, "injected": 30.0}, steps=10, regime="host-driven", host_trips=1)
    assert once.latency_s is not None
    assert once.latency_s.nominal == pytest.approx(e.latency_s.nominal - 9 * 4.0)


def test_a_busy_host_belongs_to_the_second_boundary() -> None:
    power = dict(chip().power) | {"host_busy": q(8.0, "W")}
    e = predict(chip(power=power), COUNTS, time_s=3.0, host_io_s=0.5)
    assert nominal(e, "above_loaded_idle") == pytest.approx(EVENTS + 8.0 * 0.5)
    assert nominal(e, "total") == pytest.approx(EVENTS + 8.0 * 0.5 + 3 * 30)
    assert nominal(e, "events") == pytest.approx(EVENTS)


def test_layers_take_a_fixed_part_and_their_work() -> None:
    time = {
        "clock": q(0.5, "s"),
        "stage": q(100.0, "clock"),
        "work_conv3x3": q(0.6, "clock"),
        "work_fc": q(1.0, "clock"),
    }
    layered = chip(time=time, energy={"work": q(2.0, "J")})
    stages = {"a": Stage("conv3x3", np.array([50]), 8, 4), "b": Stage("fc", np.array([10]), 3)}
    e = predict(layered, {}, stages=stages)
    assert e.latency_s is not None
    assert e.stages["a"].nominal == pytest.approx((100 + 0.6 * 50 * 8 / 4) * 0.5)
    assert e.latency_s.nominal == pytest.approx(e.stages["a"].nominal + (100 + 30) * 0.5)
    assert nominal(e, "events") == pytest.approx(2.0 * (0.6 * 50 * 8 + 30))  # of all processors, so not divided
    missing = predict(layered, {}, stages={"a": Stage("conv9x9", np.array([50]), 8)})
    assert missing.latency_s is None
    assert "conv9x9" in missing.reason
    assert predict(layered, {"synops": 1.0}).reason.startswith("time goes by layers")


def test_what_is_not_known_is_none_not_zero() -> None:
    e = predict(chip(energy={}), COUNTS, time_s=1.0)
    assert e.energy_j is None
    assert all(e.boundaries[name] is None for name in BOUNDARIES)
    assert "no energy per operation" in e.to_json()["energy_j"]["reason"]
    within = chip(energy={}, power={**chip().power, "core_active": q(0.5, "W", "energy.synop", "energy.update")})
    e = predict(within, {"synops": 5.0}, time_s=2.0, cores=3)
    assert e.energy_j is None
    assert nominal(e, "total") == pytest.approx(2 * (30 + 1.5))
    assert "part of a power" in e.reasons["events"]


def test_what_a_constant_includes_is_not_called_free() -> None:
    e = predict(chip(energy={"synop": q(2.0, "J", "update")}), COUNTS, time_s=1.0)
    assert "energy.update: not told apart from energy.synop, which includes it" in e.not_modelled
    assert any(line.startswith("energy.packet: not in the chip's file") for line in e.not_modelled)


def test_named_sets_replaced_constants_and_refusals() -> None:
    sets = {"old": {"energy": {"synop": q(9.0, "J")}}}
    refused = {"9 J": ("energy.update", Quantity(90.0, 80.0, 100.0, "J", "somebody", "published", "a total"))}
    made = chip(constants=sets, refused=refused, default_constants="new")
    assert predict(made, COUNTS, time_s=1.0).constants == "new"
    old = predict(made, COUNTS, time_s=1.0, constants="old")
    assert nominal(old, "events") == pytest.approx(900.0)  # its table replaces the other whole
    assert nominal(old, "total") == pytest.approx(900.0 + 30)  # what it does not have stays
    mine = predict(made, {"synops": 1.0}, time_s=1.0, constants={"energy.synop": 4.0})
    assert nominal(mine, "events") == 4.0
    assert "the caller" in {s.source for s in mine.sources}
    for constants in ("9 J", {"energy.update": 95.0}):
        with pytest.raises(ChipError, match=r"refused as energy\.update of toy: a total"):
            predict(made, COUNTS, constants=constants)
    with pytest.raises(ChipError, match="Did you mean 'old'"):
        predict(made, COUNTS, constants="olt")
    with pytest.raises(ChipError, match=r"energy\.synop"):
        predict(made, COUNTS, constants={"energy.synops": 4.0})


def test_wrong_input_is_named() -> None:
    with pytest.raises(ChipError, match="Did you mean 'synops'"):
        predict(chip(), {"synop": 1.0})
    with pytest.raises(ChipError, match="must be finite and not negative"):
        predict(chip(), {"synops": -1.0})
    with pytest.raises(ChipError, match="2 problems"):
        predict(chip(), {"synops": float("nan")}, time_s=0.0)
    with pytest.raises(ChipError, match="real-time"):
        predict(chip(), {}, regime="realtime")
    with pytest.raises(UnknownChip, match="Did you mean 'loihi1'"):
        predict("loihi_1", {})


def test_json_is_plain_and_never_says_energy_per_inference() -> None:
    e = predict("loihi1", {"synops": 1e6, "updates": 5120}, steps=10, time_s=3e-3)
    text = json.dumps(e.to_json(), allow_nan=False)
    assert "event energy" in text
    assert "per inference" not in json.dumps({k: v for k, v in e.to_json().items() if k != "sources"})
    assert {"blouw2019", "sanafe2025"} <= {s["source"] for s in e.to_json()["sources"]}


def test_the_examples_of_the_docs_say_what_the_docs_say() -> None:
    second = predict("truenorth", {"synops": 1048576 * 128 * 20}, steps=1000, time_s=1.0)
    assert nominal(second, "total") == pytest.approx(70.6e-3, rel=0.002)
    assert nominal(second, "total") / (1048576 * 128 * 20) == pytest.approx(26.3e-12, rel=0.002)
    assert nominal(predict("spinnaker1", {"synops": 1.8e9}, time_s=1.0, boards=1), "total") == pytest.approx(36.4)
    assert predict("spinnaker1", {}, time_s=10.0, boards=2, cores=500, constants="spinnmachine").boundaries["total"]
    assert predict("akida1", {}, stages={"conv": Stage("conv3x3", np.array(50_000), 64, 8)}).latency_s


def test_a_chip_file_of_ones_own_is_enough(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")
    path = tmp_path / "odin.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    e = predict(path, {"synops": 1e9}, time_s=1.0)
    assert nominal(e, "events") == pytest.approx(8.43e-3)
    assert nominal(e, "total") == pytest.approx(8.43e-3 + 1e-4)
    assert e.rests_on == ("power.static",)
    path.write_text(path.read_text().replace("frenkel2019 =", "someone ="), encoding="utf-8")
    read_chip.cache_clear()
    with pytest.raises(BadChipFile, match="frenkel2019"):
        predict(path, {})
