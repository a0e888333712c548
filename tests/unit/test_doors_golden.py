"""Networks from Norse, SpikingJelly and sinabs fire the spikes that the frameworks fired (tests/golden/doors)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from axon_doors import CASES, fake, stand_in

import neuro
from neuro import reference
from neuro.errors import ConversionError, UnsupportedLayer
from neuro.nn.bridge import to_module

GOLDEN = Path(__file__).parents[1] / "golden" / "doors"


@pytest.mark.parametrize(("framework", "name"), CASES, ids=["-".join(case) for case in CASES])
def test_spikes_are_those_of_the_framework(framework: str, name: str) -> None:
    with np.load(GOLDEN / f"{framework}.npz") as file:
        golden = dict(file)
    x, table = golden["input"], {k: golden[k] for k in ("first", "second", "recurrent")}
    door = getattr(neuro, f"from_{framework}")
    sample = torch.zeros(*((4, 3) if framework == "sinabs" else (4,)), 12, dtype=torch.float64)
    network = door(stand_in(framework, name, table), sample, axes="BT" if framework == "sinabs" else "B")
    run = reference.run(network, x)
    names = [n for n in network.order if getattr(network.nodes[n], "spiking", False)]
    assert len(names) == 2
    for k, neuron in enumerate(names):
        spikes = run.spikes[neuron]
        wanted = np.unpackbits(golden[f"{name}_{k}"], count=spikes.size).reshape(spikes.shape)
        assert wanted.any()
        assert not wanted.all()
        assert np.array_equal(spikes, wanted), f"{neuron}: {(spikes != wanted).sum()} of {wanted.size} differ"
    with torch.no_grad():
        answers = to_module(network, torch.float64)(torch.from_numpy(x).double())
    assert np.array_equal(answers, wanted)


def _one(framework: str, kind: str, **given: object) -> torch.nn.Module:
    return torch.nn.Sequential(fake(framework, kind, 3, **given))


def test_tau_in_steps_is_eulers_in_spikingjelly_and_an_exponential_in_sinabs() -> None:
    jelly = neuro.from_spikingjelly(_one("spikingjelly", "LIFNode", tau=2.0), torch.zeros(1, 3), axes="B")
    sinabs = neuro.from_sinabs(_one("sinabs", "LIF", tau_mem=2.0), torch.zeros(1, 1, 3), axes="BT")
    kept = [_kept(network) for network in (jelly, sinabs)]
    assert kept == pytest.approx([0.5, np.exp(-0.5)], abs=1e-15)


def _kept(network: neuro.Network) -> float:
    from neuro.discretise import coefficients

    (name,) = [n for n in network.order if getattr(network.nodes[n], "spiking", False)]
    node = network.nodes[name]
    return float(coefficients(node, network.dt, network.discretisation).beta[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("precision", "dtype"), [("float64", torch.float64), ("float32", torch.float32)])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_a_membrane_exactly_at_the_threshold_fires(precision: str, dtype: torch.dtype, v_reset: float | None) -> None:
    module = _one("spikingjelly", "IFNode", v_reset=v_reset)
    network = neuro.from_spikingjelly(module, torch.zeros(1, 3), axes="B", precision=precision)
    x = torch.ones(6, 1, 3, dtype=dtype)
    assert np.array_equal(to_module(network, dtype)(x), x)  # v = 1 = theta in every step


def test_norses_step_is_kept_under_another_dt() -> None:
    networks = [
        neuro.from_norse(_one("norse", "LIFBoxCell", tau_mem_inv=100.0), torch.zeros(1, 3), axes="B", dt=dt)
        for dt in (None, 1e-4)
    ]
    assert [n.dt for n in networks] == [1e-3, 1e-4]
    assert _kept(networks[0]) == pytest.approx(_kept(networks[1]), abs=1e-15)


@pytest.mark.parametrize(
    ("framework", "kind", "given", "said"),
    [
        ("sinabs", "LIF", {"tau_mem": 5.0, "floor": -1.0}, "min_v_mem=None"),
        ("sinabs", "LIF", {"tau_mem": 5.0, "fires": "MultiSpike"}, "spike_fn=sinabs.activation.SingleSpike"),
        ("norse", "LIFBoxCell", {"subtract": True, "v_leak": 0.5}, "set v_leak=0"),
        ("spikingjelly", "CUBALIFNode", {"c_decay": 0.5, "v_decay": 0.5, "v_reset": 0.5}, "v_reset"),
        ("spikingjelly", "QIFNode", {}, "not known here; known: IFNode"),
    ],
)
def test_what_cannot_be_the_same_is_refused_with_the_remedy(
    framework: str, kind: str, given: dict[str, object], said: str
) -> None:
    floor, fires = given.pop("floor", None), given.pop("fires", None)
    neuron = fake(framework, kind, 3, **given)
    if floor is not None:
        neuron.min_v_mem = torch.tensor(floor)
    if fires is not None:
        neuron.spike_fn = type(str(fires), (), {})
    # beside a neuron that is known; Norse's return pairs, which nn.Sequential cannot hand on
    known = {"sinabs": ["IAF"], "spikingjelly": ["IFNode"], "norse": []}[framework]
    layers = [*(fake(framework, kind, 3) for kind in known), neuron]
    sample = torch.zeros(*((1, 1) if framework == "sinabs" else (1,)), 3, dtype=torch.float64)
    with pytest.raises(UnsupportedLayer, match=said):
        getattr(neuro, f"from_{framework}")(
            torch.nn.Sequential(*layers), sample, axes="BT" if framework == "sinabs" else "B"
        )


def test_a_module_of_another_framework_and_a_wrong_precision_are_refused() -> None:
    with pytest.raises(UnsupportedLayer, match=r"no neuron of Norse.*LIFNode"):
        neuro.from_norse(_one("spikingjelly", "LIFNode", tau=2.0), torch.zeros(1, 3))
    with pytest.raises(UnsupportedLayer, match="precision must be one of"):
        neuro.from_spikingjelly(_one("spikingjelly", "IFNode"), torch.zeros(1, 3), axes="B", precision="half")
    with pytest.raises(ConversionError, match="axes must be one of"):
        neuro.from_spikingjelly(_one("spikingjelly", "IFNode"), torch.zeros(1, 3), axes="TBC")


class Summed(torch.nn.Module):
    """Spikes are summed over time; then perhaps a layer."""

    def __init__(self, after: torch.nn.Module) -> None:
        super().__init__()
        self.neuron, self.after = fake("spikingjelly", "IFNode", 3), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | float = 0.0
        for step in x:
            total = total + self.neuron(step)
        return self.after(total / len(x))  # type: ignore[no-any-return]


def test_what_comes_after_the_sum_over_time_is_not_dropped() -> None:
    x = torch.zeros(4, 2, 3, dtype=torch.float64)
    network = neuro.from_spikingjelly(Summed(torch.nn.Identity()), x)
    assert network.nodes[network.output].readout == "count"  # type: ignore[attr-defined]
    layer = torch.nn.Linear(3, 2).double()
    with pytest.raises(UnsupportedLayer, match=r"'after' \(Linear\) takes what is summed over time"):
        neuro.from_spikingjelly(Summed(layer), x)
