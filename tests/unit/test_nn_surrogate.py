"""Surrogates: the declared derivative is that of the declared smooth function, and of snntorch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuro.errors import BadConfig
from neuro.nn.surrogate import SURROGATES, ForeignSurrogate, Surrogate, surrogate

X = torch.linspace(-2.0, 2.0, 801, dtype=torch.float64) + 1e-4  # not on a kink


def phi(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))


# smooth functions whose slope each surrogate claims to be; written without looking at the code
PRIMITIVE = {
    "fast_sigmoid": lambda x, a: x / (1.0 + a * abs(x)),
    "superspike": lambda x, a: x / (1.0 + a * abs(x)),
    "atan": lambda x, a: math.atan(math.pi / 2.0 * a * x) / math.pi + 0.5,
    "triangle": lambda x, a: (
        min(max(0.5 + a * x - 0.5 * a * a * x * abs(x), 0.0), 1.0) if abs(a * x) < 1 else float(x > 0)
    ),
    "sigmoid": lambda x, a: 1.0 / (1.0 + math.exp(-a * x)),
    "gaussian": lambda x, a: phi(a * x),
    "straight_through": lambda x, a: a * x,
    "multi_gaussian": lambda x, a: (
        0.5 * (1.15 * phi(a * x) - 0.15 * (phi((a * x - 1.0) / 6.0) + phi((a * x + 1.0) / 6.0)))
    ),
}


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("alpha", [0.7, 3.0])
def test_derivative_is_the_slope_of_its_primitive(name: str, alpha: float) -> None:
    step = 1e-5
    slope = [(PRIMITIVE[name](x + step, alpha) - PRIMITIVE[name](x - step, alpha)) / (2 * step) for x in X.tolist()]
    h = surrogate(name, alpha=alpha).derivative(X)
    np.testing.assert_allclose(h.numpy(), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SURROGATES)
def test_spikes_are_strict_and_the_gradient_is_h(name: str) -> None:
    x = torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0], dtype=torch.float64, requires_grad=True)
    f = surrogate(name)
    spikes = f(x)
    assert spikes.tolist() == [0, 0, 0, 1, 1]
    upstream = torch.tensor([1.0, -2.0, 3.0, 0.5, 1.5], dtype=torch.float64)
    spikes.backward(upstream)
    torch.testing.assert_close(x.grad, upstream * f.derivative(x.detach()))


def test_rows_say_what_they_are() -> None:
    assert set(SURROGATES) == {
        "fast_sigmoid", "atan", "triangle", "superspike", "sigmoid", "gaussian", "straight_through", "multi_gaussian"
    }  # fmt: skip
    for row in SURROGATES.values():
        assert row.equation.startswith("h = ")
        assert any(c.isdigit() for c in row.source), "a source has a year"
        assert row.alpha > 0


@pytest.mark.parametrize(
    ("which", "alpha", "message"),
    [
        ("fast_sigmoi", None, "Did you mean 'fast_sigmoid'"),
        ("atan", 0.0, "positive"),
        ("atan", -1.0, "positive"),
        ("atan", math.nan, "positive"),
        ("atan", math.inf, "positive"),
        ("atan", True, "positive"),
        (3, None, "name or a callable"),
        (torch.sigmoid, 2.0, "its own"),
    ],
)
def test_bad_surrogates(which: object, alpha: float | None, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        surrogate(which, alpha)  # type: ignore[arg-type]


def test_a_callable_plugs_in() -> None:
    class Cubic(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.pow(3)

    f = surrogate(Cubic.apply)
    assert isinstance(f, ForeignSurrogate)
    torch.testing.assert_close(f.derivative(X), X**3)
    assert surrogate(f) is f
    assert isinstance(surrogate("atan"), Surrogate)


SNNTORCH = [
    ("fast_sigmoid", "fast_sigmoid", "slope", 25.0),
    ("superspike", "fast_sigmoid", "slope", 100.0),
    ("atan", "atan", "alpha", 2.0),
    ("sigmoid", "sigmoid", "slope", 25.0),
    ("straight_through", "straight_through_estimator", None, 1.0),
]


@pytest.mark.snntorch
@pytest.mark.parametrize(("ours", "theirs", "argument", "value"), SNNTORCH)
def test_same_as_snntorch(ours: str, theirs: str, argument: str | None, value: float) -> None:
    try:
        from snntorch import surrogate as foreign
    except ImportError:
        pytest.skip("needs snntorch")
    make = getattr(foreign, theirs)
    f = make(**({argument: value} if argument else {}))
    mine = surrogate(ours, value)
    x = X.float()
    torch.testing.assert_close(mine.derivative(x), surrogate(f).derivative(x), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mine(x), f(x).to(x.dtype))
