"""Train one network in one framework, an epoch per turn; run by the interpreter that has the framework.

    PYTHON peer_train_epochs.py '{"framework": "snntorch", "file": "task.npz", "threads": 2}'

The file is made by `write_task` with axonport: layers, weights to start from, the batches of every epoch and the
validation recordings as bits, and the settings of the optimiser. Everybody does the same: the same batches, the same
network, cross-entropy of the mean over time, gradients clipped, torch's AdamW (fused) with torch's OneCycleLR.

What differs is who runs the layers, and where a batch comes from. Peers get theirs as dense float32 tensors that are
ready before the clock starts. neuro gets it from its own data path, which draws, augments and bins on the clock, in
the background; that they are the same batches is checked.

Conv2d and Linear and batch norm see all steps of a batch at once in every framework, neurons then run over time:
spikingjelly in its multi-step mode; snntorch in the loop over steps that its neurons ask for. LIF: v = beta v + x,
fires above 1, then 0, no gradient through that; surrogate 1 / (1 + (pi u)^2), or 1 / (1 + a |u|)^2, which is snntorch's
fast_sigmoid and, since spikingjelly's SoftSign is a / 2 times as steep, a function of ours there. The recurrent neurons
with a synapse
are, for both, their LIF in a loop, with i = alpha i + x + W s written before it: snntorch's RSynaptic resets one step
late and evaluates the recurrence twice, spikingjelly has none.

A turn ("go") is an epoch; its seconds are those of training. Afterwards, off the clock, the validation recordings
are judged. "check" gives the accuracy after every epoch so far, and first: loss and norms of the gradients of the
very first batch, by which it is checked that all train the same network.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version

import numpy as np
from axon_peers import Work, serve

WARM = 2  # batches that are run before the first epoch, and undone: code is loaded, nothing is learnt
VALID_BATCH = 128


def write_task(path, config, epochs):
    """Everything that a worker needs. config: a `neuro.train.config.Config`; with neuro's interpreter."""
    from neuro.nn.stateless import NORMS
    from neuro.train.build import build
    from neuro.train.data import Recordings

    recordings = Recordings(config.data, config.seed)
    data, valid = recordings.train(0), recordings.valid()
    grid = (recordings.dt, recordings.steps)
    model = build(config.layers, data.shape, grid[0], config.readout, config.seed, len(recordings.source.classes))
    from neuro.datasets.transforms import packed

    arrays = {}
    for k, name in enumerate(model.names):
        layer = model.layer(name)
        recurrent = getattr(layer, "recurrent", None)
        weight = recurrent.weight if recurrent is not None else getattr(layer, "weight", None)
        if weight is not None:
            arrays[f"weight{k}"] = weight.detach().contiguous().numpy()
        assert not isinstance(layer, NORMS) or layer.bias.abs().max() == 0
    counts = []
    for epoch in range(epochs):
        found = list(recordings.batches(recordings.train(epoch), config.train, epoch))
        counts.append(len(found))
        for b, (x, labels) in enumerate(found):
            arrays[f"x{epoch}_{b}"], arrays[f"y{epoch}_{b}"] = x.words, labels.numpy()
    arrays["x_valid"], arrays["y_valid"] = packed(valid, range(len(valid)), *grid), valid.labels
    o = config.optimiser
    about = {
        "layers": [dict(row) for row in config.layers],
        "shape": list(data.shape),
        "steps": grid[1],
        "batches": counts,
        "optimiser": {"lr": o.lr, "weight_decay": o.weight_decay, "clip": o.clip, "warmup": o.warmup},
        "loss": {"scale": config.loss.scale, "label_smoothing": config.loss.label_smoothing},
        "config": config.to_table(),
    }
    np.savez(path, about=np.array(json.dumps(about)), **arrays)
    return {"train": len(data), "valid": len(valid), "batches": counts[0], "parameters": model_size(model)}


def model_size(model):
    return sum(p.numel() for p in model.parameters())


class Task:
    """The file, and the dense tensors made of it."""

    def __init__(self, path):
        self.file = np.load(path)
        self.about = json.loads(str(self.file["about"]))
        self.shape, self.steps = tuple(self.about["shape"]), self.about["steps"]

    def dense(self, words):
        """float32 [steps, batch, *shape] of bits."""
        import torch

        n = int(np.prod(self.shape))
        bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=n)
        return torch.from_numpy(bits.astype(np.float32).reshape(self.steps, -1, *self.shape))

    def batches(self, epoch):
        import torch

        for b in range(self.about["batches"][epoch]):
            yield self.file[f"x{epoch}_{b}"], torch.from_numpy(self.file[f"y{epoch}_{b}"])

    def weight(self, k):
        import torch

        return torch.from_numpy(self.file[f"weight{k}"])


def training(task, parameters, run, modules, epochs_of, valid, said):
    """`Work` for any framework on torch. run(x): membrane of the output, summed over time [batch, classes]. modules:
    what has a training mode. epochs_of(epoch): batches, each as run wants them. valid: [(x, labels)]."""
    import torch
    from torch.nn import functional

    about, steps = task.about, task.steps
    o, loss_ = about["optimiser"], about["loss"]

    history = {"loss": [], "accuracy": [], "seconds": [], "first": []}

    def make():
        weights = [p for p in parameters if p.dim() > 1]
        rest = [p for p in parameters if p.dim() <= 1]
        groups = [{"params": weights, "weight_decay": o["weight_decay"]}, {"params": rest, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=o["lr"], fused=True)
        total = sum(about["batches"])
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, o["lr"], total, o["warmup"])

    def step(x, labels, optimiser, schedule):
        scores = run(x) * (loss_["scale"] / steps)
        loss = functional.cross_entropy(scores, labels, label_smoothing=loss_["label_smoothing"])
        loss.backward()
        if not history["first"]:
            history["first"] += [float(loss.detach()), *(float(p.grad.norm()) for p in parameters)]
        torch.nn.utils.clip_grad_norm_(parameters, o["clip"])
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        return loss

    def mode(training_):
        for module in modules:
            module.train(training_)

    state = [[t.detach().clone() for t in (*m.parameters(), *m.buffers())] for m in modules]
    mode(True)
    trial = make()
    for _, (x, labels) in zip(range(WARM), epochs_of(0, warm=True)):  # noqa: B905
        step(x, labels, *trial)
    with torch.no_grad():
        for m, kept in zip(modules, state):  # noqa: B905
            for t, old in zip((*m.parameters(), *m.buffers()), kept):  # noqa: B905
                if t.shape == old.shape:  # snntorch keeps its state, which has grown, among the buffers
                    t.copy_(old)
    optimiser, schedule = make()

    def turn():
        epoch = len(history["loss"])
        batches = epochs_of(epoch)
        mode(True)
        began = time.perf_counter()
        losses = [step(x, labels, optimiser, schedule).detach() for x, labels in batches]
        mean = float(torch.stack(losses).mean())
        seconds = time.perf_counter() - began
        mode(False)
        with torch.no_grad():
            right = sum(int((run(x).argmax(1) == labels).sum()) for x, labels in valid)
        history["loss"].append(mean)
        history["accuracy"].append(right / sum(len(labels) for _, labels in valid))
        history["seconds"].append(seconds)
        return seconds

    return Work(turn, lambda: history, None, {"version": said, "torch": torch.__version__}, reported=True)


def dense_epochs(task):
    """Dense batches, all ready when the clock starts."""

    def epochs_of(epoch, warm=False):
        made = ((task.dense(words), labels) for words, labels in task.batches(epoch))
        return made if warm else list(made)

    return epochs_of


def dense_valid(task):
    import torch

    x, labels = task.dense(task.file["x_valid"]), torch.from_numpy(task.file["y_valid"])
    cuts = range(0, len(labels), VALID_BATCH)
    return [(x[:, k : k + VALID_BATCH].contiguous(), labels[k : k + VALID_BATCH]) for k in cuts]


def neuro(task):
    import torch

    import neuro
    from neuro.nn.spikes import Spikes
    from neuro.train.build import build
    from neuro.train.config import Config
    from neuro.train.data import Recordings

    config = Config.from_table(task.about["config"])
    recordings = Recordings(config.data, config.seed)
    data = recordings.train(0)
    model = build(config.layers, data.shape, recordings.dt, config.readout, config.seed, len(recordings.source.classes))
    last = len(task.about["batches"]) - 1

    def epochs_of(epoch, warm=False):
        if warm:
            return bits(epoch)
        for (x, labels), (words, expected) in zip(made(epoch), task.batches(epoch), strict=True):  # off the clock
            assert np.array_equal(x.words, words)
            assert torch.equal(labels, expected)
        return made(epoch)

    def made(epoch):
        """On the clock from its first batch on."""
        return recordings.batches(recordings.train(epoch, ahead=epoch < last), config.train, epoch)

    def bits(epoch):
        for words, labels in task.batches(epoch):
            yield Spikes(words, (task.steps, len(labels), *task.shape)), labels

    words, labels = task.file["x_valid"], torch.from_numpy(task.file["y_valid"])
    rows = words.reshape(task.steps, len(labels), -1)
    valid = []
    for k in range(0, len(labels), VALID_BATCH):
        some = np.ascontiguousarray(rows[:, k : k + VALID_BATCH])
        x = Spikes(some.reshape(-1, some.shape[2]), (task.steps, some.shape[1], *task.shape))
        valid.append((x, labels[k : k + VALID_BATCH]))
    parameters = list(model.parameters())
    return training(task, parameters, lambda x: model.scores(model(x)), [model], epochs_of, valid, neuro.__version__)


def torch_layer(task, k, row):
    """A layer without memory in plain torch, from the task's weights; None for neurons."""
    import torch
    from torch import nn

    kind = row["type"]
    if kind == "flatten":
        return nn.Flatten()
    if kind not in ("linear", "conv", "batch_norm"):
        return None
    weight = task.weight(k)
    if kind == "batch_norm":
        made = nn.BatchNorm2d(len(weight))
    elif kind == "linear":
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        stride, padding = row.get("stride", 1), row.get("padding", 0)
        made = nn.Conv2d(weight.shape[1], weight.shape[0], row["kernel"], stride, padding, bias=False)
        made.to(memory_format=torch.channels_last)  # a quarter faster than torch's own choice here
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def layered(task, neurons):
    """(run, modules) for a framework. neurons(row, recurrent weights or None) -> (currents -> spikes, module)."""
    modules, calls = [], []
    for k, row in enumerate(task.about["layers"]):
        layer = torch_layer(task, k, row)
        if layer is None:
            recurrent = None
            if row.get("recurrent"):
                recurrent = torch_layer(task, k, {"type": "linear"})
                modules.append(recurrent)
            call, module = neurons(row, recurrent)
            modules.append(module)
        else:
            modules.append(layer)

            def call(x, layer=layer):
                return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])

        calls.append(call)

    def run(x):
        for call in calls:
            x = call(x)
        return x.sum(0)

    return run, modules


def frame(task, neurons, said):
    """`training` of a network whose neurons come from a framework."""
    run, modules = layered(task, neurons)
    parameters = [p for m in modules for p in m.parameters()]
    return training(task, parameters, run, modules, dense_epochs(task), dense_valid(task), said)


def looped(row, recurrent, neuron, at_rest):
    """Recurrent neurons with a synapse over time. neuron(current, state) -> (spikes, state)."""
    import torch

    alpha = row.get("alpha", 0.0)

    def call(current):
        state, i, s, found = at_rest(), torch.zeros_like(current[0]), torch.zeros_like(current[0]), []
        for c in current:
            i = alpha * i + c + recurrent(s)
            s, state = neuron(i, state)
            found.append(s)
        return torch.stack(found)

    return call


def snntorch(task):
    import snntorch as snn
    import torch
    from snntorch import surrogate

    def neurons(row, recurrent):
        last = row["type"] == "li"
        slope = row.get("surrogate_alpha")
        spike = surrogate.atan(alpha=2.0) if slope is None else surrogate.fast_sigmoid(slope=slope)
        made = snn.Leaky(row["beta"], spike_grad=spike, reset_mechanism="none" if last else "zero")
        if recurrent is not None:
            return looped(row, recurrent, made, made.reset_mem), made

        def call(current):
            mem, found = made.reset_mem(), []
            for c in current:
                spk, mem = made(c, mem)
                found.append(mem if last else spk)
            return torch.stack(found)

        return call, made

    return frame(task, neurons, version("snntorch"))


def fast_sigmoid(slope):
    """u >= 0, with derivative 1 / (1 + slope |u|)^2."""
    import torch

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u >= 0).to(u.dtype)

        @staticmethod
        def backward(ctx, g):
            (u,) = ctx.saved_tensors
            return g / (slope * u.abs() + 1.0) ** 2

    return Spike.apply


def spikingjelly(task):
    from spikingjelly.activation_based import functional, neuron, surrogate

    def neurons(row, recurrent):
        last, slope = row["type"] == "li", row.get("surrogate_alpha")
        made = neuron.LIFNode(
            tau=1 / (1 - row["beta"]),
            decay_input=False,
            v_threshold=1e9 if last else 1.0,  # its way to a leaky integrator
            v_reset=0.0,
            surrogate_function=surrogate.ATan(alpha=2.0) if slope is None else fast_sigmoid(slope),
            detach_reset=True,
            step_mode="m" if recurrent is None else "s",
            store_v_seq=last,
        )
        if recurrent is not None:
            return looped(row, recurrent, lambda i, _: (made(i), None), lambda: functional.reset_net(made)), made

        def call(current):
            functional.reset_net(made)
            spikes = made(current)
            return made.v_seq if last else spikes

        return call, made

    return frame(task, neurons, version("spikingjelly"))


FRAMEWORKS = {"neuro": neuro, "snntorch": snntorch, "spikingjelly": spikingjelly}


def build(a):
    if a["framework"] == "neuro":
        import neuro as _  # noqa: F401 - before torch, whose idle threads it puts to sleep
    import torch

    torch.set_num_threads(a["threads"])
    return FRAMEWORKS[a["framework"]](Task(a["file"]))


if __name__ == "__main__":
    serve(build)
