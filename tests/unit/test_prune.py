"""Pruning: as many synapses go as the schedule says, they stay gone, and the chip does not hold them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuro import ir, nir, results
from neuro.errors import BadConfig
from neuro.hardware import compile, load_chip, simulate
from neuro.hardware.loihi2.layers import LIST_BELOW
from neuro.hardware.program import Projection
from neuro.nn import FewLinear, MaskedLinear, Recurrent
from neuro.nn.bridge import to_module, to_network
from neuro.nn.layers import LI, LIF, CubaLIF
from neuro.nn.network import SpikingNetwork
from neuro.train import loop, prune
from neuro.train.config import Config
from neuro.train.loop import fit
from neuro.train.prune import PruneConfig

FORMATS = {
    "weight": {"bits": 8, "low": -256, "high": 254, "step": 2},
    "weight_conv": {"bits": 8, "low": -128, "high": 127},
    "decay": {"bits": 12, "signed": False, "low": 0, "high": 4095},
    "threshold": {"bits": 17, "signed": False, "low": 0, "high": 131071},
    "bias": {"bits": 13, "low": -4096, "high": 4095},
}
TABLE: dict[str, Any] = {
    "name": "pruned",
    "seed": 3,
    "data": {"dataset": "braille", "limit": 54, "steps": 20, "dt": 0.1},
    "layers": [
        {"type": "linear", "out": 16, "init": 0.7},
        {"type": "cuba_lif", "alpha": 0.8, "beta": 0.9, "recurrent": True},
        {"type": "linear", "out": 27},
        {"type": "li", "beta": 0.9},
    ],
    "optimiser": {"lr": 5e-3, "ema": 0.5, "weight_decay": 1e-3, "clip": 1.0},
    "train": {"epochs": 4, "batch_size": 18, "threads": 1},
}


def net() -> SpikingNetwork:
    rng = torch.Generator().manual_seed(0)
    layers = {
        "a": nn.Linear(40, 60, bias=False),
        "b": Recurrent(CubaLIF(0.8, 0.9), 60),
        "c": nn.Linear(60, 6, bias=False),
        "d": LI(0.9),
    }
    model = SpikingNetwork(layers, input_shape=(40,), dt=1e-3, readout="sum")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.3, generator=rng)
    return model


def pruned(share: float = 0.9, **given: Any) -> SpikingNetwork:
    model = net()
    prune.attach(model, PruneConfig(**given))
    prune.cut_smallest(model, share, given.get("scope", "layer"))
    return model


def test_the_schedule_is_cubic() -> None:
    c = PruneConfig(sparsity=0.8, start=0.2, end=0.6, updates=4)
    assert [c.sparsity_at(p) for p in (0.0, 0.2, 0.6, 1.0)] == [0.0, 0.0, 0.8, 0.8]
    assert c.sparsity_at(0.4) == pytest.approx(0.8 * (1 - 0.5**3))
    assert sorted(c.cuts(100)) == [30, 40, 50, 60]


def test_the_smallest_go_and_as_many_as_said() -> None:
    model, before = pruned(0.9), net()
    for name in ("a", "c"):
        w, old = model.layer(name).weight, before.layer(name).weight.abs()
        gone = w == 0
        assert int(gone.sum()) == round(0.9 * w.numel())
        assert old[gone].max() <= old[~gone].min()
    prune.cut_smallest(model, 0.95)
    assert prune.sparsity(model) == pytest.approx(0.95, abs=1e-3)
    some = net()
    with torch.no_grad():
        some.layer("c").weight.mul_(10.0)
    prune.attach(some, PruneConfig())
    prune.cut_smallest(some, 0.5, "global")
    assert (some.layer("c").weight == 0).float().mean() < 0.1, "one measure for all: the layer of large weights stays"
    assert prune.sparsity(some) == pytest.approx(0.5, abs=1e-3)


def test_what_a_layer_never_had_is_not_pruned() -> None:
    model = SpikingNetwork({"a": MaskedLinear(8, 4, False, 4), "b": LIF()}, input_shape=(8,), dt=1e-3)
    prune.attach(model, PruneConfig())
    prune.cut_smallest(model, 0.5)
    assert int(model.layer("a").get_buffer("kept").sum()) == 8, "half of the 16 that there are"


def test_two_of_four() -> None:
    model = net()
    prune.attach(model, PruneConfig(method="n:m", n=2, m=4))
    prune.cut_groups(model, 2, 4)
    for _, layer in prune.prunable(model).items():
        kept = layer.get_buffer("kept").reshape(len(layer.weight), -1, 4)
        assert (kept.sum(-1) == 2).all()
    first = net().layer("a").weight.detach()[0, :4].abs()
    assert set(first.argsort(descending=True)[:2].tolist()) == set(
        model.layer("a").weight[0, :4].nonzero().flatten().tolist()
    )
    conv = SpikingNetwork({"a": nn.Conv2d(4, 3, 3), "b": LIF()}, input_shape=(4, 5, 5), dt=1e-3)
    prune.attach(conv, PruneConfig(method="n:m"))
    prune.cut_groups(conv, 2, 4)
    assert (conv.layer("a").get_buffer("kept").sum(1) == 2).all()
    odd = SpikingNetwork({"a": nn.Linear(6, 3), "b": LIF()}, input_shape=(6,), dt=1e-3)
    with pytest.raises(BadConfig, match="groups of 4"):
        prune.attach(odd, PruneConfig(method="n:m"))
    with pytest.raises(BadConfig, match="no layer with weights"):
        prune.attach(net(), PruneConfig(layers=("z",)))


class Stopped(Exception):
    pass


def stop(row: Any) -> None:
    raise Stopped


@pytest.mark.parametrize(
    ("table", "left"),
    [
        ({"method": "magnitude", "sparsity": 0.8, "start": 0.2, "end": 0.6, "updates": 5}, 0.2),
        ({"method": "lottery", "sparsity": 0.75, "rounds": 1, "rewind": 1}, 0.25),
        ({"method": "n:m", "start": 0.5}, 0.5),
    ],
    ids=["magnitude", "lottery", "2:4"],
)
def test_pruned_training_resumes_to_the_bit_and_ends_sparse(tmp_path: Path, table: dict[str, Any], left: float) -> None:
    config = Config.from_table({**TABLE, "prune": table, "quantise": {**FORMATS, "start": 0.75}})
    whole = fit(config, tmp_path / "whole")
    for _ in range(4):
        with pytest.raises(Stopped):
            fit(config, tmp_path / "broken", on_epoch=stop)
    broken = fit(config, tmp_path / "broken")
    for name in (results.WEIGHTS, results.METRICS, results.NETWORK):
        assert (whole.path / name).read_bytes() == (broken.path / name).read_bytes()
    assert whole.metrics[-1]["phase"] == "integers"
    weights = [n.weight for n in whole.network.nodes.values() if isinstance(n, ir.Linear)]
    assert len(weights) == 3
    for w in weights:
        share = np.count_nonzero(w) / w.size
        assert 0.8 * left < share <= left + 0.5 / w.size, "integers may round a few more to nothing"
    assert whole.summary["sparsity"] == pytest.approx(1 - left, abs=2e-3)


def test_best_weights_are_sparse_and_nobody_stops_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where validation gets worse with every epoch, the best are still those with all their zeros."""
    real, calls = loop.evaluate, []

    def worse(subject: Any, data: Any, **options: Any) -> Any:
        calls.append(subject)
        found = real(subject, data, **options)
        return replace(found, scores=-10.0 * len(calls) * np.eye(27)[data.labels])

    monkeypatch.setattr(loop, "evaluate", worse)
    changes = {"optimiser.ema": 0.0, "train.keep": "best", "train.patience": 1, "train.epochs": 5}
    table = {"sparsity": 0.9, "start": 0.5, "end": 0.7, "updates": 2}
    run = fit(Config.from_table({**TABLE, "prune": table}).with_changes(**changes), tmp_path / "run")
    assert len(run.metrics) >= 4
    kept = [np.count_nonzero(n.weight) / n.weight.size for n in run.network.nodes.values() if isinstance(n, ir.Linear)]
    assert max(kept) < 0.11


def test_layers_with_delays_keep_their_masks_on_integers(tmp_path: Path) -> None:
    layers = [{"type": "linear", "out": 16, "delay": {"max": 4}}, *TABLE["layers"][1:]]
    table = {**TABLE, "layers": layers, "prune": {"start": 0.2, "end": 0.5, "updates": 2}}
    config = Config.from_table({**table, "quantise": {**FORMATS, "start": 0.5}})
    whole = fit(config, tmp_path / "whole")
    for _ in range(3):
        with pytest.raises(Stopped):
            fit(config, tmp_path / "broken", on_epoch=stop)
    assert (fit(config, tmp_path / "broken").path / results.WEIGHTS).read_bytes() == (
        whole.path / results.WEIGHTS
    ).read_bytes()
    first = whole.network.nodes["0_linear"]
    assert np.count_nonzero(first.weight) <= round(0.1 * first.weight.size)
    assert whole.summary["sparsity"] == pytest.approx(0.9, abs=2e-3)


def test_no_gradient_reaches_what_is_gone() -> None:
    model = pruned(0.9)
    x = (torch.rand(15, 4, 40, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    model(x).square().sum().backward()
    gone = {n: p == 0 for n, p in model.named_parameters()}
    assert any(p.grad[gone[n]].any() for n, p in model.named_parameters()), "the test can fail"
    prune.mask_gradients(model)
    assert not any(p.grad[gone[n]].any() for n, p in model.named_parameters())
    assert all(p.grad.any() for p in model.parameters())


def test_the_lottery_goes_back_to_the_early_weights() -> None:
    model = net()
    c = PruneConfig(method="lottery", sparsity=0.75, rounds=2)
    prune.attach(model, c)
    start = prune.early(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    trained = {n: p.detach().abs().clone() for n, p in model.named_parameters()}
    prune.rewound(model, start, c, 1)
    assert prune.sparsity(model) == pytest.approx(0.5, abs=1e-3)
    for name, p in model.named_parameters():
        kept = p != 0
        assert torch.equal(p[kept], start[name][kept]), "the early values"
        assert trained[name][kept].min() >= trained[name][~kept].max(), "chosen by the trained ones"
    prune.rewound(model, start, c, 2)
    assert prune.sparsity(model) == pytest.approx(0.75, abs=1e-3)


def test_zeros_stay_through_network_nir_and_back(tmp_path: Path) -> None:
    model = pruned(0.9)
    network = to_network(model)
    nir.save(network, tmp_path / "n.nir")
    again = nir.load(tmp_path / "n.nir")
    for name in ("a", "b_recurrent", "c"):
        assert np.array_equal(again.nodes[name].weight, network.nodes[name].weight)
        assert np.count_nonzero(again.nodes[name].weight) == round(0.1 * network.nodes[name].weight.size)
    back = to_module(again)
    prune.freeze_zeros(back)
    assert {n: int(k.sum()) for n, k in prune.masks(back).items()} == {
        n: int(k.sum()) for n, k in prune.masks(model).items()
    }


def test_a_pruned_network_takes_fewer_synapses_and_less_memory_on_loihi2() -> None:
    full, thin = (compile(to_network(m), "loihi2") for m in (net(), pruned(0.9)))
    count = [sum(int(np.count_nonzero(p.weight_q)) for p in program.projections) for program in (full, thin)]
    held = [sum(p.weight_q.size for p in program.projections) for program in (full, thin)]
    assert held == [40 * 60 + 60 * 60 + 60 * 6, 240 + 360 + 36]
    assert count[1] <= held[1]
    memory = [sum(row["memory"] for row in p.placement.utilisation) for p in (full, thin)]
    assert memory[1] < 0.4 * memory[0], memory
    x = np.random.default_rng(0).integers(0, 2, (30, 4, 40)).astype(np.uint8)
    traces = [simulate(program, x) for program in (full, thin)]
    sops = [int(np.sum(t.counters.synops)) for t in traces]
    assert sops[1] < 0.3 * sops[0]


def test_lists_begin_where_they_are_smaller() -> None:
    entry, index = (load_chip("loihi2").limit(n) for n in ("synapse_entry", "index_entry"))
    assert pytest.approx(entry / (entry + index)) == LIST_BELOW


def test_a_sparse_list_computes_what_the_matrix_does() -> None:
    """The program as compiled, and with every list written out as a matrix."""
    program = compile(to_network(pruned(0.8)), "loihi2")
    assert {p.kind for p in program.projections} == {"sparse"}

    def matrix(p: Projection) -> Projection:
        full = np.zeros((program.populations[p.target].size, program.populations[p.source].size), np.int64)
        full[p.params["row"], p.params["col"]] = p.weight_q
        assert np.count_nonzero(full) == np.count_nonzero(p.weight_q)
        params = {n: v for n, v in p.params.items() if n not in ("row", "col")}
        return replace(p, kind="dense", weight_q=full, params=params)

    x = (np.random.default_rng(0).random((60, 4, 40)) < 0.5).astype(np.uint8)
    written_out = replace(program, projections=tuple(map(matrix, program.projections)))
    listed, full = simulate(program, x), simulate(written_out, x)
    assert listed.spikes["b"].any()
    assert np.array_equal(listed.spikes["b"], full.spikes["b"])
    dense = compile(to_network(pruned(0.6)), "loihi2")
    assert {p.kind for p in dense.projections} == {"dense"}, "a matrix is smaller than a list of 40 %"


def test_pruned_few_levels_have_no_offset_where_no_synapse_is() -> None:
    model = SpikingNetwork({"a": FewLinear(40, 6, False, affine=True), "b": LIF()}, input_shape=(40,), dt=1e-3)
    prune.attach(model, PruneConfig())
    prune.cut_smallest(model, 0.5)
    kept = model.layer("a").get_buffer("kept")
    weight = to_network(model).nodes["a"].weight
    assert not weight[~kept.numpy()].any()
    assert len(np.unique(weight[kept.numpy()])) <= 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prune": {"method": "magic"}}, "magnitude"),
        ({"prune": {"sparsity": 1.0}}, r"\[0, 1\)"),
        ({"prune": {"start": 0.8, "end": 0.2}}, "rise"),
        ({"prune": {"method": "lottery", "rounds": 2}}, "not shared evenly"),
        ({"prune": {"method": "lottery", "rounds": 1, "rewind": 2}}, "rewind"),
        ({"prune": {"end": 0.9}, "quantise": {**FORMATS, "start": 0.8}}, "end it before"),
    ],
)
def test_what_cannot_be_pruned_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Config.from_table({**TABLE, **change})
