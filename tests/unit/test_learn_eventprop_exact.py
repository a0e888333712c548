"""The exact adjoint against finite differences, against closed forms, and its simulator against an integrator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from neuro.errors import NetworkError, SimulationError
from neuro.learn import eventprop_exact
from neuro.learn.eventprop_exact import Circuit, Run, adjoint, simulate

A = NDArray[np.float64]
H_WEIGHT, H_TIME = 1e-6, 1e-8
CLOSE = 1e-6  # relative; the target is 1e-3


def circuit(seed: int, n: int = 10, inputs: int = 5) -> Circuit:
    """Random, with loops, delays and two readouts; the first neuron has equal time constants."""
    rng = np.random.default_rng(seed)
    w = rng.normal(0.6, 1.2, (n, inputs + n)) * (rng.random((n, inputs + n)) < 0.7)
    w[:, inputs:] *= 0.3
    theta = np.ones(n)
    theta[-2:] = np.inf
    tau_mem, tau_syn = rng.uniform(0.01, 0.02, n), rng.uniform(0.005, 0.025, n)
    tau_syn[0] = tau_mem[0]
    return Circuit.of(w, rng.uniform(0, 0.01, w.shape), tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta)


def loss(run: Run, like: Run, c: tuple[A, A, A]) -> float:
    """nan where a spike came or went."""
    if len(run.times) != len(like.times) or not (run.neuron == like.neuron).all():
        return float("nan")
    return float(c[0] @ run.times + c[1] @ run.area + c[2] @ run.energy)


@pytest.mark.parametrize("t_end", [0.06, np.inf])
@pytest.mark.parametrize("seed", range(4))
def test_finite_differences(seed: int, t_end: float) -> None:
    net, rng = circuit(seed), np.random.default_rng(100 + seed)
    if t_end == np.inf:  # nothing that excites itself for ever
        net = replace(net, weight=np.where(net.source >= net.inputs, -abs(net.weight), net.weight))
    times, sources = rng.uniform(0, 0.03, 20), rng.integers(0, net.inputs, 20)
    run = simulate(net, times, sources, t_end)
    assert len(run.times) > 10
    c = (0.01 * rng.normal(size=len(run.times)), rng.normal(size=10), rng.normal(size=10))
    found = adjoint(run, times=c[0], area=c[1], energy=c[2])

    def slope(change: str, unit: A, h: float) -> float:
        ends = []
        for sign in (h, -h):
            other, t = net, times
            if change == "in_times":
                t = times + sign * unit
            else:
                other = replace(net, **{change: getattr(net, change) + sign * unit})
            ends.append(loss(simulate(other, t, sources, t_end), run, c))
        return (ends[0] - ends[1]) / (2 * h)

    for name, h in (("weight", H_WEIGHT), ("delay", H_TIME), ("in_times", H_TIME)):
        g = getattr(found, name)
        difference = np.array([slope(name, unit, h) for unit in np.eye(len(g))])
        known = np.isfinite(difference)
        assert known.mean() > 0.9
        assert np.linalg.norm((difference - g)[known]) < CLOSE * np.linalg.norm(g[known]), name


def test_one_arrival_in_closed_form() -> None:
    """L = integral of V^2 over all time: dL/dw = w tau_s^2 / (tau_m + tau_s) = 2 L / w and dL/dd = 0."""
    for tau_m, tau_s, w in ((0.02, 0.005, 0.7), (0.005, 0.02, -1.3), (0.01, 0.01, 2.0)):
        net = Circuit.of([[w, 0.0]], 0.003, tau_mem=tau_m, tau_syn=tau_s, v_threshold=np.inf)
        run = simulate(net, [0.001], [0])
        found = adjoint(run, energy=[1.0])
        assert run.energy[0] == pytest.approx(w * w * tau_s**2 / (2 * (tau_m + tau_s)), rel=1e-13)
        assert found.weight[0] == pytest.approx(w * tau_s**2 / (tau_m + tau_s), rel=1e-13)
        assert found.weight[0] == pytest.approx(2 * run.energy[0] / w, rel=1e-13)
        assert abs(found.delay[0]) < 1e-15 * abs(found.weight[0]) / tau_s
        assert found.in_times == pytest.approx(found.delay, abs=0)


def test_one_spike_in_closed_form() -> None:
    """tau_mem = 2 tau_syn: V = w (e^{-t/tau_mem} - e^{-t/tau_syn}) is a parabola in e^{-t/tau_mem}."""
    tau, w, d = 0.02, 5.0, 0.004
    net = Circuit.of([[w, 0.0]], d, tau_mem=tau, tau_syn=tau / 2, v_threshold=1.0)
    run = simulate(net, [0.0], [0], 0.02)
    root = np.sqrt(1 - 4 / w)
    y = (1 + root) / 2  # y - y^2 = 1 / w
    assert run.times[0] == pytest.approx(d - tau * np.log(y), rel=1e-12)
    found = adjoint(run, times=[1.0] + [0.0] * (len(run.times) - 1))
    assert found.delay[0] == pytest.approx(1.0, rel=1e-12)
    assert found.weight[0] == pytest.approx(-tau / y / root / w**2, rel=1e-12)


def test_spikes_are_those_of_an_integrator() -> None:
    """Euler's method with short steps finds the same spikes; it knows nothing of events or closed forms."""
    net = circuit(1)
    rng = np.random.default_rng(5)
    times, sources = rng.uniform(0, 0.03, 20), rng.integers(0, net.inputs, 20)
    dt, t_end = 1e-6, 0.03
    run = simulate(net, times, sources, t_end)
    n = len(net.tau_mem)
    arrive: dict[int, list[tuple[int, float]]] = {}

    def send(source: int, t: float) -> None:
        for s in np.flatnonzero(net.source == source):
            arrive.setdefault(int(np.ceil((t + net.delay[s]) / dt)), []).append((net.target[s], net.weight[s]))

    for t, source in zip(times, sources, strict=True):
        send(int(source), float(t))
    v, i, fired, area = np.zeros(n), np.zeros(n), [], np.zeros(n)
    for step in range(round(t_end / dt)):
        for target, weight in arrive.pop(step, ()):
            i[target] += weight
        area += v * dt
        v, i = v + dt / net.tau_mem * (i - v), i - dt / net.tau_syn * i
        for k in np.flatnonzero(v >= net.v_threshold):
            fired.append(((step + 1) * dt, k))
            v[k] = 0.0
            send(net.inputs + int(k), (step + 1) * dt)
    assert [k for _, k in fired] == run.neuron.tolist()
    np.testing.assert_allclose([t for t, _ in fired], run.times, atol=3e-5)
    np.testing.assert_allclose(area, run.area, rtol=2e-2, atol=1e-5)


def test_the_order_of_inputs_does_not_matter() -> None:
    net, rng = circuit(2), np.random.default_rng(6)
    times, sources = rng.uniform(0, 0.03, 20), rng.integers(0, net.inputs, 20)
    order = rng.permutation(20)
    a, b = simulate(net, times, sources, 0.05), simulate(net, times[order], sources[order], 0.05)
    assert np.array_equal(a.times, b.times)
    g, h = adjoint(a, area=np.ones(10)), adjoint(b, area=np.ones(10))
    assert np.array_equal(g.in_times[order], h.in_times)
    assert np.array_equal(g.weight, h.weight)


def test_no_input_no_activity() -> None:
    run = simulate(circuit(0), [], [])
    assert len(run.times) == 0
    assert not run.area.any()
    assert not adjoint(run, area=np.ones(10)).weight.any()


def test_what_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = circuit(0)
    with pytest.raises(NetworkError) as caught:
        replace(net, delay=net.delay - 1.0, tau_mem=-net.tau_mem, target=net.target + 99, weight=net.weight * np.nan)
    assert all(word in str(caught.value) for word in ("delays", "tau_mem", "target", "weights"))
    with pytest.raises(NetworkError, match="tau_syn must be"):
        replace(net, tau_syn=np.ones(3))
    for times, sources in (([-1.0], [0]), ([0.0], [5]), ([0.0, 1.0], [0])):
        with pytest.raises(NetworkError, match="input spikes"):
            simulate(net, times, sources)
    run = simulate(net, [0.0], [0], 0.01)
    with pytest.raises(NetworkError, match="area"):
        adjoint(run, area=np.ones(3))
    monkeypatch.setattr(eventprop_exact, "MOST_EVENTS", 1 << 14)
    loop = Circuit.of([[3.0, 9.0]], 0.001, tau_mem=0.02, tau_syn=0.02, v_threshold=1.0)
    with pytest.raises(SimulationError, match="excites itself"):
        simulate(loop, [0.0], [0])
