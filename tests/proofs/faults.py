"""Faults: what a day can bring to a run, injected and counted; nothing may be lost, and every end must be a clear one.

    ctrl-c      SIGINT at a random moment of a training or a deployment
    full disk   no file may grow beyond a random size (RLIMIT_FSIZE: the system answers EFBIG as it would ENOSPC)
    no place    the folder to write to is a file, or below one
    together    a second process on the folder of one that runs
    changed     one byte of one file of a finished run, or a file of it gone
    worker      one of two training processes is killed
    hostile     archives that climb out of their folder, links, pickles that run code, networks of 10^12 neurons

After each fault: the exit code is one of those documented, the last words are one message and no traceback, no
temporary file is left, and the same command again ends with the same bits as undisturbed (`kill_resume` compares; it
has the kills). "Lost" counts whatever of this does not hold.

    python tests/proofs/faults.py [--quick] [--json OUT] [--seed S] [--only FAULT]

Exits 1 where anything is lost. Writes docs/results/faults.json unless --quick, --only or --json is given.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from kill_resume import Job, deploying_result, leftovers, small_training, training_result  # noqa: E402

ROOT = HERE.parents[2]
RESULT = ROOT / "docs" / "results" / "faults.json"
PATIENCE_S = 600.0
CODES = {0, 3, 130}  # done, an error that says what, interrupted

COMMAND = [sys.executable, "-c", "from neuro.cli import main; main()"]


def commands(scratch: Path) -> dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], dict[str, Any]]]]:
    """name -> (argv for an output folder, what it left behind)."""
    config = scratch / "small.toml"
    config.write_text(_toml(small_training(3)), encoding="utf-8")

    def train(out: Path) -> list[str]:
        return [*COMMAND, "train", str(config), "--out", str(out), "--holdout", "--quiet"]

    def deploy(out: Path) -> list[str]:
        run = scratch / "train-whole"
        return [*COMMAND, "deploy", str(run), "--out", str(out), "--certify", "0", "--quiet"]

    return {"train": (train, training_result), "deploy": (deploy, deploying_result)}


def _toml(table: dict[str, Any]) -> str:
    """TOML of nested tables of plain values."""

    def value(v: Any) -> str:
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k} = {value(w)}" for k, w in v.items()) + "}"
        if isinstance(v, list):
            return "[" + ", ".join(map(value, v)) + "]"
        return json.dumps(v)

    return "".join(f"{k} = {value(v)}\n" for k, v in table.items())


def run(argv: list[str], *, stop_s: float | None = None, room: int | None = None) -> tuple[int, str]:
    """(exit code, standard error). stop_s: SIGINT after so long. room: the largest file, in bytes."""

    def limited() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it otherwise
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    process = subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limited,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=stop_s or PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT if stop_s else signal.SIGKILL)
        try:
            _, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, said = process.communicate()
            return -9, said + "\nhangs"
    return process.returncode, said


def judged(code: int, said: str, allowed: set[int] = CODES) -> list[str]:
    """What is wrong with how a command ended."""
    bad = []
    if code not in allowed:
        bad.append(f"exit code {code}: {said.strip()[-300:]}")
    if "Traceback" in said:
        bad.append(f"a traceback: {said.strip()[-300:]}")
    if code and not said.strip():
        bad.append("it ended without a word")
    return bad


class Table:
    """Faults injected and things lost, by kind."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, what: str, bad: list[str]) -> None:
        row = self.rows.setdefault(kind, {"injected": 0, "lost": 0, "problems": []})
        row["injected"] += 1
        row["lost"] += bool(bad)
        row["problems"] += [f"{what}: {problem}" for problem in bad][:5]
        if bad:
            print(f"LOST {kind}: {what}: {bad}", flush=True)


def again(name: str, argv: list[str], out: Path, read: Callable[[Path], dict[str, Any]], whole: Path) -> list[str]:
    """The same command without the fault: what differs from the undisturbed result."""
    code, said = run(argv)
    if code:
        return [f"again: exit code {code}: {said.strip()[-300:]}"]
    from kill_resume import compare

    return compare(Job(name, lambda o, _: argv, read), whole, out)


def again_whole(name: str, out: Path, read: Callable[[Path], dict[str, Any]], whole: Path) -> list[str]:
    """What is missing in a folder that should be whole."""
    from kill_resume import compare

    return compare(Job(name, lambda o, _: [], read), whole, out)


def disturbed(table: Table, scratch: Path, rng: random.Random, times: int, kinds: set[str]) -> None:
    """Ctrl-C and full disks."""
    for name, (argv_of, read) in commands(scratch).items():
        whole = scratch / f"{name}-whole"
        if not whole.exists():
            began = time.monotonic()
            code, said = run(argv_of(whole))
            assert code == 0, said
            took = time.monotonic() - began
        for k in range(times):
            if "ctrl-c" in kinds:
                out = scratch / f"{name}-interrupted-{k}"
                after = rng.uniform(0.1, 0.95) * took
                code, said = run(argv_of(out), stop_s=after)
                if code == -signal.SIGINT and not said:  # Python was ending: all had been written
                    bad = again_whole(name, out, read, whole)
                else:
                    bad = judged(code, said)
                bad = bad or again(name, argv_of(out), out, read, whole)
                table.add("ctrl-c", f"{name} after {after:.2f} s", bad)
            if "full disk" in kinds:
                out = scratch / f"{name}-full-{k}"
                largest = max(p.stat().st_size for p in whole.rglob("*") if p.is_file())
                room = int(rng.uniform(0.02, 0.9) * largest)
                code, said = run(argv_of(out), room=room)
                bad = judged(code, said, {3})
                bad += [f"temporary file left: {n}" for n in (leftovers(out) if out.is_dir() else [])]
                table.add(
                    "full disk", f"{name}, files up to {room}", bad or again(name, argv_of(out), out, read, whole)
                )
        if "no place" in kinds:
            (scratch / "file").write_text("x")
            for out in (scratch / "file", scratch / "file" / "below"):
                code, said = run(argv_of(out))
                table.add("no place", f"{name} into {out.name}", judged(code, said, {3}))
        if "together" in kinds:
            out = scratch / f"{name}-together"
            first = subprocess.Popen(argv_of(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lock = out / (".lock" if name == "train" else ".deploy.lock")
            while not lock.exists() and first.poll() is None:
                time.sleep(0.002)
            time.sleep(0.05)  # made, then held
            met = first.poll() is None
            first.send_signal(signal.SIGSTOP)  # holds its folder for as long as the second one needs to begin
            code, said = run(argv_of(out))
            first.send_signal(signal.SIGCONT)
            bad = judged(code, said, {3}) if met else ["the first one had ended: nothing was tested"]
            first.wait(PATIENCE_S)
            table.add("together", name, bad or again(name, argv_of(out), out, read, whole))


def changed(table: Table, scratch: Path, rng: random.Random, times: int) -> None:
    """Bytes and files of a finished run."""
    import shutil

    from neuro.errors import NeuroError
    from neuro.results import MANIFEST, Run

    whole = scratch / "train-whole"
    for k in range(times):
        broken = scratch / f"changed-{k}"
        shutil.copytree(whole, broken)
        hashed = [MANIFEST, *json.loads((whole / MANIFEST).read_text())["files"]]
        victim = broken / rng.choice(hashed)
        data = bytearray(victim.read_bytes())
        if k % 5 == 4:
            victim.unlink()
            what = f"{victim.name} gone"
        else:
            at = rng.randrange(len(data))
            data[at] ^= 1 << rng.randrange(8)
            victim.write_bytes(bytes(data))
            what = f"{victim.name}, byte {at}"
        try:
            opened = Run.open(broken)
            _ = opened.network
            same = victim.name == MANIFEST and dict(opened.summary) == dict(Run.open(whole).summary)
            bad = [] if same else ["it was opened"]
        except NeuroError:
            bad = []
        except Exception as problem:  # whatever it is, it is not one of ours
            bad = [f"{type(problem).__name__}: {problem}"]
        table.add("changed", what, bad)
        shutil.rmtree(broken)


def worker(table: Table, scratch: Path, rng: random.Random, times: int) -> None:
    """One of two processes that share a training is killed."""
    config = scratch / "small2.toml"
    settings = small_training(3)
    settings.pop("quantise")
    config.write_text(_toml(settings | {"layers": [r for r in settings["layers"] if r["type"] != "batch_norm"]}))
    for k in range(times):
        out = scratch / f"worker-{k}"
        argv = [*COMMAND, "train", str(config), "--out", str(out), "--holdout", "--processes", "2"]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(rng.uniform(4.0, 9.0))
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for child in children[-1:]:
            os.kill(int(child), signal.SIGKILL)
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
            bad = judged(process.returncode, said) if children else []
        except subprocess.TimeoutExpired:
            process.kill()
            bad = ["it waits for ever"]
        if not bad:
            code, said = run(argv)
            bad = [f"again: exit code {code}: {said[-300:]}"] if code else []
        table.add("worker", f"killed {len(children[-1:])} process", bad)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.mark, "run"))


def hostile(table: Table, scratch: Path) -> None:
    """Files made to leave their place, to run code, or to ask for what no machine has."""
    import h5py
    import numpy as np

    from neuro.datasets.source import load as load_dataset
    from neuro.errors import NeuroError
    from neuro.nir import load as load_nir

    mark, secret = scratch / "mark", scratch / "secret.bin"
    secret.write_bytes(bytes(10))
    place = scratch / "hostile"
    place.mkdir()

    def refused(what: str, read: Callable[[], object]) -> None:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read()
            bad = ["it was accepted"]
        except NeuroError:
            bad = []
        except Exception as problem:  # whatever it is, it is not one of ours
            bad = [f"{type(problem).__name__}: {problem}"]
        if time.monotonic() - began > 20:
            bad.append("it took more than 20 s")
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > 2 << 20:  # KiB
            bad.append("it took more than 2 GiB")
        if mark.exists():
            bad.append("code of the file was run")
            mark.unlink()
        if (scratch / "escaped.bin").exists():
            bad.append("a file was written outside")
        table.add("hostile", what, bad)

    for name, how in (("../escaped.bin", "a member that climbs"), (str(scratch / "escaped.bin"), "an absolute member")):
        path = place / "a.tar"
        with tarfile.open(path, "w") as archive:
            for member, data in ((name, bytes(10)), ("labels.txt", b"1 1\n")):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        refused(f"tar: {how}", lambda path=path: load_dataset("nmnist", "all", path))
    path = place / "link.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("00001.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        entry = tarfile.TarInfo("labels.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"1 1\n"))
    refused("tar: a link out of it", lambda: load_dataset("nmnist", "all", path))
    for suffix in (".pt", ".npz", ".npy"):
        bad = place / f"pickle{suffix}"
        if suffix == ".pt":
            import torch

            torch.save({"weight": Payload(mark)}, bad)
        elif suffix == ".npz":
            np.savez(bad, x=np.array([Payload(mark)], object))
        else:
            bad.write_bytes(pickle.dumps(Payload(mark)))
        refused(f"pickle as {suffix} events", lambda bad=bad: load_dataset("nmnist", "all", bad))
        if suffix == ".pt":
            from neuro.convert.from_state import from_state_dict

            refused("pickle as a state dict", lambda bad=bad: from_state_dict(bad, "mlp"))
    for what, size in (("10^12 neurons", (10**12,)), ("2^40 x 2^20 weights", (2**40, 2**20))):
        file = place / "huge.nir"
        with h5py.File(file, "w") as h5:
            h5["version"] = "1.0"
            node = h5.create_group("node")
            node["type"] = "NIRGraph"
            nodes = node.create_group("nodes")
            for name in ("input", "output"):
                one = nodes.create_group(name)
                one["type"] = name.capitalize()
                one.create_dataset("shape", data=np.array(size[:1]))
            own = nodes.create_group("n")
            own["type"] = "IF" if len(size) == 1 else "Linear"
            pieces = (1 << 16,) if len(size) == 1 else (1, 1 << 16)
            for key in ("r", "v_threshold") if len(size) == 1 else ("weight",):
                own.create_dataset(key, shape=size, dtype="f8", chunks=pieces)
            node["edges"] = np.array([["input", "n"], ["n", "output"]], "S6")
        refused(f"NIR: {what}", lambda file=file: load_nir(file))
    with h5py.File(place / "away.nir", "w") as h5:
        h5["node"] = h5py.ExternalLink(str(secret), "/")
    refused("NIR: a link to another file", lambda: load_nir(place / "away.nir"))


def main() -> int:
    kinds = ("ctrl-c", "full disk", "no place", "together", "changed", "worker", "hostile")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one of each, and no killed worker")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=kinds, action="append")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    wanted = set(options.only or kinds) - ({"worker"} if options.quick else set())
    table = Table()
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        scratch = Path(place)
        if wanted - {"hostile", "worker"}:
            disturbed(table, scratch, rng, 1 if options.quick else 12, wanted)
        if "changed" in wanted:
            changed(table, scratch, rng, 20 if options.quick else 400)
        if "worker" in wanted:
            worker(table, scratch, rng, 3)
        if "hostile" in wanted:
            hostile(table, scratch)
    lost = sum(row["lost"] for row in table.rows.values())
    for kind, row in table.rows.items():
        print(f"{kind:10s} {row['injected']:4d} injected, {row['lost']} lost")
    result = {"holds": lost == 0, "quick": options.quick, "seed": options.seed, "faults": table.rows}
    out = options.json or (None if options.quick or options.only else RESULT)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
