"""Pictures from a process beside this one are the same pictures, and its errors the same errors."""

from __future__ import annotations

import io
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from compile_networks import dense_graph

from neuro import chain, plots
from neuro.drawing import Beside, Here, _send, beside
from neuro.errors import DoesNotFit, NeuroError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.floorplan import floorplan
from neuro.hardware.target import targets
from neuro.ir import IF, Input, Linear, Output

RNG = np.random.default_rng(0)
LAYERS = MappingProxyType({name: (RNG.random((30, 12)) < 0.1).astype(np.uint8) for name in ("hidden", "out")})
JOB = plots.raster, LAYERS, 1e-3, "a title"


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn_here(*_: Any) -> None:
        raise AssertionError("drawn here")

    monkeypatch.setattr(Here, "__call__", drawn_here)


def test_the_pictures_are_the_same_bytes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    Here()(tmp_path / "here.png", *JOB)
    request.getfixturevalue("refuse")
    with Beside() as draw:
        draw(tmp_path / "there.png", *JOB)
        draw(tmp_path / "again.png", *JOB)
        draw.finish()
    for name in ("there", "again"):
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_programs_of_every_chip_can_be_sent() -> None:
    nodes = {
        "in": Input((3,)),
        "fc": Linear(np.eye(3)),
        "n": IF(v_threshold=1.0, reset="subtract"),
        "out": Output("count"),
    }
    network, found = chain(nodes, dt=1e-3), []
    for chip in targets():
        with suppress(DoesNotFit, UnsupportedNode):
            program, sent = compile_network(network, chip, max_steps=12), io.BytesIO()
            _send(program, sent)
            again = pickle.loads(sent.getvalue())  # written a line above
            assert list(again.populations) == list(program.populations)
            assert np.array_equal(again.placement.core_of["n"], program.placement.core_of["n"])
            found.append(chip)
    assert {"loihi1", "loihi2", "spinnaker1", "spinnaker2", "truenorth"} <= set(found), found


def test_a_floor_plan_from_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    network = dense_graph(0)
    program = compile_network(network, "loihi2", max_steps=12)
    size = program.populations[program.input].size
    trace = simulate(program, (RNG.random((12, 1, size)) < 0.3).astype(np.uint8))
    Here()(tmp_path / "here.png", floorplan, program, trace, "a title")
    request.getfixturevalue("refuse")
    with Beside() as draw:
        draw(tmp_path / "there.png", floorplan, program, trace, "a title")
        draw.finish()
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_an_error_there_is_the_same_error_here(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Beside() as draw:
        draw(tmp_path / "there.png", *JOB)
        draw(tmp_path / "file" / "there.png", *JOB)
        with pytest.raises((OSError, NeuroError)) as there:
            draw.finish()
    with pytest.raises((OSError, NeuroError)) as here:
        Here()(tmp_path / "file" / "there.png", *JOB)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert (tmp_path / "there.png").exists()


@pytest.mark.parametrize("asked_before", [0, 1])
def test_what_a_dead_process_has_not_drawn_is_drawn_here(asked_before: int, tmp_path: Path) -> None:
    with Beside() as draw:
        assert isinstance(draw, Beside)
        assert draw.process is not None
        for k in range(asked_before):
            draw(tmp_path / f"{k}.png", *JOB)
        draw.process.kill()
        draw.process.wait()
        draw(tmp_path / "late.png", *JOB)
        draw(tmp_path / "last.png", *JOB)
        draw.finish()
    assert len(list(tmp_path.glob("*.png"))) == 2 + asked_before


def test_what_cannot_be_sent_is_drawn_here(tmp_path: Path) -> None:
    with Beside() as draw:
        draw(tmp_path / "there.png", *JOB)
        draw(tmp_path / "here.png", lambda *arguments: plots.raster(*arguments), *JOB[1:])
        draw(tmp_path / "after.png", *JOB)
        draw.finish()
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_where_no_process_can_be_started_it_is_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("neuro.drawing.subprocess.Popen", fail)
    with Beside() as draw:
        draw(tmp_path / "here.png", *JOB)
        draw.finish()
    assert (tmp_path / "here.png").exists()


def test_an_error_of_the_caller_leaves_no_process_behind() -> None:
    draw = Beside()
    process = draw.process
    with pytest.raises(KeyError), draw:
        raise KeyError
    assert process is not None
    assert process.poll() is not None


def test_one_processor_draws_for_itself_and_so_does_who_has_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    with beside() as draw:
        assert type(draw) is Beside
    monkeypatch.setattr("neuro.drawing.os.sched_getaffinity", lambda _: {0}, raising=False)
    assert type(beside()) is Here
    monkeypatch.setattr("neuro.drawing.os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", plots)
    assert type(beside()) is Here
