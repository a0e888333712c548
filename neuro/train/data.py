"""The recordings of a configuration: what to train on in each epoch, what to validate on, and its batches.

While an epoch trains, a background thread makes the batches that come next and, where the recordings are redrawn in
every epoch, another makes those of the next epoch. What they are depends on (seed, epoch, recording) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.datasets import loader
from neuro.datasets.source import Source, source
from neuro.datasets.transforms import Augment
from neuro.errors import BadConfig
from neuro.events import EventSet
from neuro.extend import did_you_mean
from neuro.nn.spikes import Spikes
from neuro.train.config import DataConfig, TrainConfig


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
        self._last: tuple[int, EventSet] | None = None
        self._next: tuple[int, Future[EventSet]] | None = None

    def train(self, epoch: int, ahead: bool = False) -> EventSet:
        """What epoch number ``epoch`` trains on. ahead: make those of the next epoch in the background."""
        if not self.config.vary:
            epoch = 0
        if self._last is None or self._last[0] != epoch:
            known = self._next is not None and self._next[0] == epoch
            found = self._next[1].result() if self._next is not None and known else self._varied(epoch)
            self._last, self._next = (epoch, found), None
        if ahead and self.config.vary and self._next is None:
            pool = ThreadPoolExecutor(1, "neuro-epoch")
            self._next = (epoch + 1, pool.submit(self._varied, epoch + 1))
            pool.shutdown(wait=False)  # ends with its only task
        return self._last[1]

    def batches(
        self, data: EventSet, config: TrainConfig, epoch: int, threads: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x [steps, batch, *shape], labels int64[batch]) of one epoch, made ahead in the background.

        x: `Spikes` where events are spikes, uint8 where they are counted (`DataConfig.high`).
        """
        options: dict[str, Any] = {
            "seed": self.seed,
            "epoch": epoch,
            "augment": self.augment,
            "drop_last": config.drop_last,
            "threads": threads,
            "prefetch": True,
        }
        size, grid = config.batch_size, (self.dt, self.steps)
        if self.config.high > 1:
            yield from loader.batches(data, size, *grid, high=self.config.high, **options)
            return
        for words, labels in loader.words(data, size, *grid, **options):
            x = Spikes(words, (self.steps, len(labels), *data.shape), torch.get_default_dtype())
            yield x, torch.from_numpy(labels)

    def valid(self) -> EventSet | None:
        """The validation split; None where all recordings are trained on."""
        return None if self.config.train_on == "all" else self._load("valid", {})

    def _varied(self, epoch: int) -> EventSet:
        more = {**self.config.vary, "seed": self.seed, "epoch": epoch} if self.config.vary else {}
        return self._load(self.config.train_on, more)

    def _load(self, split: str, more: Mapping[str, Any]) -> EventSet:
        events = self.source.load(split, self.config.path, **{**self.config.options, **more})
        if self.config.limit is not None and len(events) > self.config.limit:
            events = events.subset(np.arange(self.config.limit))
        return events
