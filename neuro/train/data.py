"""The recordings of a configuration: what to train on in each epoch, what to validate on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuro.datasets.source import Source, source
from neuro.datasets.transforms import Augment
from neuro.errors import BadConfig
from neuro.events import EventSet
from neuro.extend import did_you_mean
from neuro.train.config import DataConfig


class Recordings:
    """Loads the splits of a `DataConfig`.

    Raises:
        BadConfig: the data set, its options or the augmentation do not exist; all problems.
    """

    def __init__(self, config: DataConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.source: Source = source(config.dataset)
        bad = [
            f"data.options.{n} is unknown. {did_you_mean(n, self.source.options)}"
            for n in config.options
            if n not in self.source.options
        ]
        bad += [
            f"data.vary.{n} is unknown. {did_you_mean(n, self.source.options)}"
            for n in config.vary
            if n not in self.source.options
        ]
        if config.vary and not {"seed", "epoch"} <= set(self.source.options):
            bad.append(f"data.vary: '{config.dataset}' has nothing that varies by seed and epoch")
        fields = {f.name for f in dataclasses.fields(Augment)}
        unknown = [n for n in config.augment if n not in fields]
        bad += [f"data.augment.{n} is unknown. {did_you_mean(n, fields)}" for n in unknown]
        if bad:
            raise BadConfig("data", bad)
        self.augment = Augment(**config.augment) if config.augment else None
        self.steps = self.source.steps if config.steps is None else config.steps
        self.dt = self.source.dt if config.dt is None else config.dt
        self._still: EventSet | None = None

    def train(self, epoch: int) -> EventSet:
        """What epoch number ``epoch`` trains on."""
        if self.config.vary:
            return self._load(self.config.train_on, {**self.config.vary, "seed": self.seed, "epoch": epoch})
        if self._still is None:
            self._still = self._load(self.config.train_on, {})
        return self._still

    def valid(self) -> EventSet | None:
        """The validation split; None where all recordings are trained on."""
        return None if self.config.train_on == "all" else self._load("valid", {})

    def _load(self, split: str, more: Mapping[str, Any]) -> EventSet:
        events = self.source.load(split, self.config.path, **{**self.config.options, **more})
        if self.config.limit is not None and len(events) > self.config.limit:
            events = events.subset(np.arange(self.config.limit))
        return events
