"""A folder that is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.errors import FormatError


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_the_dead(path: Path) -> None:
    """Remove temporary folders whose writer was killed; their names end in its process id."""
    for stale in path.parent.glob(f".{path.name}.*.partial"):
        pid = stale.name.split(".")[-2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """A temporary folder beside ``path``, renamed to it on success, removed on failure.

    An older folder is replaced only if it holds the file ``mark``, so that nobody's own files are lost.

    Raises:
        FormatError: ``path`` is a file, or a folder with something else in it.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FormatError(f"{path} is a file; an export needs a folder of its own")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).exists():
        raise FormatError(f"{path} holds other files (no {mark} in it) and is left alone; choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    _forget_the_dead(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    older = path.parent / f".{path.name}.older.{os.getpid()}.partial"
    try:
        yield temporary
        if path.exists():  # a folder cannot be exchanged in one step: there is a moment without one
            os.rename(path, older)
        os.rename(temporary, path)
    finally:
        for rest in (temporary, older):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(rest)
