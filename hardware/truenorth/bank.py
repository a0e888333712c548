"""`Bank`: everything that is loaded on a bank of TrueNorth cores, in integers. What the arrays mean is said here.

C cores of A axons and N neurons (256 and 256 on the chip; any number here), one tick t (order: synapses, leak,
thresholds; see chips/truenorth.toml for what is known of it)::

    V += sum over active axons i joined to the neuron of  (1 - b[G]) s[G] + b[G] F(s[G]) sgn(s[G]),   G = type of i
    Omega = epsilon ? sgn(V) : 1;     V += Omega ((1 - c) leak + c F(leak) sgn(leak))
    eta = draw & mask
    V >= alpha + eta                              spike;  gamma 0: V = R    1: V -= alpha + eta    2: V stays
    else V < -(kappa ? beta : beta + eta)         kappa 1: V = -beta
                                                  kappa 0: gamma 0: V = -R  1: V += beta + eta     2: V stays

F(s) = 1 iff |s| >= draw & 255 (a tie counts). A spike of tick t with delay D (1..15) makes its target axon active in
tick t + D; a spike to an output line shows there in tick t + 1. An axon that is hit twice is active once.

Choices, since no source says (all of them modelling choices):

- overflow: "saturate" or "wrap" V to 20 bits, or "wrap32", the int32 of the RANC simulator. Done once after the
  synapses, once after the leak, once after the reset. Comparisons with alpha + eta see whole numbers.
- inclusive: the lower threshold fires at V <= instead of V < (RANC's neuron_reset_type 1).
- zero_cross: under epsilon, V = 0 where the leak would take it through zero (NeMo has it; patents do not say).
- generator: who draws, see `GENERATORS`. Each core has its own. Order within a core and tick: neuron by neuron;
  of a neuron, one draw per active joined axon (ascending) whose type is stochastic, one for a stochastic leak, one
  for a threshold whose mask is not 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.program import Integers, Program

OVERFLOW = ("saturate", "wrap", "wrap32")
GENERATORS = {
    "xorshift32": "x ^= x << 13; x ^= x >> 17; x ^= x << 5, all of x drawn (Marsaglia 2003); the default",
    "lfsr16": "Galois, x >> 1 ^ (x & 1 ? 0xB400 : 0), one shift a draw, 16 bits drawn",
    "table": "draws[core] in turn and round again: any other generator, drawn beforehand",
}
TYPES = 4
NOWHERE, OUTSIDE = -1, -2  # targets that are no core
LEAK_BIT = 4  # of `stochastic`, after one bit per type
SLOTS = 16  # of the delay ring
CHOICES = ("overflow", "inclusive", "zero_cross", "generator")
NARROW = 1 << 21  # largest weight and leak where V has 20 bits: sums of 256 stay within int32


@dataclass(frozen=True, eq=False)
class Bank:
    """Cores as loaded. [C, N] unless said.

    crossbar: uint64[C, A, ceil(N / 64)], bit n % 64 of word n // 64 joins axon and neuron n. axon_type: uint8[C, A].
    weight: int32[C, N, 4]. leak, alpha, reset (R), v0 (V before tick 0): int32. negative: int32, -beta.
    gamma, kappa, epsilon: uint8. stochastic: uint8, bit G: synapses of type G, bit 4: the leak. mask: int32.
    target: int32, core, or NOWHERE, or OUTSIDE. axon: int32, axon of the target, or output line. delay: uint8.
    neurons: int32[C], how many are used (0 .. that - 1). xy: int32[C, 2], place on the mesh. seed: uint32[C].
    draws: uint32[C, L], for the generator "table". choices: int32[4], as `CHOICES`, names by their index.
    """

    crossbar: NDArray[np.uint64]
    axon_type: NDArray[np.uint8]
    weight: NDArray[np.int32]
    leak: NDArray[np.int32]
    alpha: NDArray[np.int32]
    negative: NDArray[np.int32]
    reset: NDArray[np.int32]
    v0: NDArray[np.int32]
    gamma: NDArray[np.uint8]
    kappa: NDArray[np.uint8]
    epsilon: NDArray[np.uint8]
    stochastic: NDArray[np.uint8]
    mask: NDArray[np.int32]
    target: NDArray[np.int32]
    axon: NDArray[np.int32]
    delay: NDArray[np.uint8]
    neurons: NDArray[np.int32]
    xy: NDArray[np.int32]
    seed: NDArray[np.uint32]
    draws: NDArray[np.uint32]
    choices: NDArray[np.int32]

    @property
    def cores(self) -> int:
        return int(self.crossbar.shape[0])

    @property
    def axons(self) -> int:
        return int(self.crossbar.shape[1])

    @property
    def width(self) -> int:
        """Neurons of a core."""
        return int(self.leak.shape[1])

    @property
    def overflow(self) -> str:
        return OVERFLOW[int(self.choices[0])]

    @property
    def generator(self) -> str:
        return tuple(GENERATORS)[int(self.choices[3])]

    def image(self) -> dict[str, Integers]:
        """The arrays by name, as they stand in `Program.image`."""
        return {name: getattr(self, name) for name in NAMES}

    def check(self) -> None:
        """Raise SimulationError with everything that a kernel could not be given."""
        bad = _shapes(self) or _values(self)
        if bad:
            raise SimulationError("this bank of cores cannot be run", bad)


NAMES = tuple(f.name for f in fields(Bank))


def choices(
    overflow: str = "saturate", inclusive: bool = False, zero_cross: bool = False, generator: str = "xorshift32"
) -> NDArray[np.int32]:
    """The array of `Bank.choices`.

    Raises:
        SimulationError: no such overflow or generator.
    """
    for name, known in ((overflow, OVERFLOW), (generator, tuple(GENERATORS))):
        if name not in known:
            raise SimulationError(f"TrueNorth has no '{name}'. {did_you_mean(name, known)}")
    found = (OVERFLOW.index(overflow), inclusive, zero_cross, tuple(GENERATORS).index(generator))
    return np.array(found, np.int32)


def empty(cores: int, axons: int = 256, neurons: int = 256, **options: object) -> dict[str, NDArray[Any]]:
    """Arrays of a bank in which nothing ever happens, to be filled in; ``options`` as `choices`."""
    n = (cores, neurons)
    types: dict[str, type[np.integer]] = dict.fromkeys(("leak", "reset", "v0", "mask", "axon"), np.int32)
    types |= dict.fromkeys(("gamma", "kappa", "epsilon", "stochastic"), np.uint8)
    found: dict[str, NDArray[Any]] = {name: np.zeros(n, kind) for name, kind in types.items()}
    more: dict[str, NDArray[Any]] = {
        "crossbar": np.zeros((cores, axons, -(-neurons // 64)), np.uint64),
        "axon_type": np.zeros((cores, axons), np.uint8),
        "weight": np.zeros((*n, TYPES), np.int32),
        "alpha": np.ones(n, np.int32),
        "negative": np.zeros(n, np.int32),
        "target": np.full(n, NOWHERE, np.int32),
        "delay": np.ones(n, np.uint8),
        "neurons": np.full(cores, neurons, np.int32),
        "xy": np.stack([np.arange(cores), np.zeros(cores)], 1).astype(np.int32),
        "seed": np.arange(1, cores + 1).astype(np.uint32),
        "draws": np.zeros((cores, 1), np.uint32),
        "choices": choices(**options),  # type: ignore[arg-type]
    }
    return found | more


def pack_bits(joined: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[..., N] of 0 and 1 -> uint64[..., ceil(N / 64)], bit n % 64 of word n // 64."""
    words = -(-joined.shape[-1] // 64)
    full = np.zeros((*joined.shape[:-1], 64 * words), np.uint8)
    full[..., : joined.shape[-1]] = joined
    return np.packbits(full, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_bits(words: NDArray[np.uint64], count: int) -> NDArray[np.uint8]:
    """The inverse of `pack_bits`: uint8[..., count]."""
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=count)


def bank_of(program: Program) -> Bank:
    """The bank in a program's image.

    Raises:
        SimulationError: arrays are missing, or hold what cannot be run.
    """
    return bank_from(program.image)


def bank_from(image: Mapping[str, Integers]) -> Bank:
    """A bank from arrays by name, checked.

    Raises:
        SimulationError: as `bank_of`.
    """
    missing = [name for name in NAMES if name not in image]
    if missing:
        raise SimulationError(f"an image of TrueNorth needs {', '.join(NAMES)}; missing: {', '.join(missing)}")
    bank = Bank(**{name: image[name] for name in NAMES})  # type: ignore[arg-type]
    bank.check()
    return bank


def _shapes(b: Bank) -> list[str]:
    if b.crossbar.ndim != 3 or b.leak.ndim != 2:
        given = f"{b.crossbar.shape}, {b.leak.shape}"
        return [f"crossbar must be [cores, axons, words] and leak [cores, neurons], got {given}"]
    c, a, n = b.cores, b.axons, b.width
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(NAMES, (c, n))
    wanted |= {"crossbar": (c, a, -(-n // 64)), "axon_type": (c, a), "weight": (c, n, TYPES), "neurons": (c,)}
    wanted |= {"xy": (c, 2), "seed": (c,), "draws": (c, b.draws.shape[-1] if b.draws.ndim else 0), "choices": (4,)}
    kinds = {f.name: np.dtype(getattr(np, str(f.type).split(".")[-1].rstrip("]"))) for f in fields(Bank)}
    bad = [
        f"{name} must be {kinds[name]}{list(shape)}, got {array.dtype}{list(array.shape)}"
        for name, shape in wanted.items()
        if (array := getattr(b, name)).shape != shape or array.dtype != kinds[name]
    ]
    return bad + [f"{what} is 0" for what, size in (("cores", c), ("axons", a), ("neurons", n)) if size == 0]


def _values(b: Bank) -> list[str]:
    allowed = (len(OVERFLOW), 2, 2, len(GENERATORS))
    bad = [
        f"choice '{name}' is {value}, allowed 0..{count - 1}"
        for name, value, count in zip(CHOICES, b.choices.tolist(), allowed, strict=True)
        if not 0 <= value < count
    ]
    if bad:
        return bad
    bad = [
        f"{name} must lie in {low}..{high}, found {array.min()}..{array.max()}"
        for name, (low, high) in _limits(b).items()
        if (array := getattr(b, name)).size and (array.min() < low or array.max() > high)
    ]
    inside = b.target >= 0
    if not bad and (b.axon[inside] >= b.axons).any():
        bad.append(f"a neuron has target axon {b.axon[inside].max()}, cores have {b.axons}")
    if b.width % 64 and (b.crossbar[:, :, -1] >> np.uint64(b.width % 64)).any():
        bad.append("the crossbar has bits beyond the last neuron")
    if b.generator == "table" and b.draws.shape[1] == 0:
        bad.append("the generator 'table' needs at least one draw per core")
    elif b.generator != "table" and (b.seed == 0).any():
        bad.append("a seed of 0 draws nothing but 0; give each core another")
    return bad


def _limits(b: Bank) -> dict[str, tuple[int, int]]:
    most = (1 << 31) - 1
    limits = {
        "axon_type": (0, TYPES - 1),
        "gamma": (0, 2),
        "kappa": (0, 1),
        "epsilon": (0, 1),
        "stochastic": (0, (2 << LEAK_BIT) - 1),
        "delay": (1, SLOTS - 1),
        "target": (OUTSIDE, b.cores - 1),
        "neurons": (0, b.width),
        "axon": (0, most),
        "mask": (0, most),
    }
    if b.overflow == "wrap32":
        return limits
    limits |= dict.fromkeys(("weight", "leak"), (-NARROW, NARROW))
    limits |= dict.fromkeys(("alpha", "negative", "reset"), (-(1 << 29), 1 << 29)) | {"mask": (0, 1 << 29)}
    limits["v0"] = (-(1 << 19), (1 << 19) - 1)
    return limits
