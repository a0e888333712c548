"""Proof: placement for traffic lowers traffic and changes no bit; compressed routing tables route every key alike.

    python tests/proofs/placement.py [--quick] [--json OUT]

Placement: recurrent networks with hidden communities, and ones without, are compiled to Loihi 2 with cores of less
memory (so that they need many), placed in contiguous slices, by `placement="traffic"`, and rearranged by what the
simulator measured. Every spike and score is compared; packets and links crossed are the simulator's own counters.
Routing: traffic between slices of populations on SpiNNaker's board of 48 chips and on a torus of 12 x 12; each key
of each block is looked up in each router's table, compressed and not.
Exits 1 where a bit differs, a placement carries more than the default, communities gain less than a fifth, a key is
routed differently, or a table does not fit 1,023 entries.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from axon_place import community_network  # noqa: E402

from neuro.files import write_json  # noqa: E402
from neuro.hardware import compile as compile_network  # noqa: E402
from neuro.hardware import simulate  # noqa: E402
from neuro.hardware.arrange import rearranged  # noqa: E402
from neuro.hardware.chip import assuming  # noqa: E402
from neuro.hardware.fabric import HexTorus, hexagon  # noqa: E402
from neuro.hardware.route import FULL, compress, key_blocks, routing_tables  # noqa: E402
from neuro.hardware.traffic import traffic  # noqa: E402

LIMIT = 1023


def placed(neurons: int, groups: int, fan_in: int, memory: int, seed: int) -> dict:
    """One network, three placements."""
    network = community_network(neurons, groups, fan_in, seed)
    dense = (np.random.default_rng(seed).random((40, 4, 16)) < 0.3).astype(np.uint8)
    with assuming("loihi2", core_memory=memory):
        default = compile_network(network, "loihi2")
        better = compile_network(network, "loihi2", placement="traffic")
    one, two = simulate(default, dense), simulate(better, dense)
    three = simulate(moved := rearranged(better, two), dense)
    same = all(
        np.array_equal(one.scores, other.scores)
        and all(np.array_equal(one.spikes[n], other.spikes[n]) for n in one.spikes)
        for other in (two, three)
    )
    exact = all(
        np.isclose(traffic(p, t).link.sum() * 4, t.counters.hops.sum()) for p, t in ((default, one), (moved, three))
    )
    names = ("contiguous", "traffic", "rearranged")
    runs = dict(zip(names, (one, two, three), strict=True))
    return {
        "neurons": neurons, "communities": groups, "fan_in": fan_in, "cores": default.placement.cores, "seed": seed,
        "spikes": int(one.spikes["hidden"].sum()), "bits_same": bool(same), "links_equal_counters": bool(exact),
        "packets": {n: int(t.counters.packets.sum()) // 4 for n, t in runs.items()},
        "links_crossed": {n: int(t.counters.hops.sum()) // 4 for n, t in runs.items()},
    }  # fmt: skip


def routed(name: str, fabric: HexTorus, slices: int, reach: int, seed: int) -> dict:
    """Slices of 16..256 neurons, each sending to cores of so many chips near it and of two far away."""
    rng = np.random.default_rng(seed)
    source = np.sort(rng.integers(0, fabric.nodes, slices))
    key, mask = key_blocks(rng.choice([16, 64, 256], slices).tolist())
    message, target = [], []
    for m, chip in enumerate(source.tolist()):
        near = np.argsort(fabric.hops(chip, np.arange(fabric.nodes)), kind="stable")[:reach]
        goals = np.unique(np.concatenate([near, rng.integers(0, fabric.nodes, 2)]))
        message += [m] * goals.size
        target += goals.tolist()
    local = rng.integers(0, 3, len(target))
    tables = routing_tables(fabric, key, mask, source, message, target, local)
    keys = wrong = 0
    before, after = [], []
    for table in tables.values():
        small = compress(table)
        before.append(len(table))
        after.append(len(small))
        for k, m, route, straight in zip(table.key, table.mask, table.route, table.straight, strict=True):
            block = np.arange(int(k), int(k) + (FULL & ~int(m)) + 1)
            keys += block.size
            wrong += int((small.lookup(block) != (-1 if straight else route)).sum())
    entries = {"whole_max": max(before), "compressed_max": max(after), "whole": sum(before), "compressed": sum(after)}
    return {
        "machine": name, "chips": fabric.nodes, "slices": slices, "keys_looked_up": keys,
        "keys_routed_otherwise": wrong, "entries": entries,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    board = HexTorus(8, 8, 17, False, False, hexagon(4))
    cases = [(240, 6, 30, 3072, 1), (240, 1, 30, 3072, 2)]
    machines = [("board of 48 chips", board, 300, 8, 1)]
    if not given.quick:
        cases += [(480, 12, 30, 6144, 3), (480, 12, 60, 6144, 4), (360, 4, 40, 4096, 5), (480, 1, 60, 6144, 6)]
        machines = [("board of 48 chips", board, 1200, 24, 1), ("torus of 12 x 12", HexTorus(12, 12, 17), 1500, 60, 2)]
    placements = [placed(*case) for case in cases]
    tables = [routed(*machine) for machine in machines]
    bad = []
    for row in placements:
        default, better, moved = row["links_crossed"].values()
        if not (row["bits_same"] and row["links_equal_counters"] and row["spikes"]):
            bad.append(f"bits or links differ: {row}")
        if not moved <= better <= default or (row["communities"] > 1 and better > 0.8 * default):
            bad.append(f"too little gained: {row}")
    bad += [
        f"routing: {row}" for row in tables if row["keys_routed_otherwise"] or row["entries"]["compressed_max"] > LIMIT
    ]
    for row in (*placements, *tables):
        print(row)
    result = {"proof": "placement", "quick": given.quick, "placements": placements, "routing": tables, "failed": bad}
    write_json(given.json or ROOT / "docs" / "results" / "placement.json", result)
    print("\n".join(["FAILED", *bad]) if bad else "every bit the same, no placement above the default, every key alike")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
