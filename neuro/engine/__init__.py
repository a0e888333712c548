"""Event-driven simulation in floats: what does not happen costs nothing. The door is `neuro.simulate`."""
