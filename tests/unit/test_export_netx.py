"""The netx file: read back with h5py as lava-dl reads it, and refused by name where it cannot be exact."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lava_programs import conv, dense, even, needs_lava, population, program, sparse, spikes

from neuro.errors import DoesNotFit, FormatError, UnsupportedNode
from neuro.hardware.certify import certify
from neuro.hardware.export import export
from neuro.hardware.export.lava_limits import EXCITATORY, INHIBITORY, MIXED, truncated
from neuro.hardware.export.netx import reader_format


def rng(seed=0):
    return np.random.default_rng(seed)


def full(generator, shape):
    """Even weights that use all 8 bits, so that two matrices of a recurrent layer share one format."""
    weight = even(generator, shape, -100, 100)
    weight.flat[:3] = (254, -256, 2)
    return weight


def image_net(seed=0):
    g = rng(seed)
    populations = [
        population("input", (2, 7, 6), "input"),
        population("c1", (4, 4, 3), du=3000, dv=200, vth=5, bias_mant=np.repeat([3, -2, 0, 7], 12), bias_exp=6),
        population("c2", (6, 2, 3), du=4095, dv=500, vth=4, bias_mant=g.integers(-9, 9, 36), bias_exp=7),
        population("h", 20, du=1000, dv=100, vth=30, bias_mant=64, bias_exp=0),
        population("out", 5, "li", du=4095, dv=60, vth=131071),
    ]
    projections = [
        conv("k1", "input", "c1", g.integers(-9, 30, (4, 2, 3, 3)), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
        conv("k2", "c1", "c2", g.integers(-9, 20, (6, 2, 3, 1)), groups=2),
        dense("f1", "c2", "h", full(g, (20, 36)), delay=g.integers(0, 62, (20, 36))),
        dense("rec", "h", "h", full(g, (20, 20))),
        sparse("f2", "h", "out", np.divmod(np.arange(0, 100, 3), 20), 4 * g.integers(-50, 50, 34), exponent=-1),
    ]
    return program(populations, projections, depth=4)


def plain_net(weight=None, **options):
    neuron = {"du": 100, "dv": 50, "vth": 20} | options.pop("neuron", {})
    populations = [population("input", 6, "input"), population("p", 4, **neuron)]
    weight = even(rng(), (4, 6)) if weight is None else weight
    return program(populations, [dense("f", "input", "p", weight, **options)], depth=1)


@pytest.mark.lava
@needs_lava
def test_a_network_with_every_kind_of_layer_comes_back_bit_exact(tmp_path):
    made = image_net()
    given_spikes = spikes(rng(5), 40, 2, 84, 0.3)
    path = export(made, tmp_path / "net.net", to="netx", steps=40)
    certificate = certify(made, given_spikes, oracle="netx", folder=path)
    assert certificate.passed, certificate
    assert certificate.compared == 3 * (48 + 36 + 20 + 5) * 44 * 2


@pytest.mark.lava
@needs_lava
def test_a_change_in_the_file_is_found(tmp_path):
    made = image_net()
    path = export(made, tmp_path / "net.net", to="netx")
    with h5py.File(path, "a") as file:
        file["layer/1/weight"][2, 1, 0, 0] += 1
    certificate = certify(made, spikes(rng(5), 20, 1, 84, 0.3), oracle="netx", folder=path)
    assert certificate.status == "failed"
    assert (certificate.first.population, certificate.first.variable) == ("c1", "u")


def test_the_layout_is_the_one_lava_dl_writes(tmp_path):
    made = image_net()
    with h5py.File(export(made, tmp_path / "net.net", to="netx", steps=40)) as file:
        assert [file[f"layer/{n}/type"][0] for n in range(6)] == [
            *(b"input", b"conv", b"conv", b"flatten", b"dense_rec", b"dense"),
        ]
        assert file["layer/0/type"].dtype == "S10"
        assert file["layer/0/shape"][()].tolist() == [2, 7, 6]
        assert file["layer/1/weight"].shape == (4, 2, 3, 3)
        assert file["layer/1/weight"].dtype == np.float32
        assert file["layer/1/bias"].shape == (4,)  # one per channel
        assert file["layer/2/bias"].shape == (3, 2, 6)  # one per neuron: width, height, channel
        assert file["layer/4/delay"].shape == (20, 36)
        assert file["layer/4/bias"][()].tolist() == [1.0] * 20  # 64 << 0 is 1 << 6
        assert file["layer/4/neuron/iDecay"][()] == 1001
        assert file["layer/4/neuron/vDecay"][()] == 100
        assert file["layer/4/neuron/type"][()] == b"CUBA"
        assert file["layer/5/weight"].shape == (5, 20)  # a sparse matrix is written in full
        assert file["simulation/tSample"][()] == 40
    assert [p.name for p in tmp_path.iterdir()] == ["net.net"]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(-256, 254), (-128, 127), (0, 255), (-255, -1), (-3, 3), (-256, 0)]))
@settings(max_examples=200)
def test_the_readers_format_is_lossless_wherever_it_is_accepted(seed, bounds):
    """The rule the exporter trusts, against Lava's own truncation: what is shifted and truncated comes back."""
    g = rng(seed)
    weight = g.integers(*bounds, (4, 5), endpoint=True) & -(1 << int(g.integers(0, 4)))
    made = reader_format(weight)
    if made is None:
        assert not weight.any() or weight.max() > 254 or weight.min() < -256
        return
    shifted, bits, exponent, mode = made
    assert np.array_equal(shifted, weight << -exponent)
    assert mode == (EXCITATORY if weight.min() >= 0 else INHIBITORY if weight.max() <= 0 else MIXED)
    if mode == MIXED or weight.min() > 0:
        assert np.array_equal(truncated(shifted, mode, bits), shifted)


@pytest.mark.parametrize(
    ("made", "limit"),
    [
        (lambda: plain_net(exponent=-2), "no multiple of 4"),
        (lambda: plain_net(exponent=1, weight=np.full((4, 6), 254)), "weights with their exponent"),
        (lambda: plain_net(weight=np.zeros((4, 6), int)), "weights other than zero"),
        (lambda: plain_net(weight=-128 * np.eye(4, 6, dtype=int)), "weights with their exponent"),
        (lambda: plain_net(delay=np.full((4, 6), 63)), "delay"),
        (lambda: plain_net(neuron={"bias_mant": 3, "bias_exp": 5}), "biases that are no multiple of 64"),
        (lambda: plain_net(neuron={"dv": [1, 2, 3, 4]}), "different dv in a layer"),
    ],
)
def test_what_would_not_come_back_is_refused_and_no_file_is_left(made, limit, tmp_path):
    with pytest.raises(DoesNotFit) as refusal:
        export(made(), tmp_path / "net.net", to="netx")
    assert any(limit in v.limit for v in refusal.value.violations), refusal.value
    assert not list(tmp_path.iterdir())


def test_a_graph_that_is_no_chain_is_refused_with_every_reason(tmp_path):
    g = rng()
    populations = [population("input", 6, "input"), population("a", 4), population("b", 3)]
    projections = [
        dense("f", "input", "a", even(g, (4, 6))),
        dense("g", "a", "b", even(g, (3, 4))),
        dense("skip", "input", "b", even(g, (3, 6))),
        dense("back", "b", "a", even(g, (4, 3))),
        dense("slow loop", "b", "b", even(g, (3, 3)), delay=np.ones((3, 3), int)),
    ]
    with pytest.raises(UnsupportedNode) as refusal:
        export(program(populations, projections), tmp_path / "net.net", to="netx")
    said = str(refusal.value)
    assert len(refusal.value.violations) == 3
    assert all(word in said for word in ("skip", "back", "slow loop", "--to lava"))


def test_recurrent_matrices_of_different_formats_are_refused(tmp_path):
    g = rng()
    populations = [population("input", 6, "input"), population("a", 4)]
    projections = [dense("f", "input", "a", full(g, (4, 6))), dense("r", "a", "a", even(g, (4, 4), -3, 3))]
    with pytest.raises(DoesNotFit, match="one for both matrices"):
        export(program(populations, projections, depth=1), tmp_path / "net.net", to="netx")


@pytest.mark.lava
@needs_lava
def test_files_that_are_not_netx_are_refused(tmp_path):
    from neuro.hardware.export.netx_lava import build_netx

    (tmp_path / "no.net").write_bytes(b"not hdf5")
    with pytest.raises(FormatError, match="not a netx file"):
        build_netx(tmp_path / "no.net")
    with h5py.File(tmp_path / "pool.net", "w") as file:
        file["layer/0/type"] = np.array([b"pool"], "S10")
        file["layer/0/inFeatures"] = 3
    with pytest.raises(FormatError, match="'pool', which netx does not implement"):
        build_netx(tmp_path / "pool.net")
