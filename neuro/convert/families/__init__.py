"""Families of models, each with a small trainable form, its way into a `neuro.convert.graph.Graph`, and what is exact.
See docs/families.md."""
