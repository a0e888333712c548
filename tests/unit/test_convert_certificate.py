"""The certificate: its parts add up, its first T is the first, and no converter that is broken gets one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from axon_convert import data, small_graph

from neuro.convert.certificate import PARTS, Certificate, certify
from neuro.convert.dynamics import Primed
from neuro.convert.engine import moments, run
from neuro.convert.graph import Graph
from neuro.convert.neurons import Firing, Settling
from neuro.convert.ops import Quantise, Reshape
from neuro.convert.pictures import picture
from neuro.convert.quantise import quantise
from neuro.convert.recipes import Spiking, decisions, spike
from neuro.errors import ConversionError


def settled(graph: Graph | None = None, **options: Any) -> Spiking:
    q = quantise(small_graph(), data(), levels=4, **options)
    return Spiking(graph or q, Settling(), q, "st_bif", 16)


def test_first_steps_are_those_of_a_plain_count() -> None:
    made, x = settled(), data(150, seed=5)
    found = certify(small_graph(), made, x, at=(1, 4, 16, 24))
    q = made.reference.values(x)
    decided, valued = [], []
    for moment in moments(made.graph, (x,), 24, Settling()):
        decided.append(torch.equal(moment.estimates["fc2"].argmax(1), q["fc2"].argmax(1)))
        valued.append(all(torch.equal(moment.estimates[n], q[n]) for n in (*made.graph.neurons, "fc2")))

    def from_where(equal: list[bool]) -> int:
        return 2 + max((t for t, e in enumerate(equal) if not e), default=-1)

    assert found.equal_decisions == from_where(decided)
    assert found.equal_values == from_where(valued)
    assert found.exact
    assert found.equal_values is not None
    assert found.equal_values > 1
    assert found.layers["fc2"][16].max == 0.0 == found.layers["relu1"][16].mean
    assert found.scores[16] == found.quantised


def test_scores_and_messages_do_not_depend_on_batches() -> None:
    made, x = settled(), data(70, seed=6)
    y = small_graph().run(x).argmax(1)
    a, b = (certify(small_graph(), made, x, y=y, batch=n, at=(1, 2, 8)).table() for n in (13, 70))
    for key in ("scores", "mismatches", "messages", "equal_values", "original", "quantised"):
        assert a[key] == pytest.approx(b[key]), key
    assert a["alone"] == b["alone"]
    sent = run(made.graph, (x,), 8, Settling()).messages
    assert a["messages"][8] == pytest.approx(sum(float(m.sum()) for m in sent.values()) / 70)


@pytest.mark.parametrize("bits", [None, 3])
@pytest.mark.parametrize("recipe", ["st_bif", "rate", "light", "advanced"])
def test_parts_add_up_to_the_whole_difference(recipe: str, bits: int | None) -> None:
    x = data(60, seed=4)
    made = spike(small_graph(), data(), recipe=recipe, steps=4, quantise={"weight_bits": bits})
    found = certify(small_graph(), made, x, at=(2, 5))
    assert found.rest < 1e-12
    for layer in found.layers.values():
        for distance in layer.values():
            total = distance.parts["total"][0]
            assert sum(distance.parts[p][0] for p in PARTS) == pytest.approx(total, abs=1e-12)
    weights = found.layers["fc2"][2].parts["weights"][2]
    assert (weights > 1e-3) == (bits is not None)
    q = made.reference.values(x)
    total = run(made.graph, (x,), 5, made.dynamics).outputs[-1] - small_graph().run(x)
    assert found.layers["fc2"][5].parts["total"][1] == pytest.approx(float(total.abs().mean()))
    assert found.layers["fc2"][5].max == pytest.approx(
        float((run(made.graph, (x,), 5, made.dynamics).outputs[-1] - q["fc2"]).abs().max())
    )


def broken(how: str, q: Graph) -> tuple[Graph, Any]:
    changed: dict[str, Any] = {}
    if how == "threshold scaled by 1.1":
        old: Any = q.ops["relu2"]
        changed["relu2"] = Quantise(1.1 * old.step, old.low, old.high)
    elif how == "bias dropped":
        old = q.ops["fc1"]
        changed["fc1"] = replace(old, bias=None)
    elif how == "one weight wrong":
        old = q.ops["conv2"]
        weight = old.weight.clone()
        weight[1, 2, 0, 1] += 0.3
        changed["conv2"] = replace(old, weight=weight)
    elif how == "one level too few":
        old = q.ops["relu1"]
        changed["relu1"] = Quantise(old.step, old.low, old.high - 1)
    return q.replace(changed), Settling()


@pytest.mark.parametrize(
    ("how", "where"),
    [("threshold scaled by 1.1", "relu2"), ("bias dropped", "relu3"), ("one weight wrong", "relu2"),
     ("one level too few", "relu1")],
)  # fmt: skip
def test_a_broken_converter_is_caught_and_located(how: str, where: str) -> None:
    made = settled()
    graph, dynamics = broken(how, made.reference)
    x = data(150, seed=5)
    found = certify(small_graph(), replace(made, graph=graph, dynamics=dynamics), x)
    assert not found.exact
    assert found.equal_values is None
    off = {name: layer[32].max for name, layer in found.layers.items()}
    assert off[where] > 0.1
    names = list(off)
    assert all(off[n] == 0 for n in names[: names.index(where)])


def test_a_wrong_start_of_membranes_is_caught() -> None:
    made, x = settled(), data(150, seed=5)
    good = certify(small_graph(), replace(made, dynamics=Firing(0.5)), x)
    bad = certify(small_graph(), replace(made, dynamics=Firing(0.0)), x)
    first = made.graph.neurons[0]
    # the input is even there, so at T = levels integrate-and-fire is the quantised value; from v0 = 0 it rounds down
    assert good.layers[first][4].max == 0.0
    assert bad.layers[first][4].max > 0.1
    assert bad.layers[first][4].parts["unevenness"][0] < -1e-3
    one = {n: Firing(0.5) for n in made.graph.neurons} | {"relu3": Primed(torch.full((12,), 0.9, dtype=torch.float64))}
    single = certify(small_graph(), replace(made, dynamics=one), x)
    assert single.layers["relu2"] == good.layers["relu2"]
    assert single.layers["relu3"] != good.layers["relu3"]


def test_decisions_that_agree_do_not_hide_values_that_differ() -> None:
    made = settled()
    old: Any = made.reference.ops["fc2"]
    scaled = made.reference.replace({"fc2": replace(old, weight=old.weight * 1.1, bias=old.bias * 1.1)})
    found = certify(small_graph(), replace(made, graph=scaled), data(100, seed=5))
    assert found.equal_decisions is not None
    assert found.equal_values is None
    assert found.layers["fc2"][32].max > 0.01


def test_the_layer_that_loses_is_named() -> None:
    made, x = settled(), data(150, seed=5)
    graph, _ = broken("bias dropped", made.reference)
    found = certify(small_graph(), replace(made, graph=made.reference), x, alone_at=32)
    assert all(row["spiking"] == found.quantised for row in found.alone.values())
    coarse = quantise(small_graph(), data(), levels=8)
    worst = coarse.replace({"relu2": Quantise(getattr(coarse.ops["relu2"], "step") * 6, 0, 1)})  # noqa: B009
    found = certify(small_graph(), Spiking(worst, Settling(), worst, "st_bif", 16), x, alone_at=32)
    assert min(found.alone, key=lambda n: found.alone[n]["quantised"]) == "relu2"
    assert graph.neurons == worst.neurons


def test_values_that_are_no_numbers_do_not_pass() -> None:
    made = settled()
    old: Any = made.reference.ops["fc2"]
    lost = made.reference.replace({"fc2": replace(old, bias=old.bias * float("nan"))})
    with pytest.raises(ConversionError, match="not finite"):
        certify(small_graph(), replace(made, graph=lost), data(10))


def test_decisions_of_single_numbers_and_of_many_places() -> None:
    assert decisions(torch.tensor([[0.2], [-0.1]])).tolist() == [True, False]
    assert decisions(torch.tensor([0.2, -0.1])).tolist() == [True, False]
    made = settled()
    old: Any = made.reference.ops["fc2"]
    ops = {**made.reference.ops, "fc2": replace(old, weight=old.weight[:4], bias=old.bias[:4]), "two": Reshape((2, 2))}
    q = Graph(ops, {**made.reference.takes, "two": ("fc2",)}, "two")
    same, takes = {"fc2": ops["fc2"], "two": ops["two"]}, {**small_graph().takes, "two": ("fc2",)}
    original = Graph({**small_graph().ops, **same}, takes, "two")
    x = data(30, seed=5)
    y = original.run(x).argmax(-1)
    found = certify(original, Spiking(q, Settling(), q, "st_bif", 16), x, y=y, at=(1, 16))
    assert found.original == 1.0
    assert found.quantised == float((q.run(x).argmax(-1) == y).double().mean()) <= 1.0


def test_json_text_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found: Certificate = certify(small_graph(), settled(), data(40, seed=5), at=(1, 2, 4, 8))
    found.save(tmp_path / "c.json")
    read = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert read["equal_values"] == found.equal_values
    assert read["layers"]["relu1"]["4"]["parts"]["clipping"][1] == found.layers["relu1"][4].parts["clipping"][1]
    assert "relu2: max |q - s|" in str(found)
    picture(found, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_what_cannot_be_certified_is_said() -> None:
    made = settled()
    with pytest.raises(ConversionError) as caught:
        certify(small_graph(), made, data(10), y=torch.zeros(9, dtype=torch.int64), at=())
    assert len(caught.value.violations) == 2
