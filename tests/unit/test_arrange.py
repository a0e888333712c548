"""Placement for traffic: less of it, never more, every limit kept, and not one bit of the answer changed."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from axon_place import communities, community_network, recurrent
from compile_networks import dense_graph, events
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.errors import ChipError, MissingExtra
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.arrange import Wanted, _cost, bits_of, least_traffic, place_by, rearranged, swap
from neuro.hardware.chip import assuming
from neuro.hardware.fabric import HexTorus, Mesh
from neuro.hardware.place import place
from neuro.hardware.program import Placement
from neuro.hardware.traffic import traffic

pytest.importorskip("pymetis", reason="needs the extra 'place' (pymetis, scipy)")


def cost(placement: Placement, wanted: Wanted) -> tuple[float, float]:
    ones = {n: np.ones(c.size) for n, c in placement.core_of.items()}
    return _cost(placement, wanted.populations, wanted.projections, ones, wanted.fabric)


@pytest.mark.parametrize("fabric", [Mesh(8, 4, 4), Mesh(16, 16, 1), HexTorus(4, 4, 3)])
def test_communities_are_found(fabric: object) -> None:
    wanted = recurrent(communities(320, 8, 16, 7), 40, fabric)  # type: ignore[arg-type]
    default, _ = place(wanted.demands, 40, 1 << 30, wanted.fabric)
    better = least_traffic(default, wanted)
    hops, packets = cost(better, wanted)
    hops_before, packets_before = cost(default, wanted)
    assert hops < 0.75 * hops_before
    assert packets <= packets_before


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(3, 30), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_never_more_traffic_and_every_limit_kept(
    seed: int, groups: int, per_core: int, tight: bool, apart: bool
) -> None:
    matrix = communities(60, groups, 5, seed, stray=1.0)
    bits = 9 * per_core if tight else 1 << 30
    wanted = recurrent(matrix, per_core, Mesh(8, 8, 1), bits)
    if apart:  # a limit of a chip: of neurons 0..9, so many at most on one core; slices of the default keep it or not
        wanted = replace(wanted, fits=lambda name, inside: name != "a" or (inside < 10).sum() <= max(2, per_core // 2))
    default, violations = place(wanted.demands, per_core, bits, wanted.fabric)
    assert not violations
    better = least_traffic(default, wanted)
    assert cost(better, wanted) <= cost(default, wanted)
    assert better.cores == default.cores
    for demand in wanted.demands:
        cores = better.core_of[demand.population]
        assert set(cores.tolist()) == set(default.core_of[demand.population].tolist())
        for core in np.unique(cores).tolist():
            inside = np.flatnonzero(cores == core)
            assert inside.size <= per_core
            assert bits_of(demand, inside) <= bits
            assert better.utilisation[core]["neurons"] == inside.size / per_core
            assert better.utilisation[core]["memory"] == bits_of(demand, inside) / bits
            if wanted.fits is not None and not np.array_equal(cores, default.core_of[demand.population]):
                assert wanted.fits(demand.population, inside)
    nodes = wanted.fabric.at(better.xy)
    assert np.unique(nodes).size == better.cores  # one core per node, inside the mesh
    assert nodes.max() < wanted.fabric.nodes


def test_a_limit_of_the_chip_keeps_the_slices() -> None:
    wanted = replace(recurrent(communities(80, 4, 8, 2), 20, Mesh(4, 4, 1)), fits=lambda *_: False)
    default, _ = place(wanted.demands, 20, 1 << 30, wanted.fabric)
    better = least_traffic(default, wanted)
    assert np.array_equal(better.core_of["a"], default.core_of["a"])
    assert cost(better, wanted) <= cost(default, wanted)


@pytest.mark.parametrize("seed", range(5))
def test_swaps_reach_the_optimum_of_small_problems_or_come_close(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = Mesh(3, 2, 1)
    distance = mesh.hops(np.arange(6)[:, None], np.arange(6)).astype(float)
    weight = rng.integers(0, 9, (5, 5)).astype(float)  # one place stays free

    def total(at: np.ndarray) -> float:
        return float((weight * distance[np.ix_(at, at)]).sum())

    found = swap(weight, distance, np.arange(5))
    assert len(set(found.tolist())) == 5
    best = min(total(np.array(p[:5])) for p in itertools.permutations(range(6)))
    assert total(found) <= total(np.arange(5))
    assert total(found) <= 1.1 * best
    for i, j in itertools.combinations(range(5), 2):  # no exchange is left that gains
        swapped = found.copy()
        swapped[[i, j]] = found[[j, i]]
        assert total(swapped) >= total(found) - 1e-9


def test_the_answer_of_loihi2_does_not_change_by_a_bit() -> None:
    network = community_network(240, 6, 30)
    dense = (np.random.default_rng(1).random((30, 2, 16)) < 0.3).astype(np.uint8)
    with assuming("loihi2", core_memory=4096, cores_per_tile=1):
        default = compile_network(network, "loihi2")
        better = compile_network(network, "loihi2", placement="traffic")
    assert default.placement.cores > 6
    assert better.placement.cores == default.placement.cores
    one, two = simulate(default, dense), simulate(better, dense)
    moved = simulate(rearranged(better, two), dense)
    assert one.spikes["hidden"].any()
    for other in (two, moved):
        assert np.array_equal(one.scores, other.scores)
        assert all(np.array_equal(one.spikes[n], other.spikes[n]) for n in one.spikes)
        assert one.counters.synops.sum() == other.counters.synops.sum()
        assert one.counters.updates.sum() == other.counters.updates.sum()
    packets = [t.counters.packets.sum() for t in (one, two, moved)]
    hops = [t.counters.hops.sum() for t in (one, two, moved)]
    assert packets[1] < 0.8 * packets[0]
    assert packets[2] == packets[1]
    assert hops[1] <= hops[0]
    assert hops[2] <= hops[1]


def test_measured_traffic_moves_cores_together() -> None:
    """A program scattered over a large mesh comes together again, by what was measured."""
    network = dense_graph(3)
    program = compile_network(network, "loihi2")
    mesh = Mesh(8, 8, 1)
    cores = program.placement.cores
    far = replace(program.placement, xy=mesh.xy(np.linspace(0, 63, cores).astype(int)), fabric=mesh)
    program = replace(program, placement=far)
    trace = simulate(program, events(3, network))
    near = rearranged(program, trace)
    again = simulate(near, events(3, network))
    assert again.counters.hops.sum() < 0.5 * trace.counters.hops.sum()
    assert np.array_equal(trace.scores, again.scores)
    assert traffic(near, again).link.sum() * trace.counters.hops.shape[0] == pytest.approx(again.counters.hops.sum())


def test_an_unknown_placement_is_named() -> None:
    with pytest.raises(ChipError, match="Did you mean 'traffic'"):
        compile_network(dense_graph(1), "loihi2", placement="trafic")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recurrent(communities(80, 4, 8, 2), 20, Mesh(4, 4, 1))
    monkeypatch.setitem(sys.modules, "pymetis", None)
    place_by("contiguous", wanted)
    with pytest.raises(MissingExtra, match=r"axonport\[place\]"):
        place_by("traffic", wanted)


def test_cores_whose_places_are_in_the_image_are_not_moved() -> None:
    network = dense_graph(3)
    program = compile_network(network, "loihi2")
    trace = simulate(program, events(3, network))
    fixed = replace(program, image={"xy": program.placement.xy})
    with pytest.raises(ChipError, match="its image says"):
        rearranged(fixed, trace)
