"""`estimate`: sums worked out by hand on a made-up chip, ranges, boundaries, regimes, merging."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neuro.errors import ChipError
from neuro.hardware import estimate, load_chip
from neuro.hardware.chip import Chip, Quantity
from neuro.hardware.estimate import BOUNDARIES, merge
from neuro.hardware.program import Placement, Population, Program
from neuro.hardware.trace import Counters, Trace


def q(value: float, spread: float = 2.0, grade: str = "assumed", unit: str = "J") -> Quantity:
    return Quantity(value, value / spread, value * spread, unit, "somebody", grade)


def chip(**changed: dict[str, Quantity]) -> Chip:
    groups = {
        "energy": {
            "synop": q(2.0),
            "update": q(3.0, grade="published"),
            "spike": q(5.0),
            "packet": q(7.0),
            "hop": q(11.0),
            "injection": q(13.0),
        },
        "time": {
            n: q(v, unit="s")
            for n, v in (
                ("synop", 1.0),
                ("update", 10.0),
                ("spike", 100.0),
                ("packet", 1000.0),
                ("hop", 0.5),
                ("barrier", 4.0),
                ("injection", 0.1),
            )
        },
        "power": {"loaded_idle": q(17.0, unit="W"), "boot_idle": q(19.0, unit="W")},
        "limits": {},
    }
    return Chip("loihi2", "made up", formats={}, not_modelled=(), **{**groups, **changed})


def trace(samples: int = 2, seed: int = 0, steps: int = 3, cores: int = 2) -> Trace:
    rng = np.random.default_rng(seed)
    counts = {n: rng.integers(1, 9, (samples, steps, cores)) for n in Counters.NAMES}
    counters = Counters(**counts, injected=rng.integers(0, 5, (samples, steps)))
    return Trace("loihi2", 1e-3, {}, {}, counters, np.zeros((samples, 2), np.int64))


def test_event_energy_is_counts_times_constants() -> None:
    t, c = trace(), trace().counters
    e = estimate(t, chip=chip())
    for k, sample in enumerate(range(2)):
        wanted = (
            2 * c.synops[k].sum()
            + 3 * c.updates[k].sum()
            + 5 * c.spikes[k].sum()
            + 7 * c.packets[k].sum()
            + 11 * c.hops[k].sum()
            + 13 * c.injected[k].sum()
        )
        assert sum(a[sample, 1] for a in e.joules.values()) == pytest.approx(wanted)
    total = sum(r.nominal for r in e.causes.values())
    assert e.energy_j.nominal == pytest.approx(total)
    assert (e.energy_j.low, e.energy_j.high) == (pytest.approx(total / 2), pytest.approx(total * 2))


def test_a_step_is_its_slowest_core_plus_flight_plus_barrier() -> None:
    c = trace().counters
    e = estimate(trace(), chip=chip())
    wanted = []
    for b in range(2):
        time = 0.0
        for s in range(3):
            cores = [
                c.synops[b, s, k] + 10 * c.updates[b, s, k] + 100 * c.spikes[b, s, k] + 1000 * c.packets[b, s, k]
                for k in range(2)
            ]
            flight = max(c.hops[b, s, k] / c.packets[b, s, k] for k in range(2)) * 0.5
            time += max(cores) + flight + 4.0
        wanted.append(time + 0.1 * c.injected[b].sum())
    assert e.latency_s is not None
    assert e.latency_s.nominal == pytest.approx(np.mean(wanted))
    np.testing.assert_allclose(sum(a[:, 1] for a in e.seconds.values()), wanted)


def test_four_boundaries_in_order() -> None:
    e = estimate(trace(), chip=chip())
    assert tuple(e.boundaries) == BOUNDARIES
    assert e.latency_s is not None
    events, loaded, boot, total = (e.boundaries[n] for n in BOUNDARIES)
    assert events == e.energy_j == loaded
    assert boot is not None
    assert total is not None
    assert boot.nominal == pytest.approx(e.energy_j.nominal + 17 * e.latency_s.nominal)
    assert total.nominal == pytest.approx(boot.nominal + 19 * e.latency_s.nominal)
    assert total.low < total.nominal < total.high


def test_silent_cores_send_nothing() -> None:
    c = Counters(*(np.zeros((1, 2, 3), np.int64) for _ in Counters.NAMES), injected=np.zeros((1, 2), np.int64))
    e = estimate(Trace("loihi2", 1e-3, {}, {}, c, np.zeros((1, 2), np.int64)), chip=chip())
    assert e.energy_j.nominal == 0.0
    assert e.latency_s is not None
    assert e.latency_s.nominal == pytest.approx(8.0)  # two barriers


def test_a_missing_constant_is_listed_not_guessed() -> None:
    lean = chip(energy={"synop": q(2.0)}, power={})
    e = estimate(trace(), chip=lean)
    assert set(e.causes) == {"synop"}
    assert any(line.startswith("energy.update: not in the chip's file") for line in e.not_modelled)
    assert any(line.startswith("power.boot_idle") for line in e.not_modelled)
    assert e.boundaries["total"] is None
    assert e.to_json()["boundaries"]["total"]["nominal"] is None


def test_what_rests_on_weak_constants_is_said() -> None:
    e = estimate(trace(), chip=chip())
    assert "energy.synop" in e.rests_on
    assert "energy.update" not in e.rests_on  # published
    assert {s.quantity for s in e.sources} >= {"energy.update", "time.barrier", "power.boot_idle"}


def test_regimes() -> None:
    host = estimate(trace(), chip=chip(), regime="host-driven")
    assert host.latency_s is None
    assert host.boundaries["total"] is None
    assert host.to_json()["latency_s"]["reason"] == "host-bound, not predicted"
    assert host.energy_j == estimate(trace(), chip=chip()).energy_j
    slow = {
        n: q(v * 1e-9, unit="s")
        for n, v in (("synop", 1.0), ("update", 10.0), ("spike", 100.0), ("packet", 1000.0), ("barrier", 4.0))
    }
    tick = estimate(trace(), chip=chip(time=slow), regime="real-time")
    assert tick.latency_s is not None
    assert tick.latency_s.nominal == pytest.approx(3e-3)  # three ticks of 1 ms: the chip waits
    late = estimate(trace(), chip=chip(), regime="real-time")
    assert late.latency_s == estimate(trace(), chip=chip()).latency_s  # slower than the tick: no waiting
    with pytest.raises(ChipError, match="Did you mean 'real-time'"):
        estimate(trace(), regime="realtime")


def test_energy_is_split_by_population() -> None:
    t = trace(cores=3)
    populations = {
        "in": Population("in", "in", "input", (1,)),
        "a": Population("a", "a", "lif", (2,)),
        "b": Population("b", "b", "lif", (1,)),
    }
    where = Placement({"a": np.array([0, 1]), "b": np.array([2])}, np.zeros((3, 2), np.int64))
    program = Program("loihi2", 1e-3, populations, (), "in", "b", {"in": 0, "a": 1, "b": 2}, {}, "count", where)
    e = estimate(t, program, chip=chip())
    on_cores = e.energy_j.nominal - e.causes["injection"].nominal
    assert sum(r.nominal for r in e.populations.values()) == pytest.approx(on_cores)
    c = t.counters
    only_b = sum(
        p * getattr(c, n)[:, :, 2].sum(axis=1).mean()
        for p, n in ((2, "synops"), (3, "updates"), (5, "spikes"), (7, "packets"), (11, "hops"))
    )
    assert e.populations["b"].nominal == pytest.approx(only_b)


def test_batches_merge_to_the_whole() -> None:
    parts = [trace(2, seed=1), trace(5, seed=2)]
    whole = Counters(*(np.concatenate([getattr(p.counters, n) for p in parts]) for n in (*Counters.NAMES, "injected")))
    together = estimate(Trace("loihi2", 1e-3, {}, {}, whole, np.zeros((7, 2), np.int64)), chip=chip())
    merged = merge([estimate(p, chip=chip()) for p in parts])
    assert merged.samples == 7
    a, b = together.to_json(), merged.to_json()
    for name in ("energy_j", "latency_s"):
        assert {k: v for k, v in a[name].items() if k != "what"} == pytest.approx(
            {k: v for k, v in b[name].items() if k != "what"}
        )
    for name in ("boundaries", "causes", "time_causes"):
        for key in a[name]:
            assert a[name][key] == pytest.approx(b[name][key])
    np.testing.assert_allclose(together.joules["hop"], merged.joules["hop"])
    with pytest.raises(ChipError, match="can be merged"):
        merge([estimate(parts[0], chip=chip()), estimate(parts[1], chip=chip(), regime="host-driven")])
    with pytest.raises(ChipError):
        merge([])


def test_json_is_plain_and_calls_it_event_energy() -> None:
    e = estimate(trace(), chip=load_chip("loihi2"))
    text = json.dumps(e.to_json(), allow_nan=False)
    assert "event energy" in text
    assert "energy per inference" not in text
    assert {"low", "nominal", "high"} <= set(e.to_json()["energy_j"])
    assert e.energy_j.low < e.energy_j.nominal < e.energy_j.high


def test_estimate_names_no_chip() -> None:
    import inspect

    import neuro.hardware.estimate  # noqa: F401  # the module behind the function
    from neuro.hardware.target import targets

    source = inspect.getsource(inspect.getmodule(estimate))  # type: ignore[arg-type]
    assert not [name for name in targets() if name in source.lower()]
