"""Synapses that learn where they are: STDP rules as objects, a float simulator for them, and what chips are given.

`rules` says what a rule means, `follow` runs it on given spikes, `simulation` in a closed loop with neurons. Chips take
the same objects: `neuro.hardware.spinnaker1.plasticity`, `neuro.hardware.loihi2.plasticity`.
"""

from neuro.plasticity.rules import Homeostasis, PairSTDP, RewardSTDP, TripletSTDP

__all__ = ["Homeostasis", "PairSTDP", "RewardSTDP", "TripletSTDP"]
