"""`serve`: answers questions about HDF5 files in a process that may crash; see `neuro.hdf5_process`.

A question: path, bytes that the file may take, seconds of processor time for each frame of the answer, and what is
wanted: "node" or "layer", the tree below that group (one frame, see `neuro.nir_worker`), or "events" and "events head",
a recording (`neuro.datasets.formats.hdf5_events`), "heidelberg" and "ntidigits PART", recordings of a published set
(`neuro.datasets.formats.hdf5_rows`). An answer in which a frame begins with "error " ends there.
"""

from __future__ import annotations

import json
import resource  # POSIX only, as is everything that runs Lava
import sys
from collections.abc import Iterator
from pathlib import Path

from neuro.hdf5_process import END, frame

OVERHEAD = 4 << 30  # bytes of address space for Python, its libraries and the packed result


def serve(*question: str) -> None:
    """Answer the question, or without one those that come as lines of JSON."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if question:
        _answer(*question)
        return
    for line in sys.stdin.buffer:
        _answer(*json.loads(line))


def _answer(path: str, max_bytes: str, seconds: str, wanted: str = "node") -> None:
    _limit(resource.RLIMIT_AS, OVERHEAD + 4 * int(max_bytes))
    out = sys.stdout.buffer
    frames = _frames(path, int(max_bytes), wanted)
    while True:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + int(seconds))
        content = next(frames, b"")
        if not content:
            break
        out.write(frame(content))
        out.flush()
    out.write(END)
    out.flush()


def _frames(path: str, max_bytes: int, wanted: str) -> Iterator[bytes]:
    if wanted in ("events", "events head"):
        from neuro.datasets.formats.hdf5_events import answer as events

        yield from events(Path(path), head=wanted == "events head")
    elif wanted.partition(" ")[0] in ("heidelberg", "ntidigits"):
        from neuro.datasets.formats.hdf5_rows import answer as rows

        yield from rows(Path(path), wanted)
    else:
        from neuro.nir_worker import answer

        yield answer(Path(path), max_bytes, wanted)


def _limit(what: int, amount: int) -> None:
    """Of this process alone, so that it ends if nobody is left to end it."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))
