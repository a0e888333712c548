"""Random banks of TrueNorth cores with extreme registers, and digests of what the kernel makes of them.

    NUMBA_DISABLE_JIT=1 python axon_truenorth_banks.py SEED...

prints one digest for each seed, then how many neurons each of the kernel's two ways has updated.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from neuro.hardware.truenorth.bank import GENERATORS, NOWHERE, OUTSIDE, OVERFLOW, bank_from, empty, pack_bits

TOP = (1 << 31) - 1


def random_bank(seed, cores=None, axons=None, neurons=None):
    """(bank, packets int64[k, 2], steps); every third seed has no chance at all, every third wraps at 32 bits."""
    rng = np.random.default_rng([77, seed])
    pick = lambda *of: of[int(rng.integers(len(of)))]  # noqa: E731
    c, a, n = cores or pick(1, 2, 5), axons or pick(1, 17, 64, 70), neurons or pick(1, 16, 64, 65, 130)
    overflow = OVERFLOW[seed % 3]
    wide = overflow == "wrap32"
    generator = pick(*GENERATORS)
    image = empty(
        c, a, n, overflow=overflow, inclusive=pick(False, True), zero_cross=pick(False, True), generator=generator
    )
    calm = pick(True, True, False)

    def numbers(shape, small, large, *special):
        top = small if calm else large
        values = rng.integers(-top, top + 1, shape)
        return np.where(rng.random(shape) < 0.2, rng.choice(special, shape), values).astype(np.int32)

    big, edge, ends = (TOP, TOP, (-TOP - 1, TOP)) if wide else (1 << 21, (1 << 19) - 1, (-(1 << 19), (1 << 19) - 1))
    image["crossbar"] = pack_bits(rng.random((c, a, n)) < pick(0.05, 0.5, 1.0))
    image["axon_type"] = rng.integers(0, 4, (c, a)).astype(np.uint8)
    image["weight"] = numbers((c, n, 4), 9, big, 0, 1, -1, -big)
    image["leak"] = numbers((c, n), 5, big, 0, 0, -1)
    image["alpha"] = numbers((c, n), 40, edge, 0, 1, *(ends if wide else (edge, -edge)))
    image["negative"] = numbers((c, n), 40, edge, 0, -1, *(ends if wide else (edge, -edge)))
    image["reset"] = numbers((c, n), 9, edge, 0, *(ends if wide else (edge, -edge)))
    image["v0"] = numbers((c, n), 9, edge, 0, *ends)
    image["gamma"] = rng.integers(0, 3, (c, n)).astype(np.uint8)
    image["kappa"] = rng.integers(0, 2, (c, n)).astype(np.uint8)
    if (seed // 3) % 3:  # chance on some cores only, so that both ways through the kernel run beside each other
        here = (rng.random(c) < 0.7)[:, None]
        image["epsilon"] = (here * rng.integers(0, 2, (c, n))).astype(np.uint8)
        image["stochastic"] = (here * rng.integers(0, 32, (c, n)) * rng.integers(0, 2, (c, n))).astype(np.uint8)
        masks = rng.choice([0, 0, 1, 7, 255, (1 << 18) - 1, *([TOP] if wide else [1 << 29])], (c, n))
        image["mask"] = (here * masks).astype(np.int32)
    image["target"] = rng.choice([NOWHERE, OUTSIDE, *range(c), *range(c)], (c, n)).astype(np.int32)
    image["axon"] = rng.integers(0, a, (c, n)).astype(np.int32)
    image["delay"] = rng.integers(1, 16, (c, n)).astype(np.uint8)
    image["neurons"] = np.where(rng.random(c) < 0.5, n, rng.integers(0, n + 1, c)).astype(np.int32)
    image["seed"] = rng.integers(1, 1 << (16 if generator == "lfsr16" else 32), c).astype(np.uint32)
    image["draws"] = rng.integers(0, 1 << 32, (c, pick(1, 7, 100))).astype(np.uint32)
    steps = pick(20, 33, 40)
    count = int(rng.integers(0, steps * c * a // 3 + 2))
    packets = np.stack([rng.integers(0, steps, count), rng.integers(0, c * a, count)], axis=1)
    return bank_from(image), packets, steps


def digest(found):
    """Of V, spikes, output lines and counters."""
    whole = hashlib.sha256()
    for values in (found.v, found.spikes, found.lines, found.booked):
        whole.update(str(values.shape).encode() + np.ascontiguousarray(values, np.int64).tobytes())
    return whole.hexdigest()


def count_settled(kernels):
    """name -> neurons that a function without the compiler goes through from now on; calm cores are left alone and
    so not in it, though the chip and its counters update them as well."""
    settled = dict.fromkeys(("settle_plain", "settle_any"), 0)

    def watched(name, function):
        def call(net, *rest):
            settled[name] += int(net.neurons[rest[-1]])
            return function(net, *rest)

        return call

    for name in settled:
        setattr(kernels, name, watched(name, getattr(kernels, name)))
    return settled


if __name__ == "__main__":
    from neuro.hardware.truenorth import kernels
    from neuro.hardware.truenorth.run import record_bank

    settled = count_settled(kernels)
    for argument in sys.argv[1:]:
        bank, packets, steps = random_bank(int(argument))
        print(argument, digest(record_bank(bank, steps, packets)))
    print(*settled.values())
