"""`neuro report`: one self-contained HTML page of everything that a folder's runs, deployments and sweeps measured.

The page needs no network and no other file: style, script and pictures are in it. It computes nothing: every figure
stands in a file of the folder, which the page names. Without scripts, and in print, all of it is shown one below the
other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuro.errors import RunError
from neuro.files import atomic_path
from neuro.page import charts
from neuro.page.gather import Folder, gather
from neuro.report import percent, si, spread

__all__ = ["gather", "render", "write"]


def write(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a folder; default FOLDER/report.html.

    Raises:
        RunError: the folder holds no run, deployment or sweep; a file of it cannot be read (all of them).
    """
    folder = Path(folder)
    found = gather(folder)
    target = folder / "report.html" if out is None else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = render(found)
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")
    return target


def render(found: Folder) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if not (found.runs or found.deployments or found.sweeps):
        raise RunError(
            f"{found.path} holds no run, deployment or sweep; give the --out of neuro train, deploy or sweep"
        )
    environment = Environment(
        loader=PackageLoader("neuro.page", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"si": si, "spread": spread, "percent": percent, "number": _number}
    environment.globals |= {"charts": charts}
    return environment.get_template("page.html.j2").render(
        found=found, css=_own("page.css"), js=_own("page.js"), title=f"axonport: {found.path.resolve().name}"
    )


def _own(name: str) -> Any:
    from markupsafe import Markup

    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))  # noqa: S704  # ours, not the user's


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"
