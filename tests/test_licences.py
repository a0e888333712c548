"""What a plain install brings along may be used by anybody; what is copyleft is an extra, named here."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest

COPYLEFT = re.compile(r"\b(A?GPL|General Public License|CeCILL|EUPL|SSPL)", re.IGNORECASE)
# extras whose packages are copyleft: used where they are installed, no part of a plain install
KNOWN = {"faery": "LGPL-3.0, extra events", "sanafe": "GPL-3.0, extra sanafe", "pynn": "CeCILL-2.1, extra pynn"}
# of these the metadata names several licences, one of which is permissive
EITHER: dict[str, str] = {}


def needed(name: str, extras: frozenset[str], seen: dict[str, str]) -> None:
    """The packages that an installation needs, with what their metadata says of licences."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    key = canonicalize_name(name)
    if key in seen:
        return
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return  # for another platform or Python
    about = found.metadata
    classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License")]
    seen[key] = " ".join([about.get("License-Expression") or (about.get("License") or "")[:200], *classifiers])
    for text in found.requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in (extras or {""})):
            needed(wanted.name, frozenset(wanted.extras), seen)


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    seen: dict[str, str] = {}
    needed("axonport", frozenset({""}), seen)
    return seen


def test_a_plain_install_is_permissive(plain: dict[str, str]) -> None:
    assert {"numpy", "torch", "numba", "nir", "typer"} <= set(plain)
    strict = {n: said for n, said in plain.items() if COPYLEFT.search(said) and n not in EITHER}
    assert not strict


def test_copyleft_extras_are_extras(plain: dict[str, str]) -> None:
    assert not set(KNOWN) & set(plain)


def test_the_pattern_finds_what_it_should() -> None:
    assert COPYLEFT.search("GNU General Public License v3")
    assert COPYLEFT.search("AGPL-3.0-only")
    assert not COPYLEFT.search("BSD-3-Clause")
