"""Runs of real chips that others measured, and what `predict` says of them. Data, and nothing fitted here.

Each row says where its counts come from, which of the chip's constants were read in the same runs, and so whether it is
a prediction at all: "prediction" (no constant comes from this run), "carried over" (a constant comes from another run
of the same network), "same source" (constants and figure come from one source: a check of the sums, not of the
model), "fit" (the constants were computed from this very figure).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuro import chain, ir
from neuro.hardware.baseline import ann_counts
from neuro.hardware.estimate import Estimate
from neuro.hardware.predict import predict

EVENT, TOTAL, TIME, SPREAD, SHOWN = "event energy", "total", "time", "spread", "shown"


@dataclass(frozen=True)
class Run:
    """One comparison. value: what of the estimate is compared (J, s, or a ratio). judged: by which limit, or SHOWN."""

    name: str
    what: str
    unit: str
    value: Callable[[], tuple[float, float, float]]
    measured: float
    kind: str
    judged: str
    source: str
    reason: str


def _boundary(e: Estimate, name: str, per: float = 1.0) -> tuple[float, float, float]:
    r = e.boundaries[name]
    assert r is not None, e.reasons
    return r.low / per, r.nominal / per, r.high / per


# --- Loihi 1, keyword spotting 390-256-256-29: 390 input spikes injected in each of 10 steps, two layers of 256 on the
# chip, the readout of 29 on the host. The activity of the first layer is not published: 0.1 spikes per neuron and step
# is assumed (0.05 .. 0.2 changes the synaptic operations by -3 .. +6 percent).
STEPS, INPUTS, LAYER = 10, 390, 256
FIRED = int(0.1 * LAYER * STEPS)
KEYWORDS = {
    "synops": STEPS * INPUTS * LAYER + FIRED * LAYER,
    "updates": STEPS * 2 * LAYER,
    "spikes": 2 * FIRED,
    "packets": FIRED,  # of the first layer, to the core of the second; the second layer's go to the host
    "injected": STEPS * INPUTS,
}
BUSIEST = {"synops": STEPS * INPUTS * LAYER, "updates": STEPS * LAYER, "spikes": FIRED, "packets": FIRED}
RATE_2019, PUBLISHED_TOTAL, PUBLISHED_DYNAMIC, ABOVE_LOADED = 296.0, 0.372e-3, 0.271e-3, 46.9e-6
TIME_2018, ABOVE_LOADED_2018 = 11.14e-3, (100.25e-3 - 95.72e-3) * 11.14e-3


def keywords(**options: Any) -> Estimate:
    """Keyword spotting on Loihi 1, by default with its measured time."""
    return predict("loihi1", KEYWORDS, steps=STEPS, cores=2, **({"time_s": 1 / RATE_2019} | options))


def keyword_network(threshold: float = 8500.0, seed: int = 11) -> ir.Network:
    """A network of the keyword spotter's shape on the chip, 390-256-256, with random weights."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(-60, 64, (LAYER, n)) * 2.0 for n in (INPUTS, LAYER))
    nodes: dict[str, Any] = {
        "in": ir.Input((INPUTS,)),
        "w1": ir.Linear(first),
        "a": ir.IF(v_threshold=np.full(LAYER, threshold)),
        "w2": ir.Linear(second),
        "b": ir.IF(v_threshold=np.full(LAYER, threshold / 5)),
        "out": ir.Output("count"),
    }
    return chain(nodes, dt=1e-3)


def _latency(e: Estimate) -> tuple[float, float, float]:
    assert e.latency_s is not None, e.reason
    return e.latency_s.low, e.latency_s.nominal, e.latency_s.high


LOIHI1 = [
    Run(
        "Loihi 1 keyword spotting, 2019",
        "events, constants sanafe",
        "J",
        lambda: _boundary(keywords(constants="sanafe"), "events"),
        ABOVE_LOADED,
        "prediction",
        EVENT,
        "blouw2019",
        "no constant comes from these logs; what is missing is what it takes to inject 3,900 input spikes",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "above loaded idle, default constants",
        "J",
        lambda: _boundary(keywords(), "above_loaded_idle"),
        ABOVE_LOADED,
        "carried over",
        EVENT,
        "blouw2019",
        "the cost of an injected spike comes from the log of 2018 of the same network, whose host was 3.3 times slower",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "events, constants davies2018",
        "J",
        lambda: _boundary(keywords(constants="davies2018"), "events"),
        ABOVE_LOADED,
        "prediction",
        SHOWN,
        "blouw2019",
        "the older table has smaller synapses and no messages; kept as an alternative, not the default",
    ),
    Run(
        "Loihi 1 keyword spotting, 2018",
        "above loaded idle, default constants",
        "J",
        lambda: _boundary(keywords(time_s=TIME_2018), "above_loaded_idle"),
        ABOVE_LOADED_2018,
        "fit",
        SHOWN,
        "blouw2019",
        "the run that the cost of an injected spike was computed from",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "above boot idle, measured time",
        "J",
        lambda: _boundary(keywords(), "above_boot_idle"),
        PUBLISHED_DYNAMIC,
        "same source",
        TOTAL,
        "blouw2019",
        "the plateau was read in the same logs, before and after the run; published as 'dynamic energy per inference'",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "total, measured time",
        "J",
        lambda: _boundary(keywords(), "total"),
        PUBLISHED_TOTAL,
        "same source",
        TOTAL,
        "blouw2019",
        "boot idle and plateau were read in the same logs, before and after the run",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "time, free-running",
        "s",
        lambda: _latency(keywords(time_s=None, busiest=BUSIEST)),
        1 / RATE_2019,
        "prediction",
        TIME,
        "blouw2019",
        "the first layer on one core reads 99,840 synapses in a step; that the host was never waited for is assumed",
    ),
    Run(
        "Loihi 1 keyword spotting, 2019",
        "total, predicted time",
        "J",
        lambda: _boundary(keywords(time_s=None, busiest=BUSIEST), "total"),
        PUBLISHED_TOTAL,
        "prediction",
        SHOWN,
        "blouw2019",
        "the error of the time, times static power",
    ),
]

# --- TrueNorth, 1,048,576 neurons with 128 active synapses each
NEURONS, ACTIVE = 1 << 20, 128


def truenorth(rate_hz: float, synapses: int = ACTIVE) -> Estimate:
    """One second of a full chip in which each neuron fires at a rate."""
    return predict("truenorth", {"synops": NEURONS * synapses * rate_hz}, steps=1000, time_s=1.0)


TRUENORTH = [
    *(
        Run(
            f"TrueNorth at {hertz} Hz",
            "total of a second",
            "J",
            lambda hertz=hertz: _boundary(truenorth(hertz), "total"),  # type: ignore[misc]
            watts,
            "fit",
            SHOWN,
            "akopyan2015",
            "offset and slope were computed from these two points",
        )
        for hertz, watts in ((11.58, 68e-3), (95.93, 94e-3))
    ),
    Run(
        "TrueNorth at 20 Hz",
        "total per synaptic event",
        "J",
        lambda: _boundary(truenorth(20.0), "total", NEURONS * ACTIVE * 20.0),
        26e-12,
        "prediction",
        TOTAL,
        "merolla2014",
        "the literature's 26 pJ are this total at one operating point (0.775 V; the line is of 0.8 V), no increment",
    ),
    Run(
        "TrueNorth at its best",
        "total per synaptic event",
        "J",
        lambda: _boundary(truenorth(1000.0, 256), "total", NEURONS * 256 * 1000.0),
        1 / 400e9,
        "prediction",
        TOTAL,
        "akopyan2015",
        "400 billion synaptic operations per second and watt; that all synapses are hit in every tick is assumed",
    ),
]

# --- SpiNNaker 1
BUSY = 1.8e9  # synaptic events per second of the 48-chip board


def microcircuit(boards: int, slowdown: float, **options: Any) -> Estimate:
    """A biological second of the cortical microcircuit; 1e9 synaptic events stand for a number not in the sources."""
    return predict("spinnaker1", {"synops": 1e9}, time_s=slowdown, boards=boards, **options)


def _ratio(slow: Estimate, fast: Estimate) -> tuple[float, float, float]:
    a, b = slow.boundaries["total"], fast.boundaries["total"]
    assert a is not None
    assert b is not None
    return a.nominal / b.nominal, a.nominal / b.nominal, a.nominal / b.nominal


ALL_CORES = 48 * 17
SPINNAKER = [
    Run(
        "SpiNNaker, 48-chip board at 1.8e9 events/s",
        "total per synaptic event",
        "J",
        lambda: _boundary(predict("spinnaker1", {"synops": BUSY}, time_s=1.0, boards=1), "total", BUSY),
        20e-9,
        "same source",
        TOTAL,
        "stromatias2013",
        "fixed 22 W and 8 nJ per event add up to the total of the same papers; below their bound of 1 W per chip",
    ),
    Run(
        "SpiNNaker, microcircuit, 6 boards 20 times slower over 12 in real time",
        "ratio of energies per synaptic event, boards x time",
        "1",
        lambda: _ratio(microcircuit(6, 20.0), microcircuit(12, 1.0)),
        4.4 / 0.601,
        "prediction",
        SHOWN,
        "pd14benchmarks",
        "boards and time alone; in real time more cores of a board are busy, whose number is not in the sources",
    ),
    Run(
        "SpiNNaker, microcircuit, the same",
        "ratio, all cores busy in real time and none when slow",
        "1",
        lambda: _ratio(
            microcircuit(6, 20.0, constants="spinnmachine", cores=1),
            microcircuit(12, 1.0, constants="spinnmachine", cores=12 * ALL_CORES),
        ),
        4.4 / 0.601,
        "prediction",
        SHOWN,
        "pd14benchmarks",
        "the other end: with SpiNNMachine's power of active cores the measured ratio lies between the two",
    ),
]

# --- Loihi 2, PilotNet SNN: shapes, steps and rate as lava-dl's notebook prints them; the counts are plotted there, not
# printed, so the share of neurons that fire in a step is assumed: 5 percent (2 .. 10).
ACTIVITY = 0.05
FRAMES_PER_S, PILOT_STEPS = 412.0, 16
CONVOLUTIONS = ((24, 3, (2, 2), (0, 0)), (36, 24, (2, 2), (0, 0)), (48, 36, (2, 2), (0, 0)))
CONVOLUTIONS += ((64, 48, (2, 1), (1, 0)), (64, 64, (1, 1), (0, 0)))  # (h, w)


def pilotnet() -> ir.Network:
    """A network of PilotNet's shape, its weights zero."""
    nodes: dict[str, Any] = {"in": ir.Input((3, 66, 200)), "n0": ir.IF(v_threshold=1.0)}
    chain = ["in", "n0"]
    for k, (out, into, stride, padding) in enumerate(CONVOLUTIONS, 1):
        weight = np.zeros((out, into, 3, 3))
        nodes |= {f"c{k}": ir.Conv2d(weight, stride, padding), f"n{k}": ir.IF(v_threshold=1.0)}
        chain += [f"c{k}", f"n{k}"]
    nodes["flat"] = ir.Flatten()
    chain.append("flat")
    for k, (out, into) in enumerate(((100, 2560), (50, 100), (10, 50), (1, 10)), 6):
        nodes |= {f"d{k}": ir.Linear(np.zeros((out, into))), f"n{k}": ir.IF(v_threshold=1.0)}
        chain += [f"d{k}", f"n{k}"]
    nodes["out"] = ir.Output("count")
    return ir.Network(nodes, tuple(zip(chain, [*chain[1:], "out"], strict=True)), 1e-3)


def pilot(activity: float = ACTIVITY, **options: Any) -> Estimate:
    """One frame of PilotNet SNN on Loihi 2, with its measured time."""
    shape, _ = ann_counts(pilotnet())
    counters = {
        "synops": shape["macs"] * PILOT_STEPS * activity,
        "updates": shape["neurons"] * PILOT_STEPS,
        "spikes": shape["neurons"] * PILOT_STEPS * activity,
        "packets": shape["neurons"] * PILOT_STEPS * activity,
    }
    return predict("loihi2", counters, steps=PILOT_STEPS, cores=74, **({"time_s": 1 / FRAMES_PER_S} | options))


LOIHI2 = [
    Run(
        "Loihi 2 PilotNet SNN, 74 cores",
        "above boot idle, measured time",
        "J",
        lambda: _boundary(pilot(), "above_boot_idle"),
        (0.56e-3 * 1.09e-3) ** 0.5,
        "prediction",
        SPREAD,
        "lavadl2023",
        "measured 0.56 .. 1.09 mJ in three revisions; activity of 5 percent is assumed, the plateau is Loihi 1's",
    ),
    Run(
        "Loihi 2 PilotNet SNN, 74 cores",
        "total, measured time",
        "J",
        lambda: _boundary(pilot(), "total"),
        (0.99e-3 * 1.82e-3) ** 0.5,
        "same source",
        SPREAD,
        "lavadl2023",
        "measured 0.99 .. 1.82 mJ; the idle power of Loihi 2 comes from the same notebooks",
    ),
]
RUNS = (*LOIHI1, *TRUENORTH, *SPINNAKER, *LOIHI2)
