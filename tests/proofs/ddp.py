"""Training in two processes is training in one: the same loss curve for the same global batches.

    python tests/proofs/ddp.py [--quick] [--json OUT]

Both ways train the Braille preset (recurrent, with the firing penalty), with dropout in front of the readout and
batches of 63, which two processes cannot share evenly; the two processes are started by torchrun, gloo between them.

- in float64, where sums in another order hardly differ: the loss of the first epoch agrees to 1e-9, of the second to
  1e-6 (relative). From then on single spikes may fall on the other side of the threshold, as any rounding makes them;
- in float32, as everybody trains, rounding moves single spikes from the first epoch on. The curves side by side, and
  as controls those of one process that starts with its weights moved by parts in ten million: the last loss of two
  processes is no farther from that of one than twice the span of what such rounding makes of one process;
- the two processes trained again give the same bits as before.

--quick judges the first and the last: after three epochs, while the loss still falls steeply, two controls say too
little of what rounding makes of it.

Exits 1 where one of these falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "ddp.json"
FIRST, SECOND = 1e-9, 1e-6
NUDGES = (1e-7, -1e-7, 2e-7, -2e-7)

TRAINING = """
import sys
import torch
torch.set_default_dtype(getattr(torch, sys.argv[2]))
from neuro.train import fit, load_config
import neuro.train.loop as loop
nudge, built = float(sys.argv[4]), loop.build
def moved(*given):
    model = built(*given)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.0 + nudge)
    return model
loop.build = moved
config = load_config("braille")
layers = [*config.layers[:2], {"type": "dropout", "p": 0.2}, *config.layers[2:]]
changes = {"train.epochs": int(sys.argv[3]), "train.threads": 1, "train.batch_size": 63, "data.limit": 630,
           "quantise": None, "layers": layers}
fit(config.with_changes(**changes), sys.argv[1])
"""


def trained(folder: Path, dtype: str, epochs: int, processes: int, nudge: float = 0.0) -> list[float]:
    """Loss of each epoch."""
    script = folder.with_suffix(".py")
    script.write_text(TRAINING, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    if launch:
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, *launch, str(script), str(folder), dtype, str(epochs), str(nudge)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines]


def apart(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def measure(quick: bool) -> dict[str, Any]:
    exact_epochs, epochs = (2, 3) if quick else (2, 12)
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        one = trained(at / "one64", "float64", exact_epochs, 1)
        two = trained(at / "two64", "float64", exact_epochs, 2)
        single = trained(at / "one32", "float32", epochs, 1)
        double = trained(at / "two32", "float32", epochs, 2)
        chosen = NUDGES[:2] if quick else NUDGES
        controls = [trained(at / f"control{k}", "float32", epochs, 1, nudge) for k, nudge in enumerate(chosen)]
        again = trained(at / "again32", "float32", epochs, 2)
    return {
        "float64": {"one": one, "two": two, "relative": [apart(b, a) for a, b in zip(one, two, strict=True)]},
        "float32": {"one": single, "two": double, "controls": controls},
        "two_processes_repeat": double == again,
    }


def shortfalls(found: dict[str, Any], quick: bool) -> list[str]:
    first, second = found["float64"]["relative"][:2]
    one, two = (found["float32"][n][-1] for n in ("one", "two"))
    ends = [one, *(c[-1] for c in found["float32"]["controls"])]
    bad = []
    if not first <= FIRST or not second <= SECOND:
        bad.append(f"float64 losses differ by {first:.1e} and {second:.1e}, allowed {FIRST:g} and {SECOND:g}")
    if not quick and not abs(two - one) <= 2 * (max(ends) - min(ends)):
        bad.append(f"float32: last loss {two:.4f} in two processes, {min(ends):.4f}..{max(ends):.4f} in one")
    if not found["two_processes_repeat"]:
        bad.append("two processes gave other losses the second time")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three epochs instead of twelve in float32")
    parser.add_argument("--json", type=Path, help="where to write the result")
    given = parser.parse_args()
    from neuro.files import write_json

    found = measure(given.quick)
    bad = shortfalls(found, given.quick)
    result = {"proof": "ddp", "quick": given.quick, **found, "shortfalls": bad}
    target = given.json or (None if given.quick else RESULT)
    if target:
        write_json(target, result)
    relative = ", ".join(f"{r:.1e}" for r in found["float64"]["relative"])
    print(f"float64: loss of two processes against one, relative, by epoch: {relative}")
    curves = {n: found["float32"][n] for n in ("one", "two")}
    curves |= {f"control {k}": c for k, c in enumerate(found["float32"]["controls"])}
    for name, losses in curves.items():
        print(f"float32 {name:>9}: " + " ".join(f"{x:.4f}" for x in losses))
    print("\n".join(f"FAILED: {b}" for b in bad) or "two processes train what one trains")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
