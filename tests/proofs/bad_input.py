"""A thousand bad inputs, each refused with one named error: no foreign exception, no hang, no acceptance.

    python tests/proofs/bad_input.py [--quick] [--json OUT] [--only WORD] [--cases N]

The makers of bad input are in tests/axon_bad_*.py, a table by entry point; each asserts that what it made
is bad. Everything is a function of the seed, so a failure is repeated by its category and number. Exits 1
where anything was accepted, hung, or raised something else than a `NeuroError` whose message names the
cause; 2 where a call cannot be interrupted. Writes docs/results/bad_input.json, unless --quick.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

from axon_bad import CATEGORIES, LIMIT_S, SEED, Verdict, judge  # noqa: E402

MODULES = ("axon_bad_core", "axon_bad_events", "axon_bad_nir", "axon_bad_chips", "axon_bad_data", "axon_bad_train")
RESULT = HERE.parents[2] / "docs" / "results" / "bad_input.json"
MEMORY = 6 << 30  # bytes of address space on top of what is there: a huge allocation fails instead of swapping


def load_categories(modules: tuple[str, ...] = MODULES) -> tuple[str, ...]:
    """Fill the table; its names."""
    for module in modules:
        importlib.import_module(module)
    return tuple(CATEGORIES)


def run(names: tuple[str, ...], cases: int) -> list[Verdict]:
    """So many cases, spread evenly over the categories."""
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cases):
            name = names[number % len(names)]
            place = Path(folder) / str(number)
            place.mkdir()
            # a C function that does not return cannot be interrupted, only reported
            faulthandler.dump_traceback_later(4 * LIMIT_S, exit=True)
            verdicts.append(judge(name, number // len(names), place))
            faulthandler.cancel_dump_traceback_later()
    return verdicts


def summary(verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    """What the results file holds."""
    from neuro.deployment import versions

    table = {}
    for name in dict.fromkeys(v.category for v in verdicts):
        rows = [v for v in verdicts if v.category == name]
        refused = Counter(v.error for v in rows if not v.failure)
        table[name] = {"cases": len(rows), "refused": dict(sorted(refused.items()))}
    failures = [v for v in verdicts if v.failure]
    return {
        "proof": "bad_input",
        "cases": len(verdicts),
        "refused": len(verdicts) - len(failures),
        "distinct": len({(v.category, v.what) for v in verdicts}),
        "categories": table,
        "seed": SEED,
        "limit_s": LIMIT_S,
        "slowest_s": round(max(v.seconds for v in verdicts), 3),
        "seconds": round(seconds, 1),
        "failures": [
            {"category": v.category, "number": v.seed, "what": v.what, "failure": v.failure} for v in failures
        ],
        "versions": versions(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="150 cases, nothing written unless --json")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--only", default="", metavar="WORD", help="categories whose name holds this")
    parser.add_argument("--cases", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    start = time.perf_counter()
    names = tuple(name for name in load_categories() if arguments.only in name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    verdicts = run(names, arguments.cases or (150 if arguments.quick else 1000))
    result = summary(verdicts, time.perf_counter() - start)
    for name, row in result["categories"].items():
        print(f"{name:45s} {row['cases']:4d}  {', '.join(f'{e} {n}' for e, n in row['refused'].items())}")
    for failure in result["failures"]:
        print(f"FAILED {failure['category']} #{failure['number']} ({failure['what']}): {failure['failure']}")
    print(
        f"{result['refused']} of {result['cases']} bad inputs ({result['distinct']} different kinds in "
        f"{len(result['categories'])} categories) refused with a named error; slowest {result['slowest_s']} s"
    )
    whole = not (arguments.quick or arguments.only or arguments.cases)
    out = arguments.json or (RESULT if whole else None)
    if out is not None:
        from neuro.files import write_json

        write_json(out, json.loads(json.dumps(result)))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
