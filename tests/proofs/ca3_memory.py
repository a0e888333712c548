"""Proof: the CA3 memory (arXiv:2310.05868) learns, recalls and forgets exactly on the SpiNNaker 1 simulator.

    python tests/proofs/ca3_memory.py [--quick] [--json OUT]

Networks of 10 cues and 20 bits. Each learns 10 memories, is asked for all of them by cue and by content, then
overwrites 10 of them and is asked again. Contents: orthogonal (2 bits each, none shared) and overlapping (1 to 6 bits
drawn at random, a bit in at most 5 contents). Every spike of every output neuron in every millisecond is compared with
what was published: learning shows cue and content after 5 and 7 ms, recall by cue the cue after 5 ms and its content
after 6, recall by content the bits after 5 ms and all cues that have one of them after 6; nothing else, ever. While a
cue is overwritten its old content, which the cue recalls once more, is seen after 6 ms.

Two paces: "apart" waits 24 ms between operations, as long as the traces of learning last; there every answer must be
right. "published" begins an operation as soon as the last is over; learning and recall by cue must be right, recall
by content is reported. A question by several bits that belong to several memories teaches the network (its cues
answer together), so those are asked of a copy. "dense" contents (7 to 12 bits, shared by any number) are reported and
decide nothing: a neuron that fires more than 15 times while a cue is silent is beyond the history that the machine
keeps for learning, and the weight misses what it should have learnt.

One network is run once more in plain Python integers, and every spike and every word of memory compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from neuro.files import write_json
from neuro.hardware.spinnaker1 import stdp_plain as plain
from neuro.hardware.spinnaker1.ca3 import AGAIN, DIRECT, RECALLED, Memory

ROOT = Path(__file__).resolve().parents[2]
CUES, BITS = 10, 20
PAUSE = 24  # ms: entries of a decay table of 3 ms; a later spike sees nothing of an earlier one
IDLE = 1000  # ms
CONTENTS = {"overlapping": (1, 6, 5), "dense": (7, 12, CUES)}  # fewest and most bits, contents that share a bit
EVERYTHING = ("learn", "recall", "search one bit", "search a memory", "search any bits", "overwrite", "recall new",
              "recall others", "forgotten", "idle")  # fmt: skip
AT_FULL_SPEED = ("learn", "recall", "overwrite", "recall new", "recall others", "idle")


class Trial:
    """One network, what it should hold, and how often it answered wrongly."""

    def __init__(self, kind, pause, rng):
        self.kind, self.pause, self.rng = kind, pause, rng
        self.memory = Memory(CUES, BITS)
        self.asked, self.wrong, self.examples = Counter(), Counter(), []
        self.silent_ms = self.spurious = 0
        self.inputs = []
        self.held = np.zeros((CUES, BITS), np.uint8)

    def draw(self, cue):
        content = np.zeros(BITS, np.uint8)
        if self.kind == "orthogonal":
            content[self.order[2 * cue : 2 * cue + 2]] = 1
        else:
            low, high, shared = CONTENTS[self.kind]
            free = np.flatnonzero(np.delete(self.held, cue, axis=0).sum(axis=0) < shared)
            content[self.rng.choice(free, min(len(free), self.rng.integers(low, high + 1)), replace=False)] = 1
        return content

    def rest(self, ms):
        if ms:
            out = self.memory.wait(ms)
            self.silent_ms, self.spurious = self.silent_ms + ms, self.spurious + int(out.sum())
            self.check("idle", out, {})

    def check(self, what, out, expected):
        wanted = np.zeros_like(out)
        for at, (cues, bits) in expected.items():
            wanted[at, :CUES], wanted[at, CUES:] = cues, bits
        self.asked[what] += 1
        if not np.array_equal(out, wanted):
            self.wrong[what] += 1
            found = [(int(t), int(k)) for t, k in np.argwhere(out != wanted)]
            self.examples.append(f"{what}: (ms, output) {found[:6]} not as published")

    def one_hot(self, cue):
        return np.eye(CUES, dtype=np.uint8)[cue]

    def learn(self, what, cue, content):
        none, before = np.zeros(CUES, np.uint8), self.held[cue].copy()
        self.held[cue] = content
        out = self.memory.learn(cue, content)
        expected = {DIRECT: (self.one_hot(cue), content), AGAIN: (self.one_hot(cue), content)}
        if (before > content).any():
            expected[RECALLED] = (none, (before > content).astype(np.uint8))
        self.check(what, out, expected)
        self.rest(self.pause)

    def recall(self, what, cue):
        none = np.zeros(CUES, np.uint8), np.zeros(BITS, np.uint8)
        out = self.memory.recall(cue)
        self.check(what, out, {DIRECT: (self.one_hot(cue), none[1]), RECALLED: (none[0], self.held[cue])})
        self.rest(self.pause)

    def search(self, what, bits, memory=None):
        none = np.zeros(CUES, np.uint8), np.zeros(BITS, np.uint8)
        cues = (self.held.astype(int) @ bits > 0).astype(np.uint8)
        out = (memory or self.memory).search(bits)
        self.check(what, out, {DIRECT: (none[0], bits), RECALLED: (cues, none[1])})
        if memory is None:
            self.rest(self.pause)

    def run(self):
        single = np.eye(BITS, dtype=np.uint8)
        self.order = self.rng.permutation(BITS)
        self.rest(IDLE // 10)
        for cue in self.rng.permutation(CUES):
            self.learn("learn", cue, self.draw(cue))
        for cue in self.rng.permutation(CUES):
            self.recall("recall", cue)
        for cue in range(CUES):
            self.search("search a memory", self.held[cue], self.memory.copy())
        for _ in range(CUES):
            some = (self.rng.random(BITS) < self.rng.choice([0.1, 0.3])).astype(np.uint8)
            some[self.rng.integers(BITS)] = 1
            self.search("search any bits", some, self.memory.copy())
        for bit in self.rng.permutation(BITS):
            self.search("search one bit", single[bit])
        for _ in range(CUES):
            cue = int(self.rng.integers(CUES))
            before = self.held[cue].copy()
            if self.kind == "orthogonal":  # two bits that nobody else has: those of the cue itself, one of them new
                fresh = before.copy()
                fresh[self.order[2 * cue + int(self.rng.integers(2))]] ^= 1
                fresh = fresh if fresh.any() else self.draw(cue)
            else:
                fresh = self.draw(cue)
            self.learn("overwrite", cue, fresh)
            self.recall("recall new", cue)
            for bit in np.flatnonzero(before > fresh):
                self.search("forgotten", single[bit], self.memory.copy())
        for cue in self.rng.permutation(CUES):
            self.recall("recall others", cue)
        self.rest(IDLE)
        return self


def compared_with_plain_integers():
    """A network through learning, recall, search and overwriting, compiled and in plain integers."""
    rng = np.random.default_rng(5)
    memory, sent = Memory(CUES, BITS), []
    session = memory.session
    fired = []
    whole = session.run

    def noted(inputs):
        sent.append(np.concatenate([inputs["cue"], inputs["content"]], axis=1))
        spikes = whole(inputs)
        fired.append(np.concatenate(list(spikes.values()), axis=1))
        return spikes

    session.run = noted
    contents = [(rng.random(BITS) < 0.3).astype(np.uint8) for _ in range(CUES)]
    for cue, content in enumerate(contents):
        memory.learn(cue, content)
    for cue in range(CUES):
        memory.recall(cue)
        memory.search(contents[cue])
    memory.learn(0, contents[1])
    memory.wait(10)
    memory.recall(0)
    loaded, spikes = session.loaded, np.concatenate(fired)
    machine = plain.Machine(*loaded[:6])
    mismatches = compared = 0
    for t, row in enumerate(np.concatenate(sent)):
        theirs, _ = machine.step(t, [int(i) for i in np.flatnonzero(row)])
        mine = np.zeros(spikes.shape[1], np.uint8)
        mine[theirs] = 1
        mismatches += int((mine != spikes[t]).sum())
        compared += mine.size
    _, learning = session.state
    words = machine.words()
    return {
        "compared": compared + words.size,
        "mismatches": mismatches + int((words != learning.memory).sum()),
        "steps": session.time,
        "spikes": int(spikes.sum()),
        "seconds": 0.0,
    }


def part(kind, pause, networks, gated):
    """One kind of contents at one pace."""
    began = time.perf_counter()
    trials = [Trial(kind, pause, np.random.default_rng([2026, k, pause])).run() for k in range(networks)]
    asked, wrong = sum((t.asked for t in trials), Counter()), sum((t.wrong for t in trials), Counter())
    failures = [f"{wrong[what]} of {asked[what]} '{what}' are wrong" for what in gated if wrong[what]]
    failures += [f"'{what}' was never asked" for what in gated if not asked[what]]
    return {
        "networks": networks,
        "pause_ms": pause,
        "memories": asked["learn"],
        "overwrites": asked["overwrite"],
        "asked": dict(asked),
        "wrong": {what: wrong[what] for what in asked},
        "silent_ms": sum(t.silent_ms for t in trials),
        "spurious_spikes": sum(t.spurious for t in trials),
        "saturated": sum(t.memory.session.saturated for t in trials),
        "weights_that_missed_a_spike": sum(t.memory.session.lost for t in trials),
        "decides": list(gated),
        "examples": [line for t in trials for line in t.examples][:5],
        "failures": failures,
        "seconds": time.perf_counter() - began,
    }


def measure(quick):
    """All parts by name."""
    networks = 2 if quick else 10
    parts = {
        f"{kind}, {pace}": part(kind, pause, networks, gated)
        for kind in ("orthogonal", "overlapping")
        for pace, pause, gated in (("apart", PAUSE, EVERYTHING), ("published", 0, AT_FULL_SPEED))
    }
    parts["dense, apart"] = part("dense", PAUSE, networks, ())
    began = time.perf_counter()
    row = compared_with_plain_integers()
    row["seconds"] = time.perf_counter() - began
    row["failures"] = [f"{row['mismatches']} values differ"] if row["mismatches"] else []
    parts["plain integers"] = row
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 networks instead of 10 of each kind")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "ca3_memory.json")
    arguments = parser.parse_args()
    began = time.perf_counter()
    parts = measure(arguments.quick)
    failures = [f"{name}: {line}" for name, row in parts.items() for line in row["failures"]]
    result = {
        "proof": "ca3_memory",
        "passed": not failures,
        "quick": arguments.quick,
        "cues": CUES,
        "bits": BITS,
        "seconds": time.perf_counter() - began,
        "parts": parts,
    }
    write_json(arguments.json, result)
    for name, row in parts.items():
        said = ", ".join(f"{what} {row['wrong'][what]}/{row['asked'][what]}" for what in row.get("asked", {}))
        print(f"{name}: wrong {said}" if said else f"{name}: {row['mismatches']} of {row['compared']} differ")
    print(json.dumps({k: v for k, v in result.items() if k != "parts"}))
    for line in failures:
        print("FAILED", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
