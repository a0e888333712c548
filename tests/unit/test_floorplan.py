"""The floor plan shows what was measured: each core's load, each link's messages, on either kind of fabric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axon_place import communities, recurrent
from compile_networks import dense_graph, events
from matplotlib.collections import LineCollection, PolyCollection

from neuro import plots
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.fabric import Fabric, HexTorus, Mesh, hexagon
from neuro.hardware.floorplan import _seats, floorplan
from neuro.hardware.place import place
from neuro.hardware.program import Placement, Program
from neuro.hardware.trace import Counters, Trace
from neuro.hardware.traffic import traffic


def run_on(fabric: Fabric, neurons: int = 60, per_core: int = 3) -> tuple[Program, Trace]:
    wanted = recurrent(communities(neurons, 3, 6, 1), per_core, fabric)
    placement, _ = place(wanted.demands, per_core, 1 << 30, fabric)
    program = Program(
        "loihi2", 1e-3, wanted.populations, wanted.projections, "in", "b", {"b": 0}, {}, "count", placement
    )
    rng = np.random.default_rng(0)
    spikes = {n: (rng.random((5, 2, p.size)) < 0.2).astype(np.uint8) for n, p in wanted.populations.items()}
    counts = rng.integers(0, 50, (6, 2, 5, placement.cores))
    counters = Counters(*counts, injected=np.zeros((2, 5), np.int64))
    return program, Trace("loihi2", 1e-3, spikes, {}, counters, np.zeros((2, 6), np.int64))


FABRICS = [
    Mesh(8, 4, 4),
    Mesh(64, 64, 1),
    HexTorus(8, 8, 17, False, False, hexagon(4)),
    HexTorus(3, 3, 17),
    HexTorus(12, 12, 1),
]


@pytest.mark.parametrize("fabric", FABRICS)
def test_colours_are_the_measured_load_and_traffic(fabric: Fabric, tmp_path: Path) -> None:
    program, trace = run_on(fabric)
    found = traffic(program, trace)
    axes = floorplan(program, trace, "a title")
    figure = axes.get_figure(root=True)
    coloured = [c for c in axes.collections if c.get_array() is not None]
    cores = next(c for c in coloured if isinstance(c, PolyCollection))
    links = next(c for c in coloured if isinstance(c, LineCollection))
    assert np.allclose(cores.get_array(), found.load)
    assert np.allclose(np.sort(links.get_array()), np.sort(found.link[found.link > 0]))
    assert len(cores.get_paths()) == program.placement.cores
    centres = np.array([p.vertices[:-1].mean(axis=0) for p in cores.get_paths()])
    assert len(np.unique(centres.round(6), axis=0)) == program.placement.cores  # no core hides another
    assert f"{program.placement.cores} of {fabric.cores:,} cores in use" in axes.get_title(loc="left")
    assert "a title" in [t.get_text() for t in axes.texts]
    labels = [a.get_ylabel() for a in figure.axes]
    assert any("per core and sample" in text for text in labels)
    assert any("messages per link and sample" in text for text in labels)
    assert plots.save(figure, tmp_path / "plan.png").stat().st_size > 10_000


@pytest.mark.parametrize("hexagonal", [False, True])
@pytest.mark.parametrize("cores", [1, 2, 4, 17, 19, 20])
def test_cores_of_a_node_sit_apart_and_inside(cores: int, hexagonal: bool) -> None:
    seats, radius = _seats(cores, hexagonal)
    assert seats.shape == (cores, 2)
    apart = np.hypot(*(seats[:, None] - seats).transpose(2, 0, 1)) + 10 * np.eye(cores)
    assert apart.min() > 1.7 * radius
    assert np.abs(seats).max() + radius < 0.5


def test_a_chip_at_rest_has_no_traffic_to_draw() -> None:
    network = dense_graph(1)
    program = compile_network(network, "loihi2")
    silent = simulate(program, np.zeros_like(events(1, network)))
    axes = floorplan(program, silent)
    assert "no message leaves its node" in axes.get_title(loc="left")


def test_where_links_are_not_known_the_picture_says_so() -> None:
    program, trace = run_on(Mesh(8, 4, 4))
    odd = replace(program, projections=tuple(replace(p, kind="crossbar") for p in program.projections))
    assert "'crossbar' cannot be listed" in floorplan(odd, trace).get_title(loc="left")


def test_a_program_larger_than_its_chip_is_drawn_below_it() -> None:
    program, trace = run_on(Mesh(2, 2, 1))
    assert program.placement.cores > 4
    assert isinstance(program.placement, Placement)
    floorplan(program, trace)
