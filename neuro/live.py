"""Events as they come, through a chip's simulator, window by window.

A window is as long as a sample; each gets a decision and its latency: the time from when the window was known to be
complete (an event behind its end came in, or the source ended) to the decision. A program runs each window from rest,
as it does samples, so a recording that is sent live is decided as one that is read.

Over UDP a datagram is a row of 13-byte events, little-endian: time in microseconds (8), x (2), y (2), polarity (1,
0 or 1), which faery and AEStream-like senders call t64_x16_y16_on8. Only this machine is listened to unless an address
is named on purpose. The queue is bounded: what does not fit, is malformed, lies outside the sensor or comes after its
window is closed is dropped, and counted; so is what lies a thousand windows ahead, since one damaged time would close
all windows before it.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from neuro.datasets.formats.recording import EVENT, MAX_TIME, Piece
from neuro.errors import BadConfig, SimulationError

if TYPE_CHECKING:
    from neuro.hardware.program import Program

WIRE = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
DATAGRAM = 65_535
QUEUE = 1024  # datagrams
AHEAD = 1000  # windows that a datagram may leave out
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass
class Counts:
    """Datagrams and events that came in, and what was dropped of them and why."""

    datagrams: int = 0
    events: int = 0
    malformed: int = 0  # datagrams of no whole number of events, or polarities and times that are none
    overflow: int = 0  # datagrams that did not fit into the queue
    outside: int = 0  # events beside the sensor
    late: int = 0  # events of a window that is closed
    ahead: int = 0  # events so far ahead that no sender's clock can mean it


@dataclass(frozen=True)
class Decision:
    """window: number, from 0 on. begin: seconds from the first event. events: in it. latency: seconds."""

    window: int
    begin: float
    events: int
    decided: int
    scores: NDArray[np.float64]
    latency: float


@dataclass
class Udp:
    """A bound socket whose datagrams wait in a queue; ``close`` ends it.

    Raises:
        BadConfig: an address of another machine's reach without ``remote``; one that cannot be bound.
    """

    address: str
    port: int
    remote: bool = False
    idle_s: float | None = None  # ends after so long without a datagram
    ahead: int = AHEAD
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        if self.address not in LOOPBACK and not self.remote:
            raise BadConfig(
                f"udp://{self.address}:{self.port} listens to other machines; if that is meant, say --remote, else use "
                "127.0.0.1"
            )
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((self.address, self.port))
        except OSError as cause:
            self._socket.close()
            raise BadConfig(f"udp://{self.address}:{self.port} cannot be listened to: {cause.strerror}") from cause
        self.port = self._socket.getsockname()[1]
        self._socket.settimeout(0.1)
        self._queue: queue.Queue[tuple[bytes, float]] = queue.Queue(QUEUE)
        self._open = True
        self._thread = threading.Thread(target=self._listen, name="neuro-udp", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while self._open:
            try:
                data = self._socket.recv(DATAGRAM)
            except TimeoutError:
                continue
            except OSError:
                return
            self.counts.datagrams += 1
            try:
                self._queue.put_nowait((data, time.perf_counter()))
            except queue.Full:
                self.counts.overflow += 1

    def pieces(self) -> Iterator[tuple[Piece, float]]:
        """(events, when they came in) of each sound datagram, until nothing comes for ``idle_s``, or `close`."""
        last = time.perf_counter()
        while self._open:
            try:
                data, came = self._queue.get(timeout=0.05)
            except queue.Empty:
                if self.idle_s is not None and time.perf_counter() - last > self.idle_s:
                    return
                continue
            last = came
            piece = parsed(data)
            if piece is None:
                self.counts.malformed += 1
                continue
            yield piece, came

    def close(self) -> None:
        self._open = False
        self._thread.join(1.0)
        self._socket.close()


def parsed(datagram: bytes) -> Piece | None:
    """The events of a datagram, None where it is malformed."""
    if not datagram or len(datagram) % WIRE.itemsize:
        return None
    raw = np.frombuffer(datagram, WIRE)
    if (raw["p"] > 1).any() or (raw["t"] > MAX_TIME).any():
        return None
    return raw.astype(EVENT)


@dataclass
class FromFile:
    """A recording as a source: as fast as it can be read; ``counts`` likewise."""

    path: Path
    ahead: int = MAX_TIME  # a recording's pauses are its own
    counts: Counts = field(default_factory=Counts)

    def pieces(self) -> Iterator[tuple[Piece, float]]:
        """(events, when they were read)."""
        from neuro.datasets.formats.detect import open_events

        for piece in open_events(self.path).pieces():
            yield piece, time.perf_counter()

    def close(self) -> None:
        """Nothing is held."""


def source(text: str, *, remote: bool = False, idle_s: float | None = None) -> Udp | FromFile:
    """udp://ADDRESS:PORT, or a recording's path.

    Raises:
        BadConfig: another scheme, no port; as `Udp`.
    """
    if "://" not in text:
        return FromFile(Path(text))
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "udp" or not parts.hostname or port is None:
        raise BadConfig(f"{text}: a source is udp://ADDRESS:PORT, or the path of a recording")
    return Udp(parts.hostname, port, remote, idle_s)


def channel_of(shape: tuple[int, ...]) -> Callable[[Piece], tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Events to (flat channel, whether it lies inside) for an input of shape [2, rows, columns] (polarity first),
    [1, rows, columns] or [rows, columns] (polarity does not matter), or [n] (x is the channel).

    Raises:
        SimulationError: another shape.
    """
    if len(shape) not in (1, 2, 3) or (len(shape) == 3 and shape[0] not in (1, 2)):
        raise SimulationError(
            f"live events need an input of shape [2, h, w], [1, h, w], [h, w] or [n], this is {shape}"
        )
    planes, rows, columns = (1, 1, shape[0]) if len(shape) == 1 else ((1, *shape) if len(shape) == 2 else shape)

    def channel(piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        x, y = piece["x"].astype(np.int64), piece["y"].astype(np.int64) * (len(shape) > 1)
        plane = piece["p"].astype(np.int64) * (planes == 2)
        return (plane * rows + y) * columns + x, (x < columns) & (y < rows)

    return channel


def decisions(program: Program, from_: Udp | FromFile, steps: int) -> Iterator[Decision]:
    """One decision per window of ``steps`` steps, from the first event on; windows without events are decided too.

    Raises:
        SimulationError: an input shape that events cannot be given to.
    """
    from neuro.hardware import simulate

    shape = program.populations[program.input].shape
    channel = channel_of(tuple(shape))
    size = int(np.prod(shape))
    window_us = steps * program.dt * 1e6
    counts = from_.counts
    held = np.zeros((steps, 1, size), np.uint8)
    number = inside = 0
    first: int | None = None

    def decide(ready: float) -> Decision:
        nonlocal number, inside
        trace = simulate(program, held, record_spikes=False)
        now = time.perf_counter()
        scores = np.asarray(trace.scores[0], np.float64)
        made = Decision(number, number * window_us / 1e6, inside, int(trace.decision[0]), scores, now - ready)
        held[:] = 0
        number, inside = number + 1, 0
        return made

    simulate(program, held, record_spikes=False)  # compiles what is to be compiled before the clock runs
    came = time.perf_counter()
    for piece, came in from_.pieces():
        counts.events += len(piece)
        if first is None:
            first = int(piece["t"].min())
        at, good = channel(piece)
        counts.outside += int((~good).sum())
        since = piece["t"][good] - first
        at, window = at[good], np.floor(since / window_us).astype(np.int64)
        late, ahead = window < number, window > number + from_.ahead
        counts.late, counts.ahead = counts.late + int(late.sum()), counts.ahead + int(ahead.sum())
        kept = ~(late | ahead)
        since, at, window = since[kept], at[kept], window[kept]
        for k in np.unique(window):
            while number < k:
                yield decide(came)
            own = window == k
            step = np.minimum((since[own] - k * window_us) // (program.dt * 1e6), steps - 1).astype(np.int64)
            flat = np.bincount(step * size + at[own], minlength=steps * size).reshape(steps, 1, size)
            held[:] = np.minimum(held + np.minimum(flat, program.high), program.high)
            inside += int(own.sum())
    if first is not None:
        yield decide(came)
