"""A memory addressed by its cues and by its contents, of spiking neurons that learn on SpiNNaker 1.

The model of hippocampal CA3 of Casanueva-Morato et al. (arXiv:2310.05868; Neural Networks 2024; numbers as in their
package sPyMem): n cues, one of them active at a time, and m bits of content. Cues recall contents through plastic
synapses cue -> content, contents recall cues through plastic synapses content -> cue. 1 ms steps.

    operation           input                                   output
    learn               cue and content for 3 ms, 7 ms silence  both, 5 and 7 ms after the first spike
    recall by cue       the cue for 1 ms, 6 ms silence          the cue after 5 ms, its content after 6
    recall by content   some bits for 1 ms, 6 ms silence        the bits after 5 ms, every cue that has one after 6
    forget              learn the cue with another content

One pairing drives a weight to its bound of 6 nA or back to 0, so a synapse is a bit, written at once.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.errors import SimulationError
from neuro.hardware.spinnaker1.circuit import (
    Circuit,
    IFCurrExp,
    PairSTDP,
    Population,
    Projection,
    all_to_all,
    one_to_one,
)
from neuro.hardware.spinnaker1.session import Session

Bytes = NDArray[np.uint8]
HOLD, SILENCE = 3, 7  # ms, of learning
LEARN, RECALL = HOLD + SILENCE, 7  # ms, of a whole operation
DIRECT, RECALLED, AGAIN = 5, 6, 7  # ms after the first spike, when an output appears
WEIGHT = 6.0  # nA: makes a neuron at rest fire at once
RELAY = IFCurrExp(cm=0.27, tau_m=3.0, tau_refrac=1.0, tau_syn_E=0.3, tau_syn_I=0.3, v_rest=-60.0, v_reset=-60.0,
                  v_thresh=-57.0)  # fmt: skip
COINCIDENCE = replace(RELAY, cm=0.14, tau_m=0.5)
OUTPUT = replace(RELAY, v_thresh=-57.5)
RULE = PairSTDP(tau_plus=3.0, tau_minus=3.0, a_plus=6.0, a_minus=6.0, w_min=0.0, w_max=WEIGHT)


def ca3_circuit(cues: int, bits: int) -> Circuit:
    """The network for so many cues and bits. Sources "cue", "content"; outputs "cue_out", "content_out"."""
    n, m = cues, bits
    cells = {
        "cue_cue": (n, RELAY),
        "cue_cont": (n, COINCIDENCE),
        "cont_cue": (m, RELAY),
        "cont_cont": (m, RELAY),
        "cond": (m, COINCIDENCE),
        "cond_int": (1, COINCIDENCE),
        "merge_cue": (n, RELAY),
        "merge_cont": (m, RELAY),
        "cue_out": (n, OUTPUT),
        "content_out": (m, OUTPUT),
    }
    links = (
        Projection("cue", "cue_cue", one_to_one(n, WEIGHT, 1)),
        Projection("content", "cont_cue", one_to_one(m, WEIGHT, 1)),
        Projection("cue_cue", "cont_cue", all_to_all(n, m, 0.0, 1), stdp=RULE),
        Projection("cont_cont", "cue_cont", all_to_all(m, n, 0.0, 1), stdp=RULE),
        # a cue that is given is itself the answer, whatever its content recalls
        Projection("cue_cue", "cue_cont", one_to_one(n, WEIGHT, 2)),
        Projection("cue_cue", "cue_cont", all_to_all(n, n, WEIGHT * m, 3, allow_self=False), "inhibitory"),
        Projection("cue_cont", "cue_cont", all_to_all(n, n, WEIGHT, 2, allow_self=False), "inhibitory"),
        # contents recall cues only while no cue is given
        Projection("cont_cue", "cond", one_to_one(m, 9.0, 1)),
        Projection("cue_cue", "cond", all_to_all(n, m, WEIGHT, 2), "inhibitory"),
        Projection("cont_cue", "cond_int", all_to_all(m, 1, WEIGHT, 1)),
        Projection("cond_int", "cond", all_to_all(1, m, 2.0, 1)),
        Projection("cond", "cont_cont", one_to_one(m, WEIGHT, 1)),
        # what was given takes as long to the output as what it recalls
        Projection("cue_cue", "merge_cue", one_to_one(n, WEIGHT, 3)),
        Projection("cue_cont", "merge_cue", one_to_one(n, WEIGHT, 1)),
        Projection("cont_cue", "merge_cont", one_to_one(m, WEIGHT, 3)),
        Projection("cont_cont", "merge_cont", one_to_one(m, WEIGHT, 1)),
        Projection("merge_cue", "cue_out", one_to_one(n, WEIGHT, 1)),
        Projection("merge_cont", "content_out", one_to_one(m, WEIGHT, 1)),
    )
    sources = {"cue": Population(n), "content": Population(m)}
    return Circuit({**sources, **{name: Population(*of) for name, of in cells.items()}}, links)


class Memory:
    """The circuit with its operations. Each returns the spikes at the output, uint8[ms, cues + bits]; `time` is ms
    since the start."""

    def __init__(self, cues: int, bits: int) -> None:
        self.cues, self.bits = cues, bits
        self.session = Session(ca3_circuit(cues, bits))

    @property
    def time(self) -> int:
        return self.session.time

    def copy(self) -> Memory:
        """A memory that holds the same and goes its own way."""
        other = copy.copy(self)
        other.session = self.session.copy()
        return other

    def learn(self, cue: int, content: ArrayLike) -> Bytes:
        """Store a content [bits] of 0 and 1 under a cue, in the place of what the cue had."""
        return self._operate(LEARN, HOLD, [cue], content)

    def recall(self, cue: int) -> Bytes:
        """Ask what a cue has."""
        return self._operate(RECALL, 1, [cue], np.zeros(self.bits, np.uint8))

    def search(self, content: ArrayLike) -> Bytes:
        """Ask which cues have at least one of these bits."""
        return self._operate(RECALL, 1, [], content)

    def wait(self, ms: int) -> Bytes:
        """No input."""
        return self._operate(ms, 0, [], np.zeros(self.bits, np.uint8))

    def content_of(self, cue: int) -> Bytes:
        """What `recall` shows of the content, 6 ms after the cue: uint8[bits]."""
        return self.recall(cue)[RECALLED, self.cues :]

    def cues_of(self, content: ArrayLike) -> list[int]:
        """The cues that `search` shows, 6 ms after the content."""
        return [int(k) for k in np.flatnonzero(self.search(content)[RECALLED, : self.cues])]

    def _operate(self, steps: int, hold: int, cues: list[int], content: ArrayLike) -> Bytes:
        bits = np.asarray(content)
        bad = [f"there is no cue {c}; they are 0..{self.cues - 1}" for c in cues if not 0 <= c < self.cues]
        if bits.shape != (self.bits,) or not np.isin(bits, (0, 1)).all():
            bad.append(f"a content is {self.bits} values of 0 and 1, got shape {bits.shape}")
        if bad:
            raise SimulationError("the memory cannot do that", bad)
        cue, given = np.zeros((steps, self.cues), np.uint8), np.zeros((steps, self.bits), np.uint8)
        cue[:hold, cues] = 1
        given[:hold] = bits
        spikes = self.session.run({"cue": cue, "content": given})
        return np.concatenate([spikes["cue_out"], spikes["content_out"]], axis=1)


__all__ = ["Memory", "ca3_circuit"]
