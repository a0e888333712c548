"""The hour of a newcomer: a snnTorch model of the tutorials' kind on every chip, in under 15 lines and 10 minutes.

    python tests/proofs/newcomer.py [--quick] [--json OUT]

In a fresh virtual environment in a temporary folder, axonport is installed from this checkout, snnTorch and Lava from
the package index, and `SCRIPT` runs: the class is as snnTorch's tutorials write it (two Leaky layers, a loop over time,
torch.stack of the recordings), trained for a few epochs on noisy bars made in the script; what is counted are the
lines from there on, which bring it to every chip, certify it and write the Lava export.

Targets, set before the first run: at most 15 lines beyond the model, 10 minutes with the installation, every chip that
holds the network simulated, and on Loihi 2 an export to Lava and a certificate that Lava's own run has passed.
--quick: this interpreter, fewer samples, no installation; where Lava is not installed, the certificate says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "newcomer.json"
LINES, SECONDS = 15, 600.0
LAVA = "lava-nc==0.10.0"
MODEL = """
import torch, torch.nn as nn, snntorch as snn

num_inputs, num_hidden, num_outputs, num_steps, beta = 64, 32, 10, 20, 0.95

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, num_hidden)
        self.lif1 = snn.Leaky(beta=beta)
        self.fc2 = nn.Linear(num_hidden, num_outputs)
        self.lif2 = snn.Leaky(beta=beta)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for step in range(num_steps):
            cur1 = self.fc1(x[step])
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)

torch.manual_seed(0)
bars = torch.eye(10)[:, torch.arange(64) % 10]
labels = torch.arange(400) % 10
spikes = (torch.rand(num_steps, 400, 64) < 0.1 + 0.6 * bars[labels]).float()
net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for epoch in range(20):
    spk, mem = net(spikes)
    loss = sum(nn.functional.cross_entropy(mem[t], labels) for t in range(num_steps)) / num_steps
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
DEPLOY = """
import neuro
test = (torch.rand(num_steps, SAMPLES, 64) < 0.1 + 0.6 * bars[labels[:SAMPLES]]).float()
report = neuro.deploy(net, (test, labels[:SAMPLES]), chips="all", out="run", certify_samples=2)
for name, chip in report.chips.items():
    print(name, chip.fits, chip.accuracy, chip.matches.get("status"), chip.energy_j.get("nominal"))
"""


def lines() -> int:
    return sum(bool(line.strip()) for line in DEPLOY.splitlines())


def measure(quick: bool) -> dict[str, Any]:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = Path(sys.executable) if quick else _environment(folder)
        installed = time.perf_counter() - began
        (folder / "newcomer.py").write_text(MODEL + DEPLOY.replace("SAMPLES", "20" if quick else "100"))
        path = {"PYTHONPATH": str(ROOT)} if quick else {}
        done = subprocess.run(
            [str(python), "newcomer.py"], cwd=folder, env={**os.environ, **path}, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
        chips = {
            chip: {
                "fits": row["fits"],
                "why_not": [str(v.get("message", v)) for v in row["violations"]],
                "accuracy": row["accuracy"],
                "certificate": row["matches"],
                "files": row["files"],
                "written": [f for f in row["files"].values() if (folder / "run" / f).exists()],
            }
            for chip, row in report["chips"].items()
        }
    return {
        "lines": lines(),
        "install_s": installed,
        "seconds": time.perf_counter() - began,
        "float_accuracy": report["float_accuracy"],
        "chips": chips,
        "versions": report["versions"],
    }


def _environment(folder: Path) -> Path:
    """An interpreter of its own with this checkout, snnTorch and Lava, installed as the README says."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    pinned = ["-c", str(ROOT / "constraints.txt")]
    for what in ([*pinned, f"{ROOT}[lava]", "snntorch"], ["--no-deps", "--ignore-requires-python", LAVA]):
        subprocess.run([str(python), "-m", "pip", "install", "-q", *what], check=True, cwd=folder)
    return python


def short(found: dict[str, Any]) -> list[str]:
    bad = []
    if found["lines"] > LINES:
        bad.append(f"{found['lines']} lines, {LINES} wanted")
    if found["seconds"] > SECONDS:
        bad.append(f"{found['seconds']:.0f} s, {SECONDS:.0f} wanted")
    lava = found["versions"]["lava-nc"] != "not installed"
    for name, chip in found["chips"].items():
        status = chip["certificate"].get("status")
        if not chip["fits"] and not chip["why_not"]:
            bad.append(f"{name} does not fit and does not say why")
        if chip["fits"] and (chip["accuracy"] is None or status == "failed"):
            bad.append(f"{name}: certificate {chip['certificate']}")
        if len(chip["written"]) < len(chip["files"]):
            bad.append(f"{name}: files that were named are not there")
    loihi = found["chips"]["loihi2"]
    if not loihi["fits"] or "lava" not in loihi["files"] or "certificate" not in loihi["files"]:
        bad.append("no export to Lava with a certificate")
    elif lava and loihi["certificate"]["status"] != "passed":
        bad.append(f"the certificate of the Lava export did not pass: {loihi['certificate']}")
    elif not lava and "lava" not in str(loihi["certificate"].get("reason", "")).lower():
        bad.append(f"Lava is not installed and the certificate does not say so: {loihi['certificate']}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from neuro.files import write_json

    found = measure(arguments.quick)
    for name, chip in found["chips"].items():
        print(f"{name:12s} {'fits' if chip['fits'] else 'does not fit: ' + '; '.join(chip['why_not'])[:150]}", end="")
        print(f", accuracy {chip['accuracy']}, certificate {chip['certificate'].get('status')}" if chip["fits"] else "")
    print(f"{found['lines']} lines, {found['seconds']:.0f} s, of which {found['install_s']:.0f} s installing; "
          f"float accuracy {found['float_accuracy']:.3f}")  # fmt: skip
    bad = short(found)
    print("\n".join(bad) or "proven")
    write_json(arguments.json or RESULT, {"quick": arguments.quick, **found, "short": bad})
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
