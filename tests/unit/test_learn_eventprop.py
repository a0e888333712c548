"""EventProp on a grid against plain loops, against the exact adjoint, and at its borders."""

from __future__ import annotations

from typing import Any

import axon_eventprop as plain
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.errors import BadConfig, NetworkError
from neuro.learn import rule
from neuro.learn.eventprop import EventProp
from neuro.learn.eventprop_exact import Circuit, Run, adjoint, simulate
from neuro.learn.rule import Learnt
from neuro.nn import AdLIF
from neuro.nn.delay import DelayedLinear
from neuro.nn.delay_linear import DelayLinear
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Recurrent
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import SpikingNetwork
from neuro.train.config import load_config
from neuro.train.quantise_aware import prepare

STEPS, BATCH = 41, 3


@pytest.fixture(autouse=True)
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(*layers: nn.Module, inputs: int = 9, readout: str = "sum", scale: float = 4.0) -> SpikingNetwork:
    model = SpikingNetwork(
        {f"{k}": layer for k, layer in enumerate(layers)}, input_shape=(inputs,), dt=1e-3, readout=readout
    ).double()
    rng = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2 and p.shape[0] > 1 and p.min() < 0:  # weights, not delays
                p.copy_((torch.rand(p.shape, generator=rng) - 0.35) * scale / p.shape[1] ** 0.5)
            elif p.dim() == 1:
                p.copy_(torch.rand(p.shape, generator=rng) * 0.02)
    return model


def spikes_in(inputs: int = 9, steps: int = STEPS, batch: int = BATCH, rate: float = 0.12, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (torch.rand((steps, batch, inputs), generator=rng) < rate).to(torch.uint8)


def loss_of(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Asks when, and how often."""
    w = torch.linspace(1.0, 0.3, len(trace)).view(-1, 1, 1) * torch.arange(1.0, trace.shape[2] + 1)
    loss = (trace * w).sin().sum()
    penalty = torch.zeros(())
    for s in spikes.values():
        n = s.flatten(2).sum(0)
        penalty = penalty + 0.03 * (n - 2.0).square().sum()
    return loss, penalty


def reference(model: SpikingNetwork, x: Tensor, least: float) -> dict[str, Any]:
    """Gradients by `axon_eventprop`, added up over samples; by the name of the parameter."""
    layers: list[plain.Layer] = []
    homes: list[tuple[str, str]] = []
    names = list(model.names)
    for a, b in zip(names[::2], names[1::2], strict=True):
        synapses, target = model.layer(a), model.layer(b)
        neuron: Any = target.neuron if isinstance(target, Recurrent) else target
        w = (synapses.real()[0] if hasattr(synapses, "real") else synapses.weight).detach().numpy()  # type: ignore[operator]
        delay = np.zeros_like(w)
        if isinstance(synapses, DelayLinear):
            delay = np.broadcast_to(synapses.delay.detach().numpy(), w.shape)
        elif isinstance(synapses, DelayedLinear):
            delay = synapses.get_buffer("delay_steps").numpy().astype(float)
        bias = np.zeros(len(w)) if synapses.bias is None else synapses.bias.detach().numpy()  # type: ignore[operator,union-attr]
        c = {n: float(neuron.value(n)) for n in ("alpha", "gain_syn", "beta", "gain", "drive", "v_reset")}
        layers.append(
            plain.Layer(
                w, delay, target.recurrent.weight.detach().numpy() if isinstance(target, Recurrent) else None, bias,
                **c, theta=float(neuron.value("v_threshold")), subtract=neuron.reset == "subtract",
                spiking=neuron.spiking,
            )
        )  # fmt: skip
        homes.append((a, b))
    found: dict[str, Any] = {}
    for b in range(x.shape[1]):
        given = x[:, b].double().numpy()
        y = given
        counts: list[Any] = []
        for layer in layers:
            y, _ = plain.forward(layer, y)
            counts.append(0.06 * (y.sum(0) - 2.0) if layer.spiking else None)

        def g_of(trace: np.ndarray) -> np.ndarray:
            leaf = torch.from_numpy(trace)[:, None].requires_grad_()
            return torch.autograd.grad(loss_of(leaf, {})[0], leaf)[0][:, 0].numpy()

        parts, _ = plain.gradients(layers, given, g_of, counts, least)
        for (a, n), part in zip(homes, parts, strict=True):
            for name, value in part.items():
                key = {"loop": f"{n}.loop", "shift": f"{n}.shift"}.get(name, f"{a}.{name}")
                found[key] = found.get(key, 0) + value if name != "shift" else value
    return found


def learnt(model: SpikingNetwork, x: Tensor, **options: Any) -> Learnt:
    model.zero_grad()
    return rule("eventprop", **options).backward(model, x, loss_of)


def readout(n: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(n, 3, bias=False), LI(0.9)


def delays(inputs: int, out: int, kind: str) -> DelayLinear:
    torch.manual_seed(1)
    return DelayLinear(inputs, out, 6, kind=kind, bias=True)


SUBTRACT = {"reset": "subtract", "v_threshold": 0.8}
GAINS = {"gain": 0.4, "gain_syn": 0.7, "drive": 0.01, "v_reset": -0.2, "v_threshold": 0.5}
NETWORKS: dict[str, Any] = {
    "lif": lambda: network(nn.Linear(9, 7), LIF(0.9), *readout(7)),
    "if": lambda: network(nn.Linear(9, 7), IF(2.0), nn.Linear(7, 3), CubaLI(0.5, 0.8)),
    "cuba": lambda: network(nn.Linear(9, 7, bias=False), CubaLIF(0.8, 0.9), *readout(7), readout="max"),
    "deep": lambda: network(nn.Linear(9, 7), CubaLIF(0.7, 0.9), nn.Linear(7, 20), CubaLIF(0.8, 0.8), *readout(20)),
    "recurrent": lambda: network(nn.Linear(9, 17), Recurrent(CubaLIF(0.7, 0.9), 17), *readout(17), scale=3.0),
    "subtract": lambda: network(nn.Linear(9, 7), Recurrent(CubaLIF(0.5, 0.9, **SUBTRACT), 7), *readout(7)),
    "gains": lambda: network(nn.Linear(9, 7), CubaLIF(0.5, 0.9, **GAINS), *readout(7)),
    "delays": lambda: network(delays(9, 7, "synaptic"), CubaLIF(0.7, 0.9), *readout(7)),
    "axonal": lambda: network(nn.Linear(9, 6), LIF(0.8), delays(6, 7, "axonal"), Recurrent(LIF(0.9), 7), *readout(7)),
    "dendritic": lambda: network(delays(9, 7, "dendritic"), CubaLIF(0.7, 0.9), *readout(7)),
    "fixed": lambda: network(
        DelayedLinear(np.arange(63).reshape(7, 9) % 5), CubaLIF(0.7, 0.9), DelayedLinear(np.full((3, 7), 2)), LI(0.9)
    ),
    "masked": lambda: network(MaskedLinear(9, 7, False, 4), CubaLIF(0.7, 0.9), *readout(7)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tile", [7, 64])
def test_gradients_are_those_of_plain_loops(name: str, tile: int) -> None:
    model, x = NETWORKS[name](), spikes_in()
    found = learnt(model, x, tile=tile, slope=0.1)
    assert sum(found.fired.values()) > 20
    expected = reference(model, x, 0.1)
    for p_name, p in model.named_parameters():
        _, layer, *rest = p_name.split(".")
        key = f"{layer}.loop" if "recurrent" in rest else f"{layer}.{rest[-1]}"
        want = torch.from_numpy(np.array(expected[key]))
        module = model.layer(layer)
        if rest[-1] == "delay":
            want = (
                want.sum(0, keepdim=True) if p.shape[0] == 1 else want.sum(1, keepdim=True) if p.shape[1] == 1 else want
            )
        if isinstance(module, MaskedLinear):
            want = want * module.get_buffer("mask")
        assert p.grad is not None
        assert float(p.grad.abs().max()) > 0, p_name
        torch.testing.assert_close(p.grad, want, rtol=1e-9, atol=1e-9, msg=lambda m, n=p_name: f"{n}: {m}")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_trained_is_what_the_network_runs(name: str) -> None:
    model, x = NETWORKS[name](), spikes_in()
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        trace = model(x, record)
    found = learnt(model, x, tile=16)
    torch.testing.assert_close(found.scores, model.scores(trace))
    assert found.fired == {n: float(s.sum()) for n, s in record.items()}
    assert found.loss == pytest.approx(float(loss_of(trace.detach(), {})[0]), rel=1e-9)


def test_the_readout_learns_as_with_backpropagation() -> None:
    model, x = NETWORKS["deep"](), spikes_in()
    learnt(model, x)
    event = model.layer("4").weight.grad.clone()  # type: ignore[union-attr,operator]
    model.zero_grad()
    rule("bptt").backward(model, x, loss_of)
    torch.testing.assert_close(model.layer("4").weight.grad, event)


def test_it_goes_on_with_a_chips_integers() -> None:
    """Spikes are those of the integers, the readout's gradient that of backpropagation, rounding passed straight."""
    quantise = load_config("braille").quantise
    assert quantise
    model = network(nn.Linear(9, 17, bias=False), Recurrent(CubaLIF(0.7, 0.9), 17), *readout(17), scale=3.0).float()
    x = spikes_in()
    learnt(model, x)
    real: Any = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    prepare(model, quantise.formats, quantise.state, STEPS)
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        trace = model(x, record)
    found = learnt(model, x, tile=16)
    assert found.fired == {n: float(s.sum()) for n, s in record.items()}
    torch.testing.assert_close(found.scores, model.scores(trace))
    event = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(event) == len(real) == 3
    model.zero_grad()
    rule("bptt").backward(model, x, loss_of)
    torch.testing.assert_close(event[-1], list(model.parameters())[-1].grad, rtol=1e-4, atol=1e-4)
    for a, b in zip(event, real, strict=True):  # eight bits are near enough to the real network
        assert float(torch.cosine_similarity(a.flatten(), b.flatten(), 0)) > 0.8


# ---------------------------------------------------------------- the grid and the continuum

TAU_MEM, TAU_SYN, T_END = 0.02, 0.006, 0.05


def continuum(seed: int) -> tuple[Circuit, np.ndarray, np.ndarray]:
    """8 inputs -> 5 neurons that listen to themselves -> 2 readouts, with delays."""
    rng = np.random.default_rng(seed)
    w = np.zeros((7, 15))
    w[:5, :8] = rng.uniform(0.5, 2.5, (5, 8))
    w[:5, 8:13] = rng.normal(0, 0.4, (5, 5))
    w[5:, 8:13] = rng.normal(0, 1.0, (2, 5))
    d = np.zeros((7, 15))
    d[:5, :8] = rng.uniform(0.001, 0.008, (5, 8))
    theta = np.array([1.0] * 5 + [np.inf] * 2)
    times = rng.uniform(0.001, 0.03, 16)
    return Circuit.of(w, d, tau_mem=TAU_MEM, tau_syn=TAU_SYN, v_threshold=theta), times, np.arange(16) % 8


def on_grid(circuit: Circuit, times: np.ndarray, sources: np.ndarray, dt: float) -> tuple[dict[str, Tensor], float]:
    """The gradients of the integral of V^2 of the readouts, by the rule at a time step dt; delays in steps."""
    a, b = float(np.exp(-dt / TAU_SYN)), float(np.exp(-dt / TAU_MEM))
    steps = round(T_END / dt)
    w, d = np.zeros((7, 15)), np.zeros((7, 15))
    w[circuit.target, circuit.source], d[circuit.target, circuit.source] = circuit.weight, circuit.delay
    first = DelayLinear(8, 5, int(0.009 / dt))
    hidden = Recurrent(CubaLIF(a, b, gain=1 - b), 5)
    model = SpikingNetwork(
        {"in": first, "hidden": hidden, "out": nn.Linear(5, 2, bias=False), "v": CubaLI(a, b, gain=1 - b)},
        input_shape=(8,), dt=dt, readout="sum",
    ).double()  # fmt: skip
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(w[:5, :8]))
        first.delay.copy_(torch.from_numpy(d[:5, :8] / dt))
        hidden.recurrent.weight.copy_(torch.from_numpy(w[:5, 8:13]))
        model.layer("out").weight.copy_(torch.from_numpy(w[5:, 8:13]))  # type: ignore[union-attr,operator]
    x = torch.zeros((steps, 1, 8), dtype=torch.uint8)
    x[np.rint(times / dt), 0, sources] = 1

    def energy(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return trace.square().sum() * dt, torch.zeros(())

    found = EventProp(slope=0.0, tile=64).backward(model, x, energy)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    gradients["layers.in.delay"] = gradients["layers.in.delay"] / dt
    return gradients, sum(found.fired.values())


def closest(run: Run) -> float:
    """Seconds between a spike and what arrives at its neuron, itself aside: a derivative has a step where they meet."""
    _, time, neuron, synapse, origin, *_ = run.log
    gaps = [
        abs(time[e] - time[f])
        for e in np.flatnonzero(synapse < 0)
        for f in np.flatnonzero((synapse >= 0) & (neuron == neuron[e]) & (origin != origin[e]))
    ]
    return float(min(gaps))


@pytest.mark.parametrize("seed", [0, 3, 10])
def test_with_short_steps_it_becomes_exact(seed: int) -> None:
    circuit, times, sources = continuum(seed)
    run = simulate(circuit, times, sources, T_END)
    assert closest(run) > 2e-5  # or the grid below could not tell what came first
    exact = adjoint(run, energy=np.array([0.0] * 5 + [1.0] * 2))
    w, d = np.zeros((7, 15)), np.zeros((7, 15))
    w[circuit.target, circuit.source], d[circuit.target, circuit.source] = exact.weight, exact.delay
    expected = {
        "layers.in.weight": w[:5, :8], "layers.in.delay": d[:5, :8], "layers.hidden.recurrent.weight": w[:5, 8:13],
        "layers.out.weight": w[5:, 8:13],
    }  # fmt: skip
    assert len(run.times) >= 5
    errors = []
    for dt in (4e-5, 1e-5):
        found, fired = on_grid(circuit, times, sources, dt)
        assert fired == len(run.times)
        errors.append({n: float(np.linalg.norm(found[n].numpy() - e) / np.linalg.norm(e)) for n, e in expected.items()})
    for name in expected:
        assert errors[1][name] < 0.03, (name, errors)
        assert errors[1][name] < 0.6 * errors[0][name], (name, errors)


# ---------------------------------------------------------------- borders


def test_threads_change_nothing() -> None:
    model = network(nn.Linear(40, 200), Recurrent(CubaLIF(0.7, 0.9), 200), *readout(200), inputs=40, scale=2.0)
    x = spikes_in(40, 60, 16)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            learnt(model, x)
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_float32_is_close() -> None:
    model, x = NETWORKS["recurrent"](), spikes_in()
    learnt(model, x)
    wide = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    narrow = model.float()
    learnt(narrow, x)
    for a, b in zip(wide, [p.grad for p in narrow.parameters()], strict=True):
        assert b is not None
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.double(), a, rtol=1e-3, atol=1e-3 * float(a.abs().max()))


def test_silent_neurons_hear_of_the_penalty_alone() -> None:
    model, x = NETWORKS["cuba"](), spikes_in()
    first: Any = model.layer("0")
    with torch.no_grad():
        first.weight.mul_(0.02)

    def loss_alone(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return loss_of(trace, {})[0], torch.zeros(())

    found = EventProp().backward(model, x, loss_alone)
    assert found.fired == {"1": 0.0}
    assert not first.weight.grad.any()

    def penalty_alone(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return trace.sum() * 0.0, loss_of(trace, spikes)[1]

    for _ in range(200):
        first.weight.grad = None
        found = EventProp().backward(model, x, penalty_alone)
        with torch.no_grad():
            first.weight -= 0.02 * first.weight.grad
    assert found.fired["1"] == pytest.approx(BATCH * 7 * 2, rel=0.5)  # two spikes each are asked for


def test_spikes_that_come_early_count_more() -> None:
    """A loss of the mean is nearly blind for times; with decay an early spike is worth more than a late one."""
    model = network(nn.Linear(9, 7, bias=False), CubaLIF(0.7, 0.9), *readout(7))

    def mean(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return trace.mean(), torch.zeros(())

    x = torch.cat([spikes_in(steps=40), torch.zeros((200, BATCH, 9), dtype=torch.uint8)])
    size = []
    for decay in (0.0, 2.0):
        model.zero_grad()
        EventProp(decay=decay).backward(model, x, mean)
        first: Any = model.layer("0")
        size.append(float(first.weight.grad.norm()))
    assert size[1] > 1e3 * size[0]


def test_watch_sees_what_enters() -> None:
    model, x = NETWORKS["deep"](), spikes_in()
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str, rows: Tensor) -> None:
        seen.setdefault(name, []).append(torch.tensor(rows.tolist()))

    EventProp(tile=16).backward(model, x, loss_of, watch=watch)
    assert list(seen) == ["0", "2", "4"]
    torch.testing.assert_close(torch.cat(seen["0"]), x.flatten(0, 1).double())
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        model(x, record)
    torch.testing.assert_close(torch.cat(seen["2"]), torch.tensor(record["1"].tolist()).flatten(0, 1))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((nn.Linear(9, 3), LIF(0.9)), "'1' (LIF)"),
        ((nn.Linear(9, 3), nn.BatchNorm1d(3), LIF(0.9), nn.Linear(3, 3), LI(0.9)), "'1' (BatchNorm1d)"),
        ((nn.Linear(9, 3), LIF(0.9, learn=("beta",)), nn.Linear(3, 3), LI(0.9)), "learns beta"),
        ((nn.Linear(9, 3), AdLIF(0.9, 0.9), nn.Linear(3, 3), LI(0.9)), "'1' (AdLIF)"),
        ((nn.Linear(9, 3), nn.Linear(3, 3), LI(0.9)), "no neurons between"),
        ((nn.Linear(9, 3), LI(0.9), nn.Linear(3, 3), LI(0.9)), "'1' (LI)"),
        ((nn.Linear(9, 3),), "does not end in LI"),
        ((nn.Linear(9, 3), LIF(0.9, v_threshold=0.5, v_reset=0.6), nn.Linear(3, 3), LI(0.9)), "must be above"),
    ],
)
def test_what_it_is_not_defined_on(layers: tuple[nn.Module, ...], words: str) -> None:
    spiking = isinstance(layers[-1], LIF)
    model = SpikingNetwork(
        {str(k): layer for k, layer in enumerate(layers)}, input_shape=(9,), dt=1e-3,
        readout="count" if spiking else "sum",
    )  # fmt: skip
    with pytest.raises(NetworkError) as caught:
        learnt(model, spikes_in())
    assert words in str(caught.value)


def test_a_network_that_is_no_chain() -> None:
    model = SpikingNetwork(
        {"a": nn.Linear(9, 3), "b": LIF(0.9), "c": nn.Linear(9, 3), "v": LI(0.9)},
        [("input", "a"), ("a", "b"), ("b", "v"), ("input", "c"), ("c", "v"), ("v", "output")],
        input_shape=(9,), dt=1e-3, readout="sum",
    )  # fmt: skip
    with pytest.raises(NetworkError, match="wants a chain"):
        learnt(model, spikes_in())


def test_a_wide_delay_is_refused_until_it_is_one_tap() -> None:
    delays = DelayLinear(9, 3, 5, kernel="gauss")
    model = SpikingNetwork({"d": delays, "n": LIF(0.9), "a": nn.Linear(3, 2), "v": LI(0.9)}, input_shape=(9,), dt=1e-3,
                           readout="sum")  # fmt: skip
    with pytest.raises(NetworkError, match="'d' has delays of kernel 'gauss'"):
        learnt(model, spikes_in())
    delays.rounding = True
    learnt(model.double(), spikes_in())


def test_what_is_no_spike_is_refused() -> None:
    with pytest.raises(NetworkError, match="wants spikes"):
        learnt(NETWORKS["lif"](), spikes_in() * 3)
    dense = spikes_in().double()
    a, b = learnt(NETWORKS["lif"](), dense), learnt(NETWORKS["lif"](), spikes_in())
    assert a.loss == b.loss

    def when(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        s = next(iter(spikes.values()))
        return trace.sum(), (s * torch.arange(float(len(s))).view(-1, 1, 1)).sum()

    with pytest.raises(NetworkError, match="asks when"):
        EventProp().backward(NETWORKS["lif"](), spikes_in(), when)


def test_options() -> None:
    with pytest.raises(BadConfig) as caught:
        rule("eventprop", slope=-1.0, decay=float("nan"), tile=0)
    assert all(word in str(caught.value) for word in ("slope", "decay", "tile"))
    config = load_config("braille").with_changes(rule={"kind": "eventprop", "decay": 2.0})
    assert config.learning == EventProp(decay=2.0)
