"""Files from a folder or a tar, one after another, without trust and without writing to disk.

Limits hold before memory is used: bytes per file, files, bytes in all, memory of the decompressor.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from neuro.errors import BadEventFile

MAX_FILE = 64 * 2**20
MAX_FILES = 200_000
MAX_TOTAL = 8 * 2**30
MAX_DECODER = 512 * 2**20  # xz -9 needs 65 MiB; a hostile header may ask for 4 GiB
MAX_EXTENDED_HEADER = 64 * 2**10
_CHUNK = 1 << 16
_XZ, _GZIP = b"\xfd7zXZ\x00", b"\x1f\x8b"


class _Unpacked(io.RawIOBase):
    """A stream of decompressed bytes that ends in BadEventFile beyond ``limit`` bytes."""

    def __init__(self, raw: IO[bytes], file: str, limit: int) -> None:
        magic = raw.read(6)
        raw.seek(0)
        self._raw, self._file, self._limit, self._given = raw, file, limit, 0
        self._kind = "xz" if magic == _XZ else "gzip" if magic.startswith(_GZIP) else "plain"
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DECODER)
        self._gz = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def _some(self, n: int) -> bytes:
        if self._kind == "plain":
            return self._raw.read(n)
        while True:
            if self._kind == "xz":
                if self._xz.eof:
                    return b""
                fed = self._raw.read(_CHUNK) if self._xz.needs_input else b""
                starved = self._xz.needs_input and not fed
                out = self._xz.decompress(fed, n)
            else:
                if self._gz.eof:
                    return b""
                fed = self._gz.unconsumed_tail or self._raw.read(_CHUNK)
                starved = not fed
                out = self._gz.decompress(fed, n)
            if out:
                return out
            if starved:
                raise BadEventFile(f"{self._file}: the {self._kind} stream is cut. Fetch or copy the file again.")

    def read(self, n: int = -1) -> bytes:
        wanted = self._limit + 1 - self._given if n is None or n < 0 else n
        parts = []
        while wanted > 0:
            try:
                part = self._some(min(wanted, 1 << 20))
            except (lzma.LZMAError, zlib.error) as cause:
                raise BadEventFile(f"{self._file}: damaged {self._kind} stream ({cause}). Fetch it again.") from cause
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
            self._given += len(part)
            if self._given > self._limit:
                raise BadEventFile(
                    f"{self._file}: unpacks to more than {self._limit} bytes, which no such data set does. "
                    "Unpack it yourself and give the folder if you trust it."
                )
        return b"".join(parts)


def unpacked(path: Path, limit: int = MAX_TOTAL) -> bytes:
    """The whole content of a plain, xz or gzip file.

    Raises:
        BadEventFile: missing, damaged, cut, or larger than ``limit`` bytes when unpacked.
    """
    try:
        with path.open("rb") as raw:
            return _Unpacked(raw, str(path), limit).read()
    except OSError as cause:
        raise BadEventFile(f"{path}: cannot be read ({cause.strerror or cause}).") from cause


class _CarefulInfo(tarfile.TarInfo):
    """Refuses, as soon as a member's header is read, what a data set never holds."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _CarefulInfo:
        info = super().frombuf(buf, encoding, errors)
        extended = info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
        if not (extended or info.isreg() or info.isdir()) or info.type in (tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE):
            raise BadEventFile(f"member '{info.name}' is a link, a device or sparse; only files and folders are read")
        allowed = MAX_EXTENDED_HEADER if extended else MAX_FILE
        if not 0 <= info.size <= allowed:
            raise BadEventFile(f"member '{info.name}' wants {info.size} bytes, allowed {allowed}")
        return info


def _checked_name(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise BadEventFile(f"member '{name}' points outside the archive")
    return "/".join(part for part in parts if part not in ("", "."))


def tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of a tar, tar.xz or tar.gz, in the order of the archive.

    Nothing is extracted to disk. Links, devices, names that leave the archive, oversized members
    and archives beyond the limits are refused.

    Raises:
        BadEventFile: any of these, or a damaged archive.
    """
    count = 0
    try:
        with path.open("rb") as raw:
            stream = _Unpacked(raw, str(path), MAX_TOTAL)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CarefulInfo) as tar:
                for info in tar:
                    count += 1
                    if count > MAX_FILES:
                        raise BadEventFile(f"more than {MAX_FILES} members")
                    name = _checked_name(info.name)
                    if not info.isreg():
                        continue
                    # A pax header may overrule the size that frombuf saw.
                    if info.issparse() or not 0 <= info.size <= MAX_FILE:
                        raise BadEventFile(f"member '{info.name}' wants {info.size} bytes, allowed {MAX_FILE}")
                    handle = tar.extractfile(info)
                    content = handle.read() if handle else b""
                    if len(content) != info.size:
                        raise BadEventFile(f"member '{info.name}' is cut: {len(content)} of {info.size} bytes")
                    yield name, content
            while stream.read(1 << 20):  # to the end: xz keeps its checksum there
                pass
    except BadEventFile as error:
        known = str(error).startswith(str(path))
        raise error if known else BadEventFile(f"{path}: {error}. Nothing was extracted; fetch it again.") from error
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError) as cause:
        raise BadEventFile(f"{path}: not a readable tar ({cause}). Fetch or copy the file again.") from cause
    if not count:
        raise BadEventFile(f"{path}: an empty archive, or not a tar at all. Fetch or copy the file again.")


def folder_files(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(name relative to the folder, content) of the files with these endings, sorted by name.

    Raises:
        BadEventFile: a file larger than the limit, or one that cannot be read.
    """
    for file in sorted(p for p in path.rglob("*") if p.name.endswith(suffixes) and p.is_file()):
        yield file.relative_to(path).as_posix(), read_bytes(file)


def read_bytes(path: Path, limit: int = MAX_FILE) -> bytes:
    """One file, refused beyond ``limit`` bytes.

    Raises:
        BadEventFile: absent, unreadable or too large.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise BadEventFile(f"{path}: {size} bytes, allowed {limit}. This is no recording of this data set.")
        return path.read_bytes()
    except OSError as cause:
        raise BadEventFile(f"{path}: cannot be read ({cause.strerror or cause}).") from cause
