"""Proof: our simulators give every value that other people's simulators recorded, bit for bit.

    python tests/proofs/oracles.py [--quick] [--json OUT]

Runs tests/oracle on the vectors in NEURO_VECTORS (default tests/golden): sPyNNaker's kernels (LIF, STDP), RANC,
quantizeml, Lava, nengo-loihi, brian2-loihi; and on real Lava where it is installed. The whole form also runs the
long fuzz of each chip: compiled kernel, the same code uncompiled, and a model in unbounded integers written apart.
Counts what was compared. Exits 1 where one value differs, a simulator has no vector, or a test is skipped (SANA-FE's
live ones may be).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from axon_vectors import COMPARED, FOLDER  # noqa: E402

from neuro.files import write_json  # noqa: E402

FUZZ = ("test_*_exact.py", "test_truenorth_kernel.py", "test_spinnaker*.py")  # tests/laws: random programs
OPTIONAL = "needs sanafe"  # GPL, so not installed with the rest; its recorded answers are compared all the same
WANTED = {
    "spinnaker": ("lif_curr_exp", "lif_curr_delta", "stdp_pair", "edge_lif_curr_exp", "edge_lif_curr_delta",
                  "edge_stdp_pair"),
    "truenorth": ("ranc_000", "edge_ranc_tie0"),
    "akida": ("akida2_quantizeml_000", "edge_akida2_000", "akida1_doceq_000"),
    "loihi": ("lava_bitacc", "lava_dense_edge", "nengoloihi_compartment", "brian2loihi"),
}  # fmt: skip


class Recorder:
    """What pytest reports, per test file."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, int]] = defaultdict(lambda: {"passed": 0, "failed": 0, "skipped": 0})
        self.failures: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("::")[0].rsplit("/", 1)[-1]
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[name][report.outcome] += 1
        if report.failed:
            self.failures.append(report.nodeid)
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr[-1] if report.longrepr else ''}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid} cannot be collected")


def missing_vectors() -> list[str]:
    """Simulators without a vector, when the folder is our own; another folder may hold whatever it holds."""
    if FOLDER != ROOT / "tests" / "golden":
        return []
    return [
        f"no {folder}/{name}.npz in {FOLDER}"
        for folder, names in WANTED.items()
        for name in names
        if not list((FOLDER / folder).glob(f"{name}*.npz"))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the vectors only, without the long fuzz")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "oracles.json")
    arguments = parser.parse_args()
    began = time.perf_counter()
    recorder = Recorder()
    paths = [str(ROOT / "tests" / "oracle")]
    if not arguments.quick:
        paths += sorted({str(p) for pattern in FUZZ for p in (ROOT / "tests" / "laws").glob(pattern)})
    pytest.main([*paths, "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)], plugins=[recorder])
    failures = [*missing_vectors(), *(f"failed: {name}" for name in recorder.failures)]
    unwanted = [name for name in recorder.skipped if OPTIONAL not in name]
    failures += [f"skipped: {name}" for name in unwanted if FOLDER == ROOT / "tests" / "golden"]
    if not sum(COMPARED.values()):
        failures.append("nothing was compared")
    folders = sorted(p.name for p in FOLDER.iterdir() if p.is_dir()) if FOLDER.is_dir() else []
    result = {
        "proof": "oracles",
        "passed": not failures,
        "quick": arguments.quick,
        "files": {name: len(list((FOLDER / name).glob("*.npz"))) for name in folders},
        "values_compared": sum(COMPARED.values()),
        "values_per_test_file": dict(sorted(COMPARED.items())),
        "tests": dict(sorted(recorder.outcomes.items())),
        "skipped": recorder.skipped,
        "seconds": time.perf_counter() - began,
    }
    write_json(arguments.json, result)
    print(json.dumps(result, indent=2))
    for line in failures:
        print("FAILED", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
