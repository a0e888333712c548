"""A folded path gives what its nodes give one after the other, to rounding of float64."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuro import ir, reference
from neuro.hardware.lowering import fold, lower
from neuro.hardware.maps import Map, compose

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=60)


def stateless_chain(rng: np.random.Generator) -> ir.Network:
    """Input, three to six stateless nodes of every type and geometry, Output."""
    shape: tuple[int, ...] = (int(rng.choice([2, 4])), *(int(n) for n in rng.integers(5, 12, 2)))
    nodes: dict[str, ir.Node] = {"in": ir.Input(shape)}
    for k in range(int(rng.integers(3, 7))):
        kinds = ["scale", "delay", "conv", "pool"] if len(shape) == 3 else ["scale", "delay", "linear"]
        kind = str(rng.choice([*kinds, "flatten"] if k > 1 else kinds))
        node, shape = _NODES[kind](rng, shape)
        nodes[f"{kind}{k}"] = node
    nodes["out"] = ir.Output("sum")
    return ir.chain(nodes, dt=1e-3)


def _scale(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    if rng.random() < 0.5:
        values = rng.normal(size=(shape[0], *(1,) * (len(shape) - 1)))  # per channel: kernels survive it
        return ir.Scale(np.broadcast_to(values, shape)), shape
    return ir.Scale(rng.normal(size=shape)), shape


def _delay(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    steps = rng.integers(0, 4, shape) if rng.random() < 0.5 else np.full(shape, rng.integers(0, 4))
    return ir.Delay(steps), shape


def _pool(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    kernel = tuple(int(min(k, n)) for k, n in zip(rng.integers(1, 4, 2), shape[1:], strict=True))
    overlapping = rng.random() < 0.3
    stride = tuple(int(n) for n in rng.integers(1, 3, 2)) if overlapping else kernel
    padding = tuple(int(rng.integers(0, k)) for k in kernel) if overlapping else (0, 0)
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True))
    return (ir.AvgPool2d if rng.random() < 0.5 else ir.SumPool2d)(kernel, stride, padding), (shape[0], *out)


def _conv(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    groups = int(rng.choice([g for g in (1, 2, 4) if shape[0] % g == 0]))
    out_c = groups * int(rng.integers(1, 3))
    kernel = [int(min(k, n)) for k, n in zip(rng.integers(1, 4, 2), shape[1:], strict=True)]
    stride, padding = ([int(n) for n in rng.integers(low, 3, 2)] for low in (1, 0))
    dilation = [
        int(d) if (k - 1) * d < n else 1 for d, k, n in zip(rng.integers(1, 3, 2), kernel, shape[1:], strict=True)
    ]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], reach, stride, padding, strict=True))
    weight = rng.normal(size=(out_c, shape[0] // groups, *kernel))
    return ir.Conv2d(weight, tuple(stride), tuple(padding), tuple(dilation), groups), (out_c, *out)


def _linear(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    out = int(rng.integers(1, 5))
    steps = rng.integers(0, 4, (out, shape[0])) if rng.random() < 0.4 else None
    return ir.Linear(rng.normal(size=(out, shape[0])), steps), (out,)


def _flatten(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[ir.Node, tuple[int, ...]]:
    return ir.Flatten(), (int(np.prod(shape)),)


_NODES = {"scale": _scale, "delay": _delay, "pool": _pool, "conv": _conv, "linear": _linear, "flatten": _flatten}


def apply(m: Map, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x [time, batch, ...] through a map, synapse by synapse: the meaning of `Map`, slow."""
    flat = x.reshape(*x.shape[:2], -1)
    y = np.zeros((*x.shape[:2], m.n_out))
    s = m.coordinates()
    for delay in np.unique(s.delay):
        of = s.delay == delay
        full = np.zeros((m.n_out, m.n_in))
        np.add.at(full, (s.row[of], s.col[of]), s.value[of])
        y[delay:] += flat[: max(len(x) - delay, 0)] @ full.T
    return y


@quick
@given(seeds)
def test_folding_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = stateless_chain(rng)
    x = rng.normal(size=(20, 2, *network.shapes["in"]))
    names = tuple(n for n in network.order if n not in ("in", "out"))
    wanted = reference.run(network, x, record=("sent",)).sent[names[-1]]
    got = apply(fold(network, "in", names), x)
    scale = np.abs(wanted).max() + 1
    np.testing.assert_allclose(got, wanted.reshape(*wanted.shape[:2], -1), atol=1e-12 * scale * len(names))


@quick
@given(seeds)
def test_the_way_of_folding_does_not_matter(seed: int) -> None:
    """The regular kinds (kernel, matrix) and the coordinate list hold the same synapses."""
    rng = np.random.default_rng(seed)
    network = stateless_chain(rng)
    names = tuple(n for n in network.order if n not in ("in", "out"))
    x = rng.normal(size=(6, 1, *network.shapes["in"]))
    regular = fold(network, "in", names)
    listed = fold(network, "in", names[:1]).as_sparse()
    for k in range(1, len(names)):
        listed = compose(listed, fold(network, names[k - 1], names[k : k + 1]).as_sparse())
    np.testing.assert_allclose(apply(regular, x), apply(listed, x), atol=1e-9)
    np.testing.assert_allclose(apply(regular.as_sparse(), x), apply(regular, x), atol=1e-12)


def test_a_pool_in_front_of_a_kernel_is_one_kernel() -> None:
    """SumPool 2, then 3 x 3 with padding 1: 6 x 6, stride 2, padding 2. The chip then shares its weights."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2, 3, 3))
    network = ir.chain(
        [
            ("in", ir.Input((2, 8, 8))),
            ("pool", ir.SumPool2d(2, 2)),
            ("conv", ir.Conv2d(weight, 1, 1)),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    (synapses,) = lower(network).synapses
    m = synapses.map
    assert (m.kind, m.weight.shape, m.stride, m.padding) == ("conv", (3, 2, 6, 6), (2, 2), (2, 2))
    np.testing.assert_array_equal(m.weight, np.kron(weight, np.ones((2, 2))))
    assert synapses.node == "conv"


def test_a_pool_that_drops_a_row_is_not_merged_with_padding() -> None:
    """9 rows pooled by 2 leave one out; a joint kernel's padding would read it, so the path becomes a list."""
    network = ir.chain(
        [
            ("in", ir.Input((1, 9, 9))),
            ("pool", ir.SumPool2d(2, 2)),
            ("conv", ir.Conv2d(np.ones((1, 1, 3, 3)), 1, 1)),
            ("p", ir.IF(v_threshold=1.0)),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    (synapses,) = lower(network).synapses
    assert synapses.map.kind == "sparse"
