"""The trainer waits for data less than 5 % of its time.

    python tests/proofs/data_path.py [--quick] [--json OUT]

`neuro.train.loop.fit` trains three presets as they are, on their own recordings: nmnist (elastic and affine
augmentation of every event), braille (signals varied anew in every epoch), digits (voices varied anew in every epoch).
Of every epoch's training, from asking for its recordings to its last optimiser step, the clock counts the time that
the trainer stands still: until the recordings are there, and until each batch is. The first epoch (which loads files
and code) is reported, not judged. Also reported: what the data of an epoch cost when nothing else runs, and how many
events a second that is.

Exits 1 where the trainer waits for 5 % or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from neuro.deployment import versions
from neuro.events import EventSet
from neuro.files import write_json
from neuro.train import loop
from neuro.train.config import TrainConfig, load_config
from neuro.train.data import Recordings

ROOT = Path(__file__).parents[2]
PRESETS = ("nmnist", "braille", "digits")
EPOCHS, QUICK_EPOCHS = 8, 3
ALLOWED = 0.05


class Watched(Recordings):
    """`Recordings` that notes how long the trainer waits. waited, trained: seconds of each epoch."""

    waited: list[float] = []  # noqa: RUF012  one run at a time
    trained: list[float] = []  # noqa: RUF012

    def train(self, epoch: int, ahead: bool = False) -> EventSet:
        began = time.perf_counter()
        found = super().train(epoch, ahead)
        self.asked = began, time.perf_counter() - began
        return found

    def batches(
        self, data: EventSet, config: TrainConfig, epoch: int, threads: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        began, waited = self.asked
        running = super().batches(data, config, epoch, threads)
        while True:
            asked = time.perf_counter()
            batch = next(running, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            yield batch
        self.waited.append(waited)
        self.trained.append(time.perf_counter() - began)


def alone(recordings: Recordings, config: TrainConfig) -> dict[str, float]:
    """What an epoch's data cost by themselves, in the fastest of three epochs, with one thread."""
    best, events = float("inf"), 0
    for epoch in range(1, 4):
        began = time.perf_counter()
        data = recordings.train(epoch)
        for _ in recordings.batches(data, config, epoch):
            pass
        best, events = min(best, time.perf_counter() - began), len(data.times)
    return {"seconds": best, "events": float(events), "events_per_second": events / best}


def watch(preset: str, quick: bool, folder: Path) -> dict[str, Any]:
    epochs = QUICK_EPOCHS if quick else EPOCHS
    config = load_config(preset).with_changes(**{"train.epochs": epochs, "quantise": None})
    Watched.waited, Watched.trained = [], []
    original = loop.Recordings
    loop.Recordings = Watched  # type: ignore[misc]
    try:
        loop.fit(config, folder / preset)
    finally:
        loop.Recordings = original  # type: ignore[misc]
    waited, trained = Watched.waited[:epochs], Watched.trained[:epochs]  # a recalibration may come after them
    return {
        "share": sum(waited[1:]) / sum(trained[1:]),
        "share_first": waited[0] / trained[0],
        "epoch_seconds": statistics.median(trained[1:]),
        "waited_seconds": statistics.median(waited[1:]),
        "data_alone": alone(Recordings(config.data, config.seed), config.train),
        "waited": waited,
        "trained": trained,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three epochs instead of eight")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "data_path.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = {preset: watch(preset, args.quick, Path(temporary)) for preset in PRESETS}
    checks = {f"{name}: waits less than {ALLOWED:.0%}": row["share"] < ALLOWED for name, row in rows.items()}
    for name, row in rows.items():
        cost = row["data_alone"]
        print(
            f"{name}: waits {row['share']:.2%} (first epoch {row['share_first']:.2%}) of {row['epoch_seconds']:.2f} s "
            f"an epoch; its data alone {cost['seconds']:.3f} s, {cost['events_per_second'] / 1e6:.0f} M events/s",
            flush=True,
        )
    result = {"proof": "data_path", "passed": all(checks.values()), "quick": args.quick, "versions": versions()}
    write_json(args.json, result | {"checks": checks, "presets": rows})
    print(json.dumps(checks, indent=2))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
