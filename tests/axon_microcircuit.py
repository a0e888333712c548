"""The cortical microcircuit of Potjans and Diesmann on one SpiNNaker board, built core by core.

Numbers: Potjans & Diesmann 2014, Cereb. Cortex 24:785, tables 4 and 5, as in NEST's own implementation of the model
(whose mean rates are `RATES`). External input is a constant current of the same mean, as in Rhodes et al. 2020 ("DC").
dt = 0.1 ms; a board runs that 20 times slower than real time (van Albada et al. 2018).
"""

from __future__ import annotations

import numpy as np

from neuro.hardware.fabric import HexTorus
from neuro.hardware.program import Placement, Population, Program
from neuro.hardware.spinnaker1.fixed import raw
from neuro.hardware.spinnaker1.rows import Rows
from neuro.hardware.spinnaker1.words import Layout

NAMES = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
SIZES = (20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948)
PROBABILITY = np.array(  # [target, source]
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0000, 0.0076, 0.0000],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0000, 0.0042, 0.0000],
        [0.0077, 0.0059, 0.0497, 0.1350, 0.0067, 0.0003, 0.0453, 0.0000],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0000, 0.1057, 0.0000],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0000],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.0600, 0.3158, 0.0086, 0.0000],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.0010, 0.0034, 0.0005, 0.0277, 0.0080, 0.0658, 0.1443],
    ]
)
EXTERNAL = (1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100)  # synapses from outside, at 8 Hz each
RATES = (0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829)  # Hz, NEST's, with Poisson input
V0 = (-68.28, -63.16, -63.33, -63.45, -63.11, -61.66, -66.72, -61.43)  # mV, mean at the start
V0_SD = (5.36, 4.57, 4.74, 4.94, 4.94, 4.55, 5.46, 4.48)
WEIGHT, G, WEIGHT_SD = 0.0878, 4.0, 0.1  # nA; inhibition in units of excitation; relative
DELAY = {0: (1.5, 0.75), 1: (0.75, 0.375)}  # ms, mean and sd
C_M, TAU_M, TAU_SYN, T_REF = 0.25, 10.0, 0.5, 2.0  # nF, ms
THRESHOLD, RESET = -50.0, -65.0  # mV
DT = 0.1  # ms
PER_CORE, DELAY_BITS = 128, 6
CORES_PER_CHIP = 16
SHIFT = (0, 1)  # ring buffers: excitatory weights in 2^-15 nA, inhibitory in 2^-14


def board() -> HexTorus:
    """48 chips in the outline of a board: row y holds x from max(0, y - 4) to min(7, 4 + y)... of 8 x 8."""
    present = [(x, y) for y in range(8) for x in range(8) if max(0, y - 3) <= x <= min(7, y + 4)]
    assert len(present) == 48
    return HexTorus(8, 8, CORES_PER_CHIP, wrap_x=False, wrap_y=False, present=tuple(present))


def sizes_of(scale: float) -> list[int]:
    return [max(1, round(n * scale)) for n in SIZES]


def synapse_counts(sizes: list[int]) -> np.ndarray:
    """int64[target, source]: multapses allowed, so that a pair is joined with the given probability."""
    pairs = np.outer(sizes, sizes).astype(float)
    return np.rint(np.log(1 - PROBABILITY) / np.log((pairs - 1) / pairs)).astype(np.int64)


def microcircuit(scale: float = 1.0, seed: int = 0) -> tuple[Program, int]:
    """The program and its number of synapses. scale: of the number of neurons; connection probabilities stay, so
    in-degrees fall with it and weights rise as 1 / sqrt(scale), with the lost mean input added to the current."""
    rng = np.random.default_rng(seed)
    sizes = sizes_of(scale)
    counts = synapse_counts(sizes)
    layout = Layout(7, 1, DELAY_BITS)
    per_unit = 1.0 / np.sqrt(scale)
    core_of, core = {}, 0
    slices: list[list[tuple[int, int]]] = []
    for name, n in zip(NAMES, sizes, strict=True):
        cores = -(-n // PER_CORE)
        cuts = np.linspace(0, n, cores + 1).round().astype(int)
        core_of[name] = np.repeat(np.arange(core, core + cores), np.diff(cuts))
        slices.append([(core + k, int(cuts[k + 1] - cuts[k])) for k in range(cores)])
        core += cores
    rows = Rows([1, *sizes], int(counts.sum()))
    for target, own in enumerate(slices):
        shares = np.array([n for _, n in own]) / sizes[target]
        for source in range(8):
            kind = source % 2
            mean = WEIGHT * per_unit * (2.0 if (target, source) == (0, 2) else 1.0) * (G if kind else 1.0)
            for (c, n), count in zip(own, rng.multinomial(counts[target, source], shares), strict=True):
                weight = rng.normal(mean, WEIGHT_SD * mean, count).clip(0.0)
                late = rng.normal(*DELAY[kind], count) / DT
                rows.add(
                    c,
                    1 + source,
                    layout,
                    rng.integers(0, sizes[source], count),
                    rng.integers(0, n, count),
                    np.rint(weight * (1 << (15 - SHIFT[kind]))).astype(np.int64),
                    np.rint(late).clip(1, layout.slots).astype(np.int64),
                    kind,
                )
    xy = board().xy(np.arange(core))
    program = Program(
        chip="spinnaker1",
        dt=DT * 1e-3,
        populations={"input": Population("input", "input", "input", (1,))}
        | {name: population(rng, k, sizes, counts, scale) for k, name in enumerate(NAMES)},
        projections=(),
        input="input",
        output="L5E",
        skew={"input": 0} | dict.fromkeys(NAMES, 1),
        scale={},
        readout="count",
        placement=Placement(core_of, xy, fabric=board()),
        image=rows.image(),
    )
    return program, int(counts.sum())


def population(rng: np.random.Generator, k: int, sizes: list[int], counts: np.ndarray, scale: float) -> Population:
    external = 8.0 * EXTERNAL[k] * TAU_SYN * 1e-3 * WEIGHT
    lost = 0.0
    for source in range(8):  # in-degree x rate x weight that a smaller network does not have
        weight = WEIGHT * (2.0 if (k, source) == (0, 2) else 1.0) * (-G if source % 2 else 1.0)
        full = synapse_counts(list(SIZES))[k, source] / SIZES[k]
        kept = counts[k, source] / sizes[k] / np.sqrt(scale)
        lost += (full - kept) * RATES[source] * TAU_SYN * 1e-3 * weight
    milliseconds = {"tau_m": TAU_M, "t_refract": T_REF, "time_step": DT, "synapse_step": DT}
    milliseconds |= {"tau_exc": TAU_SYN, "tau_inh": TAU_SYN}
    params = {name: raw(value) for name, value in milliseconds.items()}
    params |= {"c_m": raw(C_M), "v_rest": raw(RESET), "v_reset": raw(RESET), "threshold": raw(THRESHOLD)}
    params |= {"v_init": raw(rng.normal(V0[k], V0_SD[k], sizes[k])), "i_offset": raw(external + lost)}
    params |= {"refract_init": np.array(0), "init_exc": np.array(0), "init_inh": np.array(0)}
    params |= {"shift_exc": np.array(SHIFT[0]), "shift_inh": np.array(SHIFT[1])}
    params |= {"index_bits": np.array(7), "delay_bits": np.array(DELAY_BITS)}
    return Population(NAMES[k], NAMES[k], "curr_exp", (sizes[k],), params)
