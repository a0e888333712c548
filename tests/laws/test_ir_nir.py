"""Laws of NIR files: any network survives them, and other tools read any of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from axon_strategies import LAW, any_float, assert_same_network, networks
from hypothesis import given, settings

from neuro import ir
from neuro.errors import NetworkError
from neuro.nir import load, save

nir = pytest.importorskip("nir", reason="needs nir")


def through_a_file(net: ir.Network) -> tuple[ir.Network, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.nir"
        save(net, path)
        return load(path), path.read_bytes()


@LAW
@given(networks())
def test_any_network_survives(net: ir.Network) -> None:
    again, content = through_a_file(net)
    assert_same_network(net, again)
    assert through_a_file(again)[1] == content


@LAW
@given(networks(elements=any_float(), blocks=2))
def test_any_float_survives(net: ir.Network) -> None:
    assert_same_network(net, through_a_file(net)[0])


def oblong(net: ir.Network) -> bool:
    """Whether nir 1.0.8 types a kernel of this network wrongly: sides of different parity."""
    kernels = [node.weight.shape[2:] for node in net.nodes.values() if isinstance(node, ir.Conv2d)]
    return any((high - wide) % 2 for high, wide in kernels)


@settings(LAW, max_examples=10)  # each reads a file of another tool, in a process of its own
@given(networks())
def test_plain_nir_reads_any_of_them_and_writes_it_back(net: ir.Network) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.nir", Path(folder) / "b.nir"
        save(net, first)
        graph = nir.read(first, type_check=not oblong(net))
        assert {n: type(node).__name__ for n, node in graph.nodes.items()} == {
            n: type(node).__name__ for n, node in net.nodes.items()
        }
        nir.write(second, graph)
        assert_same_network(net, load(second))


@LAW
@given(networks(blocks=2))
def test_another_step_keeps_delays_in_seconds(net: ir.Network) -> None:
    """Half the step doubles every count of steps; time constants stay."""
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder) / "net.nir")
        again = load(Path(folder) / "net.nir", dt=net.dt / 2)
    assert again.dt == net.dt / 2
    for name, node in net.nodes.items():
        other = again.nodes[name]
        if isinstance(node, ir.Delay):
            assert isinstance(other, ir.Delay)
            assert (other.steps == 2 * node.steps).all()
        elif isinstance(node, ir.Linear) and node.delay_steps is not None:
            assert isinstance(other, ir.Linear)
            assert other.delay_steps is not None
            assert (other.delay_steps == 2 * node.delay_steps).all()
        elif isinstance(node, ir.LIF):
            assert isinstance(other, ir.LIF)
            assert (other.tau_mem == node.tau_mem).all()


def test_a_law_can_fail() -> None:
    net = ir.chain({"i": ir.Input((1,)), "n": ir.IF(1.0), "o": ir.Output()}, 1e-3)
    for other in (
        net.replace_nodes({"n": ir.IF(1.0 + 2**-52)}),
        net.replace_nodes({"n": ir.IF(1.0, v_reset=-0.0)}),
        net.replace_nodes({"n": ir.IF(1.0, reset="subtract")}),
        ir.chain(dict(net.nodes), 1e-3, metadata={"a": "b"}),
        ir.chain(dict(net.nodes), 1e-3, discretisation="euler"),
    ):
        with pytest.raises(AssertionError):
            assert_same_network(net, other)
    assert issubclass(NetworkError, ValueError)
