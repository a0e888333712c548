"""Laws of the meaning of a network: causality, batching, time shift, permutation, scalars, loops of zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from axon_strategies import LAW, SPIKING, inputs, networks
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuro import ir, reference
from neuro.reference import RECORDS, Record, run


def assert_same_record(a: Record, b: Record, *, pick: Any = slice(None)) -> None:
    """All series equal to the last bit; of ``a`` only what ``pick`` takes."""
    for kind in (*RECORDS, "answers"):
        ours, theirs = getattr(a, kind), getattr(b, kind)
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name][pick], theirs[name], err_msg=f"{kind} of {name}")


@LAW
@given(st.data())
def test_the_future_does_not_act_on_the_past(data: st.DataObject) -> None:
    net = data.draw(networks())
    x = data.draw(inputs(net, steps=10))
    now = data.draw(st.integers(1, len(x)))
    other = x.copy()
    other[now:] = 1 - other[now:]
    assert_same_record(run(net, other, record=RECORDS), run(net, x[:now], record=RECORDS), pick=slice(now))


@LAW
@given(st.data())
def test_a_sample_does_not_depend_on_its_batch(data: st.DataObject) -> None:
    """To the last bit, weights of any fraction included."""
    fractions = st.integers(-50, 100).map(lambda k: k / 30)
    net = data.draw(networks(elements=fractions))
    x = data.draw(inputs(net, batch=4))
    whole = run(net, x, record=RECORDS)
    for b in range(x.shape[1]):
        assert_same_record(whole, run(net, x[:, b : b + 1], record=RECORDS), pick=(slice(None), slice(b, b + 1)))
    order = data.draw(st.permutations(range(x.shape[1])))
    assert_same_record(whole, run(net, x[:, order], record=RECORDS), pick=(slice(None), order))


@LAW
@given(st.data())
def test_a_silent_start_only_shifts_time(data: st.DataObject) -> None:
    net = data.draw(networks(quiet=True))
    x = data.draw(inputs(net))
    wait = data.draw(st.integers(1, 4))
    late = np.concatenate([np.zeros_like(x[:1]).repeat(wait, axis=0), x])
    before, after = run(net, x, record=RECORDS), run(net, late, record=RECORDS)
    assert_same_record(after, before, pick=slice(wait, None))
    for name, rows in after.spikes.items():
        assert not rows[:wait].any(), name


@LAW
@given(st.data())
def test_neurons_may_be_numbered_anew(data: st.DataObject) -> None:
    """Reordering a hidden population and the weights around it reorders its activity and nothing else."""
    net = data.draw(networks(images=False, kinds=SPIKING, blocks=2).filter(lambda n: "pop1" in n.nodes))
    x = data.draw(inputs(net))
    order = np.array(data.draw(st.permutations(range(net.shapes["pop0"][0]))))
    other = net.replace_nodes(renumbered(net, "pop0", order))
    a, b = run(net, x, record=["spikes", "v"]), run(other, x, record=["spikes", "v"])
    np.testing.assert_array_equal(a.v["pop0"][..., order], b.v["pop0"])
    for name in net.of(ir.Neuron):
        if name != "pop0":
            np.testing.assert_array_equal(a.v[name], b.v[name])


def renumbered(net: ir.Network, name: str, order: NDArray[np.int64]) -> dict[str, ir.Node]:
    """Every node between the population and the next ones, with its rows or columns reordered."""
    changed: dict[str, ir.Node] = {}

    def reorder(node: ir.Node, axis: int, fields: tuple[str, ...]) -> ir.Node:
        values = {k: v for k, v in vars(node).items() if k in fields and v is not None}
        kept = {k: v for k, v in vars(node).items() if k not in values}
        return type(node)(**kept, **{k: np.take(v, order, axis=min(axis, v.ndim - 1)) for k, v in values.items()})

    before = [name]
    while before:  # back to the Linear that makes the population's channels
        source = before.pop()
        node = changed.get(source, net.nodes[source])
        rows = ("weight", "delay_steps", "bias") if isinstance(node, ir.Linear) else tuple(vars(node))
        strings = ("reset",)
        changed[source] = reorder(node, 0, tuple(f for f in rows if f not in strings))
        if not isinstance(node, ir.Linear):
            before += [s for s in net.sources(source) if s not in changed]
    after = list(net.targets(name))
    seen: set[str] = set()
    while after:  # on to every Linear that reads them
        target = after.pop()
        node = changed.get(target, net.nodes[target])
        if target in seen or target == name:
            continue
        seen.add(target)
        if isinstance(node, ir.Linear):
            changed[target] = reorder(node, 1, ("weight", "delay_steps"))
        else:
            changed[target] = reorder(node, 0, ("scale", "steps"))
            after += net.targets(target)
    return changed


@LAW
@given(st.data())
def test_one_parameter_for_all_is_the_same_parameter_for_each(data: st.DataObject) -> None:
    """The network holds full parameters; built again from scalars where all are equal, it is the same."""
    net = data.draw(networks())
    scalars: dict[str, ir.Node] = {}
    for name, node in net.nodes.items():
        if isinstance(node, ir.Neuron):
            given = {k: getattr(node, k) for k in node._parameters()}
            reset = {"reset": node.reset} if isinstance(node, SPIKING) else {}
            few = {k: v.flat[0] if (v == v.flat[0]).all() else v for k, v in given.items()}
            scalars[name] = type(node)(**few, **reset)
        elif isinstance(node, ir.Scale) and (node.scale == node.scale.flat[0]).all():
            scalars[name] = ir.Scale(node.scale.flat[0])
        elif isinstance(node, ir.Delay) and (node.steps == node.steps.flat[0]).all():
            scalars[name] = ir.Delay(node.steps.flat[0])
    x = data.draw(inputs(net))
    assert_same_record(run(net, x, record=RECORDS), run(net.replace_nodes(scalars), x, record=RECORDS))


@LAW
@given(st.data())
def test_delays_of_zero_are_no_delays(data: st.DataObject) -> None:
    net = data.draw(networks(delays=False))
    x = data.draw(inputs(net))
    changed: dict[str, ir.Node] = {}
    for name, node in net.nodes.items():
        if isinstance(node, ir.Linear):
            bias = {"bias": node.bias} if isinstance(node, ir.Affine) else {}
            changed[name] = type(node)(node.weight, np.zeros(node.weight.shape), **bias)
    assert_same_record(run(net, x, record=RECORDS), run(net.replace_nodes(changed), x, record=RECORDS))


@LAW
@given(st.data())
def test_an_axonal_delay_is_the_same_delay_on_every_synapse(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    ins, outs, longest = (data.draw(st.integers(1, 4)) for _ in range(3))
    steps, weight = rng.integers(0, longest + 1, ins), rng.integers(-8, 9, (outs, ins)) / 8
    x = rng.integers(0, 2, (7, 2, ins))
    ends: dict[str, ir.Node] = {"i": ir.Input((ins,)), "o": ir.Output("sum")}
    axonal = ir.chain({"i": ends["i"], "d": ir.Delay(steps), "w": ir.Linear(weight), "o": ends["o"]}, 1e-3)
    synaptic = ir.Linear(weight, np.broadcast_to(steps, (outs, ins)))
    other = ir.chain({"i": ends["i"], "w": synaptic, "o": ends["o"]}, 1e-3)
    np.testing.assert_array_equal(run(axonal, x).answers["o"], run(other, x).answers["o"])


@LAW
@given(st.data())
def test_order_of_declaration_does_not_matter(data: st.DataObject) -> None:
    """Nodes and edges may be listed in any order; which edge of a loop is late does not change the sums."""
    net = data.draw(networks())
    x = data.draw(inputs(net))
    names = data.draw(st.permutations(list(net.nodes)))
    edges = data.draw(st.permutations(net.edges))
    other = ir.Network({n: net.nodes[n] for n in names}, tuple(edges), net.dt, net.discretisation)
    a, b = run(net, x, record=["v"]), run(other, x, record=["v"])
    for name in a.v:
        np.testing.assert_allclose(a.v[name], b.v[name], rtol=1e-9, atol=1e-9)


@LAW
@given(st.data())
def test_convolutions_are_torchs(data: st.DataObject) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    net = data.draw(networks(blocks=1).filter(lambda n: bool(n.of(ir.Conv2d))))
    x = data.draw(inputs(net))
    (name,) = net.of(ir.Conv2d)
    node = net.nodes[name]
    assert isinstance(node, ir.Conv2d)
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(x.reshape(-1, *x.shape[2:]).astype(np.float64)),
        *(torch.from_numpy(a.copy()) for a in (node.weight, node.bias)),
        node.stride,
        node.padding,
        node.dilation,
        node.groups,
    )
    sent = run(net, x, record=["sent"]).sent[name]
    np.testing.assert_array_equal(sent.reshape(-1, *sent.shape[2:]), wanted.numpy())


@LAW
@given(st.data())
def test_scores_are_sums_over_time(data: st.DataObject) -> None:
    """Counts and sums of two halves add up; the maximum of both is the maximum of all."""
    net = data.draw(networks())
    record = run(net, data.draw(inputs(net)), record=())
    series = record.answers["output"].reshape(*record.answers["output"].shape[:2], -1)
    output = net.nodes["output"]
    assert isinstance(output, ir.Output)
    fold = {"count": np.sum, "sum": np.sum, "max": np.max, "last": lambda rows, axis: rows[-1]}[output.readout]
    np.testing.assert_array_equal(reference.scores(net, record), fold(series, axis=0))
    decided = reference.classify(net, record)
    scores = reference.scores(net, record)
    for b, choice in enumerate(decided):
        assert scores[b, choice] == scores[b].max()
        assert not (scores[b, :choice] == scores[b].max()).any()
