"""`answers`: what a process of its own says about an HDF5 file; the process may crash or be ended, this one may not.

HDF5 2.0.0 loops for ever or crashes on some damaged files, inside C where Python can do nothing. So files that nobody
vouches for are read by `neuro.hdf5_child`: a process per question, or within `kept` one for many, which saves the start
(0.3 s); there, what a file did to the library, the next one meets. An answer is a sequence of frames: eight bytes of
length, then as many bytes; a length of 0 ends it. Nothing is sent before it is taken, so memory stays that of a frame.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

MAX_FRAME = 1 << 34  # bytes; a longer one is no answer
END = b"\0" * 8
# isolated (-I), so that nothing in the current folder is imported; arguments: sys.path, "", those of `serve`
WORKER = """
import sys
end = sys.argv.index("")
sys.path[:] = sys.argv[1:end]
from neuro.hdf5_child import serve
serve(*sys.argv[end + 1:])
"""
MOST = 1000  # questions to a process that is kept: what the library leaks is given back
_kept = threading.local()


class Ended(Exception):  # what happened; readers make their own error of it
    """The process gave no whole answer; the message says how it ended."""


class Unstarted(Exception):
    """No process could be started."""


def frame(content: bytes) -> bytes:
    """Bytes as a frame; none of them has length 0, which is the end."""
    return len(content).to_bytes(8, "big") + content


class _Process:
    """A process that answers. question: of one that answers once; none: it is asked on its standard input."""

    def __init__(self, worker: str, question: tuple[str, ...] = ()):
        places = [place or os.getcwd() for place in sys.path]  # our own, so that it imports what we did
        self.worker, self.asked = worker, 0
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `stop`
        try:
            self.process = subprocess.Popen(  # noqa: S603  # no shell
                [sys.executable, "-I", "-c", worker, *places, "", *question],
                stdin=subprocess.DEVNULL if question else subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as cause:
            self.said.close()
            raise Unstarted(str(cause)) from cause

    def ask(self, question: tuple[str, ...]) -> None:
        assert self.process.stdin is not None
        self.asked += 1
        with suppress(OSError):  # it is gone; reading says how
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()

    def frames(self, patience: float) -> Iterator[bytes]:
        while True:
            until = time.monotonic() + patience
            length = int.from_bytes(self._take(8, until, patience), "big")
            if length == 0:
                return
            if length > MAX_FRAME:
                raise Ended("it answers with what is no answer")
            yield bytes(self._take(length, until, patience))

    def _take(self, size: int, until: float, patience: float) -> bytearray:
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        found = bytearray()
        while len(found) < size:
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise Ended(f"reading it does not end within {round(patience, 1):g} s")
            part = os.read(pipe, min(size - len(found), 1 << 20))
            if not part:
                raise Ended(self._how())
            found += part
        return found

    def _how(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        size = self.said.seek(0, os.SEEK_END)
        self.said.seek(max(0, size - 4096))
        said = self.said.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"reading it ended with {how}" + (f": {said:.200}" if said else "")

    def stop(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # a process that forked, and what it forked
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was to be written has no reader any more
                    pipe.close()
        self.process.wait()
        self.said.close()


def answers(question: tuple[str, ...], patience: float, worker: str = WORKER) -> Iterator[bytes]:
    """Frames of the answer to a question of `neuro.hdf5_child.serve`.

    Args:
        patience: seconds to wait for each frame. worker: program that the process runs.

    Raises:
        Unstarted: no process. Ended: it crashed, did not end, or ended before its answer was whole.
    """
    keeps = getattr(_kept, "on", False)
    process: Any = getattr(_kept, "process", None) if keeps else None
    if process is not None and process.worker != worker:
        process.stop()
        process = None
    if process is None:
        process = _Process(worker, () if keeps else question)
    if keeps:
        _kept.process = None  # another question while this one is answered gets a process of its own
        process.ask(question)
    whole = False
    try:
        yield from process.frames(patience)
        whole = True
    finally:
        again = keeps and whole and process.asked < MOST
        if again and getattr(_kept, "on", False) and _kept.process is None:
            _kept.process = process
        else:
            process.stop()


@contextmanager
def kept() -> Iterator[None]:
    """Within it, one process answers this thread's questions, `MOST` at most, and another where that one ended."""
    if getattr(_kept, "on", False):
        yield
        return
    _kept.on, _kept.process = True, None
    try:
        yield
    finally:
        process, _kept.on, _kept.process = _kept.process, False, None
        if process is not None:
            process.stop()
