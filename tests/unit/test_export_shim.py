"""lava-nc on a Python and a NumPy it was not made for, without traces in the interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lava_programs import needs_lava

from neuro.errors import MissingExtra, OracleError
from neuro.hardware.export import lava_shim

FRESH = """
import dataclasses, multiprocessing, sys
before = dataclasses.dataclass
from neuro.hardware.export.lava_shim import available, import_lava
assert available()
assert not any(m == "lava" or m.startswith("lava.") for m in sys.modules), "available() imported lava"
import_lava()
import_lava()
assert dataclasses.dataclass is before
assert multiprocessing.get_start_method(allow_none=True) is None
try:
    @dataclasses.dataclass
    class Bad:
        x: list = []
except ValueError:
    pass
else:
    raise SystemExit("dataclass was left changed")
multiprocessing.set_start_method("spawn")
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.conv.models import PyConvModelFixed
assert multiprocessing.get_start_method() == "spawn"
import numpy
from lava.proc.io.source import RingBuffer
port = RingBuffer(data=numpy.zeros((4, 3, 2, 1))).s_out.reshape((24,))
assert port.get_transform_func_fwd()(numpy.zeros((4, 3, 2))).shape == (24,)
"""


@pytest.mark.lava
@needs_lava
def test_in_a_fresh_interpreter_lava_imports_and_everything_else_is_as_before():
    done = subprocess.run([sys.executable, "-W", "error", "-c", FRESH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_missing_lava_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "lava", None)
    assert not lava_shim.available()
    with pytest.raises(MissingExtra, match=r"pip install --no-deps --ignore-requires-python lava-nc==0\.10\.0"):
        lava_shim.import_lava()


def test_another_version_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(lava_shim, "lava_version", lambda: "0.9.0")
    assert not lava_shim.available()
    with pytest.raises(OracleError, match=r"lava-nc 0\.9\.0 is installed, only 0\.10\.0"):
        lava_shim.import_lava()
