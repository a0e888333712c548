"""A folder as `neuro deploy` and `sweep` leave it, with figures made up: what a page shows, not what is true."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from neuro.views import raster, view

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def ranged(nominal: float) -> dict[str, float]:
    return {"low": nominal / 2, "nominal": nominal, "high": 3 * nominal}


def chip(name: str, seed: int) -> dict[str, Any]:
    source = {"quantity": "energy.synop", "value": 2e-11, "low": 1e-11, "high": 3e-11, "unit": "J", "grade": "assumed"}
    return {
        "chip": name, "fits": True, "violations": [], "substitutions": ["a reset by subtraction became one to zero"],
        "accuracy": 0.9, "samples": 20, "agrees_with_float": 0.95,
        "matches": {"status": "passed", "oracle": "x", "title": "an oracle", "version": "1", "compared": 123456,
                    "mismatches": 0, "samples": 2, "steps": 50, "reason": ""},
        "energy_j": ranged(1e-6 * (seed + 1)), "latency_s": ranged(1e-3),
        "estimate": {"regime": "free-running", "causes": {"synop": ranged(1e-6), "hop": ranged(2e-8)},
                     "time_causes": {"barrier": ranged(1e-4)}, "boundaries": {"events": ranged(1e-6)},
                     "sources": [{**source, "source": "somebody2020", "note": "a <b>note</b>"}],
                     "rests_on": ["energy.synop"]},
        "utilisation": {"cores": 2, "neurons": 40, "synapses": 300}, "counters": {"synops": 1234.5, "spikes": 17.0},
        "quantisation": [{"node": "hidden", "quantity": "weight", "scale": 0.01, "max_error": 0.005, "rms_error": 0.002,
                          "note": ""}],
        "warnings": [], "not_modelled": ["the weather"],
        "files": {"nir": f"{name}/network.nir", "view": f"{name}/view.json", "floorplan": f"{name}_floorplan.png"},
    }  # fmt: skip


def folder(place: Path, seed: int = 0) -> Path:
    """A deployment and a sweep. One chip refuses; names hold what HTML would misread."""
    rng = np.random.default_rng(seed)
    deploy = place / "deploy"
    broken = {"node": "hidden<script>alert(1)</script>", "limit": "neurons", "wanted": 9, "allowed": 4}
    refusing = {"chip": "small", "fits": False, "files": {}, "violations": [{**broken, "remedy": "Split it."}]}
    chips = {"loihi2": chip("loihi2", seed), "spinnaker1": chip("spinnaker1", 5), "small": refusing}
    for name in ("loihi2", "spinnaker1"):
        (deploy / name).mkdir(parents=True)
        (deploy / f"{name}_floorplan.png").write_bytes(PIXEL)
        labels = rng.integers(0, 3, 20)
        trains = {"input": rng.random((50, 12)) < 0.1, "hidden": rng.random((50, 40)) < 0.05}
        shown = raster(trains, 1e-3, 4, 1, 2)
        written = view(["a & b", "c", "d"], labels, rng.integers(0, 3, 20), labels, shown)
        (deploy / name / "view.json").write_text(json.dumps(written))
    report = {"dataset": "made-up", "samples": 20, "steps": 50, "dt": 1e-3, "seed": seed, "versions": {"python": "3"},
              "float_accuracy": 0.92, "chips": chips}  # fmt: skip
    (deploy / "report.json").write_text(json.dumps(report))
    one = {"fits": True, "latency_s": ranged(1e-3), "pareto": True, "error": None, "violations": []}
    rows = [
        {
            "point": {"chip": "loihi2", "steps": k},
            **one,
            "accuracy": 0.8 + k / 50,
            "energy_j": ranged(1e-6 * k),
            "cores": k,
        }
        for k in (1, 2, 3)
    ]
    (place / "sweep").mkdir()
    (place / "sweep" / "sweep.json").write_text(json.dumps({"rows": rows}))
    return place
