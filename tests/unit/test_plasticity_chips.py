"""One rule object in floats, on SpiNNaker 1 and on Loihi 2: the exact kernels run it, and agree as far as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lava_programs import dense, needs_lava, population, program

from neuro.errors import NetworkError, PrecisionLoss, SimulationError, UnsupportedNode
from neuro.hardware.certify import certify
from neuro.hardware.loihi2 import learning as loihi2
from neuro.hardware.loihi2.plasticity import to_loihi2
from neuro.hardware.simulate import simulate
from neuro.hardware.spinnaker1 import stdp, stdp_plain
from neuro.hardware.spinnaker1.circuit import Circuit, IFCurrExp, Population, Projection, all_to_all, one_to_one
from neuro.hardware.spinnaker1.plasticity import to_spinnaker
from neuro.hardware.spinnaker1.session import Session, load
from neuro.plasticity import Homeostasis, PairSTDP, RewardSTDP, TripletSTDP
from neuro.plasticity.follow import follow

DT = 1e-3
RULE = PairSTDP(tau_plus=12e-3, tau_minus=16e-3, a_plus=0.05, a_minus=0.04, w_min=0.0, w_max=1.0)
START = 0.5
PRE, POST, STEPS = 4, 3, 160


def given(seed=0, together=False):
    """Spikes of sources, and of teachers that make targets fire one step later; the last step belongs to all sources,
    so that every weight is up to date. Not together: no two within a step of each other on different sides."""
    rng = np.random.default_rng(seed)
    pre, teach = np.zeros((STEPS, PRE), np.uint8), np.zeros((STEPS, POST), np.uint8)
    for k, t in enumerate(range(3, STEPS - 8, 4)):
        if together:
            pre[t], teach[t] = rng.random(PRE) < 0.5, rng.random(POST) < 0.5
        elif k % 2:
            pre[t, rng.integers(PRE)] = 1
        else:
            teach[t, rng.integers(POST)] = 1
    pre[-1] = 1
    return pre, teach


def on_spinnaker(made, pre, teach, weight=START):
    """Sources onto targets through learning synapses too weak to matter, teachers through strong ones."""
    cell = IFCurrExp(cm=0.1, tau_m=1.0, tau_refrac=0.0, tau_syn_E=0.2, tau_syn_I=0.2)
    net = Circuit(
        {"pre": Population(PRE), "teach": Population(POST), "post": Population(POST, cell)},
        (
            Projection("pre", "post", all_to_all(PRE, POST, weight, 1), "inhibitory", made),  # ring buffers of its own
            Projection("teach", "post", one_to_one(POST, 40.0, 1)),
        ),
        time_step=DT * 1e3,
    )
    session = Session(net)
    post = session.run({"pre": pre, "teach": teach})["post"]
    return session, post


def on_loihi2(made, pre, teach, weight=START, rule=None):
    """The same, with teachers; the relay makes spikes of the input those of neurons."""
    both = np.concatenate([pre, teach], axis=1)[:, None]
    weights = made.weights(np.full((POST, PRE), weight))
    populations = [
        population("input", PRE + POST, "input"),
        population("pre", PRE, du=4095, dv=4095, vth=1),
        population("post", POST, du=4095, dv=4095, vth=8000),
    ]
    relay, strong = np.zeros((PRE, PRE + POST), int), np.zeros((POST, PRE + POST), int)
    relay[:, :PRE], strong[:, PRE:] = 100 * np.eye(PRE, dtype=int), 254 * np.eye(POST, dtype=int)
    projections = [
        dense("relay", "input", "pre", relay),
        dense("teach", "input", "post", strong, exponent=6),
        dense("learns", "pre", "post", weights, sign=made.sign_mode, exponent=-6),
    ]
    learner = loihi2.plastic(program(populations, projections, depth=1), "learns", rule or made.rule)
    trace = simulate(learner, both, probes=[("learns", "weights")])
    found = trace.probes["learns", "weights"][:, 0].reshape(-1, POST, PRE).transpose(0, 2, 1)
    return learner, trace.spikes["pre"][:, 0], trace.spikes["post"][:, 0], found


def test_one_rule_in_floats_and_on_both_chips():
    pre, teach = given()
    spinnaker, chip = to_spinnaker(RULE, DT), to_loihi2(RULE, DT, most_trace=2.0, seed=5)

    session, fired = on_spinnaker(spinnaker.rule, pre, teach)
    assert fired.sum() == teach.sum() > 15
    assert session.lost == session.saturated == 0
    wanted = follow(spinnaker.held, pre, fired, np.full((PRE, POST), START), dt=DT, delay=1).weights
    shift = int(session.loaded.cores.shift[0, 1])
    gap = np.abs(session.weights(0) - wanted).max()
    bound = spinnaker.off_by(int(pre.sum(0).max() + fired.sum(0).max()), int(pre.sum(0).max()), shift, 8e-3)
    assert gap <= bound < 0.02
    assert np.abs(wanted - START).max() > 4 * bound

    _, sent, answered, weights = on_loihi2(chip, pre, teach)
    assert answered.sum() == teach.sum()
    held = follow(chip.held, sent, answered, np.full((PRE, POST), float(chip.weights(START)) * chip.per_step), dt=DT)
    off = np.abs(weights[-1] * chip.per_step - held.weights)
    assert off.max() <= chip.off_by(int(sent.sum(0).max() + answered.sum(0).max()))
    assert np.sqrt((off**2).mean()) < 0.05

    same = follow(RULE, pre, fired, np.full((PRE, POST), START), dt=DT, delay=1).weights  # nothing falls together
    assert np.abs(same - wanted).max() < 1e-3


def test_on_loihi2_the_mean_of_many_seeds_is_the_rule():
    """Traces are rounded at random, with the right mean. Amplitudes of whole units: weights need no rounding."""
    rule = replace(RULE, a_plus=12 / 255, a_minus=12 / 255)
    pre, teach = given(2)
    found = []
    for k in range(40):
        chip = to_loihi2(rule, DT, most_trace=10.0, seed=10 * k)
        assert chip.rule.post == (1, 0)
        assert chip.rule.pre == (-1, 0)
        _, sent, answered, weights = on_loihi2(chip, pre, teach)
        found.append(weights[-1] * chip.per_step)
    start = np.full((PRE, POST), float(chip.weights(START)) * chip.per_step)
    held = follow(chip.held, sent, answered, start, dt=DT).weights
    spread = np.std(found, axis=0)
    assert spread.min() > 0
    assert (np.abs(np.mean(found, axis=0) - held) < 4 * spread / np.sqrt(40)).all()


@pytest.mark.parametrize("dependence", ["additive", "multiplicative"])
def test_spinnaker_runs_the_exact_kernels(dependence):
    """The rule made here is the rule written by hand, and its run that of plain integers; spikes of both sides fall
    together, and ``held`` says what becomes of them."""
    rule = replace(RULE, weight_dependence=dependence, simultaneous="both")
    made = to_spinnaker(rule, DT)
    assert made.rule == stdp.PairSTDP(12.0, 16.0, 0.05, 0.04, 0.0, 1.0, dependence, backprop_delay=True)
    assert "'post_first' on the machine, 'both' in the rule" in made.remarks[0]
    pre, teach = given(3, together=True)
    early = np.roll(teach, -2, axis=0)  # a spike of the target, and its way back, take a step each
    session, fired = on_spinnaker(made.rule, pre, early)
    of = load(session.circuit)
    machine = stdp_plain.Machine(of.constants, of.start, of.learning, of.cores, of.rules, of.fan)
    inputs = np.concatenate([pre, early], axis=1)
    plain = [machine.step(t, np.flatnonzero(row).tolist())[0] for t, row in enumerate(inputs)]
    assert [np.flatnonzero(row).tolist() for row in fired] == plain
    assert np.array_equal(session.state[1].memory, machine.words())
    delay = 1
    late = np.roll(fired, delay, axis=0)
    assert (late.any(1) & pre.any(1)).sum() > 10
    wanted = follow(made.held, pre, fired, np.full((PRE, POST), START), dt=DT, delay=delay).weights
    other = follow(rule, pre, fired, np.full((PRE, POST), START), dt=DT, delay=delay).weights
    shift = int(session.loaded.cores.shift[0, 1])
    bound = made.off_by(int(pre.sum(0).max() + fired.sum(0).max()), int(pre.sum(0).max()), shift, 4e-3)
    assert np.abs(session.weights(0) - wanted).max() <= bound < np.abs(other - wanted).max()


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_loihi2_runs_the_exact_kernels(pairing):
    rule = replace(RULE, pairing=pairing, simultaneous="neither", w_min=-1.0)
    made = to_loihi2(rule, DT, most_trace=3.0, seed=4)
    assert made.sign_mode == 1
    q = made.rule
    hand = loihi2.STDP(12.0, 16.0, q.impulse_pre, q.impulse_post, q.pre, q.post, 1, 4)
    pre, teach = given(4, together=True)
    _, sent, answered, ours = on_loihi2(made, pre, teach)
    _, _, _, theirs = on_loihi2(made, pre, teach, rule=hand)
    assert np.array_equal(ours, theirs)
    assert (sent.any(1) & answered.any(1)).sum() > 10
    assert made.held.a_plus == pytest.approx(0.05, rel=0.01 if pairing == "all" else 0.3)
    start = np.full((PRE, POST), float(made.weights(START)) * made.per_step)
    held, other = (follow(r, sent, answered, start, dt=DT).weights for r in (made.held, rule))
    off, otherwise = (np.abs(ours[-1] * made.per_step - w) for w in (held, other))
    assert off.max() <= made.off_by(int(sent.sum(0).max() + answered.sum(0).max()))
    assert off.mean() < otherwise.mean() / 2  # the order within a step is the chip's, as ``held`` has it
    assert any("'both' on the chip, 'neither' in the rule" in line for line in made.remarks)


@needs_lava
@pytest.mark.lava
def test_lava_learns_the_same_weights():
    made = to_loihi2(RULE, DT, most_trace=2.0, seed=5)
    pre, teach = given(6, together=True)
    learner, *_ = on_loihi2(made, pre, teach)
    certificate = certify(learner, np.concatenate([pre, teach], axis=1)[:60, None], oracle="lava-inprocess")
    assert certificate.passed, certificate


def test_amperes_and_what_is_rounded_is_said():
    made = to_spinnaker(replace(RULE, a_plus=1e-13, a_minus=2e-11, w_max=1e-9), DT, per_unit=1e9)
    assert (made.rule.w_max, made.rule.a_minus) == (1.0, pytest.approx(0.02))
    assert any("a_plus is 9.15527e-14 instead of 1e-13" in line for line in made.remarks), made.remarks
    assert made.held.a_plus == pytest.approx(3 / 32768 * 1e-9)
    made = to_loihi2(replace(RULE, tau_plus=12.0004e-3, pairing="nearest"), DT)
    assert made.rule.impulse_pre == made.rule.impulse_post == 127
    assert made.rule.tau_pre == 12.0
    assert any(line.startswith("a_plus is") for line in made.remarks), made.remarks


REFUSED = [TripletSTDP(), RewardSTDP(RULE), Homeostasis(10.0, RULE), Homeostasis(10.0)]


@pytest.mark.parametrize("rule", REFUSED, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("convert", [to_spinnaker, to_loihi2])
def test_what_a_chip_cannot_hold_is_refused_by_name(convert, rule):
    with pytest.raises(UnsupportedNode, match=type(rule).__name__):
        convert(rule, DT)


def test_numbers_and_words_that_a_chip_cannot_hold():
    with pytest.raises(UnsupportedNode) as caught:
        to_spinnaker(PairSTDP(tau_plus=10.0, w_min=-1.0, pairing="nearest", delays="axonal"), DT)
    assert len(caught.value.violations) == 4
    with pytest.raises(UnsupportedNode) as caught:
        to_loihi2(PairSTDP(w_min=0.5, weight_dependence="multiplicative"), DT)
    assert len(caught.value.violations) == 2
    with pytest.raises(NetworkError, match=r"s16\.15"):
        to_spinnaker(RULE, DT, per_unit=1e9)
    with pytest.raises(SimulationError, match="units of a weight"):
        to_loihi2(replace(RULE, a_plus=1e-9), DT)
    with pytest.raises(PrecisionLoss, match="both"):
        to_loihi2(RULE, DT, strict=True)
    with pytest.raises(PrecisionLoss, match="post_first"):
        to_spinnaker(replace(RULE, simultaneous="neither"), DT, strict=True)
    assert to_spinnaker(RULE, DT, strict=True).rule.backprop_delay
    assert not to_spinnaker(replace(RULE, delays="ignored"), DT).rule.backprop_delay
