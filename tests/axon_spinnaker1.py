"""SpiNNaker programs for tests: golden vectors as Programs, random networks with extreme registers."""

from __future__ import annotations

import numpy as np

from neuro.hardware.program import Placement, Population, Program
from neuro.hardware.spinnaker1.words import WORDS


def model_of(batch):
    """Whether the parameter words of a batch are those of exponential or of delta neurons."""
    return "curr_exp" if batch["params"].size == 1 + 15 * batch_size(batch) else "curr_delta"


def batch_size(batch):
    return int(batch["n"])


def words_of(batch):
    """name -> int64[n], as `neuro.hardware.spinnaker1.words` names them."""
    n, model = batch_size(batch), model_of(batch)
    rest, table = batch["params"][1:].astype(np.int64), []
    for columns in (9, 1, 5) if model == "curr_exp" else (9, 1, 1, 2):
        table.append(rest[: n * columns].reshape(n, columns))
        rest = rest[n * columns :]
    assert rest.size == 0
    return dict(zip(WORDS[model], np.concatenate(table, axis=1).T, strict=True))


def program_of(batch):
    """One core of n neurons; each row of the batch is one input."""
    n, rows = batch_size(batch), len(batch["row_len"])
    scalars = {
        "shift_exc": batch["shifts"][0],
        "shift_inh": batch["shifts"][1],
        "index_bits": batch["log_n"],
        "delay_bits": 4,
    }
    return Program(
        chip="spinnaker1",
        dt=1e-3,
        populations={
            "in": Population("in", "in", "input", (rows,)),
            "n": Population("n", "n", model_of(batch), (n,), words_of(batch) | scalars),
        },
        projections=(),
        input="in",
        output="n",
        skew={"in": 0, "n": 0},
        scale={"n": 2.0**-15},
        readout="count",
        placement=Placement({"n": np.zeros(n, np.int64)}, np.zeros((1, 2), np.int64)),
        image={
            "blocks": np.array([[0, 0, 0, 0, 0]]),
            "row_start": np.concatenate([[0], np.cumsum(batch["row_len"])]).astype(np.uint32),
            "words": batch["rows"].copy(),
            "relays": np.zeros((0, 4), np.int64),
        },
    )


def events_of(batch):
    """(rows in the order of their processing, where each step begins and ends)."""
    steps = int(batch["T"])
    order = np.argsort(batch["spk_step"], kind="stable")
    return batch["spk_row"][order].astype(np.int32), np.searchsorted(batch["spk_step"][order], np.arange(steps + 1))
