"""One row of the training benches: all frameworks in turns, checked against a plain loop, beside the dense floor."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from axon_peers import OURS, TORCH_PEERS, Job, PeerFailed, machine, memory, ratio, roofline, rounds  # noqa: E402

from neuro.files import write_json  # noqa: E402

SCRIPT = Path(__file__).with_name("peer_training.py")
OLDER = "spikingjelly 0.0.0.0.14"
HOISTED = "spyx_hoisted"
PEERS = ("spikingjelly", OLDER, "spyx", HOISTED, "snntorch", "norse")
# Rounding moves a spike in a million by a step or over the threshold, which the loss hardly sees and gradients do; a
# surrogate, a reset or a decay that is not the same is off by ten per cent and more
TOLERANCE = {"loss": 2e-3, "gradients": 2e-2}


def job(framework, arguments):
    """A framework's step; `OLDER` is SpikingJelly's last release before 2, kept beside the environment's own."""
    given = dict(arguments) | {"framework": "spikingjelly" if framework == OLDER else framework}
    mine = framework in ("neuro", "torch_loop", "floor")
    path = ()
    if framework == OLDER and TORCH_PEERS in os.environ:
        # bin/python of the environment may be a link to somewhere else: its folder is what counts
        path = (str(Path(os.environ[TORCH_PEERS]).parent.parent / "older"),)
    return Job(framework, SCRIPT, OURS if mine else TORCH_PEERS, given, path)


def differences(found, expected):
    """Relative differences of losses and gradients from two checks."""
    pairs = zip(found["gradients"], expected["gradients"], strict=True)
    norms = [np.linalg.norm(np.subtract(a["values"], b["values"])) / np.linalg.norm(b["values"]) for a, b in pairs]
    return {
        "loss": abs(found["loss"] - expected["loss"]) / max(1.0, abs(expected["loss"])),
        "gradients": [float(d) for d in norms],
    }


def unequal(difference):
    """Whether two frameworks compute different things; NaN is different."""
    small = difference["loss"] <= TOLERANCE["loss"], max(difference["gradients"]) <= TOLERANCE["gradients"]
    return not all(small)


def compare(times, arguments, threads):
    """Everybody against a plain torch loop with that framework's conventions; name -> differences."""
    wanted = {
        name: name if name == "norse" else "spyx" if name in ("spyx", HOISTED) else ""
        for name in times
        if name != "floor"
    }
    oracles = {c: Job(c or "plain", SCRIPT, OURS, _oracle(arguments, c)) for c in set(wanted.values())}
    done, _ = rounds(oracles.values(), count=0, warm=0, threads=threads)
    return {name: differences(times[name].check, done[c or "plain"].check) for name, c in wanted.items()}


def _oracle(arguments, convention):
    return dict(arguments) | {"framework": "torch_loop", "convention": convention}


def measure(arguments, *, peers=PEERS, count=7, warm=2, threads=2, check=True, loop=True, repeat=1):
    """One row of the table: seconds, ratios, floor, checks, who was left out and why.

    repeat: steps in a turn, the same for all; they follow each other as they do in training, where no processor
    wakes up for each of them. The seconds are those of one.
    """
    names = ["neuro", *peers, *(["torch_loop"] if loop else []), "floor"]
    jobs = [job(name, arguments) for name in names]
    times, left_out = rounds(jobs, count=count, warm=warm, threads=threads, check=check, repeat=repeat)
    if "neuro" not in times:
        raise PeerFailed(left_out["neuro"])
    ours = times["neuro"]
    row = {
        "what": dict(arguments),
        "machine": machine(threads),
        "steps_in_a_turn": repeat,
        "ours_s": ours.median,
        "floor_s": times["floor"].median,
        "of_floor": ours.median / times["floor"].median,
        "frameworks": {name: t.row() for name, t in times.items()},
        "ratios": {name: ratio(t, ours) for name, t in times.items() if name not in ("neuro", "floor")},
        "left_out": left_out,
    }
    for key, others in (("fastest_peer", [n for n in peers if n != HOISTED]), ("fastest_by_hand", peers)):
        beside = [name for name in others if name in times]
        if beside:
            row[key] = min(beside, key=lambda name: times[name].median)
    if "fastest_peer" in row:
        row["ratio"] = row["ratios"][row["fastest_peer"]]["ratio"]
    if check:
        row["differences"] = compare(times, arguments, threads)
        row["unequal"] = [name for name, d in row["differences"].items() if unequal(d)]
    return row


def peak(arguments, *, peers=PEERS, threads=2):
    """Peak memory of a step, name -> what `axon_peers.memory` says, and who was left out."""
    found, left_out = {}, {}
    for name in ("neuro", *peers):
        try:
            found[name] = memory(job(name, arguments), threads=threads)
        except PeerFailed as failure:
            left_out[name] = str(failure)
    return found, left_out


def merge(path, rows, threads=2, limits=True):
    """Rows of one part join those of the others in a result file; the limits of the machine are of the last part."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}}
    result = {"machine": machine(threads), "rows": old["rows"] | rows}
    result["roofline"] = roofline(threads) if limits else old.get("roofline")
    write_json(path, result)
    return result


def say(name, row):
    """One line a person can read."""
    parts = [f"ours {row['ours_s'] * 1e3:.1f} ms ({row['of_floor']:.2f} of the dense floor)"]
    parts += [f"{n} {r['ratio']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]" for n, r in row["ratios"].items()]
    print(f"{name}: " + ", ".join(parts), flush=True)
    for who, why in row["left_out"].items():
        print(f"  left out: {who}: {why.splitlines()[-1]}", flush=True)
    for who in row.get("unequal", []):
        print(f"  computes something else: {who}: {row['differences'][who]}", flush=True)
