"""A problem for `neuro.search`: fully connected classifiers of small images, trained, converted, put on a chip.

    train (floats) -> prune -> train what is left -> quantise -> lower (recipe) -> compile (chip) -> simulate, estimate

Each image is averaged over blocks of pixels first, so that one design takes about a second.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ChipError, ConversionError, DoesNotFit, NeuroError, UnsupportedNode
from neuro.search_worker import Row

if TYPE_CHECKING:
    from neuro.convert.graph import Graph
    from neuro.convert.lower import Lowered

SPACE: dict[str, tuple[Any, ...]] = {
    "width": (16, 32, 64, 128),  # neurons of a hidden layer, before levels multiply them
    "depth": (1, 2, 3),  # hidden layers
    "levels": (1, 2, 3, 5, 7),  # of an activation; recipe "rate" takes 4 times as many steps
    "weight_bits": (2, 3, 4, 6, 8),
    "sparsity": (0.0, 0.5, 0.75, 0.9),  # of each matrix, the smallest weights
    "recipe": ("thermometer", "rate", "levels"),  # forms of neuro.convert.lower
    "chip": ("loihi1", "loihi2", "spinnaker1", "akida2"),  # whose energy is known
}
BATCH, RATE = 64, 2e-3
MOST_LEVELS, MOST_WIDTH, MOST_DEPTH = 64, 4096, 16
REFUSALS = (DoesNotFit, UnsupportedNode, ConversionError)


@dataclass(frozen=True)
class Converted:
    """Options of the problem.

    data: None for the embedded digits, or a path as `neuro.datasets.images.images` takes it. block: pixels of a side
    that are averaged. train, valid, test: how many images of each split, the first ones. epochs: before and again after
    pruning. input_levels: of a pixel, above 0.
    """

    data: str | None = None
    block: int = 2
    train: int = 4000
    valid: int = 500
    test: int = 1000
    epochs: int = 4
    input_levels: int = 1
    seed: int = 0
    choices: tuple[tuple[str, tuple[Any, ...]], ...] = tuple(SPACE.items())

    @property
    def name(self) -> str:
        return Path(self.data).name if self.data else "digits"

    @property
    def space(self) -> Mapping[str, tuple[Any, ...]]:
        return dict(self.choices)

    @property
    def digest(self) -> str:
        """Of the options, and of the images' values."""
        found = hashlib.sha256(repr([v for k, v in asdict(self).items() if k != "choices"]).encode())
        for split in ("train", "valid", "test"):
            x, y = self.images(split)
            found.update(x.tobytes() + y.tobytes())
        return found.hexdigest()

    def problems(self, space: Mapping[str, Sequence[Any]]) -> list[str]:
        """What is wrong with values that are to be searched, all of it."""
        from neuro.convert.forms import FORMS
        from neuro.hardware.target import targets

        bad = []
        limits = {"width": MOST_WIDTH, "depth": MOST_DEPTH, "levels": MOST_LEVELS, "weight_bits": 16}
        for name, most in limits.items():
            least = 2 if name == "weight_bits" else 1
            wrong = [v for v in space[name] if not isinstance(v, int) or isinstance(v, bool) or not least <= v <= most]
            bad += [f"{name} must be a whole number from {least} to {most}, got {v!r}" for v in wrong]
        wrong = [v for v in space["sparsity"] if not isinstance(v, (int, float)) or not 0 <= v < 1]
        bad += [f"sparsity must be at least 0 and below 1, got {v!r}" for v in wrong]
        for name, known in (("recipe", tuple(FORMS)), ("chip", targets())):
            bad += [f"no {name} '{v}'. Known: {', '.join(known)}" for v in space[name] if v not in known]
        return bad

    def images(self, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """[n, pixels] in 0..1, labels [n]."""
        return _images(self.data, self.block, split, getattr(self, split))

    def measure(self, point: Mapping[str, Any], split: str) -> Row:
        """See `neuro.search_worker.Problem`; one processor, whatever torch is set to."""
        import torch

        row: Row = {"point": dict(point), "fits": False, "error": "", "violations": [], "pareto": False}
        row |= {"accuracy": None, "energy_j": None, "latency_s": None, "cores": None}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            lowered = self.lowered(point)
            return row | _on_chip(lowered, str(point["chip"]), *self.images(split))
        except REFUSALS as refusal:
            told = [asdict(v) if is_dataclass(v) and not isinstance(v, type) else str(v) for v in refusal.violations]
            return row | {"violations": told or [str(refusal)]}
        except (ChipError, NeuroError) as problem:
            return row | {"error": str(problem)}
        finally:
            torch.set_num_threads(threads)

    def lowered(self, point: Mapping[str, Any]) -> Lowered:
        """The network of a design, before any chip.

        Raises:
            ConversionError: the recipe has no place for it.
        """
        import torch

        from neuro.convert.lower import to_network
        from neuro.convert.quantise import quantise

        graph = _trained(self, int(point["width"]), int(point["depth"]), float(point["sparsity"]))
        x = torch.from_numpy(self.images("train")[0][:512]).double()
        bits = "ternary" if point["weight_bits"] == 2 else int(point["weight_bits"])

        found = quantise(
            graph,
            x,
            levels=int(point["levels"]),
            weight_bits=bits,  # type: ignore[arg-type]
            input_levels=self.input_levels,
        )
        steps = 4 * int(point["levels"]) if point["recipe"] == "rate" else None
        return to_network(found, str(point["recipe"]), steps=steps)


@lru_cache(maxsize=8)
def _images(data: str | None, block: int, split: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from neuro.datasets.images import images

    found = images(split, data)
    some = found.subset(np.random.default_rng(0).permutation(len(found))[:count])
    n, height, width = some.images.shape
    high, wide = height // block * block, width // block * block
    blocks = some.images[:, :high, :wide].reshape(n, high // block, block, wide // block, block)
    return (blocks.mean((2, 4)).reshape(n, -1) / 255).astype(np.float32), some.labels


@lru_cache(maxsize=64)
def _trained(problem: Converted, width: int, depth: int, sparsity: float) -> Graph:
    """A float network, the smallest weights of each matrix pruned in the middle of its training."""
    import torch
    import torch.nn.functional as fn

    from neuro.convert.graph import Graph
    from neuro.convert.ops import Function, Input, Linear, Op

    x, y = (torch.from_numpy(v) for v in problem.images("train"))
    rng = torch.Generator().manual_seed(problem.seed)
    sizes = [x.shape[1], *[width] * depth, int(y.max()) + 1]
    weights = [
        ((torch.rand(b, a, generator=rng) * 2 - 1) * (6 / a) ** 0.5).requires_grad_()
        for a, b in itertools.pairwise(sizes)
    ]
    biases = [torch.zeros(b, requires_grad=True) for b in sizes[1:]]
    masks = [torch.ones_like(w) for w in weights]

    def answer(z: torch.Tensor) -> torch.Tensor:
        for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z = fn.linear(z, w, b)
            z = fn.relu(z) if k < depth else z
        return z

    for phase in range(2):
        optimiser = torch.optim.Adam([*weights, *biases], RATE)
        for _ in range(problem.epochs):
            for chosen in torch.randperm(len(x), generator=rng).split(BATCH):  # type: ignore[no-untyped-call]
                loss = fn.cross_entropy(answer(x[chosen]), y[chosen])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                with torch.no_grad():
                    for w, m in zip(weights, masks, strict=True):
                        w.mul_(m)
        if phase == 0:
            with torch.no_grad():
                for w, m in zip(weights, masks, strict=True):
                    smallest = w.abs().flatten().argsort(stable=True)[: int(sparsity * w.numel())]
                    m.view(-1)[smallest] = 0
                    w.mul_(m)
    ops: dict[str, Op] = {"x": Input((sizes[0],))}
    takes: dict[str, tuple[str, ...]] = {}
    last = "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        name = f"layer{k + 1}"
        ops[name], takes[name] = Linear(w.detach().double(), b.detach().double()), (last,)
        last = name
        if k < depth:
            ops[f"relu{k + 1}"], takes[f"relu{k + 1}"] = Function("relu"), (name,)
            last = f"relu{k + 1}"
    return Graph(ops, takes, last)


def _on_chip(lowered: Lowered, chip: str, x: NDArray[np.float32], y: NDArray[np.int64]) -> Row:
    """Compile, simulate every image, add up.

    Raises:
        DoesNotFit, UnsupportedNode: as the chip's compiler.
    """
    from neuro.hardware import compile as compile_network
    from neuro.hardware import estimate, simulate
    from neuro.hardware.estimate import merge

    program = compile_network(lowered.network, chip, max_steps=lowered.steps)
    right, estimates = 0, []
    for begin in range(0, len(x), 250):
        part = x[begin : begin + 250]
        trace = simulate(program, lowered.encode(part), record_spikes=False)
        right += int((trace.decision == y[begin : begin + len(part)]).sum())
        estimates.append(estimate(trace, program))
    cost = merge(estimates)
    return {
        "fits": True,
        "accuracy": right / len(x),
        "energy_j": None if cost.energy_j is None else cost.energy_j.to_json(),
        "latency_s": None if cost.latency_s is None else cost.latency_s.to_json(),
        "regime": cost.regime,
        "cores": program.placement.cores,
        "neurons": program.neurons,
        "synapses": int(sum(np.count_nonzero(p.weight_q) for p in program.projections)),
        "samples": len(x),
        "steps": lowered.steps,
        "exact": lowered.exact,
        "substitutions": len(program.substitutions),
    }


__all__ = ["SPACE", "Converted"]
