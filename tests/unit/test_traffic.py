"""Messages on links: their sum is what the simulator counts, and each link is what a walk spike by spike finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from axon_place import communities, recurrent
from compile_networks import dense_graph, events, image_graph

from neuro.errors import ChipError
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.fabric import HexTorus, Mesh
from neuro.hardware.place import place
from neuro.hardware.program import Placement, Program
from neuro.hardware.trace import Counters, Trace
from neuro.hardware.traffic import NOT_MODELLED, flow, messages, synapses, traffic


def scattered(program: Program, cores: int, seed: int) -> Program:
    """The program with its neurons on random cores of a mesh, to make messages travel."""
    rng = np.random.default_rng(seed)
    mesh = Mesh(3, 2, 2)
    core_of = {n: rng.integers(0, cores, c.size) for n, c in program.placement.core_of.items()}
    xy = mesh.xy(rng.permutation(mesh.cores)[:cores])
    return replace(program, placement=Placement(core_of, xy, fabric=mesh))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("graph", [dense_graph, image_graph])
def test_links_carry_what_the_simulator_counts(graph, seed: int) -> None:  # type: ignore[no-untyped-def]
    network = graph(seed)
    program = scattered(compile_network(network, "loihi2"), 7, seed)
    trace = simulate(program, events(seed, network))
    found = traffic(program, trace)
    assert found.notes == NOT_MODELLED
    assert found.link.sum() == pytest.approx(trace.counters.hops.sum() / trace.counters.hops.shape[0], rel=1e-12)
    assert np.allclose(found.steps.sum(axis=1), found.hops)
    assert np.allclose(found.steps.sum(axis=0), found.link[found.used])
    # one spike after the other, one message for each core with one of its synapses, one link after the other
    walked = np.zeros_like(found.link)
    fans: dict[tuple[str, int], set[int]] = {}
    for p in program.projections:
        if p.source in program.placement.core_of:
            pre, post = synapses(p, program.populations[p.source], program.populations[p.target])
            for a, b in zip(pre.tolist(), post.tolist(), strict=True):
                fans.setdefault((p.source, a), set()).add(int(program.placement.core_of[p.target][b]))
    xy = program.placement.xy
    for (name, neuron), cores in fans.items():
        spikes = int(trace.spikes[name][:, :, neuron].sum())
        for core in cores if spikes else ():
            x, y = xy[program.placement.core_of[name][neuron]].tolist()
            to_x, to_y = xy[core].tolist()
            while (x, y) != (to_x, to_y):
                way = 0 if x < to_x else 2 if x > to_x else 1 if y < to_y else 3
                walked[(y * 3 + x) * 4 + way] += spikes
                x, y = x + (way == 0) - (way == 2), y + (way == 1) - (way == 3)
    assert np.allclose(walked / trace.counters.hops.shape[0], found.link)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over links held a few at a time are the sums held all at once."""
    network = dense_graph(2)
    program = scattered(compile_network(network, "loihi2"), 7, 2)
    trace = simulate(program, events(2, network))
    whole = traffic(program, trace)
    for size in (1, 70, 333):
        monkeypatch.setattr("neuro.hardware.traffic.PIECE", size)
        monkeypatch.setattr("neuro.hardware.traffic.PAIRS", size)
        pieces = traffic(program, trace)
        assert np.array_equal(pieces.used, whole.used)
        assert np.allclose(pieces.steps, whole.steps)
    assert whole.link.any()


def test_load_is_synapses_and_updates_of_each_core() -> None:
    network = dense_graph(1)
    program = compile_network(network, "loihi2")
    trace = simulate(program, events(1, network))
    found = traffic(program, trace)
    wanted = (trace.counters.synops + trace.counters.updates).sum(axis=1).mean(axis=0)
    assert np.allclose(found.load, wanted)
    assert found.share.max() == 1


def test_multicast_crosses_a_link_once() -> None:
    """A spike to four chips of a torus: one crossing per link of the tree, however many cores it goes to."""
    torus = HexTorus(4, 4, 2)
    wanted = recurrent(communities(24, 3, 6, 1), 3, torus)
    placement, _ = place(wanted.demands, 3, 1 << 30, torus)
    program = Program(
        "loihi2", 1e-3, wanted.populations, wanted.projections, "in", "b", {"b": 0}, {}, "count", placement
    )
    rng = np.random.default_rng(0)
    spikes = {n: (rng.random((5, 2, p.size)) < 0.2).astype(np.uint8) for n, p in wanted.populations.items()}
    none = np.zeros((2, 5, placement.cores), np.int64)
    counters = Counters(*(none,) * 6, injected=np.zeros((2, 5), np.int64))
    found = traffic(program, Trace("loihi2", 1e-3, spikes, {}, counters, np.zeros((2, 6), np.int64)))
    total = 0
    sent = messages(wanted.populations, wanted.projections, placement.core_of)
    for name, (neuron, core) in sent.items():
        for i in np.unique(neuron).tolist():
            own = torus.node(placement.core_of[name][i])
            total += int(spikes[name][:, :, i].sum()) * torus.tree(int(own), torus.node(core[neuron == i])).size
    assert found.multicast
    assert found.link.sum() == pytest.approx(total / 2)
    assert "the simulator counted 0" in found.notes[-1]  # and where counters differ, it says so


def test_flow_adds_messages_from_core_to_core() -> None:
    wanted = recurrent(communities(24, 3, 6, 1), 5, Mesh(4, 4, 1))
    placement, _ = place(wanted.demands, 5, 1 << 30, Mesh(4, 4, 1))
    sent = messages(wanted.populations, wanted.projections, placement.core_of)
    activity = {"a": np.arange(24.0), "b": np.ones(10)}
    table = flow(sent, placement.core_of, placement.cores, activity)
    brute = np.zeros_like(table)
    for name, (neuron, core) in sent.items():
        for i, c in zip(neuron.tolist(), core.tolist(), strict=True):
            brute[placement.core_of[name][i], c] += activity[name][i]
    assert np.array_equal(table, brute)


def test_a_trace_without_spikes_is_refused() -> None:
    network = dense_graph(1)
    program = compile_network(network, "loihi2")
    with pytest.raises(ChipError, match="record_spikes=True"):
        traffic(program, simulate(program, events(1, network), record_spikes=False))
