"""Train a small CNN in plain torch, convert it, and hold two chips' integers against it.

Expect: above 90 % on digits it has not seen, the spiking network equal to the quantised one in every value from some
step on, and Loihi 2 and Akida 2 without a single different value; about a minute.
"""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

import neuro
from neuro.conversion_chips import certify_on_chip, lower_for
from neuro.conversion_data import samples
from neuro.convert.regrid import in_levels

LEVELS, BITS = 3, 4


class Net(nn.Module):
    """Nothing here knows of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)
        self.last = nn.Linear(16 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = fn.relu(self.norm(self.first(x)))
        return self.last(fn.relu(self.second(x)).flatten(1))  # type: ignore[no-any-return]


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Adam, as anywhere."""
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(x), generator=order), 64):
            loss = fn.cross_entropy(model(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()


def main(epochs: int = 3, test: int = 200) -> dict[str, float]:
    """Convert and certify; returns what the test of this example checks."""
    torch.manual_seed(0)
    digits = samples("mnist")
    assert digits.y is not None
    assert digits.test_y is not None
    model = Net()
    train(model, digits.x.float(), digits.y, epochs)
    found = neuro.convert_model(
        model, "mnist", levels=LEVELS, weight_bits=BITS, steps=8, recipe="st_bif", chip="loihi2", epochs=2,
        test_samples=test,
    )  # fmt: skip
    print(found)
    own = in_levels(found.quantised)  # scales rounded to Akida 2's own numbers
    akida = certify_on_chip(
        lower_for(own, "akida2"), "akida2", digits.test_x[:test], digits.test_y[:test], weight_bits=4
    )
    print(akida)
    loihi = found.chips["loihi2"]
    return {
        "original": found.certificate.original,
        "quantised": found.certificate.quantised,
        "loihi2": loihi.accuracy or 0.0,
        "different": loihi.differ + akida.differ,
        "equal_from": found.certificate.equal_values or 0,
    }


if __name__ == "__main__":
    main()
