"""From a `Network` to `Block`s, in reals: what becomes one Akida layer each.

A block goes from values (the input, or a QuantisedReLU) through stateless nodes, folded exactly into one linear map,
through at most one max-pool, to the next QuantisedReLU or to the Output. A max-pool behind a QuantisedReLU moves in
front of it: both rise with x, so they can change places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from neuro import ir
from neuro.errors import UnsupportedNode
from neuro.hardware.lowering import fold
from neuro.hardware.maps import Map, ungrouped
from neuro.ir import Array, Network

NEAREST = (
    "the nearest that runs: the same layers with a QuantisedReLU in place of each neuron, and the events of a "
    "recording counted into one frame (Input high=15, steps=1), as the preset nmnist_akida"
)
MEMBRANE = f"it keeps a membrane from step to step, Akida's layers keep nothing between frames; {NEAREST}"
TIME = f"it remembers earlier steps, Akida's layers keep nothing between frames; {NEAREST}"
REFUSES: dict[type[ir.Node], str] = {
    **dict.fromkeys((ir.IF, ir.LI, ir.LIF, ir.CubaLI, ir.CubaLIF), MEMBRANE),
    ir.Delay: TIME,
}


@dataclass(frozen=True, eq=False)
class Block:
    """One layer, in reals.

    name: of its population. node: what holds the weights. source: population that feeds it. map: "conv" or "dense",
    from the integers that the source sends. bias: [channels]. pool: max-pool behind the sums. area: positions that a
    global average sums in front of the activation, 1 for none; the map does not divide by it.
    step: [channels] reals per level, None for a layer that sends its potentials; levels: as `neuro.ir.QuantisedReLU`.
    high: the largest integer that comes in, and the smallest is -high where ``signed``.
    """

    name: str
    node: str
    source: str
    map: Map
    bias: Array
    high: int
    pool: ir.MaxPool2d | None = None
    area: int = 1
    step: Array | None = None
    levels: int = 0
    signed: bool = False

    @property
    def channels(self) -> int:
        return len(self.map.weight)


def blocks(network: Network, separable: bool, global_pool: bool) -> tuple[Block, ...]:
    """All layers of a network in order; the source of the first is the name of the input.

    separable: a depthwise convolution straight in front of one of 1 x 1 stays a layer of its own, sending potentials,
    and no other does; without it every one does.
    global_pool: an average over the whole image right in front of an activation stays one.

    Raises:
        UnsupportedNode: parts that no layer can hold, all at once.
    """
    bad: list[str] = []
    _ = network.input, network.output  # raises where there is not exactly one
    bad += [
        f"'{n}' has a delay per synapse: {TIME}"
        for n, node in network.nodes.items()
        if isinstance(node, ir.Linear) and node.delay_steps is not None
    ]
    moved = _moved_pools(network)
    made: list[Block] = []
    for name in network.order:
        if isinstance(network.nodes[name], (ir.QuantisedReLU, ir.Output)):
            made += _block(network, name, moved, made, separable, global_pool, bad)
    if bad:
        raise UnsupportedNode("these parts of the network are no Akida layers", list(dict.fromkeys(bad)))
    return tuple(made)


def _moved_pools(network: Network) -> dict[str, str]:
    """QuantisedReLU -> the max-pool behind it, where that is all that reads it."""
    found = {}
    for name in network.of(ir.QuantisedReLU):
        targets = network.targets(name)
        if len(targets) == 1 and isinstance(network.nodes[targets[0]], ir.MaxPool2d):
            found[name] = targets[0]
    return found


def _block(
    network: Network,
    end: str,
    moved: dict[str, str],
    made: list[Block],
    separable: bool,
    global_pool: bool,
    bad: list[str],
) -> list[Block]:
    path = _path(network, end, moved, bad)
    if path is None:
        return []
    source, nodes = path
    node = network.nodes[end]
    if isinstance(node, ir.Output):
        if not any(isinstance(network.nodes[n], (ir.Linear, ir.Conv2d)) for n in nodes):
            bad.append(f"'{end}' reads '{source}' without weights in between; let it read a Linear")
            return []
        if node.readout == "count":
            bad.append(f"'{end}' counts spikes; use readout 'sum'")
    before = len(bad)
    pool, nodes = _pool_at_end(network, end, nodes, moved, bad)
    if len(bad) > before:
        return []
    weighted = [n for n in nodes if isinstance(network.nodes[n], (ir.Linear, ir.Conv2d))]
    if not weighted:
        bad.append(f"nothing with weights stands between '{source}' and '{end}'; put a Conv2d or a Linear there")
        return []
    area, linear = _global_average(network, nodes, global_pool and isinstance(node, ir.QuantisedReLU) and pool is None)
    bias = _bias(network, nodes, end, bad)
    step, high = _sent(network, source, made, bad)
    if bias is None or step is None:
        return []
    if isinstance(node, ir.QuantisedReLU):
        levels_step = _per_channel(node.step, len(bias), f"step of '{end}'", bad)
        name, levels = end, node.levels
    else:
        levels_step, name, levels = None, weighted[-1], 0
    parts: list[Block] = []
    cut = _separation(network, linear) if separable else 0
    if cut:
        first = _map(network, source, linear[:cut], step, True, bad)
        if first is None:
            return []
        parts.append(Block(linear[cut - 1], linear[cut - 1], source, first, np.zeros(len(first.weight)), high))
        source, linear, step = linear[cut - 1], linear[cut:], np.ones(math.prod(first.out_shape))
        # the potentials' own unit is the compiler's business; here they count as reals
    folded = _map(network, source, linear, step, not separable, bad)
    if folded is None:
        return []
    if pool is not None and folded.kind == "dense":
        bad.append(f"the max-pool in front of '{end}' has one value to choose from; leave it out")
        return []
    final = Block(name, weighted[-1], source, folded, bias, high, pool, area, levels_step, levels, signed=bool(cut))
    return [*parts, final]


def _path(network: Network, end: str, moved: dict[str, str], bad: list[str]) -> tuple[str, tuple[str, ...]] | None:
    """(where values come from, nodes on the way), or None and a complaint."""
    nodes: tuple[str, ...] = ()
    name = end
    taken = {pool: relu for relu, pool in moved.items()}
    while True:
        sources = network.sources(name)
        if len(sources) != 1:
            bad.append(
                f"'{name}' adds up {len(sources)} layers ({', '.join(sources)}), which does not compile to Akida; "
                "make it one chain of layers"
            )
            return None
        (source,) = sources
        if source in taken:
            return taken[source], nodes
        if isinstance(network.nodes[source], (ir.Input, ir.QuantisedReLU)):
            return source, nodes
        nodes = (source, *nodes)
        name = source


def _pool_at_end(
    network: Network, end: str, nodes: tuple[str, ...], moved: dict[str, str], bad: list[str]
) -> tuple[ir.MaxPool2d | None, tuple[str, ...]]:
    """The max-pool of a block, and the nodes in front of it."""
    pools = [n for n in nodes if isinstance(network.nodes[n], ir.MaxPool2d)]
    found = [*pools, *([moved[end]] if end in moved else [])]
    if len(found) > 1:
        bad.append(f"{', '.join(map(repr, found))}: a layer has one max-pool; put a layer with weights in between")
    if pools and (not nodes or nodes[-1] != pools[-1]):
        bad.append(f"'{pools[-1]}' must stand right behind a Conv2d or a QuantisedReLU, and in front of the next layer")
    if not found:
        return None, nodes
    pool = network.nodes[found[0]]
    assert isinstance(pool, ir.MaxPool2d)
    return pool, tuple(n for n in nodes if n not in pools)


def _global_average(network: Network, nodes: tuple[str, ...], wanted: bool) -> tuple[int, tuple[str, ...]]:
    """(positions, nodes without the pool) where the last node averages a whole image behind a convolution."""
    if not wanted or len(nodes) < 2:
        return 1, nodes
    *_, before, last = nodes
    node, shape = network.nodes[last], network.shapes[before]
    if (
        isinstance(node, (ir.AvgPool2d, ir.SumPool2d))
        and isinstance(network.nodes[before], ir.Conv2d)
        and node.kernel_size == shape[1:]
        and node.padding == (0, 0)
    ):
        return math.prod(shape[1:]), nodes[:-1]
    return 1, nodes


def averaged(network: Network, block: Block) -> float:
    """What a real of the global sum is worth: 1 / area behind an AvgPool2d, 1 behind a SumPool2d."""
    if block.area == 1:
        return 1.0
    pools = [n for n in network.targets(block.node) if isinstance(network.nodes[n], ir.AvgPool2d)]
    return 1.0 / block.area if pools else 1.0


def _bias(network: Network, nodes: tuple[str, ...], end: str, bad: list[str]) -> Array | None:
    """[channels]: all biases on the way, through what follows them."""
    shape = network.shapes[nodes[-1]]
    total = np.zeros(math.prod(shape))
    for k, name in enumerate(nodes):
        given = getattr(network.nodes[name], "bias", None)
        if given is None or not given.any():
            continue
        own = network.shapes[name]
        value = np.broadcast_to(given.reshape(-1, *(1,) * (len(own) - 1)), own).reshape(-1)
        s = fold(network, name, nodes[k + 1 :]).coordinates()
        total += np.bincount(s.row, s.value * value[s.col], len(total))
    channels = shape[0] if len(shape) == 3 else _channels(network, nodes)
    return _per_channel(total, channels, f"bias in front of '{end}'", bad)


def _channels(network: Network, nodes: tuple[str, ...]) -> int:
    """Channels of the last node with weights; what follows it only flattens or scales."""
    last = next(n for n in reversed(nodes) if isinstance(network.nodes[n], (ir.Linear, ir.Conv2d)))
    return len(getattr(network.nodes[last], "weight"))  # noqa: B009  # Node itself has none


def _per_channel(values: Array, channels: int, what: str, bad: list[str]) -> Array | None:
    flat = values.reshape(channels, -1)
    spread = np.abs(flat - flat[:, :1]).max(initial=0.0)
    if spread > 1e-9 * max(1e-30, np.abs(flat).max(initial=0.0)):
        bad.append(f"{what} differs within a channel; Akida has one value per channel")
        return None
    return np.ascontiguousarray(flat[:, 0])


def _sent(network: Network, source: str, made: list[Block], bad: list[str]) -> tuple[Array | None, int]:
    """(reals per integer of every channel that comes in, the largest integer)."""
    node = network.nodes[source]
    if isinstance(node, ir.Input):
        return np.ones(math.prod(node.shape)), node.high
    assert isinstance(node, ir.QuantisedReLU)
    block = next((b for b in made if b.name == source), None)
    if block is None or block.step is None:
        return None, 1  # said already
    shape = network.shapes[source]
    size = math.prod(network.shapes[network.targets(source)[0]]) if _pooled(network, source) else math.prod(shape)
    return np.repeat(block.step, size // len(block.step)), node.levels


def _pooled(network: Network, source: str) -> bool:
    targets = network.targets(source)
    return len(targets) == 1 and isinstance(network.nodes[targets[0]], ir.MaxPool2d)


def _separation(network: Network, nodes: tuple[str, ...]) -> int:
    """How many nodes the depthwise half of a separable convolution has; 0 where there is none."""
    if len(nodes) < 2:
        return 0
    first, second = network.nodes[nodes[0]], network.nodes[nodes[1]]
    if not (isinstance(first, ir.Conv2d) and isinstance(second, ir.Conv2d)):
        return 0
    depthwise = first.groups == len(first.weight) == network.shapes[nodes[0]][0] and first.weight.shape[1] == 1
    point = second.weight.shape[2:] == (1, 1) and second.groups == 1 and second.padding == (0, 0)
    return 1 if depthwise and first.groups > 1 and point and second.stride == (1, 1) else 0


def _map(
    network: Network, source: str, nodes: tuple[str, ...], step: Array, depthwise: bool, bad: list[str]
) -> Map | None:
    """The folded map from the integers of ``source``, as a convolution or a matrix without gaps.

    depthwise: a kernel of its own for each channel stays one; otherwise, and with other groups, zeros fill the rest.
    """
    start = source
    if _pooled(network, source) and isinstance(network.nodes[source], ir.QuantisedReLU):
        start = network.targets(source)[0]
    total = fold(network, start, nodes)
    where = f"'{nodes[-1]}' behind '{source}'"
    if total.kind == "diagonal":
        bad.append(f"{where} only scales; put a Conv2d or a Linear there")
        return None
    shape = network.shapes[nodes[-1]]
    channels = shape[0] if len(shape) == 3 else _channels(network, nodes)
    if total.kind == "sparse" or (total.kind == "dense" and len(total.weight) != channels):
        bad.append(
            f"{where}: padding, or windows that overlap the border, keep the layers from becoming one; put a "
            "QuantisedReLU in between, or leave the padding out"
        )
        return None
    if total.kind == "conv":
        total = _undilated(total)
        if total.groups > 1 and not (depthwise and total.groups == len(total.weight) == total.in_shape[0]):
            total = replace(total, weight=ungrouped(total.weight, total.groups), groups=1)
        per_channel = step.reshape(total.in_shape[0], -1)[:, 0]
        group_of = np.arange(len(total.weight)) // (len(total.weight) // total.groups)
        channel = group_of[:, None] * total.weight.shape[1] + np.arange(total.weight.shape[1])[None]
        total = replace(total, weight=total.weight * per_channel[channel][:, :, None, None])
        whole = len(total.out_shape) == 3 and total.out_shape[1:] == (1, 1)
        return _as_matrix(total) if whole and total.weight.shape[2:] == total.in_shape[1:] else total
    return replace(total, weight=total.weight * step[None])


def _as_matrix(m: Map) -> Map:
    """A convolution that covers its image once, as a matrix."""
    if m.padding != (0, 0):
        return m
    return Map("dense", m.matrix(), m.delay, m.in_shape, m.out_shape)


def _undilated(m: Map) -> Map:
    """The same kernel with the zeros between its taps written out."""
    if m.dilation == (1, 1):
        return m
    out, ins, high, wide = m.weight.shape
    size = ((high - 1) * m.dilation[0] + 1, (wide - 1) * m.dilation[1] + 1)
    full = np.zeros((out, ins, *size))
    full[:, :, :: m.dilation[0], :: m.dilation[1]] = m.weight
    return replace(m, weight=full, dilation=(1, 1))
