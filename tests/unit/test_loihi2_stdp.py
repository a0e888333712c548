"""Two-factor STDP on Loihi 2: weights and traces after every step against Lava's process and plain numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from lava_programs import dense, even, needs_lava, population, program, spikes

from neuro.errors import DoesNotFit, SimulationError, UnsupportedNode
from neuro.hardware.certify import certify
from neuro.hardware.export import netx
from neuro.hardware.export.lava_graph import lower
from neuro.hardware.loihi2.learning import STDP, plastic
from neuro.hardware.simulate import simulate

RULES = {
    "every step": STDP(t_epoch=1, seed=3),
    "epochs of four": STDP(t_epoch=4, seed=11, tau_pre=7.5, tau_post=20.25),
    "fractions": STDP(4.5, 6.125, 20.5, 31 + 7 / 256, (-3, -5), (5, -6), t_epoch=5, seed=1),
    "at the ends": STDP(100, 100, 127, 126.5, (-8, 8), (7, 8), t_epoch=3, seed=2),
    "one product": STDP(pre=(0, 0), post=(1, -1), t_epoch=2, seed=5),
    "longest epoch": STDP(t_epoch=63, seed=7, impulse_pre=3.25),
}


def learner(rule, *, sign=1, exponent=0, recurrent=False, n_in=7, n=5):
    """Input -> relay -plastic-> neurons, some of whose input is fixed."""
    rng = np.random.default_rng(4)
    low, high = {1: (-100, 100), 2: (0, 255), 3: (-255, 0)}[sign]
    weight = rng.integers(low, high, (n, n_in), endpoint=True)
    weight[rng.random(weight.shape) < 0.2] = 0
    populations = [
        population("input", n_in, "input"),
        population("pre", n_in, du=4095, dv=4095, vth=1),
        population("post", n, du=2000, dv=200, vth=150, bias_mant=60, bias_exp=6),
    ]
    projections = [
        dense("relay", "input", "pre", 2 * np.eye(n_in, dtype=int)),
        dense("fixed", "pre", "post", even(rng, (n, n_in), -20, 60)),
        dense("learns", "pre", "post", weight, sign=sign, exponent=exponent),
    ]
    if recurrent:
        projections.append(dense("loop", "post", "post", even(rng, (n, n), -30, 30)))
    made = program(populations, projections, depth=2)
    made = plastic(made, "learns", rule)
    return plastic(made, "loop", rule) if recurrent else made


def plain(rule, weight, pre, post, sign, bits=8):
    """Weights and traces after each step, from the spikes, in Python numbers. pre, post: 0 and 1, [steps, n]."""

    def stream(seed, kind):
        generator = np.random.default_rng(seed)
        while True:
            yield float(generator.random(1)[0]) if kind == "real" else int(generator.integers(0, 128, size=1)[0])

    x_decay, x_add = stream(rule.seed, "real"), stream(rule.seed + 1, "int")
    y_decay, y_add = stream(rule.seed + 2, "real"), stream(rule.seed + 3, "int")
    rounding = stream(2, "real")
    streams = (x_decay, x_add, y_decay, y_add)
    for s in (*streams, rounding):
        next(s)
    step = 2 ** (8 - bits + (sign == 1))
    flip = -1 if sign == 3 else 1
    w = [[flip * (flip * v // step * step) for v in row] for row in weight]
    low, high = {1: (-256, 255), 2: (0, 255), 3: (-255, 0)}[sign]
    x, y = [0] * len(pre[0]), [0] * len(post[0])
    tx, ty = [0] * len(x), [0] * len(y)

    def add(trace, impulse, draw):
        whole = math.floor(impulse)
        return max(0, min(127, trace + whole + (draw < round((impulse - whole) * 256))))

    def follow(trace, last, tau, impulse, decay, draw):
        history = [trace]
        for q in range(1, rule.t_epoch + 1):
            real = float(np.exp(-1 / np.array([[tau]]))[0, 0]) * history[-1]
            value = math.floor(real) + (decay < real % 1)
            history.append(add(value, impulse, draw) if last == q else value)
        return history

    def clip(value):
        return max(-(2**15) - 1, min(2**15 - 1, value))

    out = {"weights": [], "x1": [], "y1": []}
    for t in range(1, len(pre) + 1):
        now = (t - 1) % rule.t_epoch + 1
        for i in np.flatnonzero(pre[t - 1]):
            x[i], tx[i] = (add(x[i], rule.impulse_pre, 0) if tx[i] else x[i]), now
        first = [next(s) for s in streams]
        for j in np.flatnonzero(post[t - 1]):
            y[j], ty[j] = (add(y[j], rule.impulse_post, first[3]) if ty[j] else y[j]), now
        dx, ax, dy, ay = (next(s) for s in streams)
        if t % rule.t_epoch == 0:
            r = next(rounding)
            hx = [follow(v, q, rule.tau_pre, rule.impulse_pre, dx, ax) for v, q in zip(x, tx, strict=True)]
            hy = [follow(v, q, rule.tau_post, rule.impulse_post, dy, ay) for v, q in zip(y, ty, strict=True)]
            for j, row in enumerate(w):
                for i, value in enumerate(row):
                    total = value * 128
                    change = rule.pre[0] * hy[j][tx[i]] * 2 ** (7 + rule.pre[1]) if tx[i] else 0
                    total = clip(total + clip(change))
                    change = rule.post[0] * hx[i][ty[j]] * 2 ** (7 + rule.post[1]) if ty[j] else 0
                    total = clip(total + clip(change))
                    total = max(0, total) if sign == 2 else min(0, total) if sign == 3 else total
                    row[i] = max(low, min(high, total // 128 + (r < total % 128 / 128)))
            x, y = [h[-1] for h in hx], [h[-1] for h in hy]
            tx, ty = [0] * len(x), [0] * len(y)
        for name, values in (("weights", np.array(w).ravel()), ("x1", x), ("y1", y)):
            out[name].append(np.array(values))
    return {name: np.array(rows) for name, rows in out.items()}


def probed(made, given):
    return simulate(made, given, probes=[("learns", v) for v in ("weights", "x1", "y1")])


@pytest.mark.parametrize("sign", [1, 2, 3])
@pytest.mark.parametrize("name", RULES)
def test_weights_and_traces_equal_plain_numbers(name, sign):
    made = learner(RULES[name], sign=sign)
    given = spikes(np.random.default_rng(5), 130, 2, 7, 0.35)
    trace = probed(made, given)
    weight = next(p.weight_q for p in made.projections if p.name == "learns").tolist()
    for b in range(2):
        pre, post = trace.spikes["pre"][:, b], trace.spikes["post"][:, b]
        assert 0 < post.mean() < 1
        for variable, wanted in plain(RULES[name], weight, pre, post, sign).items():
            assert np.array_equal(trace.probes["learns", variable][:, b], wanted), variable
    moved = trace.probes["learns", "weights"]
    assert (moved[-1] != moved[0]).any()


@needs_lava
@pytest.mark.lava
@pytest.mark.parametrize("name", RULES)
def test_weights_and_traces_equal_lavas_learning_process(name):
    for sign, exponent in ((1, 0), (2, -2), (3, 1)):
        made = learner(RULES[name], sign=sign, exponent=exponent, recurrent=sign == 1)
        given = spikes(np.random.default_rng(6), 66, 2, 7, 0.35)
        certificate = certify(made, given, oracle="lava-inprocess")
        assert certificate.passed, certificate
        learned = (35 + 7 + 5 + (25 + 5 + 5) * (sign == 1)) * 68 * 2
        assert certificate.compared == 3 * 12 * 68 * 2 + learned


def test_learning_changes_what_the_next_spikes_bring():
    rule = STDP(pre=(0, 0), post=(7, 0), seed=1)
    given = spikes(np.random.default_rng(7), 60, 1, 7, 0.3)
    trace = simulate(learner(rule), given)
    still = simulate(learner(STDP(pre=(0, 0), post=(0, 0), seed=1)), given)
    assert trace.spikes["post"].sum() > still.spikes["post"].sum()
    assert np.array_equal(trace.spikes["pre"], still.spikes["pre"])


def test_samples_learn_for_themselves():
    made = learner(RULES["epochs of four"])
    given = spikes(np.random.default_rng(8), 40, 3, 7, 0.3)
    together = probed(made, given)
    for k in range(3):
        alone = probed(made, given[:, k : k + 1])
        for key, values in alone.probes.items():
            assert np.array_equal(values[:, 0], together.probes[key][:, k]), key


def test_the_seed_matters():
    given = spikes(np.random.default_rng(9), 80, 1, 7, 0.3)
    first, second = (probed(learner(STDP(seed=s, tau_pre=7.5)), given).probes["learns", "x1"] for s in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: STDP(impulse_pre=300), "x1_impulse must lie in"),
        (lambda: STDP(tau_pre=0), "x1_tau must lie in"),
        (lambda: STDP(tau_pre=1 / 3), "tau_pre must be a whole number of thousandths"),
        (lambda: STDP(pre=(-9, 0)), "pre_mantissa must lie in -8..7"),
        (lambda: STDP(t_epoch=64), "t_epoch must lie in 1..63"),
        (lambda: plastic(learner(STDP()), "lerns", STDP()), "Did you mean 'learns'"),
    ],
)
def test_bad_rules_are_named(make, says):
    with pytest.raises(SimulationError, match=says):
        make()


def test_what_cannot_learn_is_refused_with_all_that_is_wrong():
    weight = np.full((2, 2), 300)
    populations = [population("input", 2, "input"), population("p", 2)]
    delayed = dense("d", "input", "p", weight, sign=0, delay=np.ones((2, 2), int))
    with pytest.raises(SimulationError, match="no delays") as caught:
        plastic(program(populations, [delayed], depth=1), "d", STDP())
    assert "sign_mode must be given" in str(caught.value)


def test_lava_cannot_split_a_population_that_learns():
    made = learner(STDP())
    mixed = population("post", 5, du=[1, 2, 1, 1, 1], dv=200, vth=90)
    with pytest.raises(DoesNotFit, match="kinds of neurons in 'post'"):
        lower(replace(made, populations={**made.populations, "post": mixed}))


def test_netx_has_no_word_for_learning():
    with pytest.raises(UnsupportedNode, match="'learns' learns"):
        netx.layers_of(learner(STDP()))
