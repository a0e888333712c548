"""Loihi 2 programs in plain Python integers: the independent meaning that the compiled kernel must equal.

Written from the published equations and Lava's documented behaviour, with dictionaries and unbounded
integers; every place where a register ends says so (`int32`, `once`, `clip`, `wrap24`). It shares no code
with neuro.hardware but the record that holds a program. Slow and obvious on purpose.

``SEEN`` counts how often each register really ended, so that a fuzz can show that it went there.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

M = 1 << 23
SEEN: Counter[str] = Counter()


def seen(what: str, before: int, after: int) -> int:
    SEEN[what] += before != after
    return after


def int32(x: int) -> int:
    return seen("int32", x, (x + (1 << 31)) % (1 << 32) - (1 << 31))


def wrap24(x: int) -> int:
    return seen("wrap24", x, (x + M) % (2 * M) - M)


def tz12(product: int) -> int:
    """product / 4096 toward zero."""
    return seen("toward zero", product // 4096, (1 if product >= 0 else -1) * (abs(product) // 4096))


def once(u: int) -> int:
    SEEN["u at an end"] += abs(u) == M
    if u > M:
        return seen("u above", u, u - 2 * M)
    if u <= -M:
        return seen("u below", u, u + 2 * M)
    return u


def clip(v: int) -> int:
    return seen("clip", v, max(-M + 1, min(M - 1, v)))


def scaled(mantissa: int, exponent: int) -> int:
    """mantissa 2^exponent; floor where the exponent is negative."""
    if exponent > 0:
        return mantissa * 2**exponent
    return seen("floor", int(mantissa / 2 ** (-exponent)), mantissa // 2 ** (-exponent))


def tz(x: int, bits: int) -> int:
    return (1 if x >= 0 else -1) * (abs(x) // 2**bits)


def lif(q, state, a, t):
    """"lif", "li", "lif_reset", "ternary_lif"."""
    if "reset_interval" in q and t % q["reset_interval"] == q["reset_offset"] % q["reset_interval"]:
        SEEN["reset in time"] += state["u"] != 0 or state["v"] != 0
        state["u"] = state["v"] = 0
    u = once(int32(tz12(state["u"] * (4096 - (q["du"] + 1))) + a * 64))
    v = clip(int32(tz12(state["v"] * (4096 - q["dv"])) + u + int32(scaled(q["bias_mant"], q["bias_exp"]))))
    if "vth" in q:
        s = int(v > int32(q["vth"] * 64))
    else:
        s = int(v > int32(q["vth_hi"] * 64)) - int(v < int32(q["vth_lo"] * 64))
        SEEN["negative spike"] += s < 0
    state["u"], state["v"] = u, 0 if s else v
    return s


def sigma(q, state, a, t):
    state["sigma"] = int32(state["sigma"] + a)
    return state["sigma"]


def sigma_delta(q, state, a, t):
    """"sigma_delta", and "delta", which has no bias and no sum."""
    if "bias" in q:
        state["sigma"] = int32(state["sigma"] + a)
        new = int32(state["sigma"] + q["bias"])
        new = seen("relu", new, max(new, 0)) if q["relu"] else new
    else:
        new = int32(a * 2 ** (q["spike_exp"] + q["state_exp"]))
    delta = int32(int32(new - state["act"]) + state["residue"])
    judged = int32(state["error"] + delta) if q["cum_error"] else delta
    out = delta if int32(abs(judged)) >= q["vth"] else 0
    if q["cum_error"]:
        state["error"] = 0 if int32(abs(out)) > 0 else judged
    SEEN["held back"] += out != delta
    state["residue"], state["act"] = int32(delta - out), new
    return seen("message floor", int(out / 2 ** q["state_exp"]), out // 2 ** q["state_exp"])


def resonator(q, state, a, t, a_imag=0, resets=False):
    re, im, c, s, d = state["real"], state["imag"], q["cos_decay"], q["sin_decay"], q["decay_bits"]
    new_re = clip(tz(c * re, d) - tz(s * im, d) + int32(a * 2 ** q["state_exp"]))
    new_im = clip(tz(s * re, d) + tz(c * im, d) + int32(a_imag * 2 ** q["state_exp"]))
    if not resets:
        fires = new_re >= q["vth"] and new_im >= 0 > im
    else:
        fires = new_im >= q["vth"]
        if fires:
            new_re, new_im = 0, q["vth"] - 1
    state["real"], state["imag"] = new_re, new_im
    SEEN["resonance"] += fires
    return int(fires)


def resonator_iz(q, state, a, t, a_imag=0):
    return resonator(q, state, a, t, a_imag, resets=True)


RULES = {"lif": lif, "li": lif, "lif_reset": lif, "ternary_lif": lif, "sigma": sigma, "delta": sigma_delta}
RULES |= {"sigma_delta": sigma_delta, "rf": resonator, "rf_iz": resonator_iz}
STATE = {"lif": "uv", "li": "uv", "lif_reset": "uv", "ternary_lif": "uv", "sigma": ("sigma",)}
STATE |= {"delta": ("act", "residue", "error"), "sigma_delta": ("sigma", "act", "residue", "error")}
STATE |= {"rf": ("real", "imag"), "rf_iz": ("real", "imag")}
MEMBRANE = {"sigma": "sigma", "delta": "act", "sigma_delta": "act", "rf": "real", "rf_iz": "real"}  # else "v"


def lava_weight(w: int, bits: int, mode: int) -> int:
    """One weight after Lava's clip and truncation. mode: 1 mixed, 2 excitatory, 3 inhibitory."""
    step = 2 ** (8 - bits + (mode == 1))
    if mode == 1:
        return max(-256, min(255, w)) // step * step
    if mode == 2:
        return max(0, min(255, w)) // step * step
    return -(max(0, min(255, -w)) // step * step)


def sign_mode(weights: list[int], mode: int) -> int:
    if mode:
        return mode
    return 2 if min(weights, default=0) >= 0 else 3 if max(weights, default=0) <= 0 else 1


class Synapses:
    """reach[source] = [(target, weight, delay), ...]; every entry is one stored synapse."""

    def __init__(self, projection, source, target):
        self.reach = defaultdict(list)
        p = {k: v.tolist() for k, v in projection.params.items()}
        w = projection.weight_q.tolist()
        self.conv, self.port = projection.kind == "conv", p.get("port", 0)
        self.multiplies = p.get("num_message_bits", 0) > 0
        self.delayed_dense = projection.kind == "dense" and "delay_steps" in p
        self.exponent = 0 if self.conv else p["weight_exp"]
        if self.conv:
            self._conv(w, p, source.shape, target.shape)
            return
        if projection.kind == "dense":
            delay = p.get("delay_steps", [[0] * len(row) for row in w])
            entries = [(o, i, w[o][i], delay[o][i]) for o in range(len(w)) for i in range(len(w[o]))]
        else:
            entries = list(zip(p["row"], p["col"], w, p.get("delay_steps", [0] * len(w)), strict=True))
        mode = sign_mode([e[2] for e in entries], p["sign_mode"])
        for o, i, raw, d in entries:
            weight = lava_weight(raw, p["num_weight_bits"], mode)
            if weight:
                self.reach[i].append((o, weight, d))

    def _conv(self, w, p, source, target):
        """Each output pixel reads its window; turned round into what each input pixel reaches."""
        _, height, width = source
        channels, out_h, out_w = target
        in_group, out_group = len(w[0]), channels // p["groups"]
        for o in range(channels):
            for y in range(out_h):
                for x in range(out_w):
                    for c in range(in_group):
                        for ky in range(len(w[0][0])):
                            for kx in range(len(w[0][0][0])):
                                iy = y * p["stride"][0] - p["padding"][0] + ky * p["dilation"][0]
                                ix = x * p["stride"][1] - p["padding"][1] + kx * p["dilation"][1]
                                if 0 <= iy < height and 0 <= ix < width:
                                    i = ((o // out_group * in_group + c) * height + iy) * width + ix
                                    self.reach[i].append(((o * out_h + y) * out_w + x, w[o][c][ky][kx], 0))

    def sends(self, spikes):
        """[(delay, target, value)]: what one step's messages deliver, shifted per (step, delay). spikes: i -> s.

        NumPy multiplies in int32; it adds up in int32 too, except that a delayed Dense sums in int64."""
        buckets = defaultdict(int)
        for i, s in spikes.items():
            for o, weight, d in self.reach[i]:
                buckets[d, o] += int32(weight * s) if self.multiplies else weight
        if self.multiplies and not self.delayed_dense:
            buckets = {key: int32(total) for key, total in buckets.items()}
        finish = wrap24 if self.conv else lambda total: scaled(total, self.exponent)
        return [(d, o, int32(finish(total))) for (d, o), total in buckets.items()]


def simulate(program, dense):
    """dense: integers [steps, batch, inputs]. Returns a dict of arrays, named as in `Trace`:

    (variable | "spikes", population), "scores", and the six counters.
    """
    length, batch, _ = dense.shape
    steps, cores = length + program.depth, program.placement.cores
    pops = program.populations
    synapses = [(p, Synapses(p, pops[p.source], pops[p.target])) for p in program.projections]
    core_of = {n: np.asarray(c).tolist() for n, c in program.placement.core_of.items()}
    xy = np.asarray(program.placement.xy).tolist()
    out = {
        (v, n): np.zeros((steps, batch, p.size), np.int64)
        for n, p in pops.items()
        for v in (*STATE.get(p.model, ()), "a", "a_imag", "spikes")
    }
    names = ("synops", "updates", "spikes", "packets", "hops")
    out |= {n: np.zeros((batch, steps, cores), np.int64) for n in names}
    out["injected"] = np.zeros((batch, steps), np.int64)
    out["scores"] = np.zeros((batch, pops[program.output].size), np.int64)

    fan = {name: defaultdict(lambda: defaultdict(int)) for name in pops}  # name -> neuron -> core -> synapses
    for p, s in synapses:
        for i, targets in s.reach.items():
            for o, _, _ in targets:
                fan[p.source][i][core_of[p.target][o]] += 1

    params = {}
    for name, p in pops.items():
        if p.model != "input":
            full = {k: np.broadcast_to(v, p.size).tolist() for k, v in p.params.items()}
            params[name] = [{k: values[i] for k, values in full.items()} for i in range(p.size)]

    for b in range(batch):
        state = {n: [dict.fromkeys(STATE.get(p.model, ()), 0) for _ in range(p.size)] for n, p in pops.items()}
        arriving = defaultdict(int)  # (step, population, neuron, port) -> a
        window = []
        for t in range(steps):
            for name, p in pops.items():
                fired = {}
                if p.model == "input":
                    fired = {i: int(x) for i, x in enumerate(dense[t, b].tolist()) if x} if t < length else {}
                    out["injected"][b, t] = len(fired)
                else:
                    for i in range(p.size):
                        a, a_imag = (arriving.pop((t, name, i, port), 0) for port in (0, 1))
                        more = {"a_imag": a_imag} if p.model in ("rf", "rf_iz") else {}
                        s = RULES[p.model](params[name][i], state[name][i], a, t + 1, **more)
                        if s:
                            fired[i] = s
                        for variable, value in {**state[name][i], "a": a, **more}.items():
                            out[variable, name][t, b, i] = value
                        out["updates"][b, t, core_of[name][i]] += 1
                for i, s in fired.items():
                    out["spikes", name][t, b, i] = s
                    for core, count in fan[name][i].items():
                        out["synops"][b, t, core] += count
                    if p.model != "input":
                        here = core_of[name][i]
                        out["spikes"][b, t, here] += 1
                        out["packets"][b, t, here] += len(fan[name][i])
                        for core in fan[name][i]:
                            out["hops"][b, t, here] += abs(xy[core][0] - xy[here][0]) + abs(xy[core][1] - xy[here][1])
                for projection, s in synapses:
                    if projection.source == name:
                        for d, o, value in s.sends(fired):
                            key = (t + 1 + d, projection.target, o, s.port)
                            arriving[key] = int32(arriving[key] + value)
            if t >= program.depth:
                membrane = MEMBRANE.get(pops[program.output].model, "v")
                read = out["spikes" if program.readout == "count" else membrane, program.output][t, b].tolist()
                window.append([int(x != 0) for x in read] if program.readout == "count" else read)
        reduce = {"count": sum, "sum": sum, "max": max, "last": lambda values: values[-1]}[program.readout]
        out["scores"][b] = [reduce(list(values)) for values in zip(*window, strict=True)]
    return out
