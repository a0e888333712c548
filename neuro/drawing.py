"""Pictures drawn and saved here (`Here`), or by a process beside this one (`Beside`), which loads matplotlib and draws
while this one loads torch: a quarter of the time of `neuro deploy` (measured)."""

from __future__ import annotations

import copyreg
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any

from neuro import plots

# isolated (-I), so that nothing in the current folder is imported; arguments: sys.path
CHILD = "import sys; sys.path[:] = sys.argv[1:]; from neuro.drawing import serve; serve()"
ROOM = 1 << 20  # bytes that wait for the process to take them, where a pipe can hold so many; it is still loading
DRAWING = ("matplotlib.backends.backend_agg", "matplotlib.figure", "neuro.hardware.floorplan")


class Here:
    """``draw(path, function, *arguments)`` saves what ``function(*arguments)`` draws."""

    def __call__(self, path: Path, function: Callable[..., Any], *arguments: Any) -> None:
        plots.save(function(*arguments), path)

    def finish(self) -> None:
        """Returns when all pictures are there."""

    def __enter__(self) -> Here:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class Beside(Here):
    """The same in another process. Where that does not come to a good end, for whatever reason, this one draws all of
    them in `finish`, so that errors are the same too."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, Callable[..., Any], tuple[Any, ...]]] = []
        self.process: subprocess.Popen[bytes] | None = None
        places = [place or os.getcwd() for place in sys.path]  # our own, so that it imports what we did
        with suppress(OSError):
            self.process = subprocess.Popen(  # noqa: S603  # no shell
                [sys.executable, "-I", "-c", CHILD, *places],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                pipesize=ROOM,
            )  # fmt: skip

    def __call__(self, path: Path, function: Callable[..., Any], *arguments: Any) -> None:
        self.asked.append((path.absolute(), function, arguments))
        if self.process is not None and self.process.stdin is not None:
            try:
                _send(self.asked[-1], self.process.stdin)
            except (OSError, pickle.PicklingError, TypeError, AttributeError):  # it ended, or of somebody else's chip
                self._end()

    def finish(self) -> None:
        if not self._drawn():
            for path, function, arguments in self.asked:
                super().__call__(path, function, *arguments)

    def _drawn(self) -> bool:
        if self.process is None:
            return False
        self.process.communicate()  # which ends its input
        return self.process.returncode == 0

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            with suppress(BrokenPipeError), self.process:
                self.process = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()


def beside() -> Here:
    """A process that draws, where it would have a processor of its own and matplotlib is not here already, with
    settings of its own and perhaps a notebook that shows pictures."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Here() if processors < 2 or "matplotlib" in sys.modules or plots.in_notebook() else Beside()


def serve() -> None:
    """Draws what comes on standard input until that ends, and nothing more for a process that was killed."""
    from neuro.loading import load

    asking = os.getppid()
    load(*DRAWING)  # before anybody asks for it
    with suppress(EOFError):
        while True:
            path, function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this
            if os.getppid() == asking:
                plots.save(function(*arguments), path)


def _send(job: Any, to: IO[bytes]) -> None:
    pickler = pickle.Pickler(to, protocol=5)
    pickler.dispatch_table = copyreg.dispatch_table | {MappingProxyType: lambda table: (dict, (dict(table),))}
    pickler.dump(job)
    to.flush()
