"""Families of models as spikes: one row each, spikes held against the quantised original on the whole test set.

    python tests/proofs/families.py [--quick] [--json OUT] [--only FAMILY]

Every family is trained here, quantised, and run until nobody sends any more. Judged:

- where docs/families.md says exact: all values of the answer equal in every bit (array_equal) from some step on, and
  nobody sends afterwards; boosted trees: equal to scikit-learn's own decisions and raw sums;
- mixture of experts: a winner is never another than the float router's where the margin says so; messages of experts
  grow with the number of chosen ones;
- Hopfield by samples: the error's square after N spikes within 15 % of its expectation, for N = 1, 4, .., 256;
- where a family lowers to a chip (Loihi 2), 60 samples: every value of the chip's simulator equals the graph's, which
  is made for the chip: 8-bit weights, for KAN and complex networks on a grid of 1/64, for trees two rounds of ten.

Energy is the chip's estimate; blank where no chip here computes what the family needs (products, tables, norms). One
seed. Data: scikit-learn's digits (1198 / 599), MNIST embedded, pooled to 14x14 (7000 / 1998), Japanese Vowels with 30 %
of the frames missing (270 / 370). Exits 1 where one of these falls short.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.conversion_chips import certify_on_chip, lower_for
from neuro.convert.families import hopfield, kan, liquid, moe, products, spike_driven, trees, vision
from neuro.convert.families.build import Settled, accuracy, fit, settle
from neuro.convert.from_torch import from_torch
from neuro.convert.graph import Graph
from neuro.convert.quantise import quantise
from neuro.datasets.images import images
from neuro.datasets.vowels import series
from neuro.errors import NeuroError
from neuro.files import write_json

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "families.json"
STEPS = (1, 2, 4, 8, 16, 32)
NO_CHIP = "no chip here has products, tables or norms"
CHIP, ON_CHIP = "loihi2", 60  # samples that the chip's simulator runs


class Data(NamedTuple):
    """Inputs to train on (float32) and labels; the same to test on (float64)."""

    name: str
    x: Tensor
    y: Tensor
    u: Tensor
    v: Tensor


def digits(quick: bool) -> Data:
    from sklearn.datasets import load_digits

    x, y = (torch.as_tensor(each) for each in load_digits(return_X_y=True))
    end = 1298 if quick else len(x)
    return Data("digits", (x[:1198] / 16).float(), y[:1198], x[1198:end] / 16, y[1198:end])


def mnist(quick: bool) -> Data:
    parts = []
    for split, most in (("train", 1500 if quick else 7000), ("test", 100 if quick else 2000)):
        found = images(split)
        x = fn.avg_pool2d(torch.as_tensor(found.images[:most].astype(np.float64))[:, None] / 255, 2)
        parts += [x, torch.as_tensor(found.labels[:most])]
    return Data("MNIST 14x14", parts[0].float(), parts[1], parts[2], parts[3])


def table(found: Settled, y: Tensor) -> dict[str, Any]:
    """Accuracies over time, and when it is equal."""
    return {
        "quantised": accuracy(found.reference, y),
        "snn": {str(t): accuracy(found.outputs[t], y) for t in STEPS if t in found.outputs},
        "equal_from": found.equal_from,
        "silent_at": found.silent_at,
        "messages": round(sum(found.messages.values()), 1),
        "holds": found.equal_from is not None and found.silent_at is not None,
    }


def chip(graph: Graph, x: Tensor, y: Tensor) -> dict[str, Any]:
    """What the chip's simulator and estimate say, or why not."""
    try:
        found = certify_on_chip(lower_for(graph, CHIP), CHIP, x[:ON_CHIP], y[:ON_CHIP])
    except NeuroError as refused:
        return {"chip": CHIP, "refused": str(refused).splitlines()[0][:200]}
    return {
        "chip": CHIP, "equal": found.equal, "expected": found.expected, "accuracy": found.accuracy,
        "samples": found.samples, "cores": found.cores, "energy_j": found.energy_j, "holds": found.holds,
    }  # fmt: skip


class Row(NamedTuple):
    """name -> what was found; float: accuracy of the float network. Anything else travels in ``more``."""

    data: str
    floating: float
    found: dict[str, Any]
    more: dict[str, Any]


def floating(net: nn.Module, y: Tensor, *x: Tensor) -> float:
    with torch.no_grad():
        return accuracy(net.double()(*x), y)


def plain(d: Data, graph: Graph, net: nn.Module, on_chip: Graph | None = None, **more: Any) -> Row:
    """A family whose whole story is one graph."""
    energy = {"refused": NO_CHIP} if on_chip is None else chip(on_chip, more.pop("given", d.u), d.v)
    return Row(d.name, floating(net, d.v, d.u), table(settle(graph, d.u, most=3000), d.v), {"chip": energy, **more})


class CNN(nn.Module):
    """VGG-small, or with a residual sum."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.residual, width = residual, 12
            self.first, self.norm1 = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            self.third, self.out = nn.Conv2d(width, 2 * width, 3), nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = fn.avg_pool2d(fn.relu(self.norm1(self.first(x))), 2)
        b = self.norm2(self.second(a))
        b = fn.avg_pool2d(fn.relu(a + b if self.residual else b), 2)  # 3 x 3
        y: Tensor = self.out(fn.relu(self.third(b)).flatten(1))
        return y


def mlp(quick: bool) -> Row:
    d = digits(quick)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = fit(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), (d.x,), d.y, 30)
    graph = from_torch(net.double(), d.x.double())
    graph = quantise(graph, d.x.double(), levels=8, weight_bits=8, input_levels=16)
    return plain(d, graph, net, on_chip=graph)


def cnn(quick: bool, residual: bool) -> Row:
    d = mnist(quick)
    net = fit(CNN(residual), (d.x,), d.y, 3 if quick else 6).double()
    x = d.x[:500].double()
    graph = quantise(from_torch(net, x), x, levels=8, weight_bits=8, input_levels=16)
    row = plain(d, graph, net, on_chip=None if quick else graph)
    return row._replace(more={"chip": {"refused": "the chip is simulated in the whole proof only"}}) if quick else row


def forest(quick: bool) -> Row:
    from sklearn.ensemble import HistGradientBoostingClassifier

    d = digits(quick)
    inputs, x = (d.x.double() * 16).numpy(), np.ascontiguousarray((d.u * 16).numpy())
    options = {"max_iter": 4 if quick else 20, "max_leaf_nodes": 8, "learning_rate": 0.3, "random_state": 0}
    model = HistGradientBoostingClassifier(early_stopping=False, **options).fit(inputs, d.y.numpy())
    made = trees.from_sklearn(model)
    found = settle(trees.to_graph(made), torch.as_tensor(x))
    raw = found.outputs[1]
    sums = bool(np.array_equal(raw.numpy(), model.decision_function(x)))
    same = bool(np.array_equal(trees.decisions(model, raw), model.predict(x)))
    row = table(found, d.v)
    row["holds"] = row["holds"] and sums and same
    small = HistGradientBoostingClassifier(early_stopping=False, **{**options, "max_iter": 2}).fit(inputs, d.y.numpy())
    onto = quantise_input(trees.to_integer_graph(trees.from_sklearn(small), bits=4))
    energy = chip(onto, torch.as_tensor(x), d.v)
    more = {"equal_to_sklearn": {"raw sums": sums, "decisions": same}, "trees": made.trees, "leaves": len(made.value)}
    return Row(
        d.name, float(model.score(x, d.v.numpy())), row, {"chip": {**energy, "trees": small.n_iter_ * 10}, **more}
    )


def quantise_input(graph: Graph) -> Graph:
    """Whole numbers 0..16 as levels of one population behind the input, which is how a chip is given them."""
    from neuro.convert.ops import Quantise

    return graph.insert("x", "x.events", Quantise(torch.ones((), dtype=torch.float64), 0, 16))


def edges(quick: bool) -> Row:
    d = digits(quick)
    net = kan.KAN((64, 16 if quick else 24, 10))
    fit(net, (d.x,), d.y, 8 if quick else 30, lr=5e-3)
    tables, units = kan.to_graph(net), kan.to_thermometer(net)
    binary = settle(units, d.u)
    same = torch.equal(binary.reference, tables.run(d.u)) and binary.equal_from == 1
    onto = kan.to_thermometer(net, bits=6, whole=True)
    row = plain(d, tables, net, on_chip=onto, given=d.u * 16)
    thermometer = {"equal to tables": same, "equal_from": binary.equal_from, "messages": sum(binary.messages.values())}
    row.found["holds"] = row.found["holds"] and same
    return Row(row.data, row.floating, row.found, {**row.more, "thermometer": thermometer})


def transformer(quick: bool) -> Row:
    d = mnist(quick)
    net = vision.ViT()
    fit(net, (d.x,), d.y, 6 if quick else 20, lr=2e-3)
    return plain(d, vision.to_graph(net, d.x[:300].double(), levels=16 if quick else 24), net)


def spiking_block(quick: bool) -> Row:
    d = mnist(quick)
    net = spike_driven.SpikeDriven()
    fit(net, (d.x,), d.y, 2 if quick else 4, lr=4e-3)
    return plain(d, spike_driven.to_graph(net), net)


def experts(quick: bool) -> Row:
    base = mnist(quick)
    d = Data(base.name, base.x.flatten(1), base.y, base.u.flatten(1), base.v)
    rows: dict[int, Any] = {}
    for active in (1, 2, 4, 8):
        net = moe.MoE(196, 16, active=active)
        fit(net, (d.x,), d.y, 4 if quick else 12)
        mixture = moe.to_graphs(net, d.x[:1000].double())
        router, found = moe.run(mixture, d.u)
        inside = {n: round(m, 2) for n, m in found.messages.items() if "hidden" in n}
        rows[active] = (floating(net, d.v, d.u), router, found, sum(inside.values()), inside)
        if active == 1:
            margin, _ = moe.margins(net, mixture, d.u)
            other = net.router(d.u).argmax(1) != router.reference.argmax(1)
            violations = {
                "another winner": int(other.sum()), "margin below quantisation": int((margin <= 0).sum()),
                "another winner above it": int((other & (margin > 0)).sum()), "samples": len(d.v),
                "chosen": (router.reference > 0).sum(0).tolist(),
            }  # fmt: skip
    first, router, found, _, inside = rows[1]
    row = table(found, d.v)
    # every event of the pixels is delivered to as many experts as are chosen
    sent = {k: {"hidden": round(r[3], 1), "delivered": round(k * r[2].messages["pixels"], 1)} for k, r in rows.items()}
    rising = [sent[k]["hidden"] for k in (1, 2, 4, 8)]
    row["holds"] = (
        row["holds"] and router.equal_from is not None and not violations["another winner above it"]
        and rising == sorted(rising) and rising[0] < rising[-1] / 2
    )  # fmt: skip
    row["router"] = {"equal_from": router.equal_from, "messages": round(sum(router.messages.values()), 1)}
    more = {"chip": {"refused": NO_CHIP}, "winners": violations, "messages by active experts": sent, "experts": inside}
    return Row(d.name, first, row, more)


def memory(quick: bool) -> tuple[Data, hopfield.Hopfield]:
    d = digits(quick)
    x, u = ((each - 0.5) / (each - 0.5).norm(dim=1, keepdim=True) for each in (d.x, d.u))
    layer = hopfield.Hopfield(x[:200], 4 * fn.one_hot(d.y[:200], 10).float())
    fit(layer, (x,), d.y, 6 if quick else 20)
    return Data(d.name, x, d.y, u, d.v), layer.double()


def associative(quick: bool) -> Row:
    d, layer = memory(quick)
    row = plain(d, hopfield.to_graph(layer, d.x.double()), layer)
    drawn = hopfield.sample(layer, d.u, 256, torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, one = layer(d.u), hopfield.spread(layer, d.u).mean()
        errors = {n: float(((drawn[n - 1] - wanted) ** 2).sum(1).mean() * n / one) for n in (1, 4, 16, 64, 256)}
    bounded = all(abs(ratio - 1) < (0.3 if quick else 0.15) for ratio in errors.values())
    sharp = settle(hopfield.nearest(layer, d.x.double()), d.u, most=500)
    near = table(sharp, d.v)
    row.found["holds"] = row.found["holds"] and bounded and near["holds"]
    sampled = {str(n): accuracy(drawn[n - 1], d.v) for n in errors}
    more = {"N error^2 / expected": errors, "accuracy by N spikes": sampled, "nearest memory": near}
    return Row(row.data, row.floating, row.found, {**row.more, **more})


def krotov(quick: bool) -> Row:
    d, layer = memory(quick)
    net = products.DenseMemory(layer.memories.detach().float(), layer.values.detach().float())
    fit(net, (d.x,), d.y, 4 if quick else 10)
    return plain(d, products.dense_graph(net, d.x.double()), net)


def recurrent(quick: bool, kind: str) -> Row:
    train, test = series("train", dropped=0.3), series("test", dropped=0.3)
    valid = series("valid", dropped=0.3)
    most = 60 if quick else 1000
    scale = torch.as_tensor(train.values[train.gaps > 0].std(0))
    u, dt = (torch.as_tensor(np.concatenate([a, b])) for a, b in zip(train[:2], valid[:2], strict=True))
    y = torch.as_tensor(np.concatenate([train.speaker, valid.speaker]))
    tested, gaps, labels = (torch.as_tensor(each[:most]) for each in (test.values, test.gaps, test.speaker))
    u, tested = u / scale, tested / scale
    net = liquid.Liquid(kind, 12)
    fit(net, (u.float(), dt.float()), y, 10 if quick else 50, lr=8e-3, batch=32)
    made = liquid.to_graphs(net.double(), u, dt)
    runs = {t: liquid.run(made, tested, gaps, t) for t in (*STEPS, 400)}
    last = runs[400]
    equal = torch.equal(last.answer, last.reference) and last.settled_at is not None
    found = {
        "quantised": accuracy(last.reference, labels), "snn": {str(t): accuracy(runs[t].answer, labels) for t in STEPS},
        "equal_from": last.settled_at, "silent_at": None, "messages": round(last.messages, 1), "holds": equal,
    }  # fmt: skip
    return Row("Japanese Vowels, irregular", floating(net, labels, tested, gaps), found, {"chip": {"refused": NO_CHIP}})


def squares(quick: bool) -> Row:
    d = digits(quick)
    net = products.Quadratic(64, 24)
    fit(net, (d.x,), d.y, 10 if quick else 25)
    return plain(d, products.quadratic_graph(net, d.x.double()), net)


def spectra(quick: bool) -> Row:
    d = digits(quick)
    z = [torch.fft.fft2(each.double().reshape(-1, 8, 8))[:, :, :5].flatten(1) / 8 for each in (d.x, d.u)]
    x, u = (torch.cat([each.real, each.imag], 1) for each in z)
    d = Data("digits, Fourier", x.float(), d.y, u, d.v)
    net = products.ComplexNet(40, 24)
    fit(net, (d.x,), d.y, 10 if quick else 25)
    onto = products.complex_graph(net, x, bits=6)  # weights of a chip have 8 bits
    return plain(d, products.complex_graph(net, x), net, on_chip=onto)


def hyper(quick: bool) -> Row:
    d = digits(quick)

    def turned(x: Tensor) -> tuple[Tensor, Tensor]:
        many = torch.arange(len(x)) % 4
        turns = torch.stack([torch.rot90(x.reshape(-1, 8, 8), k, (1, 2)) for k in range(4)])
        return turns[many, torch.arange(len(x))].flatten(1), fn.one_hot(many, 4).to(x.dtype)

    (x, c), (u, context) = turned(d.x), turned(d.u)
    net = products.HyperNet(64, 4)
    fit(net, (x, c), d.y, 10 if quick else 30)
    found = settle(products.hyper_graph(net, x.double(), c.double()), u, context, most=3000)
    exact = floating(net, d.v, u, context)
    constant = settle(products.folded(net, context[0], x.double()), u[context[:, 0] > 0], most=3000)
    row = table(found, d.v)
    folded = table(constant, d.v[context[:, 0] > 0])
    row["holds"] = row["holds"] and folded["holds"]
    return Row("digits, turned", exact, row, {"chip": {"refused": NO_CHIP}, "folded, one context": folded})


FAMILIES: dict[str, Callable[[bool], Row]] = {
    "MLP": mlp,
    "CNN": lambda quick: cnn(quick, False),
    "CNN, residual": lambda quick: cnn(quick, True),
    "boosted trees": forest,
    "KAN": edges,
    "vision transformer": transformer,
    "mixture of experts": experts,
    "Hopfield": associative,
    "CfC": lambda quick: recurrent(quick, "cfc"),
    "LTC": lambda quick: recurrent(quick, "ltc"),
    "spike-driven transformer": spiking_block,
    "dense memory": krotov,
    "quadratic": squares,
    "complex": spectra,
    "hypernetwork": hyper,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", action="append", choices=FAMILIES)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    print(
        f"{'family':25} {'float':>6} {'quant':>6} "
        + " ".join(f"T={t:<4}" for t in STEPS)
        + " equal  messages  energy/J"
    )
    for name in options.only or FAMILIES:
        began = time.perf_counter()
        row = FAMILIES[name](options.quick)
        on_chip = row.more.get("chip", {})
        holds = bool(row.found["holds"] and on_chip.get("holds", True))
        seconds = round(time.perf_counter() - began, 1)
        rows[name] = {
            "data": row.data,
            "float": row.floating,
            **row.found,
            **row.more,
            "holds": holds,
            "seconds": seconds,
        }
        over = " ".join(f"{row.found['snn'].get(str(t), float('nan')):6.3f}" for t in STEPS)
        joule = on_chip.get("energy_j")
        energy = f"{joule['nominal']:.2e}" if joule else str(on_chip.get("refused", ""))[:60]
        print(f"{name:25} {row.floating:6.3f} {row.found['quantised']:6.3f} {over} {row.found['equal_from']!s:>5} "
              f"{row.found['messages']:9.0f}  {energy} "
              f"{'' if holds else 'SHORT'} [{seconds} s]", flush=True)  # fmt: skip
    short = [name for name, row in rows.items() if not row["holds"]]
    target = options.json or (None if options.quick or options.only else RESULT)
    if target:
        write_json(target, {"quick": options.quick, "seeds": 1, "steps": STEPS, "families": rows, "short": short})
    print("all hold" if not short else f"short: {', '.join(short)}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
