"""Accuracy of a network on recordings, run as a torch module: the fast float meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuro import reference
from neuro.errors import SimulationError
from neuro.events import EventSet
from neuro.ir import Input, Network
from neuro.nn.bridge import to_module, without_layer
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.results import Run

BATCH_VALUES = 1 << 26  # dense input values held at once: 64 MB as bytes
BATCH_SIZE = 128


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network answered.

    scores: float64[n, classes]. decided: int64[n], argmax, the lowest index on a tie. confusion:
    int64[label, decided]. per_class: name -> accuracy, of classes that occur. spikes: layer -> mean
    spikes per sample. input_events: mean events per sample after binning.
    """

    samples: int
    accuracy: float
    per_class: Mapping[str, float]
    confusion: NDArray[np.int64]
    spikes: Mapping[str, float]
    input_events: float
    scores: NDArray[np.float64]
    decided: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, without scores and decisions."""
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "per_class": dict(self.per_class),
            "confusion": self.confusion.tolist(),
            "spikes_per_sample": dict(self.spikes),
            "input_events_per_sample": self.input_events,
        }


def evaluate(
    subject: Run | Network | SpikingNetwork,
    data: EventSet,
    *,
    steps: int | None = None,
    dt: float | None = None,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Run every recording and compare the decision with its label.

    Args:
        steps: length of a sample in steps; None takes a run's own, or what covers a recording.
        dt: seconds per step of the binning; None takes the network's own.

    Raises:
        SimulationError: the recordings do not fit the network: none at all, another shape, more classes.
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise SimulationError(f"batch_size must be 1 or more recordings, got {batch_size!r}")
    module, steps = _module(subject, data, steps)
    dt = module.dt if dt is None else dt
    was_training = module.training
    module.eval()
    scores: list[NDArray[np.float64]] = []
    spikes: dict[str, float] = {}
    events = 0
    try:
        with torch.no_grad():
            _check(module, data)
            for dense in _batches(data, steps, dt, batch_size, module.high):
                record: dict[str, torch.Tensor] = {}
                trace = module(torch.from_numpy(dense), record)
                scores.append(module.scores(trace).double().numpy())
                events += int(dense.sum())
                for name, s in record.items():
                    found = s.total() if isinstance(s, Spikes) else s.sum(dtype=torch.float64)
                    spikes[name] = spikes.get(name, 0.0) + float(found)
    finally:
        module.train(was_training)
    return _evaluation(np.concatenate(scores), data, {n: s / len(data) for n, s in spikes.items()}, events)


def decisions(network: Network, data: EventSet, *, steps: int, dt: float | None = None) -> NDArray[np.int64]:
    """int64[n]: the class that the float network gives each recording; by the interpreter `neuro.reference` where it
    has nodes that no torch layer computes.

    Raises:
        SimulationError: as `evaluate`.
    """
    if without_layer(network):
        return _by_reference(network, data, steps, network.dt if dt is None else dt)
    return evaluate(network, data, steps=steps, dt=dt).decided


def _by_reference(network: Network, data: EventSet, steps: int, dt: float) -> NDArray[np.int64]:
    shape, node = network.shapes[network.input], network.nodes[network.input]
    if len(data) == 0 or tuple(data.shape) != tuple(shape):
        problem = f"a step of '{data.name}' has shape {tuple(data.shape)}, the network wants {tuple(shape)}"
        raise SimulationError("these recordings cannot be given to this network", [problem])
    assert isinstance(node, Input)
    found = []
    for dense in _batches(data, steps, dt, BATCH_SIZE, node.high):
        record = reference.run(network, dense.reshape(*dense.shape[:2], *shape), record=())
        found.append(reference.classify(network, record))
    return np.concatenate(found)


def _module(subject: Run | Network | SpikingNetwork, data: EventSet, steps: int | None) -> tuple[SpikingNetwork, int]:
    if isinstance(subject, Run):
        steps = steps or int(subject.summary["steps"])
        subject = subject.network
    module = to_module(subject) if isinstance(subject, Network) else subject
    return module, steps or max(1, int(np.ceil(data.duration / module.dt - 1e-9)))


def _check(module: SpikingNetwork, data: EventSet) -> None:
    bad = []
    if len(data) == 0:
        bad.append("the data set holds no recording")
    if tuple(data.shape) != module.input_shape:
        bad.append(f"a step of '{data.name}' has shape {tuple(data.shape)}, the network wants {module.input_shape}")
    if not bad:
        outputs = module(torch.zeros((1, 1, *module.input_shape)))[0, 0].numel()
        if int(data.labels.max()) >= outputs:
            bad.append(f"labels go up to {int(data.labels.max())}, the network has {outputs} outputs")
    if bad:
        raise SimulationError("these recordings cannot be given to this network", bad)


def _batches(data: EventSet, steps: int, dt: float, batch_size: int, high: int) -> Any:
    size = int(np.clip(BATCH_VALUES // max(1, steps * int(np.prod(data.shape))), 1, batch_size))
    for start in range(0, len(data), size):
        yield data.batch(range(start, min(start + size, len(data))), dt, steps, high)


def _evaluation(scores: NDArray[np.float64], data: EventSet, spikes: Mapping[str, float], events: int) -> Evaluation:
    decided = scores.argmax(1).astype(np.int64)
    classes = max(scores.shape[1], len(data.classes))
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (data.labels, decided), 1)
    counts = confusion.sum(1)
    names = [*data.classes, *(str(k) for k in range(len(data.classes), classes))]
    return Evaluation(
        samples=len(data),
        accuracy=float((decided == data.labels).mean()),
        per_class={names[k]: float(confusion[k, k] / counts[k]) for k in range(classes) if counts[k]},
        confusion=confusion,
        spikes=spikes,
        input_events=events / len(data),
        scores=scores,
        decided=decided,
    )
