"""Configurations: every problem at once, nearest names, and the way to TOML and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuro.errors import BadConfig
from neuro.nn.delay import DelayedLinear
from neuro.nn.layers import CubaLIF, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.train.build import LAYERS, build
from neuro.train.config import Config, load_config, presets

GOOD = """
name = "small"
readout = "sum"
[data]
dataset = "braille"
[[layers]]
type = "linear"
out = 8
[[layers]]
type = "lif"
tau_mem = 0.1
[[layers]]
type = "linear"
out = 27
[[layers]]
type = "li"
beta = 0.9
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        load_config(write(tmp_path, text))
    return [str(v) for v in caught.value.violations] or [str(caught.value)]


def test_defaults_and_round_trip(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert (config.seed, config.train.epochs, config.loss.kind, config.quantise) == (0, 30, "cross_entropy", None)
    assert Config.from_table(config.to_table()) == config


@pytest.mark.parametrize("name", presets())
def test_presets_load_build_and_match_their_data(name: str) -> None:
    from neuro.train.data import Recordings

    config = load_config(name)
    assert config.name == name
    recordings = Recordings(config.data, config.seed)
    train, valid = recordings.train(0), recordings.valid()
    assert valid is None or not set(train.groups) & set(valid.groups)
    model = build(
        config.layers, train.shape, recordings.dt, config.readout, config.seed, len(recordings.source.classes)
    )
    x = torch.from_numpy(train.batch([0, 1], recordings.dt, 3))
    assert model.eval()(x).shape == (3, 2, len(recordings.source.classes))


@pytest.mark.parametrize("name", presets())
def test_presets_train_for_the_formats_of_the_chip(name: str) -> None:
    from neuro.hardware.loihi2.compiler import TARGET

    quantise = load_config(name).quantise
    if quantise is None:
        pytest.skip(f"preset {name} trains real weights")
    if quantise.axons:
        pytest.skip(f"preset {name} trains for typed axons, see test_train_levels.py")
    chip = TARGET.chip.formats
    rows = {
        "weight": "weight_mixed",
        "weight_conv": "weight_conv",
        "decay": "decay",
        "threshold": "threshold",
        "bias": "bias",
    }
    for ours, theirs in rows.items():
        mine, its = getattr(quantise, ours), chip[theirs]
        assert (mine.bits, mine.signed, mine.low, mine.high, mine.step) == (
            its.bits,
            its.signed,
            its.low,
            its.high,
            its.step,
        )


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('name = "small"', 'nmae = "small"\nseed = -1').replace('"sum"', "3")
    text = text.replace('dataset = "braille"', 'dataset = "braille"\nsteps = 1.5\ndt = -1.0\ntrain_on = "some"')
    text += "[loss]\nlabel_smoothng = 0.1\nkind = 'cross_entrpy'\n[optimiser]\nlr = true\n[train]\nepochs = 0\n"
    found = problems(tmp_path, text)
    expected = (
        "nmae is unknown. Did you mean 'name'?",
        "name is missing",
        "readout must be a string",
        "data.steps must be a whole number",
        "data.dt is -1.0",
        "data.train_on must be",
        "loss.kind 'cross_entrpy' is unknown. Did you mean 'cross_entropy'?",
        "loss.label_smoothng is unknown. Did you mean 'label_smoothing'?",
        "optimiser.lr must be a number, got True",
        "train.epochs must be at least 1",
    )
    for sentence in expected:
        assert any(sentence in line for line in found), (sentence, found)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[loss]\nkind = 'cross_entrpy'", "loss.kind 'cross_entrpy' is unknown. Did you mean 'cross_entropy'?"),
        ("[loss]\nlabel_smoothing = 1.0", "loss.label_smoothing is 1.0"),
        ("[loss]\nmany = -1.0", "loss.many must not be negative"),
        ("[optimiser]\nkind = 'adam'", "Did you mean 'adamw'"),
        ("[optimiser]\nbetas = [0.9]", "betas must be two numbers"),
        ("[optimiser]\nlr = 0.0", "lr is 0.0"),
        ("[optimiser]\nlr = nan", "optimiser.lr must be a number"),
        ("[optimiser]\nema = 1.0", "ema is 1.0"),
        ("[train]\nkeep = 'first'", "keep must be"),
        ("[train]\nthreads = -1", "threads must not be negative"),
        ("[quantise]\nstart = 0.5", "quantise.weight is missing"),
        ("[quantise]\naxons = [1, 0]", "quantise.axons must be one to four values other than 0"),
        ("[quantise]\naxons = [1, -1]\nunit = 0.3", "quantise.unit must be a power of two"),
        ("[quantise]\naxons = [1, -1]\nbias = { bits = 8, low = -1, high = 1 }", "quantise.bias and axons exclude"),
        ("[[layers]]\ntype = 'taps'\nsteps = [-1]", "layers[4].steps must be one or more delays"),
        ("[[layers]]\ntype = 'linear'\nout = 9\nfan_in = 4\nbits = 4", "only one can be had"),
        ("[[layers]]\ntype = 'linear'\nout = 9\nfan_in = 4\nwindow = 2", "window and fan_in cannot"),
        ("[data.augment]\nshift = 1.0\n[[layers]]\ntype = 'lif'\nbeta = 0.9\nsurrogate = 'atn'", "Did you mean 'atan'"),
        ("[[layers]]\ntype = 'lfi'", "layers[4].type 'lfi' is unknown. Did you mean 'li"),
        ("[[layers]]\ntype = 'linear'\nout = 0", "layers[4].out is 0"),
        ("[[layers]]\ntype = 'linear'", "layers[4].out is missing"),
        ("[[layers]]\ntype = 'lif'\nbeta = 0.9\ntau_mem = 0.1", "say the same"),
        ("[[layers]]\ntype = 'dropout'\np = 1.0", "p is 1.0"),
        ("[[layers]]\ntype = 'flatten'\nname = 'input'", "name must be a new name"),
    ],
)
def test_single_problems(tmp_path: Path, table: str, sentence: str) -> None:
    assert any(sentence in line for line in problems(tmp_path, GOOD + table + "\n")), problems(tmp_path, GOOD + table)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="Did you mean 'braille'"):
        load_config("brail")
    with pytest.raises(BadConfig, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(BadConfig, match="not TOML"):
        load_config(write(tmp_path, "name = "))
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="not TOML"):
        load_config(tmp_path / "c.toml")
    with pytest.raises(BadConfig, match="table"):
        Config.from_table([1, 2])


def test_early_stopping_needs_a_validation_split(tmp_path: Path) -> None:
    text = GOOD.replace('dataset = "braille"', 'dataset = "braille"\ntrain_on = "all"') + "[train]\npatience = 3\n"
    assert any("validation split" in line for line in problems(tmp_path, text))


def test_changes_by_dotted_name(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD)).with_changes(**{"train.epochs": 3, "seed": 7, "data.limit": 5})
    assert (config.train.epochs, config.seed, config.data.limit) == (3, 7, 5)
    assert config.with_changes(**{"data.limit": None}).data.limit is None
    with pytest.raises(BadConfig, match=r"train\.epoch is unknown"):
        config.with_changes(**{"train.epoch": 3})


def test_unknown_data_is_said_when_it_is_loaded(tmp_path: Path) -> None:
    from neuro.train.data import Recordings

    config = load_config(write(tmp_path, GOOD))
    with pytest.raises(BadConfig, match="Did you mean 'braille'"):
        Recordings(config.with_changes(**{"data.dataset": "brale"}).data, 0)
    with pytest.raises(BadConfig) as caught:
        Recordings(config.with_changes(**{"data.options": {"treshold": 1}, "data.augment": {"shfit": 1}}).data, 0)
    assert len(caught.value.violations) == 2
    assert "Did you mean 'shift'" in str(caught.value)
    with pytest.raises(BadConfig, match="varies by seed"):
        Recordings(config.with_changes(**{"data.dataset": "nmnist", "data.vary": {"size": 28}}).data, 0)


# ---------------------------------------------------------------- layers


def made(*rows: dict, shape=(6,), readout: str = "sum", classes: int = 3) -> SpikingNetwork:
    return build(tuple(rows), shape, 1e-3, readout, 0, classes)


def test_every_layer_type_builds() -> None:
    image = made(
        {"type": "conv", "out": 4, "kernel": 3, "padding": 1, "bias": True},
        {"type": "batch_norm", "shift": False},
        {"type": "if"},
        {"type": "sum_pool", "kernel": 2},
        {"type": "conv", "out": 4, "kernel": 1, "groups": 2},
        {"type": "batch_norm", "start": 0.5},
        {"type": "lif", "beta": 0.9},
        {"type": "quantised_relu", "levels": 15},
        {"type": "max_pool", "kernel": 1},
        {"type": "avg_pool", "kernel": 2},
        {"type": "flatten"},
        {"type": "dropout", "p": 0.2},
        {"type": "linear", "out": 5, "max_delay": 3},
        {"type": "cuba_lif", "alpha": 0.5, "tau_mem": 0.02, "recurrent": True, "each": True, "learn": ["beta"]},
        {"type": "adlif", "beta": 0.9, "tau_adapt": 0.1, "a": 0.01, "b": 0.1, "recurrent": True, "learn": ["a", "rho"]},
        {"type": "resonate_and_fire", "beta": 0.9, "period": 0.004, "period_max": 0.01},
        {"type": "parallel_lif", "tau_mem": 0.02},
        {"type": "ternary_lif", "beta": 0.9},
        {"type": "integer_lif", "levels": 3},
        {"type": "delta", "v_threshold": 0.5},
        {"type": "sigma_delta", "activation": "identity"},
        {"type": "integrator"},
        {"type": "delay", "steps": 2},
        {"type": "taps", "steps": [0, 3]},
        {"type": "linear", "out": 3, "bias": True, "window": 2},
        {"type": "cuba_li", "alpha": 0.5, "beta": 0.9},
        shape=(2, 8, 8),
    )
    kinds = {name.split("_", 1)[1] for name in image.names}
    assert kinds == set(LAYERS) - {"li"}
    assert image.eval()(torch.ones(4, 2, 2, 8, 8)).shape == (4, 2, 3)
    delayed = image.layer("12_linear")
    assert isinstance(delayed, DelayedLinear)
    assert delayed.get_buffer("delay_steps").max() == 3
    layer = image.layer("13_cuba_lif")
    assert isinstance(layer, Recurrent)
    assert isinstance(layer.neuron, CubaLIF)
    assert layer.neuron.value("beta").shape == (5,)


def test_a_seed_is_a_start() -> None:
    rows = ({"type": "linear", "out": 3}, {"type": "li", "beta": 0.9})
    a, b, c = (build(rows, (6,), 1e-3, "sum", seed, 3).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["layers.0_linear.weight"], c["layers.0_linear.weight"])
    state = torch.get_rng_state()
    build(rows, (6,), 1e-3, "sum", 1, 3)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"


def test_initial_spread_is_what_it_says() -> None:
    weight = made({"type": "linear", "out": 400, "init": 2.0}, shape=(300,), classes=400).layer("0_linear").weight
    assert abs(float(weight.detach().std()) * 300**0.5 / 2.0 - 1) < 0.02


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({"type": "conv", "out": 3, "kernel": 3},), "wants .channel, height, width."),
        (({"type": "linear", "out": 4}, {"type": "lif"}), "needs beta, or tau_mem"),
        (({"type": "linear", "out": 3}, {"type": "cuba_li", "beta": 0.9}), "needs alpha, or tau_syn"),
        (({"type": "linear", "out": 3}, {"type": "if", "beta": 0.9}), "has no beta"),
        (({"type": "linear", "out": 3}, {"type": "lif", "beta": 1.5}), r"beta must lie in \[0, 1\)"),
        (({"type": "linear", "out": 4}, {"type": "li", "beta": 0.9}), "4 channels, the data have 3 classes"),
    ],
)
def test_layers_that_do_not_fit(rows: tuple[dict, ...], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        made(*rows)


def test_counting_needs_spikes() -> None:
    with pytest.raises(BadConfig, match="spiking last layer"):
        made({"type": "linear", "out": 3}, {"type": "li", "beta": 0.9}, readout="count")
    with pytest.raises(BadConfig, match="flatten"):
        made({"type": "linear", "out": 3}, shape=(2, 4, 4))
    with pytest.raises(BadConfig, match="groups"):
        made({"type": "conv", "out": 3, "kernel": 1, "groups": 2}, shape=(2, 4, 4))
    with pytest.raises(BadConfig, match="conv"):
        made({"type": "conv", "out": 3, "kernel": 9}, shape=(2, 4, 4))


@pytest.mark.parametrize("kind", ["ottt", "eprop", "decolle", "dsr"])
def test_a_rule_for_real_weights_refuses_integers_before_it_trains(kind: str) -> None:
    with pytest.raises(BadConfig, match=f"rule.kind '{kind}' trains real weights"):
        load_config("braille").with_changes(rule={"kind": kind})
    load_config("braille").with_changes(rule={"kind": kind}, quantise=None)
    load_config("braille").with_changes(rule={"kind": "sltt"})


def test_a_convolution_along_a_line() -> None:
    """One row high: what `torch.nn.functional.conv1d` computes, on each row alone."""
    first = {"type": "conv", "out": 3, "kernel": 5, "stride": 2, "padding": 2, "line": True, "init": 1.0}
    rows = (first, {"type": "if"}, {"type": "flatten"}, {"type": "linear", "out": 10}, {"type": "li", "beta": 0.5})
    conv = build(rows, (2, 2, 9), 1e-3, "sum", 0, 10).layer("0_conv")
    assert conv.weight.shape == (3, 2, 1, 5)
    x = torch.rand(4, 2, 2, 9, generator=torch.Generator().manual_seed(0))
    found = conv(x)
    assert found.shape == (4, 3, 2, 5)
    for row in range(2):
        plain = torch.nn.functional.conv1d(x[:, :, row], conv.weight[:, :, 0], stride=2, padding=2)
        torch.testing.assert_close(found[:, :, row], plain)
    wide = build(({**rows[0], "out": 4000}, *rows[1:]), (2, 1, 9), 1e-3, "sum", 0, 10).layer("0_conv").weight
    assert abs(float(wide.detach().std()) - (2 * 5) ** -0.5) < 0.01
