"""RANC's golden vectors as banks of cores."""

from __future__ import annotations

import numpy as np

from neuro.hardware.truenorth.bank import NOWHERE, OUTSIDE, bank_from, choices, empty, pack_bits


def bank_of_vector(vector):
    """(bank, packets int64[k, 2] of (tick, core A + axon)) of one RANC file."""
    cores, axons = vector["axtype"].shape
    neurons = vector["leak"].shape[1]
    image = empty(cores, axons, neurons)
    image |= {
        "crossbar": pack_bits(vector["conn"].transpose(0, 2, 1) != 0),
        "axon_type": vector["axtype"].astype(np.uint8),
        "weight": vector["w"].astype(np.int32),
        "gamma": vector["mode"].astype(np.uint8),
        "delay": (vector["dtick"] + 1).astype(np.uint8),
        "xy": vector["cores"].astype(np.int32),
        "choices": choices("wrap32", inclusive=bool(vector["reset_type"])),
    }
    names = {"leak": "leak", "alpha": "pos", "negative": "neg", "reset": "rst", "v0": "v0", "axon": "dax"}
    image |= {ours: vector[theirs].astype(np.int32) for ours, theirs in names.items()}
    at = {tuple(xy): k for k, xy in enumerate(vector["cores"].tolist())}
    at[tuple(vector["output_bus"].tolist())] = OUTSIDE
    there = [[at.get(tuple(xy), NOWHERE) for xy in row] for row in vector["dest"].tolist()]
    image["target"] = np.array(there, np.int32)
    k, core, axon, d = vector["packets"].astype(np.int64).T
    inside = k + d < len(vector["V"])
    return bank_from(image), np.stack([k + d, core * axons + axon], axis=1)[inside]
