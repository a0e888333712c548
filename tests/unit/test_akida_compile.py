"""From networks with quantised activations to Akida's integers: exact where it can be, refused by name where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuro import ir, reference
from neuro.errors import ChipError, DoesNotFit, PrecisionLoss, UnsupportedNode
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.akida1 import compiler
from neuro.hardware.akida1.compiler import thresholds
from neuro.hardware.akida2.compiler import mantissa
from neuro.hardware.certify import certify

CHIPS = ("akida1", "akida2")


def whole(rng, *shape, top=7):
    return rng.integers(-top, top + 1, shape).astype(float)


def dyadic(conv_bias=True, levels=15, high=15, channels=2, readout_bias=False, size=12):
    """Weights, steps and biases that both chips hold exactly."""
    rng = np.random.default_rng(3)
    bias = rng.integers(-40, 41, 6) * 1.0 if conv_bias else np.zeros(6)
    last = whole(rng, 4, 6 * (size // 4) ** 2, top=1) / 8  # times steps of 1 to 4: within 4 bits
    nodes = {
        "in": ir.Input((channels, size, size), high),
        "conv1": ir.Conv2d(whole(rng, 6, channels, 3, 3) / 4, padding=1, bias=bias / 4),
        "relu1": ir.QuantisedReLU(8.0, levels),
        "pool1": ir.MaxPool2d(2, 2),
        "conv2": ir.Conv2d(whole(rng, 6, 6, 3, 3) / 2, padding=1, bias=4 * bias),
        "pool2": ir.MaxPool2d(2, 2),
        "relu2": ir.QuantisedReLU(np.array([64.0, 32.0, 64.0, 128.0, 64.0, 32.0]).reshape(6, 1, 1), levels),
        "flat": ir.Flatten(),
        "read": ir.Affine(last, bias=4 * np.arange(4.0)) if readout_bias else ir.Linear(last),
        "out": ir.Output("sum"),
    }
    return ir.chain(nodes, dt=0.3)


def chain(channels, size, *layers, high=15):
    """A network of the given layers between an input and a Linear."""
    nodes = {"in": ir.Input((channels, size, size), high), **{f"n{k}": layer for k, layer in enumerate(layers)}}
    shape = ir.chain({**nodes, "out": ir.Output("sum")}, dt=1.0).shapes[f"n{len(layers) - 1}"]
    rng = np.random.default_rng(1)
    return ir.chain(
        {**nodes, "f": ir.Flatten(), "read": ir.Linear(whole(rng, 3, int(np.prod(shape))) / 8), "out": ir.Output()}
        | {"out": ir.Output("sum")},
        dt=1.0,
    )


def frames(network, count=5, seed=0):
    node = network.nodes[network.input]
    rng = np.random.default_rng(seed)
    return np.minimum(rng.poisson(2.0, (1, count, *node.shape)), node.high).astype(np.uint8)


def same_as_reference(network, chip, **options):
    """Every value of every layer, and the scores, equal the float network's."""
    program = compile_network(network, chip, **options)
    x = frames(network)
    trace = simulate(program, x, probes=[(program.output, "p")])
    record = reference.run(network, x, record=("sent",))
    for name in program.populations:
        node = network.nodes[name]
        if not isinstance(node, ir.QuantisedReLU):
            continue
        (target,) = network.targets(name)
        end = target if isinstance(network.nodes[target], ir.MaxPool2d) else name
        step = node.step if end == name else node.step[:, :1, :1]
        wanted = (record.sent[end] / step)[0].reshape(len(x[0]), -1)
        assert np.array_equal(trace.spikes[name][0], wanted), name
    scores = record.answers[network.output][0].reshape(len(x[0]), -1)
    assert np.allclose(trace.scores * program.scale[program.output], scores, rtol=1e-12)
    assert certify(program, x.reshape(1, len(x[0]), -1)).passed
    return program


@pytest.mark.parametrize("chip", CHIPS)
def test_what_both_sides_can_hold_is_exact(chip):
    program = same_as_reference(dyadic(), chip, strict=True)
    assert program.substitutions == ()
    assert all(row.max_error < 1e-12 for row in program.budget if row.quantity != "threshold")
    assert program.populations["relu1"].shape == (6, 6, 6)
    assert program.skew == dict.fromkeys(program.populations, 0)
    assert {int(p.params["bits"]) for p in program.projections} == {4}


@pytest.mark.parametrize(("chip", "levels"), [("akida1", 1), ("akida1", 3), ("akida2", 7), ("akida2", 127)])
def test_other_numbers_of_levels(chip, levels):
    same_as_reference(dyadic(levels=levels), chip, strict=True)


def test_a_readout_may_have_a_bias_on_akida2_only():
    same_as_reference(dyadic(readout_bias=True), "akida2")
    with pytest.raises(UnsupportedNode, match="'read' has a bias, which lives in a threshold"):
        compile_network(dyadic(readout_bias=True), "akida1")


def test_images_of_eight_bits_enter_an_input_convolution():
    network = dyadic(high=255, channels=3)
    for chip in CHIPS:
        program = same_as_reference(network, chip)
        assert program.high == 255
    with pytest.raises(DoesNotFit, match="largest input of this layer is 255, allowed 15"):
        compile_network(dyadic(high=255, channels=2), "akida1")
    with pytest.raises(DoesNotFit, match="allowed 127"):
        compile_network(dyadic(high=255, channels=2), "akida2")
    compile_network(dyadic(high=15), "akida1")  # the remedies
    compile_network(dyadic(high=127), "akida2")


@pytest.mark.parametrize("chip", CHIPS)
def test_a_strided_convolution_finds_a_window_of_the_chip(chip):
    """Padding 1 on an even side is not the chip's "same" for 3 x 3; inside 5 x 5 it is."""
    rng = np.random.default_rng(5)
    conv = ir.Conv2d(whole(rng, 4, 2, 3, 3), stride=2, padding=1)
    program = same_as_reference(chain(2, 12, conv, ir.QuantisedReLU(32.0, 15)), chip)
    assert program.projections[0].weight_q.shape[2:] == (5, 5)
    odd = chain(2, 13, conv, ir.QuantisedReLU(32.0, 15))
    assert same_as_reference(odd, chip).projections[0].weight_q.shape[2:] == (3, 3)


@pytest.mark.parametrize("chip", CHIPS)
def test_averages_and_scales_fold_into_the_weights_behind(chip):
    rng = np.random.default_rng(6)
    layers = (
        ir.Conv2d(whole(rng, 4, 2, 3, 3), padding=1), ir.QuantisedReLU(16.0, 15), ir.AvgPool2d(2, 2), ir.Scale(0.5),
        ir.Conv2d(whole(rng, 4, 4, 1, 1), bias=whole(rng, 4) * 8), ir.QuantisedReLU(32.0, 15), ir.AvgPool2d(6, 6),
    )  # fmt: skip
    network = chain(2, 12, *layers)
    if chip == "akida1":  # a kernel of 2 x 2 with stride 2 lies in 3 x 3
        assert same_as_reference(network, chip).projections[1].weight_q.shape == (4, 4, 3, 3)
    else:
        same_as_reference(network, chip)


def test_akida1_pools_globally_in_front_of_an_activation():
    rng = np.random.default_rng(7)
    for pool, step in ((ir.AvgPool2d(8, 8), 2.0), (ir.SumPool2d(8, 8), 128.0)):
        bias = whole(rng, 4) * step / 8
        layers = (ir.Conv2d(whole(rng, 4, 2, 3, 3), padding=1, bias=bias / 64), pool, ir.QuantisedReLU(step, 15))
        program = same_as_reference(chain(2, 8, *layers), "akida1")
        assert program.populations["n2"].params["gap"] == 1
        assert program.populations["n2"].shape == (4, 1, 1)


def test_separable_and_depthwise_convolutions():
    rng = np.random.default_rng(8)
    depthwise = ir.Conv2d(whole(rng, 4, 1, 3, 3), padding=1, groups=4, bias=16 * whole(rng, 4))
    start = (ir.Conv2d(whole(rng, 4, 2, 3, 3), padding=1), ir.QuantisedReLU(16.0, 15))
    point = ir.Conv2d(whole(rng, 5, 4, 1, 1), bias=whole(rng, 5) * 64)
    apart = chain(2, 8, *start, depthwise, ir.QuantisedReLU(32.0, 15), point, ir.QuantisedReLU(64.0, 15))
    program = same_as_reference(apart, "akida2")
    assert int(program.projections[1].params["groups"]) == 4
    full = same_as_reference(apart, "akida1").projections[1]  # Akida 1 has no depthwise layer alone: zeros elsewhere
    assert full.weight_q.shape == (4, 4, 3, 3)
    assert np.count_nonzero(full.weight_q) <= 4 * 9
    together = chain(2, 8, *start, depthwise, point, ir.QuantisedReLU(512.0, 15))
    program = same_as_reference(together, "akida1")
    assert [p.model for p in program.populations.values()] == ["input", "code", "potential", "code", "potential"]
    assert not certify(compile_network(together, "akida2"), frames(together).reshape(1, 5, -1)).mismatches


def test_layers_behind_an_image_of_one_pixel():
    """A kernel that covers its image is a matrix, and what follows may be a convolution all the same."""
    rng = np.random.default_rng(10)
    layers = (
        ir.Conv2d(whole(rng, 6, 2, 5, 5)), ir.QuantisedReLU(64.0, 15),
        ir.Conv2d(whole(rng, 4, 6, 1, 1)), ir.QuantisedReLU(512.0, 15),
    )  # fmt: skip
    for chip in CHIPS:
        program = same_as_reference(chain(2, 5, *layers), chip)
        assert [p.kind for p in program.projections] == ["dense"] * 3


def test_few_bits_of_one_channel_need_no_input_convolution():
    rng = np.random.default_rng(11)
    conv, relu = ir.Conv2d(whole(rng, 4, 1, 1, 1)), ir.QuantisedReLU(8.0, 15)
    pool = ir.MaxPool2d(2, 1)  # an input convolution has none every pixel
    for chip in CHIPS:
        program = same_as_reference(chain(1, 6, conv, relu, high=255), chip)
        assert program.projections[0].weight_q.shape[2:] == (3, 3)  # it has no 1 x 1 either
        same_as_reference(chain(1, 6, conv, relu, pool), chip)
        with pytest.raises(DoesNotFit, match="max-pool behind a layer InputConv"):
            compile_network(chain(1, 6, conv, relu, pool, high=255), chip)
    pooled = (ir.Conv2d(whole(rng, 4, 1, 3, 3), padding=1), ir.AvgPool2d(8, 8), ir.QuantisedReLU(2.0, 15))
    same_as_reference(chain(1, 8, *pooled), "akida1")
    with pytest.raises(DoesNotFit, match="global average behind the input convolution"):
        compile_network(chain(1, 8, *pooled, high=255), "akida1")


def test_dilation_is_written_out():
    rng = np.random.default_rng(9)
    conv = ir.Conv2d(whole(rng, 4, 2, 3, 3), padding=2, dilation=2)
    for chip in CHIPS:
        program = same_as_reference(chain(2, 9, conv, ir.QuantisedReLU(32.0, 15)), chip)
        assert program.projections[0].weight_q.shape[2:] == (5, 5)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("node", [ir.IF(1.0), ir.LIF(tau_mem=0.01, v_threshold=1.0), ir.LI(tau_mem=0.01), ir.Delay(2)])
def test_a_memory_is_refused_with_the_reason_and_the_nearest_that_runs(chip, node):
    rng = np.random.default_rng(0)
    nodes = {"in": ir.Input((3,)), "w": ir.Linear(whole(rng, 2, 3)), "n": node, "r": ir.Linear(whole(rng, 2, 2))}
    network = ir.chain(nodes | {"out": ir.Output("sum")}, dt=1e-3)
    with pytest.raises(UnsupportedNode) as caught:
        compile_network(network, chip)
    text = str(caught.value)
    for word in (f"'n' is a {type(node).__name__}", "between frames", "QuantisedReLU", "nmnist_akida"):
        assert word in text


def test_a_recurrent_network_is_refused_by_name():
    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((3,)), "w": ir.Linear(whole(rng, 2, 3)), "lif": ir.LIF(tau_mem=0.01, v_threshold=1.0),
        "back": ir.Linear(whole(rng, 2, 2)), "out": ir.Output("count"),
    }  # fmt: skip
    edges = (("in", "w"), ("w", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "out"))
    for chip in CHIPS:
        with pytest.raises(UnsupportedNode, match=r"'lif' is a LIF, which akida[12] cannot hold: it keeps a membrane"):
            compile_network(ir.Network(nodes, edges, 1e-3), chip)


@pytest.mark.parametrize("chip", CHIPS)
def test_parts_that_are_no_layer_are_named_all_at_once(chip):
    rng = np.random.default_rng(0)
    nodes = {
        "in": ir.Input((2, 8, 8), 15),
        "a": ir.Conv2d(whole(rng, 2, 2, 3, 3), padding=1),
        "qa": ir.QuantisedReLU(4.0, 15),
        "b": ir.Conv2d(whole(rng, 2, 2, 3, 3), padding=1),
        "qb": ir.QuantisedReLU(np.arange(1.0, 129.0).reshape(2, 8, 8), 15),
        "f": ir.Flatten(),
        "delayed": ir.Linear(whole(rng, 3, 128), np.ones((3, 128), int)),
        "out": ir.Output("sum"),
    }
    edges = (("in", "a"), ("a", "qa"), ("qa", "b"), ("in", "b"), ("b", "qb"), ("qb", "f"), ("f", "delayed"))
    with pytest.raises(UnsupportedNode) as caught:
        compile_network(ir.Network(nodes, (*edges, ("delayed", "out")), 1.0), chip)
    text = str(caught.value)
    for word in ("'delayed' has a delay per synapse", "'b' adds up 2 layers (qa, in)"):
        assert word in text
    nodes |= {"delayed": ir.Linear(whole(rng, 3, 128))}
    edges = (("in", "a"), ("a", "qa"), ("qa", "b"), ("b", "qb"), ("qb", "f"), ("f", "delayed"), ("delayed", "out"))
    with pytest.raises(UnsupportedNode, match="step of 'qb' differs within a channel"):
        compile_network(ir.Network(nodes, edges, 1.0), chip)


def test_a_pool_out_of_place_and_a_layer_without_weights():
    rng = np.random.default_rng(0)
    conv, relu = ir.Conv2d(whole(rng, 2, 2, 3, 3), padding=1), ir.QuantisedReLU(4.0, 15)
    for layers, word in (
        ((ir.MaxPool2d(2, 2), conv, relu), "must stand right behind"),
        ((conv, ir.MaxPool2d(2, 2), relu, ir.MaxPool2d(2, 2)), "one max-pool"),
        ((ir.Scale(2.0), relu), "nothing with weights"),
        ((conv, ir.MaxPool2d(2, 2)), "must stand right behind"),
        ((conv, relu, conv, conv, relu), "keep the layers from becoming one"),
        ((ir.Conv2d(whole(rng, 2, 2, 8, 8)), ir.MaxPool2d(2, 1, 1), relu), "one value to choose from"),
    ):
        with pytest.raises(UnsupportedNode, match=word):
            compile_network(chain(2, 8, *layers), "akida1")


def test_every_limit_is_named_at_once_and_the_remedies_work():
    rng = np.random.default_rng(0)
    layers = [
        ir.Conv2d(whole(rng, 3, 2, 3, 3), stride=3, padding=1), ir.QuantisedReLU(8.0, 7),
        ir.Conv2d(whole(rng, 3, 3, 3, 3)), ir.QuantisedReLU(8.0, 15), ir.MaxPool2d(3, 3),
    ]  # fmt: skip
    with pytest.raises(DoesNotFit) as caught:
        compile_network(chain(2, 32, *layers, high=200), "akida1")
    named = [v.limit for v in caught.value.violations]
    assert [v.node for v in caught.value.violations] == ["n1", "in", "n0", "n2", "n3"]
    for word in ("levels", "largest input", "stride", "kernel", "max-pool"):
        assert any(word in limit for limit in named), word
    layers = [  # as the remedies say
        ir.Conv2d(whole(rng, 3, 2, 3, 3), stride=1, padding=1), ir.QuantisedReLU(8.0, 15),
        ir.Conv2d(whole(rng, 3, 3, 3, 3), padding=1), ir.QuantisedReLU(8.0, 15), ir.MaxPool2d(2, 2),
    ]  # fmt: skip
    compile_network(chain(2, 32, *layers, high=15), "akida1")


def test_akida2_limits():
    rng = np.random.default_rng(0)
    conv = ir.Conv2d(whole(rng, 40, 2, 3, 3), padding=1)
    with pytest.raises(DoesNotFit) as caught:
        compile_network(chain(2, 8, conv, ir.QuantisedReLU(8.0, 255)), "akida2")
    assert {(v.limit, v.wanted, v.allowed) for v in caught.value.violations} == {
        ("levels of an activation", 255, 127), ("inputs", 2560, 2048),
    }  # fmt: skip
    nodes = {"in": ir.Input((2, 8, 8), 15), "c": ir.Conv2d(whole(rng, 3, 2, 3, 3), padding=1), "out": ir.Output("sum")}
    with pytest.raises(DoesNotFit, match="last layer is a convolution, allowed a Linear"):
        compile_network(ir.chain(nodes, dt=1.0), "akida2")
    compile_network(chain(2, 8, conv, ir.QuantisedReLU(8.0, 127), ir.MaxPool2d(2, 2)), "akida2")


def test_input_filters_of_akida1():
    rng = np.random.default_rng(0)
    for side, filters in ((3, 192), (5, 64), (7, 32)):
        conv = ir.Conv2d(whole(rng, filters + 1, 3, side, side), padding=side // 2)
        with pytest.raises(DoesNotFit, match=f"filters of {side} x {side} behind the input is {filters + 1}"):
            compile_network(chain(3, 8, conv, ir.QuantisedReLU(64.0, 1), high=255), "akida1")


def smaller(monkeypatch, **limits):
    """Akida 1 with other limits."""
    chip = compiler.CHIP
    changed = {name: replace(chip.limits[name], value=value) for name, value in limits.items()}
    monkeypatch.setattr(compiler, "CHIP", replace(chip, limits={**chip.limits, **changed}))


def test_a_large_model_is_run_in_sequences(monkeypatch):
    network = dyadic()
    assert set(compile_network(network, "akida1").image["sequence_of_core"].tolist()) == {0}
    smaller(monkeypatch, cores=2, core_memory=100)  # filters of 9, 27 and 27 bytes, 4 readouts of 27
    program = compile_network(network, "akida1")
    filters = [int(p.params["bits"]) * p.weight_q[0].size / 8 for p in program.projections]
    assert filters == [9, 27, 27]
    assert program.image["sequence_of_core"].tolist() == [0, 1, 1, 2, 2]
    assert program.image["sequence_bytes"].tolist() == [54, 162, 108]
    assert [u["memory"] for u in program.placement.utilisation] == [0.54, 0.81, 0.81, 0.54, 0.54]
    x = frames(network, 3)
    trace, whole_model = simulate(program, x), simulate(compile_network(network, "akida2"), x)
    assert np.array_equal(trace.scores, whole_model.scores)
    reloaded = trace.counters.memory - trace.counters.synops * 4 // 8
    assert (reloaded == [54, 81, 81, 54, 54]).all()
    from neuro.deployment import utilisation

    assert utilisation(program)["sequence_bytes"] == [54, 162, 108]


def test_a_filter_or_a_layer_too_large_for_any_sequence(monkeypatch):
    smaller(monkeypatch, cores=1, core_memory=30)
    with pytest.raises(DoesNotFit) as caught:
        compile_network(dyadic(), "akida1")
    found = [(v.node, v.limit, v.wanted, v.allowed) for v in caught.value.violations]
    assert found == [
        ("relu1", "neural processors of one layer", 2, 1),
        ("relu2", "neural processors of one layer", 6, 1),
        ("read", "neural processors of one layer", 4, 1),
    ]
    smaller(monkeypatch, cores=80, core_memory=20)  # a limit in front does not hide those behind it
    with pytest.raises(DoesNotFit) as caught:
        compile_network(dyadic(levels=7), "akida1")
    assert [(v.node, v.limit) for v in caught.value.violations] == [
        ("relu1", "levels of an activation"),
        ("relu2", "levels of an activation"),
        ("relu2", "memory of one filter (bytes)"),
        ("read", "memory of one filter (bytes)"),
    ]
    with pytest.raises(DoesNotFit, match=r"memory of one filter \(bytes\) is 27, allowed 20"):
        compile_network(dyadic(), "akida1")
    compile_network(dyadic(), "akida1", weight_bits=2)  # the remedy


def test_weights_off_the_grid_cost_what_the_budget_says():
    rng = np.random.default_rng(4)
    conv = ir.Conv2d(rng.normal(size=(6, 2, 3, 3)), padding=1, bias=rng.normal(size=6))
    network = chain(2, 8, conv, ir.QuantisedReLU(1.0, 15))
    for chip, bits, most in (("akida1", 4, 0.08), ("akida2", 8, 0.005), ("akida2", 4, 0.08)):
        program = compile_network(network, chip, weight_bits=bits)
        row = next(r for r in program.budget if r.quantity == "weight" and r.node == "n0")
        assert 0 < row.max_error < most
        worst = (1 << (bits - 1)) - 1
        assert np.abs(program.projections[0].weight_q).max() <= worst
        if chip == "akida2":  # the grid is chosen so that the scale is exact
            assert next(r for r in program.budget if r.quantity == "scale").max_error < 1e-12


def test_options():
    for chip, bad in (("akida1", 8), ("akida2", 2)):
        with pytest.raises(ChipError, match="weight_bits must be"):
            compile_network(dyadic(), chip, weight_bits=bad)
    two = compile_network(dyadic(), "akida1", weight_bits=2)
    assert max(np.abs(p.weight_q).max() for p in two.projections) == 1
    assert compile_network(dyadic(), "akida1", max_steps=7).scale == compile_network(dyadic(), "akida1").scale


def test_strict_refuses_levels_that_are_never_reached():
    conv = ir.Conv2d(np.full((1, 2, 1, 1), 3.0))
    network = chain(2, 8, conv, ir.QuantisedReLU(1.0, 10))  # sums come in threes: 9 or 12, not 10
    assert "never reach level 10" in compile_network(network, "akida2").substitutions[0]
    with pytest.raises(PrecisionLoss, match="never reach level 10"):
        compile_network(network, "akida2", strict=True)


def test_thresholds_fall_where_they_are_wanted():
    rng = np.random.default_rng(0)
    first, distance = rng.normal(scale=100, size=500), rng.uniform(0.7, 80, 500)
    found = thresholds(first, distance, 4)
    p = np.arange(-400, 1500)[:, None]
    s = found.step.astype(float)
    ours = np.clip(np.ceil((p - found.threshold) / s), 0, 15)
    wanted = np.clip(np.floor((p - first) / distance) + 1, 0, 15)
    assert (np.abs(ours - wanted) <= np.maximum(1, np.ceil(1 / distance))).all()
    assert ((ours != wanted).sum(0) <= found.off).all()
    assert found.off.mean() < 2.0


def test_scales_are_the_nearest_that_eight_bits_hold():
    for ratio in np.geomspace(2.0**-38, 2.0**14, 500):
        m, e = mantissa(float(ratio))
        assert 127 < m < 256
        assert abs(m * 2.0**-e / ratio - 1) <= 1 / 256
        m, e = mantissa(float(ratio), up=True)
        assert 127 < m < 256
        assert -1e-8 <= m * 2.0**-e / ratio - 1 <= 1 / 128
