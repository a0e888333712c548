"""The neuron models of a Loihi 2 `Program`: parameters and their ranges, names of the state, what they send.

What the parameters mean is said in contract.py, the arithmetic in neurons.py.
"""

from __future__ import annotations

import numpy as np

from neuro.hardware.program import Population

INT32 = (-(1 << 31), (1 << 31) - 1)
THRESHOLD = (-(1 << 25), (1 << 25) - 1)
Ranges = dict[str, tuple[int, int]]
_CUBA: Ranges = {"du": (0, 4095), "dv": (0, 4096), "bias_mant": INT32, "bias_exp": (-31, 31)}
_LIF: Ranges = _CUBA | {"vth": THRESHOLD}
_DELTA: Ranges = {"vth": INT32, "spike_exp": (0, 15), "state_exp": (0, 15), "cum_error": (0, 1)}
_RF: Ranges = {"sin_decay": INT32, "cos_decay": INT32, "decay_bits": (0, 31), "state_exp": (0, 31), "vth": INT32}
MODELS: dict[str, Ranges] = {
    "lif": _LIF,
    "li": _LIF,
    "lif_reset": _LIF | {"reset_interval": (1, INT32[1]), "reset_offset": (0, INT32[1])},
    "ternary_lif": _CUBA | {"vth_hi": THRESHOLD, "vth_lo": THRESHOLD},
    "sigma": {},
    "delta": _DELTA,
    "sigma_delta": _DELTA | {"bias": INT32, "relu": (0, 1)},
    "rf": _RF,
    "rf_iz": _RF,
}
RESONATORS = ("rf", "rf_iz")
GRADED = ("ternary_lif", "sigma", "delta", "sigma_delta")
ONE_FOR_ALL = ("reset_interval", "reset_offset")
# what a population's state is called, as in Lava; "a" is what arrives in a step
VARIABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lif", "li", "lif_reset", "ternary_lif"), ("u", "v", "a")),
    "sigma": ("sigma", "a"),
    "delta": ("act", "residue", "error", "a"),
    "sigma_delta": ("sigma", "act", "residue", "error", "a"),
    "rf": ("real", "imag", "a", "a_imag"),
    "rf_iz": ("real", "imag", "a", "a_imag"),
}


def input_range(population: Population) -> tuple[int, int]:
    """The least and the largest value of a channel of an input; 0 and 1 where they are spikes."""
    low, high = (int(population.params.get(n, np.array(d))) for n, d in (("low", 0), ("high", 1)))
    return low, high


def graded(population: Population) -> bool:
    """Whether what it sends may be anything but 0 and 1."""
    if population.model == "input":
        return input_range(population) != (0, 1)
    return population.model in GRADED
