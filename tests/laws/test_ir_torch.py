"""Law: the reference and torch, which share no code, give any network the same meaning."""

from __future__ import annotations

import numpy as np
import pytest
from axon_strategies import LAW, inputs, networks
from hypothesis import assume, given
from hypothesis import strategies as st

from neuro import ir, reference

torch = pytest.importorskip("torch", reason="needs torch")


def near_threshold(net: ir.Network, record: reference.Record) -> bool:
    """Whether the last bit of a sum could decide on a spike."""
    limits = {n: getattr(net.nodes[n], "v_threshold", np.inf) for n in record.v}
    return any((np.abs(v - limits[n]) < 1e-9).any() for n, v in record.v.items())


@LAW
@given(st.data())
def test_any_network_means_the_same_to_torch(data: st.DataObject) -> None:
    from neuro.nn.bridge import to_module, to_network

    net = data.draw(networks())
    x = data.draw(inputs(net))
    record = reference.run(net, x)
    assume(not near_threshold(net, record))
    module = to_module(net, torch.float64).eval()
    spikes: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        out = module(torch.from_numpy(x), spikes)
    wanted = record.answers["output"]
    np.testing.assert_allclose(out.numpy().reshape(wanted.shape), wanted, rtol=1e-9, atol=1e-9)
    for name, theirs in spikes.items():
        np.testing.assert_array_equal(theirs.numpy(), record.spikes[name], err_msg=name)
    again = to_network(module)
    np.testing.assert_allclose(reference.run(again, x).answers[again.output], wanted, rtol=1e-9, atol=1e-9)
