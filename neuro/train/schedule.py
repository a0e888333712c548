"""Optimisers, and the learning rate as a pure function of how far training is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuro.nn.delay_linear import DelayLinear

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
    """The optimiser of a configuration; matrices and kernels decay, all else (biases, norms, decays, delays) does not.

    Each group has a ``factor`` on the learning rate: that of delays is in their plan, all others have 1.
    """
    delays: dict[float, list[nn.Parameter]] = {}
    for layer in model.modules():
        if isinstance(layer, DelayLinear) and layer.delay.requires_grad:
            delays.setdefault(layer.plan.rate, []).append(layer.delay)
    apart = {id(p) for ps in delays.values() for p in ps}
    parameters = [p for p in model.parameters() if id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": c.weight_decay, "factor": 1.0},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0, "factor": 1.0},
        *({"params": ps, "weight_decay": 0.0, "factor": factor} for factor, ps in sorted(delays.items())),
    ]
    groups = [g for g in groups if g["params"]]
    if c.kind == "sgd":
        return torch.optim.SGD(groups, lr=c.lr, momentum=c.momentum, nesterov=c.nesterov and c.momentum > 0)
    return torch.optim.AdamW(groups, lr=c.lr, betas=(c.betas[0], c.betas[1]))
