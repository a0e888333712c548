"""The public lists are honest: what is documented exists, loads, and is all there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", ["neuro", "neuro.hardware"])
def test_every_public_name_loads(module: str) -> None:
    package = importlib.import_module(module)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert sorted(package.__all__) == list(package.__all__)
    assert set(dir(package)) >= set(package.__all__)


@pytest.mark.parametrize("module", ["neuro", "neuro.hardware"])
def test_documented_list_equals_all(module: str) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    section = re.search(rf"^## `{re.escape(module)}`$(.*?)(?=^## |\Z)", text, flags=re.S | re.M)
    assert section, f"docs/api.md has no section for {module}"
    documented = re.findall(r"^\| `([\w]+)", section.group(1), flags=re.M)
    assert sorted(documented) == sorted(importlib.import_module(module).__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    import neuro

    with pytest.raises(AttributeError, match="nonsense"):
        neuro.nonsense  # noqa: B018


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    from neuro import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.NeuroError)]
    assert len(classes) > 10
    for cls in classes:
        assert re.search(rf"\b{cls.__name__}\b", errors.__doc__ or ""), f"{cls.__name__} is missing from the tree"
        assert cls.__doc__


def test_every_plugin_of_ours_loads() -> None:
    from neuro import extend

    for group in ("neuro.chips", "neuro.datasets", "neuro.exporters"):
        found = extend.plugins(group)
        assert found, f"{group} is empty: reinstall with pip install -e ."
        for name in found:
            assert extend.load_plugin(group, name) is not None


def test_unknown_plugin_suggests() -> None:
    from neuro.errors import UnknownChip
    from neuro.hardware.target import load_target

    with pytest.raises(UnknownChip, match="Did you mean 'loihi2'"):
        load_target("loihi_2")
