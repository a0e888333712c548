"""RANC's files: whatever goes out comes back, runs the same, and is what RANC's reader asks for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from axon_ranc import bank_of_vector
from axon_vectors import FOLDER, batches, differences

from neuro.errors import FormatError, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import export, simulate
from neuro.hardware.certify import certify
from neuro.hardware.export.ranc import decode, encode, program_of, read
from neuro.hardware.truenorth.bank import NAMES, bank_of
from neuro.hardware.truenorth.run import record_bank
from neuro.ir import IF, Input, Linear, Output, chain

FILES = sorted(p.name for p in (FOLDER / "truenorth").glob("*.npz"))[::3]
VECTORS = [v for name in FILES for v in batches(f"truenorth/{name}")]


def assert_same_bank(ours, theirs):
    for name in NAMES:
        assert not differences(name, getattr(ours, name), getattr(theirs, name))


def network(step=0.25):
    rng = np.random.default_rng(2)
    nodes = {
        "in": Input((30,)),
        "w": Linear(rng.integers(-1, 2, (90, 30)) * step),
        "a": IF(np.full(90, 2 * step), reset="subtract"),
        "l": Linear(rng.integers(-1, 2, (300, 90)) * step),
        "b": IF(np.full(300, 3 * step)),
        "out": Output(),
    }
    return chain(nodes, 1e-3)


def test_a_compiled_program_there_and_back(tmp_path):
    program = compile_network(network(), "truenorth", max_steps=50)
    dense = (np.random.default_rng(3).random((50, 1, 30)) < 0.3).astype(np.uint8)
    folder = export(program, tmp_path / "ranc", to="ranc", dense=dense)
    bank, packets = read(folder)
    assert_same_bank(bank, bank_of(program))
    again = record_bank(bank, 50 + program.depth, packets)
    trace = simulate(program, dense, probes=(("a", "v"), ("b", "v")))
    for name in ("a", "b"):
        slot = program.image[f"slot:{name}"]
        assert not differences(name, again.spikes.reshape(len(again.spikes), -1)[:, slot], trace.spikes[name][:, 0])
        assert not differences(name, again.v.reshape(len(again.v), -1)[:, slot], trace.probes[name, "v"][:, 0])
    late = again.lines[1:, 0, :300]
    assert not differences("lines", late, trace.spikes["b"][:-1, 0])


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_there_and_back(vector, tmp_path):
    bank, packets = bank_of_vector(vector)
    data, config = (json.loads(json.dumps(part)) for part in encode(bank, packets))
    back, same = decode(data, config)
    assert_same_bank(back, bank)
    assert sorted(same.tolist()) == sorted(packets.tolist())


@pytest.mark.parametrize("vector", VECTORS[:3])
def test_a_file_of_somebody_else(vector):
    """Without our own object in it: RANC's integers, and the same spikes."""
    bank, packets = bank_of_vector(vector)
    data, config = encode(bank, packets)
    del data["axonport"]
    back, same = decode(data, config)
    assert back.overflow == "wrap32"
    ours = record_bank(back, len(vector["V"]), same)
    assert not differences("V", ours.v[:, 0], vector["V"])


def test_members_that_ranc_asks_for():
    """As its reader (simulator/src/decode.hpp, config.hpp) checks them."""
    program = compile_network(network(), "truenorth", max_steps=50)
    data, config = encode(bank_of(program), np.array([[2, 5]]))
    bus = data["output_bus"]
    assert all(k < config[f"num_cores_{axis}"] for k, axis in zip(bus["coordinates"], "xy", strict=True))
    assert bus["coordinates"] not in [core["coordinates"] for core in data["cores"]]
    assert [len(tick) for tick in data["packets"]] == [0, 0, 1]
    for core in data["cores"]:
        assert len(core["axons"]) <= config["num_axons"]
        assert len(core["connections"]) == len(core["neurons"]) <= config["num_neurons"]
        assert all(type(k) is int and k in (0, 1) for row in core["connections"] for k in row)
        for neuron in core["neurons"]:
            there = [a + b for a, b in zip(core["coordinates"], neuron["destination_core_offset"], strict=True)]
            most = bus["num_outputs"] if there == bus["coordinates"] else config["num_axons"]
            assert 0 <= neuron["destination_axon"] < most
            assert 0 <= neuron["destination_tick"] < config["max_tick_offset"] - 1
            assert len(neuron["weights"]) == config["num_weights"]
            assert neuron["reset_mode"] in (0, 1)


def test_what_ranc_has_not_is_refused(tmp_path):
    program = compile_network(network(), "truenorth")
    with pytest.raises(UnsupportedNode, match="max_steps"):
        export(program, tmp_path / "ranc", to="ranc")
    assert not (tmp_path / "ranc").exists()


def test_a_bank_is_a_program():
    bank, packets = bank_of_vector(VECTORS[0].values[0])
    steps = len(VECTORS[0].values[0]["V"])
    program = program_of(bank)
    dense = np.zeros((steps, 1, bank.cores * bank.axons), np.uint8)
    dense[packets[:, 0], 0, packets[:, 1]] = 1
    trace = simulate(program, dense)
    assert not differences("spikes", trace.spikes["neurons"][:, 0], VECTORS[0].values[0]["spikes"].reshape(steps, -1))
    assert certify(program, dense).passed


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cores": 3, "packets": [], "output_bus": {"coordinates": [0, 0]}}'])
def test_broken_files(text, tmp_path):
    (tmp_path / "input.json").write_text(text)
    (tmp_path / "config.json").write_text('{"num_axons": 4, "num_neurons": 4, "neuron_reset_type": 0}')
    with pytest.raises(FormatError):
        read(tmp_path)
