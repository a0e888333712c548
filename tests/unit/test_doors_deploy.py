"""One cell of a notebook: a module of another framework and arrays in, chips and tables out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from axon_doors import fake

import neuro
from neuro import ir
from neuro.arrays import as_event_set
from neuro.doors.choose import network_of
from neuro.errors import BadEventFile, ConversionError
from neuro.html_tables import table


def arrays() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 8)
    x = (rng.random((20, 8, 3)) < 0.1).astype(np.uint8)
    x[:, np.arange(8), labels] |= (rng.random((20, 8)) < 0.7).astype(np.uint8)
    return x, labels


def module() -> torch.nn.Module:
    layer = torch.nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(1.5 * torch.eye(3))
    return torch.nn.Sequential(layer, fake("spikingjelly", "IFNode", 3)).double()


def test_arrays_become_the_same_arrays_again() -> None:
    x, labels = arrays()
    x = x * np.random.default_rng(1).integers(1, 4, x.shape).astype(np.uint8)
    for dt in (1e-3, 1e-4, 0.3):
        data = as_event_set((torch.from_numpy(x), labels.tolist()), dt)
        assert np.array_equal(data.batch(range(8), dt, 20, high=255), x)
        assert np.array_equal(data.labels, labels)
        assert as_event_set(data, dt) is data


@pytest.mark.parametrize(
    ("x", "labels", "said"),
    [
        (np.ones((4, 2)), [0, 1], r"must be \[time, sample"),
        (np.ones((4, 2, 3)), [0, 1, 2], r"labels must be \[2\]"),
        (np.full((4, 2, 3), 0.5), [0, 1], "whole numbers: 0 and 1, or counts"),
        (np.full((4, 2, 3), 256), [0, 1], r"0\.\.255, found 256"),
        (np.ones((4, 2, 3)), [0.5, 1], "labels must be whole"),
    ],
)
def test_arrays_that_are_no_spikes_are_refused(x: Any, labels: Any, said: str) -> None:
    with pytest.raises(BadEventFile, match=said):
        as_event_set((x, labels), 1e-3)
    with pytest.raises(BadEventFile, match="a pair"):
        as_event_set(x, 1e-3)


def test_a_module_and_arrays_are_deployed() -> None:
    report = neuro.deploy(module(), arrays(), chips=("loihi2", "truenorth"), certify_samples=0)
    assert report.samples == 8
    assert report.steps == 20
    assert all(chip.fits for chip in report.chips.values())
    assert report.float_accuracy == report.chips["loihi2"].accuracy > 0.8
    html = report._repr_html_()
    assert rows(html)[1:] == [["loihi2", *rows(html)[1][1:]], ["truenorth", *rows(html)[2][1:]]]
    assert "not run" in rows(html)[1][3]


def test_what_is_no_model_is_refused() -> None:
    x, _ = arrays()
    with pytest.raises(ConversionError, match="no neuron that a door knows"):
        network_of(torch.nn.Linear(3, 3), x, 1e-3)
    with pytest.raises(ConversionError, match="got int"):
        network_of(3, x, 1e-3)
    both = torch.nn.Sequential(fake("spikingjelly", "IFNode", 3), fake("norse", "IAFCell", 3))
    with pytest.raises(ConversionError, match="neurons of norse and spikingjelly"):
        network_of(both, x, 1e-3)


class Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def rows(html: str) -> list[list[str]]:
    parser = Rows()
    parser.feed(html)
    assert not parser.open
    return parser.rows


def test_a_network_is_a_table_in_a_notebook() -> None:
    nodes = {"i": ir.Input((2,)), "<w>": ir.Linear(np.eye(2)), "n": ir.IF(1.0), "o": ir.Output()}
    html = ir.chain(nodes, 1e-3)._repr_html_()
    assert [r[:3] for r in rows(html)][1:3] == [["i", "Input", "2"], ["<w>", "Linear", "2"]]
    assert not re.search("<w>", html)  # it is a text, not a tag


def test_estimate_and_certificate_are_tables() -> None:
    from neuro.hardware import compile, estimate, simulate
    from neuro.hardware.certify import certify

    network = network_of(module(), arrays()[0], 1e-3)
    program = compile(network, "truenorth", max_steps=20)
    x = arrays()[0][:, :2]
    found = estimate(simulate(program, x), program)
    assert rows(found._repr_html_())[1][0] == "event energy"
    judged = certify(program, x)
    assert ["values compared", f"{judged.compared:,}"] in rows(judged._repr_html_())


def test_cells_say_numbers_and_nothing() -> None:
    assert rows(table(("a", "b"), [(1234, None), (0.5, "x")], "t")) == [["a", "b"], ["1,234", ""], ["0.5", "x"]]
