"""Law: whatever the program, Lava's own process models compute the same u, v and spikes as our kernels."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from lava_programs import needs_lava
from lava_random import describe, random_program

from neuro.hardware.certify import certify
from neuro.hardware.export.lava_folder import STATES

pytestmark = [pytest.mark.lava, needs_lava]


@given(st.data())
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # the programs are small; shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_program_is_bit_exact_with_lavas_process_models(data):
    program, dense = random_program(lambda low, high: data.draw(st.integers(low, high)))
    note(describe(program))
    certificate = certify(program, dense, oracle="lava-inprocess")
    assert certificate.status == "passed", certificate
    assert certificate.mismatches == 0
    values = sum(p.size * len(STATES[p.model]) for p in program.populations.values() if p.model != "input")
    assert certificate.compared == values * (len(dense) + program.depth) * dense.shape[1]
