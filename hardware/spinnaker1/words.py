"""Names of the words that the machine is given for each neuron, in its order."""

from __future__ import annotations

BLOCK = ("v_init", "v_rest", "c_m", "tau_m", "i_offset", "v_reset", "t_refract", "refract_init", "time_step")
WORDS = {  # those of a neuron's block, then those of its threshold, input and synapse types
    "curr_exp": (*BLOCK, "threshold", "tau_exc", "init_exc", "tau_inh", "init_inh", "synapse_step"),
    "curr_delta": (*BLOCK, "input_step", "threshold", "init_exc", "init_inh"),
}
