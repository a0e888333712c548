"""Training in several processes that share the batches: torch's DistributedDataParallel over gloo.

Every process holds the model, takes its part of each batch, and finds its gradients by whatever rule; DDP makes them
the mean. Parts weigh by their size, what is drawn for a batch (dropout, steps of a rule) is drawn for the whole of it,
and means over the batch inside a loss are means over all processes, so the run is that of one process with the same
batches, up to the order of sums. The first process alone writes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import Tensor, distributed, nn

from neuro.errors import BadConfig, NeuroError, RunError
from neuro.learn.rule import Learnt
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import NORMS, Dropout

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


class _Gradients(nn.Module):
    """A module whose gradients are the tensors that it is called with: so DDP averages those of any rule."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.parts = nn.ParameterList(parameters)

    def forward(self, gradients: list[Tensor]) -> Tensor:
        return torch.stack([(p * g).sum() for p, g in zip(self.parts, gradients, strict=True)]).sum()


@dataclass
class Team:
    """The processes of a run, and this one's number among them."""

    rank: int = 0
    size: int = 1
    _ddp: tuple[tuple[int, ...], nn.Module] | None = field(default=None, repr=False)

    @property
    def writes(self) -> bool:
        """Whether this process keeps the run folder."""
        return self.rank == 0

    def check(self, model: nn.Module, batches: list[int]) -> None:
        """batches: samples in each. Raises:
        BadConfig: what cannot be trained in several processes, all of it.
        """
        if self.size == 1:
            return
        bad = [
            f"layer {n} normalises over the batch, each process would over its part; leave the norm out"
            for n, layer in model.named_modules()
            if isinstance(layer, NORMS)
        ]
        if min(batches, default=0) < self.size:
            bad.append(
                f"a batch has {min(batches, default=0)} samples for {self.size} processes; "
                "change train.batch_size or set train.drop_last"
            )
        if bad:
            raise BadConfig(f"this configuration cannot be trained in {self.size} processes", bad)

    def share(self, x: Tensor, labels: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """This process's part of a batch, samples in order; tells dropout which part that is."""
        if self.size == 1:
            return x, labels
        n = len(labels)
        begin, end = n * self.rank // self.size, n * (self.rank + 1) // self.size
        for layer in model.modules():
            if isinstance(layer, Dropout):
                layer.part = (begin, n)
        if isinstance(x, Spikes):
            words = x.words.reshape(len(x), n, -1)[:, begin:end]
            part = words.reshape(len(x) * (end - begin), words.shape[2])
            return Spikes(part.copy(), (len(x), end - begin, *x.shape[2:]), x.dtype), labels[begin:end]
        return x[:, begin:end].contiguous(), labels[begin:end]

    def weight(self, n: int, of: int) -> float:
        """What the loss of n of ``of`` samples counts, for a mean over processes to be one over samples."""
        return 1.0 if self.size == 1 else self.size * n / of

    def mean(self, n: Tensor, of: int) -> Tensor:
        """Mean over the samples of all processes, [batch, ...] -> [...], with the gradient of this one's part.

        of: samples in the whole batch. A part's gradient counts `weight`, and DDP takes the mean.
        """
        if self.size == 1:
            return n.mean(0)
        whole = n.detach().sum(0)
        distributed.all_reduce(whole)
        return n.mean(0) + (whole / of - n.detach().mean(0))

    def average(self, model: nn.Module) -> None:
        """Every ``grad`` becomes the mean over processes."""
        if self.size == 1:
            return
        parameters = list(model.parameters())
        key = tuple(id(p) for p in parameters)
        if self._ddp is None or self._ddp[0] != key:
            self._ddp = key, nn.parallel.DistributedDataParallel(_Gradients(parameters))
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        distributed.all_reduce(used)  # a process without samples has none, the others' count all the same
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        model.zero_grad()
        self._ddp[1](mine).backward()
        for p, somebody in zip(parameters, used.tolist(), strict=True):
            if not somebody:
                p.grad = None

    def total(self, learnt: Learnt, right: int) -> tuple[float, int, dict[str, float]]:
        """(loss, right answers, spikes by layer) of all processes; the losses were weighted by `weight`."""
        if self.size == 1:
            return learnt.loss, right, learnt.fired
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, (learnt.loss, right, learnt.fired))
        names = sorted({n for _, _, fired in found for n in fired})
        spikes = {n: sum(fired.get(n, 0.0) for _, _, fired in found) for n in names}
        return sum(loss for loss, _, _ in found) / self.size, sum(r for _, r, _ in found), spikes

    def first(self, do: Callable[[], None]) -> None:
        """``do`` in the process that writes; the others wait for it, and fail where it failed."""
        if self.size == 1:
            do()
            return
        said: list[NeuroError | None] = [None]
        if self.writes:
            try:
                do()
            except NeuroError as problem:
                said = [problem]
        distributed.broadcast_object_list(said)
        if said[0] is not None:
            raise said[0]


@contextmanager
def team() -> Iterator[Team]:
    """The team that torchrun's environment names, joined for the time of a run; one process alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        yield Team()
        return
    mine = not distributed.is_initialized()
    if mine:
        distributed.init_process_group("gloo")
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    finally:
        if mine:
            distributed.destroy_process_group()


def fit_in_processes(table: Mapping[str, Any], out: Path, processes: int, *, show: bool = False) -> None:
    """`neuro.train.fit` of a configuration's table in so many processes of this machine, started as torchrun does.

    Raises:
        RunError: a process failed; what it said.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id=uuid4().hex, max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    try:
        with _quiet():
            found = elastic_launch(launch, _work)(dict(table), str(out), show)
    except ChildFailedError as failed:
        ends = [_ended(rank, failure) for rank, failure in sorted(failed.failures.items())]
        raise RunError(
            f"training in {processes} processes failed: {'; '.join(ends)}. What was finished is kept in {out}: "
            "the same command goes on from there"
        ) from failed
    said = {text for text in found.values() if text is not None}
    if said:
        raise RunError(f"training in {processes} processes failed: {' | '.join(sorted(said))}")


@contextmanager
def _quiet() -> Iterator[None]:
    """While this process only waits: torch's launcher logs a traceback of what is then raised here in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _ended(rank: int, failure: ProcessFailure) -> str:
    """How one process ended: by a signal, or with what it said."""
    if failure.exitcode < 0:
        return f"process {rank} was killed ({failure.signal_name()})"
    return f"process {rank} ended with {failure.exitcode}: {failure.message.strip()}"


def _work(table: dict[str, Any], out: str, show: bool) -> str | None:
    """One process of a run; what went wrong, for the one that started it."""
    from neuro.train.config import Config
    from neuro.train.loop import fit

    console = None
    if show and os.environ["RANK"] == "0":
        from rich.console import Console

        console = Console(stderr=True)
    try:
        fit(Config.from_table(table), out, progress=console)
    except NeuroError as problem:
        return str(problem)
    return None
