"""How well a network does on devices that are not what was written into them.

A device's deviations are fixed: drawn once, of every synapse and neuron, and the same for all inputs
(Pelgrom et al. 1989, IEEE J. Solid-State Circuits 24:1433; Zendrikov et al. 2023, Neuromorph. Comput. Eng. 3:034002).
With g from N(0, 1), one number for each::

    weight       w + sigma |w| g          threshold    v_threshold exp(sigma g)
    decay        tau_mem, tau_syn, tau_adapt  ->  tau exp(sigma g)

What a step adds to a membrane or a synapse stays what it was, (1 - b) r and (1 - a) w_in: a time constant moves the
leak alone. Synapses of weight 0 stay absent. `neuro.train.noise` trains with the same model.

`mismatched` makes one device, `sweep` runs many on recordings and says what is left of the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro import discretise, ir
from neuro.errors import NetworkError
from neuro.ir import Array, Network, Node, Shape

if TYPE_CHECKING:
    from neuro.events import EventSet

Say = Callable[[str], None]


@dataclass(frozen=True)
class Deviation:
    """Standard deviations of a device, relative: of weights, thresholds and time constants."""

    weight: float = 0.0
    threshold: float = 0.0
    decay: float = 0.0

    @staticmethod
    def of(sigma: float | Deviation) -> Deviation:
        """One number stands for all three.

        Raises:
            NetworkError: a deviation that is negative or no number.
        """
        made = sigma if isinstance(sigma, Deviation) else Deviation(sigma, sigma, sigma)
        bad = [f.name for f in fields(made) if not 0 <= getattr(made, f.name) < np.inf]
        if bad:
            raise NetworkError(f"deviations must be finite and not negative; {', '.join(bad)} of {sigma!r} is not")
        return made


def mismatched(network: Network, sigma: float | Deviation, seed: int) -> Network:
    """One device: the network with deviations drawn from ``seed``; a node's do not depend on the other nodes.

    Raises:
        NetworkError: a deviation that is negative, a seed that is.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise NetworkError(f"seed must be a whole number from 0 on, got {seed!r}")
    deviation = Deviation.of(sigma)
    changed: dict[str, Node] = {}
    for number, (name, node) in enumerate(network.nodes.items()):

        def draw(kind: int, shape: Shape, number: int = number) -> Array:
            return np.random.default_rng([int(seed), number, kind]).standard_normal(shape)

        if isinstance(node, (ir.Linear, ir.Conv2d)):
            w = node.weight
            changed[name] = replace(node, weight=w + deviation.weight * np.abs(w) * draw(0, w.shape))
        elif isinstance(node, ir.Neuron):
            changed[name] = _neuron(node.expand(network.shapes[name]), network, deviation, draw)
    return network.replace_nodes(changed)


def _neuron(node: ir.Neuron, network: Network, d: Deviation, draw: Callable[[int, Shape], Array]) -> Node:
    new: dict[str, Array] = {}
    factor = np.exp(d.threshold * draw(1, node.shape))
    new |= {n: getattr(node, n) * factor for n in ("v_threshold", "v_threshold_low") if hasattr(node, n)}
    for kind, own in ((2, "tau_mem"), (3, "tau_syn"), (4, "tau_adapt")):
        if d.decay and hasattr(node, own):
            tau = getattr(node, own) * np.exp(d.decay * draw(kind, node.shape))
            new[own] = np.maximum(tau, network.dt) if network.discretisation == "euler" else tau
    return _same_gains(node, replace(node, **new), network)


def _same_gains(old: ir.Neuron, new: ir.Neuron, network: Network) -> Node:
    """``new`` with the gains per step of ``old``."""

    def left(node: ir.Neuron, tau: str) -> Array:
        return 1.0 - discretise.decay(getattr(node, tau), network.dt, network.discretisation)

    moved: dict[str, Array] = {}
    kept = {"tau_mem": ("r", "v_leak"), "tau_syn": ("w_in",), "tau_adapt": ("a_adapt", "b_adapt")}
    for tau, gains in kept.items():
        if not hasattr(old, tau) or isinstance(old, ir.ResonateAndFire):
            continue
        ratio = left(old, tau) / left(new, tau)
        moved |= {n: getattr(old, n) * ratio for n in gains if hasattr(old, n)}
    if (
        isinstance(old, ir.AdaptiveLIF) and old.adaptation != "threshold"
    ):  # a and b count in currents, see `neuro.neuron`
        ratio = left(old, "tau_mem") / left(new, "tau_mem")
        moved |= {n: moved[n] * ratio for n in ("a_adapt", "b_adapt")}
    return replace(new, **moved)


@dataclass(frozen=True)
class Robustness:
    """accuracy: float64[deviation, seed] on ``samples`` recordings. clean: of the network as it is."""

    sigmas: tuple[float | Deviation, ...]
    seeds: tuple[int, ...]
    accuracy: NDArray[np.float64]
    clean: float
    samples: int

    def table(self) -> str:
        """One line per deviation: mean, standard deviation over the devices, the worst of them."""
        lines = [f"{'deviation':>24}  {'mean':>6}  {'sd':>6}  {'worst':>6}   of {len(self.seeds)} devices"]
        lines.append(f"{'none':>24}  {self.clean:6.3f}")
        for sigma, row in zip(self.sigmas, self.accuracy, strict=True):
            sd = row.std(ddof=1) if len(row) > 1 else float("nan")
            lines.append(f"{_label(sigma):>24}  {row.mean():6.3f}  {sd:6.3f}  {row.min():6.3f}")
        return "\n".join(lines)

    def draw(self, axes: Any, label: str | None = None, **style: Any) -> None:
        """Accuracy over deviation on matplotlib axes: the mean, and a band from the worst device to the best.

        Raises:
            NetworkError: deviations that are not numbers have no place on an axis.
        """
        if any(isinstance(s, Deviation) for s in self.sigmas):
            raise NetworkError("a picture needs deviations that are numbers; draw one curve for each kind")
        order = np.argsort(np.array(self.sigmas, float))
        x = np.concatenate([[0.0], np.array(self.sigmas, float)[order]])
        rows = np.concatenate([np.full((1, len(self.seeds)), self.clean), self.accuracy[order]])
        (line,) = axes.plot(x, rows.mean(1), marker="o", markersize=3, label=label, **style)
        axes.fill_between(x, rows.min(1), rows.max(1), color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_xlabel("relative deviation of the device (sd)")
        axes.set_ylabel(f"accuracy ({self.samples} recordings)")
        axes.set_ylim(0.0, 1.02)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: everything above."""
        return {
            "samples": self.samples,
            "clean": self.clean,
            "seeds": list(self.seeds),
            "rows": [
                {"deviation": _label(s), "accuracy": row.tolist(), "mean": float(row.mean()), "worst": float(row.min())}
                for s, row in zip(self.sigmas, self.accuracy, strict=True)
            ],
        }


def _label(sigma: float | Deviation) -> str:
    if isinstance(sigma, Deviation):
        return " ".join(f"{f.name} {getattr(sigma, f.name):g}" for f in fields(sigma) if getattr(sigma, f.name)) or "0"
    return f"{sigma:g}"


def sweep(
    network: Network,
    data: EventSet,
    sigmas: Iterable[float | Deviation],
    seeds: Iterable[int],
    *,
    steps: int | None = None,
    say: Say | None = None,
) -> Robustness:
    """Accuracy on recordings of one device per deviation and seed, as a float network.

    The same seed draws the same g for every deviation, so a curve is that of devices that get worse.

    Args:
        steps: length of a sample; what covers a recording where None. say: told of each deviation.

    Raises:
        NetworkError: as `mismatched`; no deviation, no seed. SimulationError: recordings of another shape.
    """
    from neuro.train.evaluate import evaluate  # torch loads here

    wanted, chosen = tuple(sigmas), tuple(seeds)
    if not wanted or not chosen:
        raise NetworkError("a sweep needs at least one deviation and one seed")
    clean = evaluate(network, data, steps=steps)
    found = np.zeros((len(wanted), len(chosen)))
    for k, sigma in enumerate(wanted):
        for j, seed in enumerate(chosen):
            found[k, j] = evaluate(mismatched(network, sigma, seed), data, steps=steps).accuracy
        if say is not None:
            say(f"deviation {_label(sigma)}: accuracy {found[k].mean():.3f}, worst {found[k].min():.3f}")
    return Robustness(wanted, chosen, found, clean.accuracy, clean.samples)


__all__ = ["Deviation", "Robustness", "mismatched", "sweep"]
