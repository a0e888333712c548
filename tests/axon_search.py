"""A problem for `neuro.search` whose answer is known at once: a trade between a curve and its cost."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Toy:
    """Accuracy grows with width and bits, so do energy and cores; chip "b" refuses what is wide. pause_s: of a trial.
    log: a file that gets a line for each measurement. die_at: the process ends at this width and 4 bits, unless the
    file ``mark`` exists."""

    shift: float = 0.0
    pause_s: float = 0.0
    log: str = ""
    die_at: int = 0
    mark: str = ""
    unknown: bool = False
    name: str = "toy"

    @property
    def digest(self) -> str:
        return f"toy {self.shift} {self.unknown}"

    @property
    def space(self) -> Mapping[str, tuple[Any, ...]]:
        return {"width": tuple(range(1, 17)), "bits": (2, 3, 4, 6, 8), "chip": ("a", "b", "c")}

    def measure(self, point: Mapping[str, Any], split: str) -> dict[str, Any]:
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {split}\n")
        if self.die_at and point["width"] >= self.die_at and not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(9)
        time.sleep(self.pause_s)
        row: dict[str, Any] = {"point": dict(point), "fits": False, "error": "", "violations": [], "pareto": False}
        row |= {"accuracy": None, "energy_j": None, "latency_s": None, "cores": None}
        width, bits, chip = point["width"], point["bits"], point["chip"]
        if chip == "b" and width > 10:
            return row | {"violations": [f"'hidden': width is {width}, allowed 10"]}
        gain = {"a": 1.0, "b": 0.5, "c": 2.0}[chip]
        energy = 1e-6 * width * bits * gain * (1 + 0.3 * math.sin(width + bits))
        cost = {k: energy * f for k, f in (("low", 0.5), ("nominal", 1.0), ("high", 2.0))}
        found = {"accuracy": 1 - math.exp(-width * bits / 40 - self.shift), "energy_j": None if self.unknown else cost}
        quick = {k: v * 10 / gain for k, v in cost.items()}
        return row | found | {"fits": True, "latency_s": quick, "cores": 1 + width // 4, "split": split}
