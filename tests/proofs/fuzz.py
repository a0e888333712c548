"""Hostile files: every reader of ours, 10^5 inputs each from a coverage-guided fuzzer (atheris, libFuzzer).

An input is a file's bytes. The reader may return what it holds, or raise an error of ours (`NeuroError`) that names the
file; anything else (another exception, more than 10 s, more than 2 GiB on top of the start) is a failure, and the input
is kept. Seeds are small sound files of each format, so that mutations get past the headers; which lines a mutation
reaches decides what is mutated next.

HDF5 files (recordings, NIR, netx) of others are read in a process that may die of them (`neuro.hdf5_process`): one that
is kept for a thousand inputs. Where it dies, or does not end within 0.5 s (20 s outside of this proof), the reader
must turn that into its one error; such inputs are counted as "ended". The library's own C code is not instrumented.

    python tests/proofs/fuzz.py [--quick] [--json OUT] [--only NAME] [--runs N] [--seed S]

--quick, or without atheris (pip install 'axonport[fuzz]'): 2,000 inputs each, seeds mutated blindly with a fixed seed,
and said so; the whole form needs atheris. Exits 1 where anything fails. Writes docs/results/fuzz.json unless --quick,
--only or --json is given. In pieces: rows of --only replace those of a table that is already at OUT, and with a seed S
above 1 they are added to them; OUT holds when all its rows are whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
RESULT = ROOT / "docs" / "results" / "fuzz.json"
RUNS, QUICK = 100_000, 2_000
MEMORY = 2 << 30
SLOW_S = 10.0
PATIENCE_S = 0.5  # for a process that reads HDF5

ENDED = ("ended with signal", "ended with status", "does not end within", "closed its output")

# what opens a file, by the name of a target
READERS = ("dat", "aedat2", "bin", "csv", "hdf5", "npz", "nir", "netx", "graph", "onnx")


def patient(seconds: float) -> None:
    """How long readers wait for a process that reads HDF5."""
    from neuro import nir_file
    from neuro.datasets.formats import hdf5_events

    nir_file.PATIENCE_S = hdf5_events.PATIENCE_S = seconds


def reader(name: str) -> Callable[[Path], object]:
    """The function that reads a file of a format to its end."""
    patient(PATIENCE_S)
    if name == "nir":
        from neuro.nir import load

        return lambda path: load(path)
    if name == "netx":
        from neuro.doors.lavadl import from_lavadl

        return lambda path: from_lavadl(path)
    if name == "graph":
        from neuro.convert.file import load as load_graph

        return lambda path: load_graph(path)
    if name == "onnx":
        from neuro.convert.from_onnx import from_onnx

        return lambda path: from_onnx(path)
    from neuro.datasets.formats.detect import open_events
    from neuro.datasets.formats.recording import info

    return lambda path: info(open_events(path, name))


def seeds(name: str, folder: Path) -> list[bytes]:
    """Small sound files."""
    import axon_hostile

    return axon_hostile.seeds(name, folder)


def one(data: bytes, path: Path, read: Callable[[Path], object], tally: dict[str, int], sound: bytes) -> str | None:
    """What is wrong with how the reader takes an input; None where nothing is. tally: counts what it said. sound: a
    file with which another process is started where this input ended one: its start is not the next input's fault."""
    from neuro.errors import NeuroError

    path.write_bytes(data)
    begin = time.process_time()  # a machine that halts this process makes no reader slow
    try:
        read(path)
        tally["read"] += 1
    except NeuroError as problem:
        tally["refused"] += 1
        said = str(problem)
        if any(how in said for how in ENDED):
            tally["ended"] += 1
            path.write_bytes(sound)
            patient(20.0)
            read(path)
            patient(PATIENCE_S)
        if "input" not in said:
            return f"a refusal that does not name the file: {said}"[:300]
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        return f"{type(problem).__name__}: {problem}"[:300]
    took = time.process_time() - begin
    return None if took < SLOW_S else f"took {took:.1f} s"


def blind(name: str, runs: int, path: Path, read: Callable[[Path], object]) -> dict[str, Any]:
    """Seeds with bytes changed, cut, doubled, inserted."""
    rng = random.Random(f"fuzz {name}")
    own = seeds(name, path.parent)
    failures: list[str] = []
    tally = {"read": 0, "refused": 0, "ended": 0}
    for _ in range(runs):
        data = bytearray(rng.choice(own))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(5)
            if kind == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 64)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            elif kind == 3:
                data[at:at] = data[at : at + 64]
            else:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"1e99"))
        problem = one(bytes(data), path, read, tally, own[0])
        if problem:
            failures.append(problem)
    return {"inputs": runs, "guided": False, **tally, "failures": failures[:20], "failed": len(failures)}


def guided(name: str, runs: int, path: Path, seed: int) -> dict[str, Any]:
    """The same with libFuzzer; in this process, which it ends."""
    import atheris

    with atheris.instrument_imports(include=["neuro"], enable_loader_override=False):
        read = reader(name)
    from neuro.hdf5_process import kept

    limit()
    corpus = path.parent / "corpus"
    corpus.mkdir()
    own = seeds(name, path.parent)
    for k, data in enumerate(own):
        (corpus / str(k)).write_bytes(data)
    out = path.parent / "found.json"
    count, failures, tally = 0, [], {"read": 0, "refused": 0, "ended": 0}

    def test(data: bytes) -> None:
        nonlocal count
        count += 1
        problem = one(data, path, read, tally, own[0])
        if problem:
            failures.append(problem)
        if count % 500 == 0 or problem:
            found = {"inputs": count, "guided": True, **tally, "failures": failures[:20], "failed": len(failures)}
            out.write_text(json.dumps(found))

    longest = max(8192, *(2 * len(data) for data in own))  # a seed is cut to this
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={longest}",
        "-timeout=1200",
        "-rss_limit_mb=0",
        "-verbosity=0",
        f"-artifact_prefix={path.parent}/",  # slow and crashing inputs: not into the folder one happens to be in
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test, enable_python_coverage=True)
    with kept():
        atheris.Fuzz()
    return {}


def limit() -> None:
    """No more memory than what is used now, and `MEMORY`."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def child(name: str, runs: int, with_guide: bool, seed: int) -> int:
    """One reader in a process of its own, with a limit on memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        path = Path(scratch) / f"input.{name}"
        if with_guide:
            pid = os.fork()
            if pid == 0:
                for stream in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
                guided(name, runs, path, seed)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            found = json.loads((Path(scratch) / "found.json").read_text())
            if os.waitstatus_to_exitcode(status) not in (0,) and found["inputs"] < runs * 0.99:
                found["failures"].append(f"the process ended with {os.waitstatus_to_exitcode(status)}")
                found["failed"] += 1
        else:
            read = reader(name)
            limit()
            from neuro.hdf5_process import kept

            with kept():
                found = blind(name, runs, path, read)
    print(json.dumps(found))
    return 0


def added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two pieces of one reader."""
    counts = ("inputs", "read", "refused", "ended", "failed", "seconds")
    sums = {n: round(a.get(n, 0) + b.get(n, 0), 1) for n in counts}
    return {**a, **b, **sums, "failures": (a["failures"] + b["failures"])[:20]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=READERS, action="append")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child, options.runs, options.guided, options.seed)
    try:
        import atheris  # noqa: F401

        there = True
    except ImportError:
        there = False
    if not there and not options.quick:
        print("needs atheris: pip install 'axonport[fuzz]'")
        return 1
    with_guide = there and not options.quick
    runs = options.runs or (QUICK if options.quick else RUNS)
    rows: dict[str, Any] = {}
    for name in options.only or READERS:
        begin = time.perf_counter()
        command = [sys.executable, __file__, "--child", name, "--runs", str(runs), "--seed", str(options.seed)] + [
            "--guided"
        ] * with_guide
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            rows[name] = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            rows[name] = {"inputs": 0, "guided": with_guide, "failed": 1, "failures": [done.stderr[-500:]]}
        rows[name]["seconds"] = round(time.perf_counter() - begin, 1)
        said = "" if not rows[name]["failed"] else f": {rows[name]['failures'][0]}"
        row = rows[name]
        print(
            f"{name:8s} {row['inputs']:7,} inputs, {row.get('read', 0):,} read, {row['failed']} failed{said}",
            flush=True,
        )
    if options.only and options.json and options.json.exists():
        runs = RUNS
        known = json.loads(options.json.read_text(encoding="utf-8"))["readers"]
        if options.seed > 1:
            rows = {n: added(known[n], row) if n in known else row for n, row in rows.items()}
        rows = {n: (known | rows)[n] for n in READERS if n in known | rows}
    short = [n for n, row in rows.items() if row["failed"] or row["inputs"] < 0.99 * runs]
    result = {"holds": not short, "quick": options.quick, "inputs_each": runs, "readers": rows}
    out = options.json or (None if options.quick or options.only else RESULT)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
