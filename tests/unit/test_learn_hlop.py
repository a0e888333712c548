"""Lateral learning finds the subspace, projection protects it, and forgetting returns without."""

from __future__ import annotations

import pytest
import torch
from axon_tasks import low_rank, network, outcome, rng, tasks
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn.continual import EWC, GPM, Method, Replay
from neuro.learn.hlop import HLOP
from neuro.learn.rule import LossOf, Rule, rule
from neuro.learn.subspace import Subspace
from neuro.nn import LI, LIF, DelayLinear, SpikingNetwork


def taught(x: Tensor, rows: int, start: Tensor | None = None, steps: int = 300, **options: float) -> Subspace:
    space = Subspace(x.shape[1], dtype=torch.float64, **options)  # type: ignore[arg-type]
    space.grow(rows, start, rng=rng(1))
    for k in range(steps):
        space.learn(x[(64 * k) % len(x) :][:64])
    return space


@pytest.mark.parametrize("recruited", [False, True])
def test_lateral_rows_become_the_principal_subspace(recruited: bool) -> None:
    """Largest angle to the subspace that a decomposition finds below 5 degrees, rows orthonormal to 0.05."""
    x = low_rank(60, 8, 1024)
    space = taught(x, 8, x[:40] if recruited else None)
    best = torch.linalg.svd(x, full_matrices=False).Vh[:8]
    cosines = torch.linalg.svdvals(space.rows @ best.T)
    angle = float(torch.rad2deg(torch.arccos(cosines.clamp(max=1).min())))
    assert angle < 5
    assert float((space.rows @ space.rows.T - torch.eye(8, dtype=torch.float64)).abs().max()) < 0.05
    assert space.residual < 0.01


def test_new_rows_learn_what_old_ones_leave() -> None:
    first, second = low_rank(60, 6, 1024, 0), low_rank(60, 6, 1024, 7)
    space = taught(first, 6)
    space.merge()
    before = space.basis.clone()
    space.grow(6, None, rng=rng(2))
    for k in range(300):
        space.learn(second[(64 * k) % 1024 :][:64])
    space.merge()
    torch.testing.assert_close(space.basis[:6], before)
    torch.testing.assert_close(space.basis @ space.basis.T, torch.eye(12, dtype=torch.float64), atol=1e-10, rtol=0)
    for x in (first, second):
        assert float((x - (x @ space.basis.T) @ space.basis).square().sum() / x.square().sum()) < 0.01


def test_a_projected_gradient_leaves_old_answers() -> None:
    x = low_rank(60, 8, 1024)
    space = taught(x, 8)
    space.merge()
    gradient = torch.randn(5, 60, generator=rng(3), dtype=torch.float64)
    change = space.project(gradient)
    old = x[:200]
    assert float((change @ old.T).norm() / (change.norm() * old.norm())) < 0.05
    assert float((gradient @ old.T).norm() / (gradient.norm() * old.norm())) > 0.05  # it was not orthogonal by chance
    assert float(change.norm()) > 0.5 * float(gradient.norm())


def test_lateral_neurons_may_answer_in_bursts_of_spikes() -> None:
    x = low_rank(60, 4, 1024)
    space = taught(x, 4, burst=200)
    best = torch.linalg.svd(x, full_matrices=False).Vh[:4]
    assert float(torch.linalg.svdvals(space.rows @ best.T).min()) > 0.98
    coarse = taught(x, 4, burst=2)  # one step is ten times the input: nobody answers
    assert float(torch.linalg.svdvals(coarse.rows @ best.T).min()) < 0.98


def test_a_state_goes_on_as_if_nothing_had_happened() -> None:
    x = low_rank(30, 4, 256)
    whole, half = taught(x, 4, steps=20), taught(x, 4, steps=10)
    again = Subspace(30, dtype=torch.float64)
    again.load(half.state())
    for k in range(10, 20):
        again.learn(x[(64 * k) % len(x) :][:64])
    torch.testing.assert_close(again.rows, whole.rows, rtol=0, atol=0)


ROWS = {"a": 6, "b": 10}


def test_nothing_is_forgotten_with_it_and_much_without() -> None:
    """The only difference between the first two is whether gradients are projected."""
    acc, bwt = outcome(HLOP(rows=ROWS))
    off_acc, off_bwt = outcome(HLOP(rows=ROWS, project=False))
    plain_acc, plain_bwt = outcome(Method())
    assert acc > 0.95
    assert bwt > -0.02
    assert off_bwt < -0.1
    assert off_acc < acc - 0.1
    assert plain_bwt < -0.1
    assert plain_acc < acc - 0.1


OTHERS = {"gpm": GPM(fixed=True), "replay": Replay(samples=40), "ewc": EWC(strength=3000.0)}


@pytest.mark.parametrize("method", OTHERS.values(), ids=OTHERS)
def test_the_others_forget_less_than_nothing_done(method: Method) -> None:
    acc, bwt = outcome(method)
    plain_acc, plain_bwt = outcome(Method())
    assert bwt > plain_bwt + 0.05
    assert acc > plain_acc
    assert method.memory() > 0


def test_recurrent_weights_are_protected_too() -> None:
    method = HLOP(rows={**ROWS, "n.recurrent": 10})
    acc, bwt = outcome(method, recurrent=True)
    assert method.spaces["n.recurrent"].frozen == 40
    assert bwt > -0.03
    assert acc > 0.9


def test_rows_stop_where_the_energy_is_explained() -> None:
    method = HLOP(rows={"a": 30, "b": 40}, energy=0.95)
    acc, bwt = outcome(method)
    assert method.spaces["a"].frozen <= 24  # four tasks with four directions and a little noise
    assert bwt > -0.03
    assert acc > 0.9


def test_convolutions_learn_from_patches() -> None:
    torch.manual_seed(0)
    layers = {"c": nn.Conv2d(1, 4, 3, bias=False), "n": LIF(0.5), "f": nn.Flatten(), "b": nn.Linear(64, 2, bias=False),
              "o": LI(0.5)}  # fmt: skip
    net = SpikingNetwork(layers, input_shape=(1, 6, 6), dt=1e-3, readout="sum")
    method = HLOP(rows={"c": 3})
    x = torch.rand(3, 8, 1, 6, 6, generator=rng())
    labels = torch.zeros(8, dtype=torch.int64)

    def loss_for(labels: Tensor, task: int):  # type: ignore[no-untyped-def]
        return lambda trace, spikes: ((trace.sum(0) - 1).square().mean(), torch.zeros(()))

    for task in range(2):
        method.begin(task, net, [(x, labels)], rng())
        method.backward(task, net, x, labels, loss_for, rng())
        method.end(task, net, [(x, labels)], loss_for, rng())
    net.zero_grad()
    method.backward(2, net, x, labels, loss_for, rng())
    grad = layers["c"].weight.grad.flatten(1)  # type: ignore[union-attr,operator]
    assert method.spaces["c"].frozen == 6
    assert float((grad @ method.spaces["c"].basis.T).abs().max()) < 1e-5 * float(grad.norm())
    assert float(grad.norm()) > 0


def test_what_cannot_be_projected_is_refused() -> None:
    net = SpikingNetwork({"d": DelayLinear(5, 4, 3), "n": LIF(0.5)}, input_shape=(5,), dt=1e-3)
    with pytest.raises(NetworkError, match="d: DelayLinear"):
        HLOP(rows={"d": 2}).begin(0, net, [], rng())
    with pytest.raises(NetworkError, match="'z' is not a layer with weights; there are a, b"):
        HLOP(rows={"z": 2}).begin(0, network(), [], rng())


def test_what_a_watch_cannot_see_in_pieces_is_refused() -> None:
    """Layers with memory of their own run past the hooks there, and would be left unprotected."""
    x, labels = next(tasks(1)[0].train(8, 0, 0))

    def loss_for(labels: Tensor, task: int):  # type: ignore[no-untyped-def]
        return lambda trace, spikes: (trace.square().mean(), torch.zeros(()))

    method = HLOP(rule("bptt", truncate=2), rows={"n.recurrent": 3})
    method.begin(0, network(recurrent=True), [(x, labels)], rng())
    with pytest.raises(NetworkError, match="leave out truncate"):
        method.backward(0, network(recurrent=True), x, labels, loss_for, rng())
    watched: list[str] = []
    rule("bptt", truncate=2).backward(network(), x, loss_for(labels, 0), watch=lambda name, rows: watched.append(name))
    assert set(watched) == {"a", "b"}


RULES: dict[str, dict[str, int]] = {
    "sltt": {"stretch": 2},
    "sltt, 2 of 5 steps": {"stretch": 1, "steps": 2},
    "ottt": {"stretch": 2},
    "dsr": {},
}


def reset(name: str) -> str:
    """dsr knows rates only where the reset keeps what they count."""
    return "subtract" if name == "dsr" else "hard"


def mean_square(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return trace.square().mean(), torch.zeros((), dtype=trace.dtype)


def of_rule(name: str) -> Rule:
    return rule(name.split(",", maxsplit=1)[0], **RULES[name])


def seen_by(given: Rule, net: SpikingNetwork, x: Tensor, loss_of: LossOf) -> dict[str, Tensor]:
    """What a watch is shown of a batch, by layer, [rows, inputs]; gradients of the batch are in ``net``."""
    rows: dict[str, list[Tensor]] = {}
    net.zero_grad()
    given.backward(net, x, loss_of, rng=rng(5), watch=lambda name, found: rows.setdefault(name, []).append(found * 1))
    return {name: torch.cat([r.flatten(0, -2) for r in found]) for name, found in rows.items()}


@pytest.mark.parametrize("name", RULES)
def test_a_weight_gradient_is_a_product_with_what_the_rule_shows(name: str) -> None:
    """Its rows lie in the span of the rows that the watch saw, which leaves most of the space out."""
    net = network(reset=reset(name)).double()
    x = torch.rand(5, 3, 40, generator=rng(), dtype=torch.float64)
    for layer, rows in seen_by(of_rule(name), net, x, mean_square).items():
        grad = net.layer(layer).weight.grad
        assert isinstance(grad, Tensor)
        basis = torch.linalg.svd(rows, full_matrices=False)
        held = basis.Vh[basis.S / basis.S[0] > 1e-9]
        assert len(held) <= 15 < grad.shape[1]
        assert float(grad.norm()) > 0
        assert float((grad - (grad @ held.T) @ held).norm()) < 1e-9 * float(grad.norm())


@pytest.mark.parametrize("name", RULES)
def test_it_wraps_any_rule(name: str) -> None:
    """Each learns four tasks in its own way; nothing is forgotten with projection, and more with the same without."""
    acc, bwt = outcome(HLOP(of_rule(name), rows=ROWS), reset=reset(name))
    off_acc, off_bwt = outcome(HLOP(of_rule(name), rows=ROWS, project=False), reset=reset(name))
    assert acc > 0.9
    assert bwt > -0.03
    assert off_bwt < bwt - 0.1
    assert off_acc < acc


@pytest.mark.parametrize("name", RULES)
def test_a_step_leaves_what_old_tasks_show_to_the_rule(name: str) -> None:
    """With rows for all that the first task shows, gradients of the second are orthogonal to all of it."""
    net, x = network(reset=reset(name)).double(), torch.rand(5, 3, 40, generator=rng(), dtype=torch.float64)
    method = HLOP(of_rule(name), rows={"a": 15, "b": 15}, passes=100, rate=1.0)
    labels = torch.zeros(3, dtype=torch.int64)
    first = x[:1].expand(5, -1, -1)

    def loss_for(labels: Tensor, task: int) -> LossOf:
        return mean_square

    method.begin(0, net, [(first, labels)], rng())
    method.end(0, net, [(first, labels)], loss_for, rng())
    old = seen_by(method.rule, net, first, mean_square)
    other = torch.rand(1, 3, 40, generator=rng(9), dtype=torch.float64).expand(5, -1, -1)
    for task in (0, 1):
        net.zero_grad()
        method.backward(task, net, other, labels, loss_for, rng())
        for layer in "ab":
            grad = net.layer(layer).weight.grad
            assert isinstance(grad, Tensor)
            reached = float((grad @ old[layer].T).norm() / (grad.norm() * old[layer].norm()))
            assert reached < 1e-4 if task else reached > 0.1


def over_time(x: Tensor, what: str | float) -> Tensor:
    """By loops: x [steps, samples, n] -> rows."""
    if what == "rates":
        return torch.stack([sum(x[:, b], torch.zeros_like(x[0, 0])) / len(x) for b in range(x.shape[1])])
    assert isinstance(what, float)
    rows = [
        sum((what ** (t - s) * x[s, b] for s in range(t + 1)), torch.zeros_like(x[0, 0]))
        for t in range(len(x))
        for b in range(x.shape[1])
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("what", "rows"), [("rates", 3), (0.5, 15)])
def test_lateral_neurons_may_see_rates_or_traces(what: str | float, rows: int) -> None:
    """As many rows as there are rates, or traces, of the first task: later gradients are orthogonal to all of these."""
    net, x = network().double(), torch.rand(5, 3, 40, generator=rng(), dtype=torch.float64)
    method = HLOP(rows={"a": rows, "b": rows}, sees={"a": what, "b": what}, passes=150, rate=1.0)
    labels = torch.zeros(3, dtype=torch.int64)

    def loss_for(labels: Tensor, task: int) -> LossOf:
        return mean_square

    method.begin(0, net, [(x, labels)], rng())
    method.end(0, net, [(x, labels)], loss_for, rng())
    spikes = {n: s.reshape(5, 3, -1) for n, s in seen_by(method.rule, net, x, mean_square).items()}
    other = torch.rand(5, 3, 40, generator=rng(9), dtype=torch.float64)
    net.zero_grad()
    method.backward(1, net, other, labels, loss_for, rng())
    for layer in "ab":
        old, grad = over_time(spikes[layer], what), net.layer(layer).weight.grad
        assert isinstance(grad, Tensor)
        assert float((grad @ old.T).norm()) < 1e-3 * float(grad.norm() * old.norm())
        if what == "rates":  # single steps are not what is kept
            single = spikes[layer].flatten(0, 1)
            assert float((grad @ single.T).norm()) > 1e-2 * float(grad.norm() * single.norm())


def test_cooling_settles_on_the_principal_subspace() -> None:
    """Small batches pull rows about at a constant rate; the rate is back where it was for the next task."""
    g = rng(3)
    inputs = torch.randn(640, 40, generator=g) * torch.linspace(1, 0, 40) ** 2
    batches = [(part.expand(5, *part.shape), torch.zeros(16, dtype=torch.int64)) for part in torch.split(inputs, 16)]
    best = torch.linalg.svd(inputs, full_matrices=False).Vh[:12]
    least = float((inputs - (inputs @ best.T) @ best).square().sum())
    missed = {}
    for cool in (1.0, 0.05):
        method = HLOP(rows={"a": 12}, sees={"a": "rates"}, passes=4, cool=cool)
        method.begin(0, network(), batches, rng())
        method.end(0, network(), batches, lambda labels, task: mean_square, rng())
        basis = method.spaces["a"].basis
        missed[cool] = float((inputs - (inputs @ basis.T) @ basis).square().sum()) / least - 1
        assert method.spaces["a"].rate == method.rate
    assert missed[0.05] < 0.7 * missed[1.0]


def test_what_lateral_neurons_cannot_see_is_refused() -> None:
    with pytest.raises(NetworkError) as caught:
        HLOP(rows=ROWS, sees={"z": "rates", "a": 1.0, "b": "sums"}).begin(0, network(), [], rng())
    assert "'z'" in str(caught.value)
    assert "got 1.0" in str(caught.value)
    assert "got 'sums'" in str(caught.value)
    with pytest.raises(NetworkError, match="leave out sees"):
        HLOP(rule("ottt"), rows=ROWS, sees={"a": "rates"}).begin(0, network(), [], rng())
