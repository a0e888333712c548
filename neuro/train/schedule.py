"""Optimisers, and the learning rate as a pure function of how far training is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from neuro.train.config import OptimiserConfig


def rate(done: float, c: OptimiserConfig) -> float:
    """Factor on the learning rate when the share ``done`` of all steps, 0..1, is behind us.

    Rises from ``start`` to 1 over ``warmup``, then falls to ``final`` ("constant" stays at 1).
    """
    if done < c.warmup:
        part = done / c.warmup
        if c.schedule == "one_cycle":
            part = 0.5 - 0.5 * math.cos(math.pi * part)
        return c.start + (1.0 - c.start) * part
    if c.schedule == "constant" or c.warmup >= 1.0:
        return 1.0
    part = (done - c.warmup) / (1.0 - c.warmup)
    return c.final + (1.0 - c.final) * (0.5 + 0.5 * math.cos(math.pi * min(part, 1.0)))


def optimiser_of(model: nn.Module, c: OptimiserConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration; matrices and kernels decay, all else (biases, norms, decays) does not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": c.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if c.kind == "sgd":
        return torch.optim.SGD(groups, lr=c.lr, momentum=c.momentum, nesterov=c.nesterov and c.momentum > 0)
    return torch.optim.AdamW(groups, lr=c.lr, betas=(c.betas[0], c.betas[1]))
