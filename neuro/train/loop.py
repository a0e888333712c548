"""`fit`: train a configuration into a run folder.

A run killed at any moment and started again with the same configuration and folder ends with the same
bits as one that was not: a checkpoint after every epoch holds all that the next epoch depends on, and
every random number is a function of (seed, epoch, batch). The number of threads, which decides the order
of sums in matrix products, is part of the checkpoint.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuro import results
from neuro.datasets.loader import batch_count
from neuro.errors import RunError
from neuro.events import EventSet
from neuro.learn.rule import Rule
from neuro.nn.bridge import to_network
from neuro.nn.network import OUTPUT, SpikingNetwork
from neuro.nn.stateless import NORMS, Dropout, ScaleNorm
from neuro.results import Run
from neuro.train import checkpoint, delays, prune
from neuro.train.build import build
from neuro.train.config import Config
from neuro.train.data import Recordings
from neuro.train.distributed import Team, team
from neuro.train.evaluate import evaluate
from neuro.train.losses import LOSSES, firing_penalty
from neuro.train.noise import Noise, with_drops
from neuro.train.quantise_aware import prepare
from neuro.train.schedule import optimiser_of, rate
from neuro.train.seeds import seed_of

if TYPE_CHECKING:
    from rich.console import Console

STREAM_BATCH, STREAM_RULE = 2, 4  # of neuro.train.seeds: dropout, and what a learning rule draws
OnEpoch = Callable[[Mapping[str, Any]], None]


@dataclass
class _Session:
    """All that changes while training, and all that a checkpoint holds."""

    model: SpikingNetwork
    ema: SpikingNetwork | None
    optimiser: torch.optim.Optimizer
    threads: int
    rule: Rule
    group: Team
    quantised: bool = False
    epoch: int = 0  # epochs done
    step: int = 0  # optimiser steps done
    stale: int = 0  # epochs since the best validation loss
    best_loss: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    early: dict[str, Tensor] = field(default_factory=dict)  # what the lottery goes back to
    history: list[dict[str, Any]] = field(default_factory=list)

    def forget_best(self) -> None:
        """The best so far had another structure."""
        self.best, self.best_loss, self.stale = {}, None, 0

    @property
    def judged(self) -> SpikingNetwork:
        """The model that counts: the mean of the weights where one is kept."""
        return self.ema or self.model


def fit(
    config: Config,
    out: Path | str,
    *,
    resume: bool = True,
    progress: Console | None = None,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train, and leave a finished run folder.

    Args:
        out: the run folder; an unfinished run of the same configuration in it is resumed, a finished one
            is returned as it is.
        resume: False refuses a folder that holds a run.
        progress: a rich console for a progress bar; None for silence.
        on_epoch: called with each epoch's metrics.

    Raises:
        BadConfig: the configuration cannot be used with its data set.
        RunError: the folder is in use or holds something else, or training diverged.
        ChecksumMismatch: a finished run or a checkpoint is not as it was written.
    """
    out = Path(out)
    recordings = Recordings(config.data, config.seed)
    with team() as group, _claimed(config, out, resume, group):
        if (out / results.MANIFEST).exists():
            run = Run.open(out)
            group.first(lambda: checkpoint.remove(out))
            return run
        saved = checkpoint.latest(out)
        threads = int(saved.state["threads"]) if saved else config.train.threads or max(1, cores() // group.size)
        with _deterministic(threads), _bar(progress, config) as show:
            session = _start(config, recordings, threads, group)
            if saved:
                _restore(session, saved, config, recordings.steps)
            group.first(lambda: results.write_lines(out / results.METRICS, session.history))
            valid = recordings.valid()
            while session.epoch < config.train.epochs and not _stopped(session, config):
                started = time.perf_counter()
                row = _epoch(session, config, recordings, valid, show)
                if group.writes:
                    _save(session, out)
                    _note_time(out, session.epoch, time.perf_counter() - started)
                if on_epoch:
                    on_epoch(row)
            group.first(lambda: _finish(session, config, recordings, valid, out))
    return Run.open(out)


@contextmanager
def _claimed(config: Config, out: Path, resume: bool, group: Team) -> Iterator[None]:
    """The folder held, by the process that writes."""
    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(results.locked(out))
            results.claim(out, config.to_table(), resume)

        group.first(claim)
        yield


def _start(config: Config, recordings: Recordings, threads: int, group: Team) -> _Session:
    source = recordings.source
    shape = recordings.train(0).shape
    classes = len(source.classes) or len(recordings.train(0).classes)  # a set of tonic may not name them
    model = build(config.layers, shape, recordings.dt, config.readout, config.seed, classes, config.data.high)
    model = with_drops(model, config.noise)
    prune.attach(model, config.prune)
    size, n = config.train.batch_size, len(recordings.train(0))
    count = batch_count(n, size, config.train.drop_last)
    group.check(model, [min(size, n - size * k) for k in range(count)])
    ema = copy.deepcopy(model) if config.optimiser.ema else None
    return _Session(model, ema, optimiser_of(model, config.optimiser), threads, config.learning, group)


def _epoch(
    session: _Session, config: Config, recordings: Recordings, valid: EventSet | None, show: Any
) -> dict[str, Any]:
    """One epoch of training and validation; its metrics, also appended to the history."""
    epoch, optimiser_config = session.epoch, config.optimiser
    data = recordings.train(epoch, ahead=epoch + 1 < config.train.epochs)
    if config.quantise and not session.quantised and epoch >= round(config.quantise.start * config.train.epochs):
        _quantise(session, config, recordings, data)
    _rewind(session, config)
    model = session.model
    noise = Noise.of(config.noise, model, config.seed, epoch, config.train.epochs, session.quantised)
    if delays.settle([model, *([session.ema] if session.ema else [])], epoch, config.train.epochs):
        session.forget_best()  # it had delays that no chip holds
    per_epoch = batch_count(len(data), config.train.batch_size, config.train.drop_last)
    steps = per_epoch * (config.prune.per_round(config.train.epochs) if config.prune else config.train.epochs)
    readouts = {n for n, d in model.edges if d == OUTPUT}
    generator, drawn = torch.Generator(), torch.Generator()
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.generator = generator
    model.train()
    seen, right, total_loss, total_spikes, lr = 0, 0, 0.0, 0.0, 0.0
    for number, (batch, answers) in enumerate(recordings.batches(data, config.train, epoch, session.threads)):
        x, labels = session.group.share(batch, answers, model)
        weight, many = session.group.weight(len(labels), len(answers)), len(answers)
        generator.manual_seed(seed_of(config.seed, STREAM_BATCH, epoch, number))
        drawn.manual_seed(seed_of(config.seed, STREAM_RULE, epoch, number))
        lr = optimiser_config.lr * rate(session.step % steps / steps, optimiser_config)
        lr *= config.quantise.lr if config.quantise and session.quantised else 1.0
        for group in session.optimiser.param_groups:
            group["lr"] = lr * group["factor"]

        def loss_of(
            trace: Tensor, spikes: dict[str, Tensor], labels: Tensor = labels, weight: float = weight, many: int = many
        ) -> tuple[Tensor, Tensor]:
            c = config.loss
            loss = LOSSES[c.kind](trace, labels, config.readout, c.scale, c.label_smoothing)
            hidden = {n: s for n, s in spikes.items() if n not in readouts}
            return loss * weight, _penalty(hidden, config, partial(session.group.mean, of=many)) * weight

        with noise.disturb(model, number):
            learnt = session.rule.backward(model, x, loss_of, rng=drawn)
        session.group.average(model)
        prune.mask_gradients(model)
        if optimiser_config.clip:
            nn.utils.clip_grad_norm_(model.parameters(), optimiser_config.clip)
        session.optimiser.step()
        session.optimiser.zero_grad()
        delays.clamp(model)
        session.step += 1
        if prune.after_step(model, config.prune, session.step, steps):
            session.forget_best()
        if session.ema is not None:
            _average(session.ema, model, min(optimiser_config.ema, 1.0 - 1.0 / (session.step + 1)))
            prune.apply(session.ema)
        hits = int((learnt.scores.argmax(1) == labels).sum())
        value, hits, fired = session.group.total(learnt, hits)
        if not value < float("inf"):  # NaN too
            raise RunError(f"training diverged: loss {value} in epoch {epoch}, batch {number}; lower optimiser.lr")
        seen += many
        total_loss += value * many
        right += hits
        total_spikes += sum(n for name, n in fired.items() if name not in readouts)
        show(epoch, number + 1, per_epoch, total_loss / seen)
    if not all(p.isfinite().all() for p in model.parameters()):  # events pass by the weights of inputs that are silent
        raise RunError(f"training diverged: weights are NaN or infinite after epoch {epoch}; lower optimiser.lr")
    session.epoch += 1
    row: dict[str, Any] = {
        "epoch": epoch,
        "phase": "integers" if session.quantised else "float",
        "loss": total_loss / seen,
        "accuracy": right / seen,
        "hidden_spikes_per_sample": total_spikes / seen,
        "lr": lr,
    }
    if config.prune:
        row["sparsity"] = prune.sparsity(model)
    if valid is not None:
        row |= _validate(session, config, recordings, valid)
    session.history.append(row)
    return row


def _penalty(hidden: Mapping[str, Tensor], config: Config, mean: Callable[[Tensor], Tensor]) -> Tensor:
    c = config.loss
    if not (c.mean_spikes or c.many or c.few):
        return torch.zeros(())
    return firing_penalty(hidden, c.mean_spikes, c.many, c.many_above, c.few, c.few_below, mean)


def _validate(session: _Session, config: Config, recordings: Recordings, valid: EventSet) -> dict[str, Any]:
    """Accuracy and loss on the validation split; keeps the best weights."""
    found = evaluate(session.judged, valid, steps=recordings.steps)
    scale = config.loss.scale / recordings.steps if config.readout in ("count", "sum") else config.loss.scale
    answers = torch.from_numpy(found.scores) * scale
    loss = float(nn.functional.cross_entropy(answers, torch.from_numpy(valid.labels)))
    if not loss < float("inf"):
        raise RunError(f"training diverged: validation loss {loss} after epoch {session.epoch - 1}; lower optimiser.lr")
    session.stale += 1
    if session.best_loss is None or loss < session.best_loss:
        session.best_loss, session.stale = loss, 0
        if config.train.keep == "best":
            session.best = {k: v.detach().clone() for k, v in session.judged.state_dict().items()}
    return {"valid_loss": loss, "valid_accuracy": found.accuracy}


def _stopped(session: _Session, config: Config) -> bool:
    if config.prune and session.epoch < round(config.prune.last * config.train.epochs):
        return False  # synapses are still to go
    return bool(config.train.patience) and session.stale >= config.train.patience


def _rewind(session: _Session, config: Config) -> None:
    """The lottery: notes the early weights, and goes back to them where a training has ended."""
    c = config.prune
    if c is None or c.method != "lottery":
        return
    epochs = c.per_round(config.train.epochs)
    if session.epoch == c.rewind:
        session.early = prune.early(session.judged)
    if session.epoch and session.epoch % epochs == 0:
        model = session.judged
        prune.rewound(model, session.early, c, session.epoch // epochs)
        session.model = model
        session.ema = copy.deepcopy(model) if config.optimiser.ema else None
        session.optimiser = optimiser_of(model, config.optimiser)
        session.forget_best()


def _on_integers(model: SpikingNetwork, config: Config, steps: int) -> None:
    """`prepare`, with the masks of pruned layers on what took their place."""
    assert config.quantise
    kept = prune.masks(model)
    prepare(model, config.quantise.formats, config.quantise.state, steps)
    prune.restore(model, kept)


def _quantise(session: _Session, config: Config, recordings: Recordings, data: EventSet) -> None:
    """From here on on the chip's integers, starting from the weights that count."""
    assert config.quantise
    model = session.judged
    _recalibrate(model, config, recordings, data, session)
    _on_integers(model, config, recordings.steps)
    session.model = model
    session.ema = copy.deepcopy(model) if config.optimiser.ema else None
    session.optimiser = optimiser_of(model, config.optimiser)
    session.quantised = True
    session.forget_best()  # it had real weights


def _recalibrate(
    model: SpikingNetwork, config: Config, recordings: Recordings, data: EventSet, session: _Session
) -> None:
    """Statistics of norms as the plain mean over some training batches, with the weights as they are."""
    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    if not norms or not config.train.recalibrate:
        return
    model.eval()
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain mean over the batches
        norm.train()
    with torch.no_grad():
        for number, (x, _) in enumerate(recordings.batches(data, config.train, session.epoch, session.threads)):
            if number == config.train.recalibrate:
                break
            model(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        if isinstance(norm, ScaleNorm):
            norm.batches = 0
    model.eval()


@torch.no_grad()
def _average(ema: nn.Module, model: nn.Module, keep: float) -> None:
    """ema <- keep ema + (1 - keep) model, parameters and floating buffers; other buffers are copied."""
    pairs = list(zip((*ema.parameters(), *ema.buffers()), (*model.parameters(), *model.buffers()), strict=True))
    floating = [(old, new) for old, new in pairs if old.is_floating_point()]
    torch._foreach_lerp_([old for old, _ in floating], [new for _, new in floating], 1.0 - keep)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def _save(session: _Session, out: Path) -> None:
    tensors: dict[str, Mapping[str, Tensor]] = {"model": session.model.state_dict()}
    if session.ema is not None:
        tensors["ema"] = session.ema.state_dict()
    if session.best:
        tensors["best"] = session.best
    if session.early:
        tensors["early"] = session.early
    names = ("threads", "quantised", "epoch", "step", "stale", "best_loss", "history")
    state = {name: getattr(session, name) for name in names}
    checkpoint.save(out, session.epoch, state, tensors, session.optimiser.state_dict())
    results.write_lines(out / results.METRICS, session.history)


def _restore(session: _Session, saved: checkpoint.Saved, config: Config, steps: int) -> None:
    for name in ("quantised", "epoch", "step", "stale", "best_loss", "history"):
        setattr(session, name, saved.state[name])
    if session.quantised:
        for model in (session.model, session.ema):
            if model is not None:
                _on_integers(model, config, steps)
        session.optimiser = optimiser_of(session.model, config.optimiser)
    session.model.load_state_dict(saved.tensors["model"])
    if session.ema is not None:
        session.ema.load_state_dict(saved.tensors["ema"])
    session.best, session.early = (dict(saved.tensors.get(name, {})) for name in ("best", "early"))
    session.optimiser.load_state_dict(dict(saved.optimiser))


def _finish(session: _Session, config: Config, recordings: Recordings, valid: EventSet | None, out: Path) -> None:
    """Choose the weights, write network and weights, then the manifest that says the run is finished."""
    from safetensors.torch import save_file

    from neuro import nir
    from neuro.files import atomic_path, write_json

    model = session.judged
    delays.round_all(model)
    if session.best:
        model.load_state_dict(session.best)
    else:
        _recalibrate(model, config, recordings, recordings.train(config.train.epochs), session)
    model.eval()
    network = to_network(model)
    nir.save(network, out / results.NETWORK)
    with atomic_path(out / results.WEIGHTS) as part:
        save_file({k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}, part)
    summary: dict[str, Any] = {
        "name": config.name,
        "dataset": config.data.dataset,
        "seed": config.seed,
        "epochs": session.epoch,
        "steps": recordings.steps,
        "dt": recordings.dt,
        "trained_on": config.data.train_on,
        "quantised": session.quantised,
        "loss": session.history[-1]["loss"],
        "accuracy": session.history[-1]["accuracy"],
    }
    if config.prune:
        summary["sparsity"] = prune.sparsity(model)
    if valid is not None:
        found = evaluate(network, valid, steps=recordings.steps)
        summary |= {"valid_accuracy": found.accuracy, "valid_samples": found.samples}
    results.write_lines(out / results.METRICS, session.history)
    write_json(out / results.VERSIONS, {**results.versions(), "threads": session.threads})
    results.finish(out, summary)
    checkpoint.remove(out)


def _note_time(out: Path, epoch: int, seconds: float) -> None:
    """Appended, so a resumed run shows each attempt; not part of what must be reproduced."""
    with open(out / results.TIMING, "a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": epoch - 1, "seconds": round(seconds, 3)}) + "\n")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads; what was set before comes back."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # we read nothing that was not written
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        settings.fill_uninitialized_memory = fill


@contextmanager
def _bar(console: Console | None, config: Config) -> Iterator[Callable[[int, int, int, float], None]]:
    """A function that shows (epoch, batch, batches, loss so far)."""
    if console is None:
        yield lambda epoch, batch, of, loss: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"train {config.name}", total=float(config.train.epochs))

        def show(epoch: int, batch: int, of: int, loss: float) -> None:
            text = f"train {config.name} {epoch + 1}/{config.train.epochs} loss {loss:.3f}"
            bar.update(task, completed=epoch + batch / of, description=text)

        yield show
