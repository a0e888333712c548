"""Known holes in everything that is installed, and every licence. Exits 1 where a hole is known.

    python tests/audit.py SITE_PACKAGES

Asks the registries' database through pip-audit; a package that the database does not know, or cannot be asked about,
is counted and said, since an audit that saw nothing has found nothing. Run by `make audit` and in CI, from an
environment of its own, so that auditing installs nothing beside what is audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from importlib.metadata import distributions

PATIENCE_S = 120


def holes(place: str) -> tuple[list[str], int, int]:
    """(known holes, packages asked about, packages that could not be)."""
    command = [sys.executable, "-m", "pip_audit", "--path", place, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        rows = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return [], 0, len(list(distributions(path=[place])))
    asked = [r for r in rows if "skip_reason" not in r]
    found = [f"{r['name']} {r['version']}: {v['id']}, fixed in {v['fix_versions']}" for r in asked for v in r["vulns"]]
    return found, len(asked), len(rows) - len(asked)


def licences(place: str) -> Counter[str]:
    """Licence as each package states it, and how many state it."""
    stated: Counter[str] = Counter()
    for package in distributions(path=[place]):
        known = package.metadata.json
        classes = [c for c in known.get("classifier", ()) if c.startswith("License ::")]
        said = known.get("license_expression") or "; ".join(c.rpartition(" :: ")[2] for c in classes)
        stated[str(said or known.get("license") or "not stated").strip().splitlines()[0][:60]] += 1
    return stated


def main() -> int:
    place = sys.argv[1]
    for name, count in licences(place).most_common():
        print(f"{count:4d}  {name}")
    found, asked, silent = holes(place)
    print(f"{asked} packages asked about, {len(found)} known holes; {silent} could not be asked about")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
