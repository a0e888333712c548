"""The float meaning of every node, against closed forms, plain Python loops and other simulators' traces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neuro import ir, reference
from neuro.errors import NetworkError, SimulationError
from neuro.nir import load

NIR = Path(__file__).parents[1] / "golden" / "nir"
DT = 1e-3


def sent_by(node: ir.Node, x: Any, **options: Any) -> NDArray[np.float64]:
    """What a node sends for an input [time, *shape], one sample."""
    x = np.asarray(x, np.float64)
    net = ir.chain({"i": ir.Input(x.shape[1:]), "n": node, "o": ir.Output("sum")}, DT, **options)
    return reference.run(net, x[:, None], record=["sent"]).sent["n"][:, 0]


def one(node: ir.Neuron, x: list[float], rule: str = "exact") -> tuple[list[float], list[float], list[int]]:
    """(i, v, spikes) of one neuron."""
    net = ir.chain({"i": ir.Input((1,)), "n": node, "o": ir.Output("sum")}, DT, discretisation=rule)
    r = reference.run(net, np.array(x)[:, None, None], record=["v", "i", "spikes"])
    spikes = r.spikes["n"].ravel().tolist() if r.spikes else []
    return r.i["n"].ravel().tolist(), r.v["n"].ravel().tolist(), spikes


def test_if_counts_and_fires_strictly_above_threshold() -> None:
    i, v, s = one(ir.IF(2.0), [1, 1, 0, 1, 1])
    assert (i, v, s) == ([1, 1, 0, 1, 1], [1, 2, 2, 0, 1], [0, 0, 0, 1, 0])


def test_resets() -> None:
    x = [2.5, 0.0, 2.5]
    assert one(ir.IF(1.0), x)[1] == [0, 0, 0]
    assert one(ir.IF(1.0, v_reset=-0.5), x)[1] == [-0.5, -0.5, -0.5]
    _, v, s = one(ir.IF(1.0, v_reset=-0.5, reset="subtract"), x)  # v_reset has no part in it
    assert (v, s) == ([1.5, 0.5, 2.0], [1, 1, 1])


@pytest.mark.parametrize("rule", ir.RULES)
def test_leaky_integrator_step_response(rule: str) -> None:
    """A constant input for k steps leaves v = (v_leak + r x) (1 - b^k)."""
    b = math.exp(-DT / 5e-3) if rule == "exact" else 1 - DT / 5e-3
    _, v, _ = one(ir.LI(5e-3, r=3.0, v_leak=0.25), [2.0] * 6, rule)
    assert v == pytest.approx([6.25 * (1 - b**k) for k in range(1, 7)], rel=1e-13)


@pytest.mark.parametrize("rule", ir.RULES)
def test_current_based_impulse_response(rule: str) -> None:
    """One spike leaves i = a^k (1 - a) w_in, and v the convolution of both decays; the synapse is first."""
    a, b = (
        (math.exp(-DT / 2e-3), math.exp(-DT / 5e-3)) if rule == "exact" else (1 - DT / 2e-3, 1 - DT / 5e-3)
    )
    i, v, _ = one(ir.CubaLI(2e-3, 5e-3, r=2.0, w_in=3.0), [1, 0, 0, 0, 0], rule)
    assert i == pytest.approx([(1 - a) * 3 * a**k for k in range(5)], rel=1e-13)
    closed = [(1 - b) * 2 * (1 - a) * 3 * (a ** (k + 1) - b ** (k + 1)) / (a - b) for k in range(5)]
    assert v == pytest.approx(closed, rel=1e-12)


def test_current_is_not_reset() -> None:
    i, v, s = one(ir.CubaLIF(2e-3, 2e-3, 0.01, w_in=10.0), [1, 0, 0])
    silent = one(ir.CubaLI(2e-3, 2e-3, w_in=10.0), [1, 0, 0])[0]
    assert i == silent
    assert s == [1, 1, 1]
    assert v == [0, 0, 0]


def test_lif_rate_is_the_closed_form() -> None:
    """Constant drive: a spike every ceil(tau / dt * ln(I / (I - v_th))) steps."""
    _, _, s = one(ir.LIF(20e-3, 1.0), [1.5] * 400)
    gaps = set(np.diff(np.flatnonzero(s)).tolist())
    assert gaps == {math.ceil(20 * math.log(1.5 / 0.5))}


def test_linear_and_affine() -> None:
    w, x = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]), np.array([[1.0, 0, 2], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(sent_by(ir.Linear(w), x), x @ w.T)
    np.testing.assert_array_equal(sent_by(ir.Affine(w, bias=[1, -1]), x), np.add(x @ w.T, [1, -1]))


def test_synaptic_delays_against_a_plain_sum() -> None:
    rng = np.random.default_rng(1)
    w, d, x = rng.integers(-4, 5, (3, 4)) / 4, rng.integers(0, 9, (3, 4)), rng.integers(0, 2, (6, 4))
    wanted = [
        [sum(w[o, k] * x[t - d[o, k], k] for k in range(4) if t >= d[o, k]) for o in range(3)] for t in range(6)
    ]
    np.testing.assert_array_equal(sent_by(ir.Linear(w, d), x), wanted)
    np.testing.assert_array_equal(sent_by(ir.Affine(w, d, bias=[1, 2, 3]), x), np.add(wanted, [1, 2, 3]))


def test_axonal_delays() -> None:
    x = np.arange(1, 9).reshape(4, 2)
    np.testing.assert_array_equal(sent_by(ir.Delay([1, 3]), x), [[0, 0], [1, 0], [3, 0], [5, 2]])
    np.testing.assert_array_equal(sent_by(ir.Delay(0), x), x)
    np.testing.assert_array_equal(sent_by(ir.Delay(ir.MAX_DELAY_STEPS), x), 0 * x)  # and no such buffer is made


def test_delay_of_an_image() -> None:
    x = np.arange(1, 13).reshape(3, 1, 2, 2)
    steps = np.array([[[0, 1], [2, 0]]])
    y = sent_by(ir.Delay(steps), x)
    np.testing.assert_array_equal(y[2, 0], [[9, 6], [3, 12]])


def plain_conv(x: Any, node: ir.Conv2d) -> NDArray[np.float64]:
    """The definition, index by index."""
    (out, ins, high, wide), (_, height, width) = node.weight.shape, x.shape
    (sy, sx), (py, px), (dy, dx) = node.stride, node.padding, node.dilation
    rows = (height + 2 * py - (high - 1) * dy - 1) // sy + 1
    columns = (width + 2 * px - (wide - 1) * dx - 1) // sx + 1
    y = np.zeros((out, rows, columns))
    for o, r, c in np.ndindex(*y.shape):
        group = o // (out // node.groups)
        total = node.bias[o]
        for k, a, b in np.ndindex(ins, high, wide):
            row, column = r * sy - py + a * dy, c * sx - px + b * dx
            if 0 <= row < height and 0 <= column < width:
                total += node.weight[o, k, a, b] * x[group * ins + k, row, column]
        y[o, r, c] = total
    return y


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, (2, 1), 3])
@pytest.mark.parametrize("padding", [0, (1, 2), 4])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_convolution_is_its_definition(groups: int, stride: Any, padding: Any, dilation: Any) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-8, 9, (4, 2 // groups, 3, 2)) / 8
    node = ir.Conv2d(weight, stride, padding, dilation, groups, bias=rng.integers(-8, 9, 4) / 8)
    x = rng.integers(0, 2, (1, 2, 6, 5))
    np.testing.assert_array_equal(sent_by(node, x)[0], plain_conv(x[0], node))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), ((3, 2), (1, 3), (1, 1)), (2, 3, (0, 1))])
def test_pools_are_convolutions_with_ones(kernel: Any, stride: Any, padding: Any) -> None:
    x = np.random.default_rng(0).integers(0, 5, (1, 2, 6, 5))
    pool = ir.SumPool2d(kernel, stride, padding)
    ones = ir.Conv2d(np.ones((2, 1, *pool.kernel_size)), stride, padding, groups=2)
    np.testing.assert_array_equal(sent_by(pool, x)[0], plain_conv(x[0], ones))
    area = pool.kernel_size[0] * pool.kernel_size[1]
    np.testing.assert_array_equal(sent_by(ir.AvgPool2d(kernel, stride, padding), x), sent_by(pool, x) / area)


def test_flatten_is_row_major_and_scale_is_elementwise() -> None:
    x = np.arange(12).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(sent_by(ir.Flatten(), x), x.reshape(1, 12))
    np.testing.assert_array_equal(sent_by(ir.Scale(np.array([2.0, 3.0]).reshape(2, 1, 1)), x)[0, 1], 3.0 * x[0, 1])


def graph(nodes: dict[str, ir.Node], edges: str) -> ir.Network:
    return ir.Network(nodes, tuple((pair[0], pair[1]) for pair in edges.split()), DT)


def test_edges_add_up_and_late_ones_are_one_step_late() -> None:
    nodes = {"i": ir.Input((1,)), "n": ir.IF(0.5), "r": ir.Linear([[1.0]]), "o": ir.Output()}
    x = np.array([1, 0, 0, 0])[:, None, None]
    spikes = reference.run(graph(nodes, "in nr rn no"), x).spikes["n"]
    assert spikes.ravel().tolist() == [1, 1, 1, 1]  # its own spike of step t comes back in t + 1
    later = {**nodes, "d": ir.Delay(1)}
    spikes = reference.run(graph(later, "in nr rd dn no"), x).spikes["n"]
    assert spikes.ravel().tolist() == [1, 0, 1, 0]
    two_ways = {"a": ir.Linear([[1.0]]), "b": ir.Linear([[10.0]])}
    doubled = {"i": ir.Input((1,)), **two_ways, "n": ir.LI(1e-9), "o": ir.Output("sum")}
    assert reference.run(graph(doubled, "ia ib an bn no"), x).v["n"].ravel().tolist() == [11, 0, 0, 0]


@pytest.mark.parametrize("edges", ["in nr rn no", "ir rn nr no"])
def test_bias_in_a_loop_is_there_from_the_first_step(edges: str) -> None:
    """Whichever edge of the loop is the late one: before step 0 all is silent, and an Affine sends its bias."""
    nodes = {"i": ir.Input((1,)), "n": ir.IF(10.0), "r": ir.Affine([[1.0]], bias=[3.0]), "o": ir.Output()}
    v = reference.run(graph(nodes, edges), np.zeros((3, 1, 1))).v["n"]
    assert v.ravel().tolist() == [3, 6, 9]


def test_bias_behind_a_late_edge_between_nodes_without_state() -> None:
    nodes = {
        "i": ir.Input((1,)),
        "b": ir.Affine([[2.0]], bias=[1.0]),
        "n": ir.IF(100.0),
        "a": ir.Affine([[1.0]], bias=[3.0]),
        "o": ir.Output(),
    }
    net = graph(nodes, "ib bn na ab no")
    assert net.feedback == {("a", "b")}
    assert reference.run(net, np.zeros((2, 1, 1))).v["n"].ravel().tolist() == [7, 14]


def test_several_inputs_by_name() -> None:
    nodes = {"a": ir.Input((1,)), "b": ir.Input((1,)), "n": ir.IF(9.0), "o": ir.Output()}
    net = graph(nodes, "an bn no")
    x = {"a": np.ones((2, 1, 1)), "b": np.full((2, 1, 1), 2.0)}
    assert reference.run(net, x).v["n"].ravel().tolist() == [3, 6]
    with pytest.raises(NetworkError, match="exactly one Input"):
        reference.run(net, np.ones((2, 1, 1)))
    with pytest.raises(SimulationError, match=r"given for \['a'\], the network has \['a', 'b'\]"):
        reference.run(net, {"a": x["a"]})
    with pytest.raises(SimulationError, match="differ in time or batch"):
        reference.run(net, {**x, "b": np.ones((3, 1, 1))})


@pytest.mark.parametrize(
    ("readout", "wanted"), [("count", [2, 4]), ("sum", [1.0, 2.0]), ("max", [1.0, 0.5]), ("last", [0.0, 0.5])]
)
def test_scores_and_decision(readout: str, wanted: list[float]) -> None:
    """v after the reset: [1, 0, 0, 0] with spikes in steps 1 and 3, and 0.5 with a spike in each step."""
    node = ir.IF([1.0, 0.25], v_reset=[0.0, 0.5])
    net = ir.chain({"i": ir.Input((2,)), "n": node, "o": ir.Output(readout)}, DT)
    r = reference.run(net, np.array([[1, 1], [1, 0], [0, 0], [2, 0]])[:, None], record=())
    assert reference.scores(net, r).tolist() == [wanted]
    decision = reference.classify(net, r)
    assert decision.dtype == np.int64
    assert decision.tolist() == [int(wanted[1] > wanted[0])]


def test_ties_go_to_the_lowest_index() -> None:
    net = ir.chain({"i": ir.Input((3,)), "n": ir.IF(0.5), "o": ir.Output()}, DT)
    r = reference.run(net, np.array([[[0, 1, 1]]]))
    assert reference.classify(net, r).tolist() == [1]


def test_images_are_scored_flat_and_through_a_flatten() -> None:
    net = ir.chain({"i": ir.Input((1, 2, 2)), "n": ir.IF(0.5), "f": ir.Flatten(), "o": ir.Output()}, DT)
    x = np.array([[[[[0, 1], [1, 1]]]]])
    assert reference.scores(net, reference.run(net, x)).tolist() == [[0, 1, 1, 1]]
    net = ir.chain({"i": ir.Input((1, 2, 2)), "n": ir.IF(0.5), "o": ir.Output()}, DT)
    assert reference.scores(net, reference.run(net, x)).tolist() == [[0, 1, 1, 1]]


def test_readout_of_what_has_no_membrane_is_what_it_sends() -> None:
    net = ir.chain({"i": ir.Input((2,)), "l": ir.Linear(np.eye(2)), "o": ir.Output("sum")}, DT)
    assert reference.scores(net, reference.run(net, np.ones((3, 1, 2)))).tolist() == [[3, 3]]


def test_record_holds_what_was_asked_for() -> None:
    net = ir.chain({"i": ir.Input((2,)), "n": ir.IF(0.5), "l": ir.LI(1e-3), "o": ir.Output("sum")}, DT)
    x = np.ones((3, 2, 2), np.uint8)
    all_of_it = reference.run(net, x, record=reference.RECORDS)
    assert set(all_of_it.spikes) == {"n"}
    assert set(all_of_it.v) == set(all_of_it.i) == {"n", "l"}
    assert set(all_of_it.sent) == set(net.nodes)
    assert all_of_it.spikes["n"].dtype == np.uint8
    for table in (all_of_it.spikes, all_of_it.v, all_of_it.i, all_of_it.sent, all_of_it.answers):
        assert all(rows.shape == (3, 2, 2) for rows in table.values())
    little = reference.run(net, x, record="v")
    assert not little.spikes
    assert not little.sent
    assert set(little.v) == {"n", "l"}
    with pytest.raises(SimulationError, match="record may hold"):
        reference.run(net, x, record=("voltage",))


@pytest.mark.parametrize(
    ("dense", "says"),
    [
        (np.ones((3, 2)), r"must be \[time, batch, 2\]"),
        (np.ones((3, 1, 3)), r"got shape \(3, 1, 3\)"),
        (np.ones((0, 1, 2)), "got shape"),
        (np.ones((3, 0, 2)), "got shape"),
        (np.full((3, 1, 2), np.nan), "NaN or infinite"),
        (np.full((3, 1, 2), "1"), "real numbers"),
        (np.full((3, 1, 2), 1j), "real numbers"),
        (np.full((3, 1, 2), None), "real numbers"),
        ([[[1, 2]], [[1]]], "cannot be read"),
        (None, "real numbers"),
        (np.ones((3, 1, 2), np.longdouble), "at most 64 bits"),
    ],
)
def test_input_is_checked(dense: Any, says: str) -> None:
    net = ir.chain({"i": ir.Input((2,)), "n": ir.IF(0.5), "o": ir.Output()}, DT)
    with pytest.raises(SimulationError, match=says):
        reference.run(net, dense)


def test_an_unstable_network_is_named() -> None:
    nodes = {"i": ir.Input((1,)), "n": ir.LI(1e-3), "r": ir.Linear([[1e200]]), "o": ir.Output("sum")}
    with pytest.raises(NetworkError, match="'r' leaves the range of float64 in step"):
        reference.run(graph(nodes, "in nr rn no"), np.ones((9, 1, 1)))


def traces(name: str) -> NDArray[np.float64]:
    """[1000, 3]: input, membrane, spike of the LIF neuron of the NIR paper, 0.1 ms per step."""
    return np.loadtxt(NIR / name, delimiter=",")


@pytest.mark.parametrize(("simulator", "lag"), [("norse", 0), ("lava_cpu_float", 1)])
def test_lif_reads_as_other_simulators_do(simulator: str, lag: int) -> None:
    """tau 2.5 ms, dt 0.1 ms, explicit Euler; Lava is one step behind. They compute in float32."""
    theirs = traces(f"lif_{simulator}.csv")
    net = load(NIR / "lif_norse.nir")
    r = reference.run(net, theirs[:, :1, None])
    np.testing.assert_array_equal(r.spikes["1"][: 1000 - lag, 0, 0], theirs[lag:, 2])
    np.testing.assert_allclose(r.v["1"][: 1000 - lag, 0, 0], theirs[lag:, 1], rtol=0, atol=5e-8)
    assert r.spikes["1"].sum() == 4


def test_exact_rule_is_the_exact_solution_until_the_first_spike() -> None:
    """Later they differ: the exact solution resets between steps."""
    theirs = traces("lif_exact.csv")
    net = load(NIR / "lif_norse.nir", discretisation="exact")
    r = reference.run(net, theirs[:, :1, None])
    np.testing.assert_array_equal(r.spikes["1"][:, 0, 0], theirs[:, 2])
    first = int(np.flatnonzero(theirs[:, 2])[0])
    np.testing.assert_allclose(r.v["1"][:first, 0, 0], theirs[:first, 1], rtol=0, atol=2e-9)
    euler = reference.run(load(NIR / "lif_norse.nir"), theirs[:, :1, None])
    assert np.abs(euler.v["1"][:first, 0, 0] - theirs[:first, 1]).max() > 1e-4


def answers_on_nmnist(recordings: range, channels: slice = slice(None)) -> tuple[int, int]:
    """(right, all) of the CNN of sinabs: 300 bins of 1 ms, reset by subtraction as sinabs has it."""
    from neuro.datasets.source import load as load_dataset

    data = load_dataset("nmnist", "all")
    net = load(NIR / "cnn_sinabs.nir", reset="subtract")
    right = 0
    for start in range(recordings.start, recordings.stop, 10):
        chosen = range(start, min(start + 10, recordings.stop))
        dense = data.batch(chosen, DT, 300)[:, :, channels]
        right += int((reference.classify(net, reference.run(net, dense, record=())) == data.labels[chosen]).sum())
    return right, len(recordings)


def test_a_network_of_another_tool_reads_real_recordings() -> None:
    assert answers_on_nmnist(range(2)) == (2, 2)


@pytest.mark.slow
def test_polarity_is_stored_as_it_was_trained() -> None:
    """Seen on recordings 1..100: all right with channel = polarity bit, 88 with the channels exchanged."""
    as_stored, n = answers_on_nmnist(range(40))
    exchanged, _ = answers_on_nmnist(range(40), slice(None, None, -1))
    assert as_stored >= 0.97 * n
    assert exchanged < as_stored
