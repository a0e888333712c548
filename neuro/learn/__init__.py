"""Learning rules: how the gradients of a batch are found, one choice behind one interface (`neuro.learn.rule`)."""

from neuro.learn.rule import RULES, Learnt, Rule, rule

__all__ = ["RULES", "Learnt", "Rule", "rule"]
