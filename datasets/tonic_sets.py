"""Published data sets that tonic downloads: one row each. A path takes the files without tonic.

``load(split)`` downloads through tonic (pip install 'axonport[tonic]') once, into the cache folder
(`neuro.datasets.source.cache_folder`); ``load(split, path)`` reads files that are there, in the layout of
their publisher or as tonic unpacks them (`neuro.datasets.layouts` says which). "train" and "valid" divide
the publisher's training set by speaker, user or recording where it has no validation set of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro.datasets import layouts
from neuro.datasets.collect import Collector, side
from neuro.datasets.source import Source, cache_folder
from neuro.errors import BadConfig, BadEventFile
from neuro.events import EventSet, Shape
from neuro.extend import require


@dataclass(frozen=True)
class Row:
    """What is particular to one data set.

    tonic_name: its class in tonic.datasets. parts: the publisher's parts -> arguments of that class.
    reader: see `neuro.datasets.layouts`. duration: seconds, None for the last event's.
    """

    name: str
    tonic_name: str
    parts: Mapping[str, Mapping[str, object]] = field(repr=False)
    reader: Callable[[Path, str, layouts.Keep, Collector], list[str]] = field(repr=False)
    shape: Shape
    classes: tuple[str, ...] = field(repr=False)
    duration: float | None
    url: str

    def read(self, split: str, path: Path | None, **options: Any) -> EventSet:
        """The reader behind the `Source`."""
        if split == "test" and "test" not in self.parts and path is None:
            raise BadConfig(f"{self.name} has no test split of its own; load 'valid', or give recordings by path")
        wanted = list(self.parts) if split == "all" else [split if split in self.parts else "train"]
        divided = split in ("train", "valid") and "valid" not in self.parts

        def keep(group: int) -> bool:
            return not divided or bool(side(np.array([group]))[0]) == (split == "valid")

        collector = Collector()
        used = [file for part in wanted for file in self.reader(path or self._downloaded(part), part, keep, collector)]
        if not used:
            raise BadEventFile(f"{path}: no file of {self.name}, part {' or '.join(wanted)}. {self._layout()}")
        classes = self.classes if len(collector.classes) != len(self.classes) else tuple(collector.classes)
        return collector.finish(self.shape, self.duration, classes, self.name)

    def _layout(self) -> str:
        text = (self.reader.__doc__ or "").split("\n\n")[0]
        return f"Known layout: {' '.join(text.split())}"

    def _downloaded(self, part: str) -> Path:
        """Folder with one part of the set; downloaded into a folder beside it and renamed when whole."""
        target = cache_folder() / self.name / part
        if target.is_dir():
            return target
        maker = getattr(require("tonic.datasets", "tonic"), self.tonic_name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{part}.") as temporary:
            try:
                maker(save_to=temporary, **self.parts[part])
            except Exception as cause:  # urllib, requests, tarfile, zipfile, h5py, and tonic's own RuntimeError
                raise BadEventFile(
                    f"{self.name} ({part}) cannot be downloaded by tonic ({type(cause).__name__}: {cause}). By hand: "
                    f"fetch it from {self.url} on a machine with network, unpack it, and load it with "
                    f"path=FOLDER. {self._layout()}"
                ) from cause
            try:
                os.replace(Path(temporary) / self.tonic_name, target)
            except OSError:
                if not target.is_dir():  # else another process was faster, and ours is not needed
                    raise
                shutil.rmtree(Path(temporary) / self.tonic_name, ignore_errors=True)
        return target


TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}
GERMAN_AND_ENGLISH = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun"),
)
GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other"),
)


def _source(row: Row, *, title: str, licence: str, citation: str, dt: float, steps: int) -> Source:
    return Source(row.name, title, licence, citation, row.url, row.shape, row.classes, dt, steps, row.read)


NMNIST_FULL = _source(
    Row(
        "nmnist_full",
        "NMNIST",
        TRAIN_TEST,
        layouts.nmnist,
        layouts.NMNIST,
        tuple("0123456789"),
        0.32,
        "https://doi.org/10.17632/468j46mzdv.1",
    ),
    title="N-MNIST, all 70,000 recordings",
    licence="CC BY-SA 4.0",
    citation="Orchard et al. 2015, Front. Neurosci. 9:437, doi:10.3389/fnins.2015.00437",
    dt=0.020,
    steps=15,
)
SHD = _source(
    Row(
        "shd",
        "SHD",
        TRAIN_TEST,
        layouts.shd,
        (layouts.HEIDELBERG,),
        GERMAN_AND_ENGLISH,
        1.4,
        "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    ),
    title="Spiking Heidelberg Digits, spoken digits through a cochlea model",
    licence="see url",
    citation="Cramer et al. 2020, IEEE TNNLS 33(7), doi:10.1109/TNNLS.2020.3044364",
    dt=0.010,
    steps=100,
)
SSC = _source(
    Row(
        "ssc",
        "SSC",
        {part: {"split": part} for part in ("train", "valid", "test")},
        layouts.ssc,
        (layouts.HEIDELBERG,),
        tuple(f"word {k}" for k in range(35)),  # the files name them
        1.0,
        "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    ),
    title="Spiking Speech Commands, 35 words through a cochlea model",
    licence="see url",
    citation="Cramer et al. 2020, IEEE TNNLS 33(7), doi:10.1109/TNNLS.2020.3044364",
    dt=0.010,
    steps=100,
)
DVS_GESTURE = _source(
    Row(
        "dvs_gesture",
        "DVSGesture",
        TRAIN_TEST,
        layouts.dvs_gesture,
        layouts.DVS128,
        GESTURES,
        None,
        "https://research.ibm.com/interactive/dvsgesture/",
    ),
    title="DVS Gesture, eleven gestures seen by an event camera",
    licence="CC BY 4.0",
    citation="Amir et al. 2017, CVPR, pp. 7243-7252",
    dt=0.020,
    steps=75,
)
CIFAR10_DVS = _source(
    Row(
        "cifar10_dvs",
        "CIFAR10DVS",
        {"train": {}},
        layouts.cifar10_dvs,
        layouts.DVS128,
        layouts.CIFAR10,
        None,
        "https://doi.org/10.6084/m9.figshare.4724671",
    ),
    title="CIFAR10-DVS, moving CIFAR-10 images seen by an event camera",
    licence="see url",
    citation="Li et al. 2017, Front. Neurosci. 11:309, doi:10.3389/fnins.2017.00309",
    dt=0.020,
    steps=65,
)
NTIDIGITS = _source(
    Row(
        "ntidigits",
        "NTIDIGITS18",
        TRAIN_TEST,
        layouts.ntidigits,
        (layouts.COCHLEA,),
        layouts.TIDIGITS,
        None,
        "https://docs.google.com/document/d/1Uxe7GsKKXcy6SlDUX4hoJVAC0-UkH-8kr5UXp0Ndi1M",
    ),
    title="N-TIDIGITS18, spoken digits through a silicon cochlea (single digits)",
    licence="not stated by the publisher; derived from TIDIGITS (LDC93S10)",
    citation="Anumula et al. 2018, Front. Neurosci. 12:23, doi:10.3389/fnins.2018.00023",
    dt=0.010,
    steps=100,
)
