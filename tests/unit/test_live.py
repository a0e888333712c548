"""Live events: decided as recorded ones are; what cannot be used is dropped and counted, never waited for."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from neuro import ir
from neuro.datasets.formats.recording import EVENT
from neuro.errors import BadConfig, SimulationError
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.live import QUEUE, WIRE, FromFile, Udp, channel_of, decisions, parsed, source

STEPS = 20


@pytest.fixture(scope="module")
def program():  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((2, 3, 4)),
        "flat": ir.Flatten(),
        "w": ir.Linear(rng.normal(0, 0.4, (5, 24))),
        "n": ir.LIF(tau_mem=np.full(5, 5e-3), v_threshold=0.1),
        "out": ir.Output("count"),
    }
    return compile_network(ir.chain(nodes, dt=1e-3), "loihi2", max_steps=STEPS)


def recording(count: int = 400, windows: int = 5, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["t"] = np.sort(rng.integers(0, windows * STEPS * 1000, count))
    events["t"][0] = 0
    events["x"], events["y"], events["p"] = (
        rng.integers(0, 4, count),
        rng.integers(0, 3, count),
        rng.integers(0, 2, count),
    )
    return events


def expected(program, events):  # type: ignore[no-untyped-def]
    windows = int(events["t"].max() // (STEPS * 1000)) + 1
    dense = np.zeros((STEPS, windows, 2, 3, 4), np.uint8)
    step = events["t"] // 1000
    dense[step % STEPS, step // STEPS, events["p"], events["y"], events["x"]] = 1
    return simulate(program, dense.reshape(STEPS, windows, -1))


def wire(events: np.ndarray) -> bytes:
    return events.astype(WIRE).tobytes()


def test_a_recording_is_decided_as_its_windows_are(program, tmp_path) -> None:  # type: ignore[no-untyped-def]
    events = recording()
    np.savez(tmp_path / "a.npz", **{name: events[name] for name in "txyp"})
    found = list(decisions(program, FromFile(tmp_path / "a.npz"), STEPS))
    whole = expected(program, events)
    assert [d.decided for d in found] == whole.decision.tolist()
    assert np.array_equal([d.scores for d in found], whole.scores)
    assert sum(d.events for d in found) == len(events)


def test_udp_gives_the_same(program) -> None:  # type: ignore[no-untyped-def]
    events = recording()
    from_ = Udp("127.0.0.1", 0, idle_s=0.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for part in np.array_split(events, 16):
            sender.sendto(wire(part), ("127.0.0.1", from_.port))
    found = list(decisions(program, from_, STEPS))
    from_.close()
    assert np.array_equal([d.scores for d in found], expected(program, events).scores)
    assert all(0 < d.latency < 30 for d in found)
    assert from_.counts.events == len(events)


def test_what_is_malformed_late_or_outside_is_dropped_and_counted(program) -> None:  # type: ignore[no-untyped-def]
    events = recording(windows=2)
    odd = events[:3].copy()
    odd["x"] = 60
    late = events[:2].copy()
    damaged = events[:4].copy()
    damaged["t"] += 1 << 50
    from_ = Udp("127.0.0.1", 0, idle_s=0.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (
            wire(events[:300]),
            b"abc",
            b"\xff" * 13,
            wire(odd),
            wire(damaged),
            wire(events[300:]),
            wire(late),
        ):
            sender.sendto(data, ("127.0.0.1", from_.port))
            time.sleep(0.02)
    found = list(decisions(program, from_, STEPS))
    from_.close()
    counts = from_.counts
    assert (counts.malformed, counts.outside, counts.late, counts.ahead) == (2, 3, 2, 4)
    assert np.array_equal([d.scores for d in found], expected(program, events).scores)


def test_the_queue_is_bounded() -> None:
    from_ = Udp("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(QUEUE + 500):
            sender.sendto(wire(recording(1)), ("127.0.0.1", from_.port))
    time.sleep(0.3)
    from_.close()
    assert from_.counts.datagrams > QUEUE
    assert from_.counts.overflow == from_.counts.datagrams - QUEUE


def test_only_this_machine_unless_told() -> None:
    with pytest.raises(BadConfig, match="--remote"):
        source("udp://0.0.0.0:9999")
    with pytest.raises(BadConfig, match="udp://ADDRESS:PORT"):
        source("tcp://127.0.0.1:1")
    with pytest.raises(BadConfig, match="udp://ADDRESS:PORT"):
        source("udp://127.0.0.1:99999")


def test_a_datagram_is_whole_or_nothing() -> None:
    good = wire(recording(4))
    read = parsed(good)
    assert read is not None
    assert len(read) == 4
    assert all(parsed(bad) is None for bad in (b"", good[:-1], good + b"x", good[:-1] + b"\x02"))


def test_shapes_that_events_have_no_place_in() -> None:
    with pytest.raises(SimulationError, match="live events"):
        channel_of((3, 4, 4))
    piece = np.array([(0, 2, 1, 1)], EVENT)
    assert channel_of((2, 3, 4))(piece)[0].tolist() == [12 + 4 + 2]
    assert channel_of((3, 4))(piece)[0].tolist() == [4 + 2]
    assert channel_of((9,))(piece)[0].tolist() == [2]
