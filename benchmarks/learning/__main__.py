"""``python -m benchmarks.learning ROW…``: makes what is missing of these rows (all, when none is named), then the page."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from benchmarks.learning.page import write
from benchmarks.learning.rows import ROWS, row_of
from benchmarks.learning.run import make, make_all, pending


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description="The rows of docs/RESULTS.md.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(row.name for row in ROWS)}; all, when none is named")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where runs are kept; those that are there are not made again"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seeds", type=int, help="only the first so many of each variant")
    parser.add_argument("--list", action="store_true", help="say what is missing, and make nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    parser.add_argument("--no-page", action="store_true", help="make runs only")
    given = parser.parse_args()
    if given.one:
        name, variant, seed = given.one.split("/")
        row = row_of(name)
        make(given.results, row, next(v for v in row.variants if v.name == variant), int(seed))
        return 0
    known = {row.name for row in ROWS}
    if strange := [name for name in given.rows if name not in known]:
        parser.error(f"there is no row {strange[0]!r}; there are {', '.join(sorted(known))}")
    rows = [row_of(name) for name in given.rows] or list(ROWS)
    runs = pending(given.results, rows, given.seeds)
    print(f"{len(runs)} runs are missing", flush=True)
    if given.list:
        for row, variant, seed in runs:
            print(f"  {row.name}, {variant.name}, seed {seed}")
        return 0
    problems = make_all(given.results, runs, given.jobs, lambda text: print(text, flush=True))
    if not given.no_page:
        write(given.results, given.docs, machine())
        print(f"wrote {given.docs / 'RESULTS.md'}")
    return 1 if problems else 0


def machine() -> str:
    """What the runs were made on."""
    import torch

    return f"Made on {os.cpu_count()} cores of {platform.machine()} with Python {platform.python_version()} and torch {torch.__version__}."


if __name__ == "__main__":
    sys.exit(main())
