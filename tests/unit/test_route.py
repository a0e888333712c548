"""Routing tables: every packet is walked through the routers, before and after compression, key by key."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.errors import ChipError
from neuro.hardware.fabric import HexTorus, hexagon
from neuro.hardware.route import FULL, LINKS, Table, check_tables, compress, key_blocks, routing_tables

BOARD = HexTorus(8, 8, 17, False, False, hexagon(4))
SMALL = HexTorus(2, 2, 17)


def enumerate_keys(table: Table) -> dict[int, int]:
    """key -> row, by listing every key of every block."""
    found: dict[int, int] = {}
    for row, (key, mask) in enumerate(zip(table.key.tolist(), table.mask.tolist(), strict=True)):
        for low in range((FULL & ~mask) + 1):
            assert key + low not in found, "blocks overlap"
            found[key + low] = row
    return found


def first_match(table: Table, key: int) -> int:
    for k, m, route in zip(table.key.tolist(), table.mask.tolist(), table.route.tolist(), strict=True):
        if key & m == k:
            return route
    return -1


def assert_same_routes(table: Table, small: Table) -> None:
    keys = enumerate_keys(table)
    for key, row in keys.items():
        wanted = -1 if table.straight[row] else int(table.route[row])
        assert first_match(small, key) == wanted
    listed = np.array(sorted(keys))
    assert small.lookup(listed).tolist() == [first_match(small, k) for k in listed.tolist()]


def random_traffic(
    f: HexTorus, messages: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[set[tuple[int, int]]]]:
    rng = np.random.default_rng(seed)
    key, mask = key_blocks(rng.integers(1, 9, messages).tolist())
    source = rng.integers(0, f.nodes, messages)
    goals = [
        {(int(rng.integers(f.nodes)), int(rng.integers(17))) for _ in range(int(rng.integers(1, 6)))}
        for _ in range(messages)
    ]
    return key, mask, source, goals


def tables_of(f: HexTorus, key, mask, source, goals) -> dict[int, Table]:  # type: ignore[no-untyped-def]
    pairs = [(m, chip, core) for m, found in enumerate(goals) for chip, core in sorted(found)]
    message, target, local = np.array(pairs).T
    return routing_tables(f, key, mask, source, message, target, local)


@given(st.sampled_from([BOARD, SMALL, HexTorus(12, 12, 17)]), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_every_packet_arrives_at_its_cores_and_nowhere_else(f: HexTorus, messages: int, seed: int) -> None:
    key, mask, source, goals = random_traffic(f, messages, seed)
    tables = tables_of(f, key, mask, source, goals)
    small = {chip: compress(t) for chip, t in tables.items()}
    for chip, table in tables.items():
        assert_same_routes(table, small[chip])
        assert len(small[chip]) <= table.needed
    for m in range(messages):
        for packet in (int(key[m]), int(key[m] + (FULL & ~mask[m]))):  # first and last neuron of the block
            arrived: set[tuple[int, int]] = set()
            todo: list[tuple[int, int]] = [(int(source[m]), -1)]
            for _ in range(1000):  # links of a tree are fewer
                if not todo:
                    break
                chip, came = todo.pop()
                route = first_match(small[chip], packet) if chip in small else -1
                if route < 0:
                    assert came >= 0, "a packet is lost where it is sent"
                    route = 1 << came  # straight on
                for bit in range(32):
                    if route >> bit & 1 and bit >= LINKS:
                        assert (chip, bit - LINKS) not in arrived, "a packet arrives twice"
                        arrived.add((chip, bit - LINKS))
                    elif route >> bit & 1:
                        todo.append((int(f.neighbour(chip, bit)), bit))
            assert not todo, "a packet goes round"
            assert arrived == goals[m]


@given(st.integers(2, 400), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_compression_is_exact_on_any_table(blocks: int, routes: int, seed: int) -> None:
    """Tables of blocks of 1..8 keys with gaps between them; some go straight on."""
    rng = np.random.default_rng(seed)
    key, mask = key_blocks(rng.integers(1, 9, 2 * blocks).tolist())
    some = np.sort(rng.choice(2 * blocks, blocks, replace=False))
    table = Table(key[some], mask[some], 1 + rng.integers(0, routes, blocks), rng.random(blocks) < 0.2)
    assert_same_routes(table, compress(table))


def test_compression_brings_a_full_board_under_the_limit() -> None:
    """1,500 slices on 48 chips, each to the cores of a few neighbouring chips, as layers do."""
    rng = np.random.default_rng(3)
    source = np.sort(rng.integers(0, BOARD.nodes, 1500))
    goals = []
    for chip in source.tolist():
        near = np.argsort(BOARD.hops(chip, np.arange(48)), kind="stable")[:20].tolist()
        goals.append({(c, 0) for c in near})
    key, mask = key_blocks([4] * 1500)
    tables = tables_of(BOARD, key, mask, source, goals)
    assert max(t.needed for t in tables.values()) > 700
    entries, violations = check_tables(BOARD, tables, 400)
    assert not violations
    assert max(entries.values()) <= 400
    _, violations = check_tables(BOARD, tables, 5)
    assert len(violations) > 10
    assert all(v.allowed == 5 and v.wanted == len(compress(tables[_chip(v.node)])) for v in violations)


def _chip(name: str) -> int:
    x, y = (int(part) for part in name.removeprefix("chip (").removesuffix(")").split(","))
    return int(BOARD.at([x, y]))


def test_one_route_for_all_is_one_entry() -> None:
    key, mask = key_blocks([256] * 64)
    table = Table(key, mask, np.full(64, 1 << LINKS), np.zeros(64, bool))
    small = compress(table)
    assert len(small) == 1
    assert (small.key[0], small.mask[0]) == (0, FULL & ~(64 * 256 - 1))


def test_blocks_of_keys_are_aligned_and_apart() -> None:
    sizes = [1, 255, 256, 3, 17, 2]
    key, mask = key_blocks(sizes)
    ranges = sorted((int(k), int(k + (FULL & ~m))) for k, m in zip(key, mask, strict=True))
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(ranges))
    for k, m, n in zip(key.tolist(), mask.tolist(), sizes, strict=True):
        assert k & ~m == 0
        assert (FULL & ~m) + 1 >= n
    with pytest.raises(ChipError, match="32 bits"):
        key_blocks([1 << 31, 1 << 31, 1])


def test_a_core_without_a_bit_is_refused() -> None:
    key, mask = key_blocks([1])
    with pytest.raises(ChipError, match="core 26"):
        routing_tables(SMALL, key, mask, [0], [0], [1], [26])


def test_straight_through_needs_no_entry() -> None:
    key, mask = key_blocks([10])
    line = HexTorus(5, 1, 1, False, False)
    tables = routing_tables(line, key, mask, [0], [0], [4], [2])
    assert {c: t.needed for c, t in tables.items()} == {0: 1, 1: 0, 2: 0, 3: 0, 4: 1}
    assert tables[0].route.tolist() == [1]
    assert tables[4].route.tolist() == [1 << (LINKS + 2)]
