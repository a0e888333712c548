"""Conversion: a trained network of any family becomes a spiking one, with a certificate of how far it is from the
original, layer by layer, and of the step from which on it is equal. See docs/conversion.md and decision 007."""
