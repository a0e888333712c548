"""`predict`: what a run costs from plain numbers - a published table, a measurement, a back of an envelope.

    from neuro.hardware import predict
    e = predict("loihi1", {"synops": 1.07e6, "updates": 5120, "injected": 3900}, steps=10, time_s=3.37e-3)
    e.boundaries["events"], e.boundaries["total"], e.sources, e.not_modelled

The same sums as `neuro.hardware.estimate.estimate`, whose docstring defines the four boundaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuro.errors import ChipError
from neuro.hardware.chip import CHIP_FOLDER, Chip, read_chip
from neuro.hardware.costs import Constants, Prices, constant_of, machine_of
from neuro.hardware.estimate import Estimate, assemble, checked_regime, event_joules
from neuro.hardware.latency import Seconds, seconds, spread
from neuro.hardware.trace import Stage


def predict(
    chip: str | Path | Chip,
    counters: Mapping[str, float],
    *,
    steps: int = 1,
    time_s: float | None = None,
    regime: str | None = None,
    constants: Constants = None,
    dt_s: float | None = None,
    cores: int | None = None,
    chips: int | None = None,
    boards: int | None = None,
    busiest: Mapping[str, float] | None = None,
    stages: Mapping[str, Stage] | None = None,
    host_io_s: float | None = None,
    host_trips: float | None = None,
) -> Estimate:
    """Joules and seconds of a run of which only the counts are known.

    Args:
        chip: name of a chip, path of a chip file of your own, or a `Chip`.
        counters: events of one sample (or of the whole run, with its whole time): any of "synops" (synapses that a
            spike reached), "updates" (neurons x steps), "spikes", "packets" (one per target core), "hops", "memory"
            (bytes), "weight_updates", "injected" (input events from outside); or of a special kind, "synops_conv",
            "hops_north_south", where the chip tells them apart. May be empty, for the idle machine alone.
        steps: of the sample. time_s: its measured seconds; predicted where not given.
        regime: "free-running", "real-time", "host-driven"; default: the chip's own.
        constants: a named set of the chip ("davies2018"), or values that replace single ones,
            {"energy.synop": 20e-12}; the default set is named in the result.
        dt_s: the tick, for real time; default: the chip's. cores: that hold neurons. chips, boards: switched on.
        busiest: counts of the slowest core in the whole sample, for its time; default: all cores share evenly, which
            is the shortest time possible, and the result says so.
        stages: layer -> `Stage`, for chips that go by layers. host_io_s: seconds in which a host reads and writes.
        host_trips: round trips of the host, default one per step.

    Returns:
        `Estimate`: four boundaries, latency, causes, sources, what is not modelled. Without any energy per operation
        in the chip's file nothing is predicted, and ``reasons`` says so; a missing number is never 0.

    Raises:
        ChipError: unknown counter, regime or constants, a number that is negative or not finite, or a figure that the
            chip's file refuses by name. UnknownChip: no such chip.
    """
    chip = _chip(chip)
    regime = checked_regime(regime, chip)
    prices = Prices(chip, constants)
    _check(counters, busiest, steps=steps, time_s=time_s, dt_s=dt_s, cores=cores, chips=chips, boards=boards)
    machine = machine_of(
        None, prices, cores=cores, chips=chips, boards=boards, host_io_s=host_io_s, host_trips=host_trips
    )
    law = Seconds({"measured": np.full((1, 3), float(time_s))}) if time_s is not None else None
    if law is None or stages:
        tick = dt_s if dt_s is not None else _tick(chip)
        timed = seconds(spread(counters, steps, cores or 1, busiest), stages or {}, machine, prices, regime, tick)
        law = timed if law is None else Seconds(law.causes, stages=timed.stages, work=timed.work)
        if time_s is None and busiest is None and not stages and (cores or 1) > 1:
            prices.missing[f"the slowest core: its load is not given, {cores} cores share evenly (lower bound)"] = None
    counts = {name: np.array([float(value)]) for name, value in counters.items()}
    energy = event_joules(counts, law, prices)
    if not counters and not stages:
        energy = {"none": np.zeros((1, 3))}  # the idle machine: no events, which cost nothing
    return assemble(steps, energy, {}, law, machine, prices, regime, time_s is not None)


def _chip(chip: str | Path | Chip) -> Chip:
    if isinstance(chip, Chip):
        return chip
    if isinstance(chip, Path):
        return read_chip(chip)
    path = CHIP_FOLDER / f"{chip}.toml"
    if path.is_file():  # also chips whose compiler is not there
        return read_chip(path)
    from neuro.hardware.target import load_target

    return load_target(chip).chip


def _tick(chip: Chip) -> float | None:
    return chip.time["tick"].value if "tick" in chip.time else None


def _check(counters: Mapping[str, float], busiest: Mapping[str, float] | None, **numbers: float | None) -> None:
    bad = []
    for name, value in (*counters.items(), *(busiest or {}).items()):
        constant_of(name)
        if not (np.isfinite(value) and value >= 0):
            bad.append(f"counter '{name}' must be finite and not negative, got {value!r}")
    for name, number in numbers.items():
        if number is not None and not (np.isfinite(number) and number > 0):
            bad.append(f"{name} must be positive and finite, got {number!r}")
    if bad:
        raise ChipError("a prediction needs sensible numbers", bad)


__all__ = ["Stage", "predict"]
