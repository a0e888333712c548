"""Quantising: where neurons are put, what their steps are fitted to, and that sums on a grid are exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from axon_convert import Messages, data, small_graph

from neuro.convert.engine import moments, run
from neuro.convert.graph import Graph
from neuro.convert.grid import of_values, off_grid, on_grid, short
from neuro.convert.neurons import Firing, Settling
from neuro.convert.ops import (
    Add,
    Affine,
    Conv,
    Function,
    Input,
    LayerNorm,
    Linear,
    MatMul,
    Mean,
    Quantise,
    Reshape,
    Softmax,
)
from neuro.convert.quantise import fold, quantise, round_weight
from neuro.errors import ConversionError


def test_batch_norm_is_folded_and_the_answer_stays() -> None:
    graph, x = small_graph(), data()
    folded = fold(graph)
    assert "bn1" not in folded.ops
    assert folded.takes["relu1"] == ("conv1",)
    assert torch.allclose(folded.run(x), graph.run(x), rtol=0, atol=1e-12)


def test_an_affine_that_others_see_unscaled_is_not_folded() -> None:
    graph = small_graph()
    seen = Graph(graph.ops, {**graph.takes, "sum": ("conv1", "conv2")}, graph.output)
    assert "bn1" in fold(seen).ops
    uneven = graph.replace({"bn1": Affine(torch.rand(4, 6, 6, dtype=torch.float64), None)})
    assert "bn1" in fold(uneven).ops


@pytest.mark.parametrize("method", ["mse", "max", "percentile"])
def test_every_rectifier_becomes_neurons_of_the_same_name(method: str) -> None:
    graph, x = small_graph(), data()
    q = quantise(graph, x, levels=8, method=method)
    assert q.neurons == ("relu1", "relu2", "relu3")
    assert (q.run(x) - graph.run(x)).abs().mean() < 0.1 * graph.run(x).abs().mean()


def test_steps_are_those_of_the_method() -> None:
    graph, x = small_graph(), data()
    values = fold(graph).values(x)
    top = quantise(graph, x, levels=4, method="max").ops["relu2"]
    assert isinstance(top, Quantise)
    assert torch.equal(top.step, short(values["relu2"].max() / 4))
    half = quantise(graph, x, levels=4, method="percentile", percentile=50).ops["relu2"]
    positive = values["relu2"][values["relu2"] > 0]
    assert isinstance(half, Quantise)
    assert abs(half.step * 4 / positive.median() - 1) < 0.02
    best = quantise(graph, x, levels=4).ops["relu2"]
    assert isinstance(best, Quantise)

    def cost(step: torch.Tensor) -> float:
        return float(((Quantise(step, 0, 4).value(values["relu2"]) - values["relu2"]) ** 2).mean())

    assert all(cost(best.step) <= cost(best.step * f) * 1.02 for f in (0.5, 0.8, 0.9, 1.1, 1.25, 2.0))


def test_steps_per_channel() -> None:
    q = quantise(small_graph(), data(), per_channel=True)
    conv, fc = q.ops["relu1"], q.ops["relu3"]
    assert isinstance(conv, Quantise)
    assert conv.step.shape == (4, 1, 1)
    assert isinstance(fc, Quantise)
    assert fc.step.shape == (12,)


def test_a_dead_population_gets_a_step_too() -> None:
    graph = small_graph()
    dead = graph.replace({"conv1": Conv(torch.zeros(4, 1, 3, 3, dtype=torch.float64), padding=(1, 1)),
                          "bn1": Affine(torch.ones(4, 1, 1, dtype=torch.float64))})  # fmt: skip
    q = quantise(dead, data()).ops["relu1"]
    assert isinstance(q, Quantise)
    assert q.step > 0


@pytest.mark.parametrize(("bits", "most"), [(2, 1), (4, 7), (8, 127), ("ternary", 1)])
def test_weights_are_whole_multiples_of_one_short_scale(bits: int, most: int) -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = round_weight(weight, bits)  # type: ignore[arg-type]
    scale = found.abs()[found != 0].min()
    k = found / scale
    assert torch.equal(k, k.round())
    assert k.abs().max() <= most
    assert of_values(scale).most / 2.0 ** of_values(scale).unit < 256
    if bits == 8:
        assert (found - weight).abs().max() <= 0.51 * scale


def transformer_like() -> Graph:
    rng = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64) / shape[-1] ** 0.5

    ops = {
        "x": Input((5, 8)),
        "norm": LayerNorm((8,)),
        "q": Linear(weight(8, 8)),
        "k": Linear(weight(8, 8)),
        "scores": MatMul(transposed=True),
        "soft": Softmax(),
        "mixed": MatMul(),
        "act": Function("gelu"),
        "flat": Reshape((40,)),
        "out": Linear(weight(3, 40)),
    }
    takes = {"norm": ("x",), "q": ("norm",), "k": ("norm",), "scores": ("q", "k"), "soft": ("scores",),
             "mixed": ("soft", "k"), "act": ("mixed",), "flat": ("act",), "out": ("flat",)}  # fmt: skip
    return Graph(ops, takes, "out")


def test_everywhere_puts_neurons_in_front_of_what_needs_events() -> None:
    graph = transformer_like()
    x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    q = quantise(graph, x, levels=16, everywhere=True)
    assert set(q.neurons) == {f"{n}.events" for n in ("norm", "q", "k", "scores", "soft", "mixed", "flat")}
    assert q.takes["q"] == q.takes["k"] == ("norm.events",)
    scores, soft = q.ops["scores.events"], q.ops["soft.events"]
    assert isinstance(scores, Quantise)
    assert isinstance(soft, Quantise)
    assert (scores.low, soft.low) == (-16, 0)
    weights = quantise(graph, x, levels=16, everywhere="weights")
    assert set(weights.neurons) == {f"{n}.events" for n in ("norm", "q", "k", "soft", "flat")}
    settled = run(q, (x,), 200, Settling()).outputs[-1]
    assert torch.equal(settled, q.run(x))


def test_no_place_for_neurons_is_said() -> None:
    with pytest.raises(ConversionError, match="everywhere=True"):
        quantise(transformer_like(), torch.zeros(2, 5, 8, dtype=torch.float64))


def test_options_out_of_range_are_all_named() -> None:
    with pytest.raises(ConversionError) as caught:
        quantise(small_graph(), data(), levels=0, method="least", percentile=0, weight_bits=1, input_levels=0)
    assert len(caught.value.violations) == 5


def exact_graph() -> Graph:
    return quantise(small_graph(), data(), levels=4, weight_bits=5, input_levels=15)


def test_on_a_grid_or_why_not() -> None:
    assert on_grid(exact_graph())
    assert on_grid(quantise(small_graph(), data(), weight_bits="ternary", input_levels=3))
    plain = off_grid(quantise(small_graph(), data(), input_levels=15))
    assert plain
    assert "bits" in plain[0]
    unquantised = quantise(small_graph(), data(), weight_bits=4)
    assert "conv1" in off_grid(unquantised)[0]
    assert on_grid(unquantised, (data() * 255).round() / 256)
    assert not on_grid(unquantised, data())


def test_means_and_products_of_values_are_on_a_grid_where_lengths_allow() -> None:
    step = torch.tensor(0.25, dtype=torch.float64)

    def graph(width: int) -> Graph:
        ops = {"x": Input((4, width)), "n": Quantise(step, 0, 4), "m": Mean((2,)), "p": MatMul(transposed=True)}
        return Graph(ops | {"s": Mean((1,)), "a": Add()}, {"n": ("x",), "p": ("n", "n"), "s": ("p",), "m": ("n",),
                                                          "a": ("m", "s")}, "a")  # fmt: skip

    assert on_grid(graph(8))
    assert off_grid(graph(6))[0] == "'m' divides by a number that is no power of two"


def test_message_by_message_equals_the_engine_settling() -> None:
    graph, x = exact_graph(), data(3, seed=7)

    def st_bif(total: object, count: int, neurons: Quantise, t: int) -> int:
        v = total + 0.5 - count  # type: ignore[operator]  # of the paper, in steps
        return 1 if v >= 1 and count < neurons.high else -1 if v < 0 and count > neurons.low else 0

    for sample in range(len(x)):
        other = Messages(graph, x[sample], st_bif, again=False, seed=sample)
        for moment in moments(graph, (x[sample : sample + 1],), 12, Settling()):
            other.step()
            for name in graph.order:
                assert torch.equal(moment.estimates[name][0], other.sum(name)), (sample, moment.t, name)


def test_message_by_message_equals_the_engine_firing() -> None:
    graph, x = exact_graph(), data(2, seed=8)
    # halves at the threshold happen: everything is a small whole number of units

    def fires(total: object, count: int, neurons: Quantise, t: int) -> int:
        theta = neurons.high
        return int(2 * total + theta >= 2 * theta * (count + 1))  # type: ignore[operator]

    quarter = torch.tensor(0.25, dtype=torch.float64)
    graph = graph.replace({n: Quantise(quarter, 0, 4) for n in graph.neurons})
    for name in ("conv1", "conv2", "fc1", "fc2"):
        old: Any = graph.ops[name]
        weight, bias = (old.weight * 4).round() / 4, (old.bias * 16).round() / 16
        graph = graph.replace({name: replace(old, weight=weight, bias=bias)})
    for sample in range(len(x)):
        other = Messages(graph, x[sample], fires, again=True, seed=sample)
        for moment in moments(graph, (x[sample : sample + 1],), 9, Firing()):
            other.step()
            for name in graph.order:
                mean = other.sum(name) / moment.t
                assert torch.allclose(moment.estimates[name][0], mean, rtol=0, atol=1e-12), (sample, moment.t, name)
