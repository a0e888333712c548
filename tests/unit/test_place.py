"""Placement: every neuron on exactly one core, no core over its limits, populations in contiguous slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuro.hardware.place import Demand, Mesh, place

MESH = Mesh(8, 4, 4)


def demand(name: str, own: list[int], kernels: int = 1, kernel_bits: int = 0) -> Demand:
    n = len(own)
    return Demand(name, np.array(own), np.arange(n) * kernels // n, np.full(kernels, kernel_bits))


@given(
    st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=60), min_size=1, max_size=4),
    st.integers(1, 20),
    st.integers(50, 300),
    st.integers(1, 5),
    st.integers(0, 20),
)
def test_no_core_is_over_its_limits(
    sizes: list[list[int]], neurons: int, bits: int, kernels: int, kernel_bits: int
) -> None:
    demands = [demand(f"p{k}", own, min(kernels, len(own)), kernel_bits) for k, own in enumerate(sizes)]
    placement, violations = place(demands, neurons, bits, MESH)
    fits = all(max(d.bits(k, k + 1) for k in range(d.size)) <= bits for d in demands)
    assert (not violations) == fits
    if not fits:
        return
    assert placement.cores == len(placement.utilisation) == len(placement.xy)
    owner: dict[int, str] = {}
    for d in demands:
        cores = placement.core_of[d.population]
        assert (np.diff(cores) >= 0).all()  # contiguous slices, in order
        for core in np.unique(cores).tolist():
            assert owner.setdefault(core, d.population) == d.population
            inside = np.flatnonzero(cores == core)
            used = int(d.own_bits[inside].sum() + sum(d.kernel_bits[k] for k in set(d.kernel[inside].tolist())))
            assert len(inside) <= neurons
            assert used <= bits
            assert placement.utilisation[core]["neurons"] == len(inside) / neurons
            assert placement.utilisation[core]["memory"] == used / bits
    assert sorted(owner) == list(range(placement.cores))


def test_slices_are_even_over_the_fewest_cores() -> None:
    placement, _ = place([demand("p", [1] * 10)], 4, 1000, MESH)
    assert np.bincount(placement.core_of["p"]).tolist() in ([3, 4, 3], [3, 3, 4], [4, 3, 3])


def test_a_shared_kernel_counts_once_per_core() -> None:
    d = demand("p", [1] * 8, kernels=2, kernel_bits=100)
    assert d.bits(0, 4) == 104
    assert d.bits(3, 5) == 202
    placement, violations = place([d], 8, 104, MESH)
    assert not violations
    assert placement.core_of["p"].tolist() == [0] * 4 + [1] * 4


def test_one_neuron_too_large_is_named_with_its_size() -> None:
    _, violations = place([demand("p", [8, 808])], 10, 800, MESH)
    (violation,) = violations
    assert (violation.node, violation.wanted, violation.allowed) == ("p", 101, 100)
    assert violation.remedy


def test_tiles_of_four_in_rows_of_eight() -> None:
    xy = MESH.xy(128)
    assert xy[[0, 3, 4, 31, 32, 127]].tolist() == [[0, 0], [0, 0], [1, 0], [7, 0], [0, 1], [7, 3]]
