"""What the compiler promises for any input: the current never wraps, a readout never fires."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuro import ir
from neuro.hardware import compile as compile_network
from neuro.hardware.loihi2.compiler import CHIP
from neuro.hardware.loihi2.kernels import run
from neuro.hardware.loihi2.registers import Weights, WeightSearch
from neuro.hardware.program import Program
from neuro.hardware.quantise import to_format

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=20)


def layer(seed: int, node: ir.Neuron, n_in: int) -> ir.Network:
    rng = np.random.default_rng(seed)
    weight = rng.normal(rng.normal(), rng.uniform(0.1, 2), (4, n_in)) * 10.0 ** rng.integers(-1, 3)
    readout = "count" if node.spiking else "sum"
    return ir.chain(
        [("in", ir.Input((n_in,))), ("w", ir.Linear(weight)), ("p", node.expand((4,))), ("out", ir.Output(readout))],
        dt=1e-3,
    )


def worst(program: Program, steps: int) -> NDArray[np.uint8]:
    """One sample per neuron and sign: exactly the inputs that push it that way fire, in every step."""
    weight = program.projections[0].weight_q
    push = np.concatenate([weight > 0, weight < 0])
    return np.broadcast_to(push, (steps, *push.shape)).astype(np.uint8)


def unbounded_current(program: Program, dense: NDArray[np.uint8]) -> NDArray[np.int64]:
    """u with 64 bits and no wrap: tz(u (4095 - du) / 4096) + 64 a, one step late."""
    (projection,), params = program.projections, program.populations["p"].params
    exponent = int(projection.params["weight_exp"])
    a = dense.astype(np.int64) @ projection.weight_q.T
    a = a << exponent if exponent > 0 else a >> -exponent
    u, rows = np.zeros(a.shape[1:], np.int64), [np.zeros(a.shape[1:], np.int64)]
    for step in a:
        kept = u * (4095 - params["du"])
        u = np.sign(kept) * (np.abs(kept) >> 12) + 64 * step
        rows.append(u)
    return np.stack(rows)


@quick
@given(seeds, st.integers(1, 400), st.floats(0.5e-3, 0.2))
def test_the_current_never_wraps(seed: int, n_in: int, tau_syn: float) -> None:
    node = ir.CubaLIF(tau_syn=np.array(tau_syn), tau_mem=0.01, v_threshold=1.0, r=10.0, w_in=tau_syn / 1e-3)
    program = compile_network(layer(seed, node, n_in))
    dense = worst(program, 60 + int(6 * tau_syn / 1e-3) % 500)
    trace = run(program, dense, (("p", "u"),), False)
    np.testing.assert_array_equal(trace.probes["p", "u"], unbounded_current(program, dense))
    threshold = next(b for b in program.budget if b.quantity == "threshold")
    # one threshold for all is met exactly, however coarse the weights had to be, unless it is below what v can tell
    assert threshold.max_error < 1e-9 or threshold.scale > 1.0


@quick
@given(seeds, st.integers(1, 400), st.floats(2e-3, 0.2), st.booleans())
def test_a_readout_never_fires(seed: int, n_in: int, tau_mem: float, synapse: bool) -> None:
    node = ir.CubaLI(tau_syn=np.array(0.005), tau_mem=tau_mem) if synapse else ir.LI(tau_mem=np.array(tau_mem))
    program = compile_network(layer(seed, node, n_in))
    trace = run(program, worst(program, 300), (("p", "v"),))
    assert trace.spikes["p"].sum() == 0
    highest = np.abs(trace.probes["p", "v"]).max()
    assert highest <= 131071 * 64
    if tau_mem < 0.03 and not synapse:  # settled: the scale is not wasted either
        assert highest > 131071 * 64 / 2**9


def test_a_readout_that_never_forgets_needs_to_know_how_long() -> None:
    """tau = 1000 s leaks nothing in 12 bits: no bound over any length, but one over max_steps."""
    import pytest

    from neuro.errors import DoesNotFit

    network = layer(0, ir.LI(tau_mem=np.array(1000.0)), 30)
    with pytest.raises(DoesNotFit, match="max_steps"):
        compile_network(network)
    program = compile_network(network, max_steps=200)
    trace = run(program, worst(program, 200))
    assert trace.spikes["p"].sum() == 0


@quick
@given(seeds, st.integers(-8, 2))
def test_the_bounds_of_a_step_hold_for_the_shifted_sums(seed: int, octave: int) -> None:
    """A right shift rounds sums down, so that the least sum may lie below the least sum of weights, shifted."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 5))
    projection = WeightSearch(Weights("w", "w", "dense", weight, 3), CHIP)
    unit = float(np.abs(weight).max()) / 200 * 2.0**-octave
    choice = projection.best(unit)
    q = to_format(weight, unit * 2.0**choice.exponent, projection.formats[choice.format])
    spikes = np.array(list(np.ndindex(*(2,) * 5)))  # every input there is
    sums = spikes @ q.T
    arrived = sums << choice.exponent if choice.exponent > 0 else sums >> -choice.exponent
    assert (arrived <= choice.high).all()
    assert (arrived >= choice.low).all()
    assert (np.abs(arrived).max(axis=0) >= np.maximum(choice.high, -choice.low) - 1).all()  # and are met


def test_headroom_buys_resolution() -> None:
    network = layer(3, ir.LI(tau_mem=np.array(0.1)), 400)
    whole, half = compile_network(network), compile_network(network, readout_headroom=0.25)
    assert half.scale["p"] < whole.scale["p"]
