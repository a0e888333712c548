"""Whether to go by events or to multiply matrices of zeros and ones: a model of what is faster, fitted to measurements.

Events cost by the spike, a product by the place for one; so there is a rate at which both take the same time:

    layer:    R + S / sources             a Linear and neurons in one (`neuro.nn.dense`), forwards and backwards
    gather:   G min(1, NEAR / weights)    currents as sums of rows of the matrix (`neuro.nn.recurrent` and others)
    scatter:  C min(1, NEAR / weights)    the gradient of the matrix, each spike adding a row to it

The first works on parts of the matrix that lie in the second-level cache whatever its size; in a small layer the
product does not reach its speed. The others reach for rows all over a matrix of ``weights`` = sources * neurons
numbers. tests/bench/bench_crossover.py measures both ways and what the choice costs (two threads and one, 2 MiB of
cache, AVX-512; docs/results/bench_crossover.json). Both ways add up in different orders, so results differ in their
last bits: the choice depends on shapes and counts alone, never on a clock, a machine or the number of threads.
"""

from __future__ import annotations

R, S = 0.17, 12.0
G, C = 0.30, 0.15
NEAR = 3 << 17  # weights: three quarters of 2 MiB in float32


def layer(events: int, rows: int, sources: int) -> bool:
    """Whether a layer goes by events. events: spikes in all. rows: steps times samples, of ``sources`` inputs each."""
    return events <= (R + S / sources) * rows * sources


def gather(events: int, rows: int, sources: int, n: int) -> bool:
    """Whether the currents of n neurons are sums of rows. Else as `layer`."""
    return events <= G * near(sources, n) * rows * sources


def scatter(events: int, rows: int, sources: int, n: int) -> bool:
    """Whether the gradient of a matrix [n, sources] is made spike by spike. Else as `layer`."""
    return events <= C * near(sources, n) * rows * sources


def near(sources: int, n: int) -> float:
    """How much of a matrix lies close to the processor."""
    return min(1.0, NEAR / max(1, sources * n))
