"""Exporter "nir": a `Network` as a NIR file, lossless for what NIR can say."""

from __future__ import annotations

from pathlib import Path

from neuro.hardware.export import Exporter
from neuro.ir import Network


def write(network: Network, path: Path | str) -> Path:
    """Write one NIR file.

    Raises:
        FormatError, NetworkError: NIR cannot say it; see `neuro.nir.save`.
    """
    from neuro.nir import save

    path = Path(path)
    save(network, path)
    return path


EXPORTER = Exporter("nir", "NIR graph (HDF5) of the float network", "network", write)
