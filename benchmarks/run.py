"""The benchmark suite: ours, the machine's limits and, if asked for, the peers. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from check import compare, ratios_of
from suite import run
from tables import draw, show

FULL = ["--steps", "500000", "--frames", "20000", "--sequence-steps", "200000"]
QUICK = ["--steps", "4000", "--frames", "600", "--sequence-steps", "4000"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="also cpprb, TorchRL, Stable-Baselines3 and Reverb")
    parser.add_argument(
        "--peers-folder", type=Path, metavar="DIR", help="where their virtual environments are kept; made, and removed, if not given"
    )
    parser.add_argument("--quick", action="store_true", help="tiny tables and short times: whether it runs, not how fast it is")
    parser.add_argument("--rounds", type=int, metavar="N", help="3, or 1 with --quick")
    parser.add_argument("--seconds", type=float, metavar="S", help="for every figure; 2, or 0.02 with --quick")
    parser.add_argument("--folder", type=Path, default=Path(), metavar="DIR", help="where the data goes meanwhile: here, if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it; needs matplotlib")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="fail when a ratio fell below half of that in this file of an earlier run"
    )
    args = parser.parse_args()
    try:
        earlier = ratios_of(args.check) if args.check else None
    except ValueError as error:
        parser.error(str(error))
    if args.png and find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'replaystore[bench]'")
    rounds = args.rounds or (1 if args.quick else 3)
    seconds = args.seconds or (0.02 if args.quick else 2.0)
    sizes = [*(QUICK if args.quick else FULL), "--seconds", str(seconds)]
    if args.peers_folder:
        args.peers_folder.mkdir(parents=True, exist_ok=True)
    say = Console(stderr=True)
    results = run(sizes, rounds, args.peers, args.folder.resolve(), args.peers_folder and args.peers_folder.resolve(), say.print)
    show(results, Console() if sys.stdout.isatty() else Console(width=240))
    if args.json:
        args.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    if args.png:
        draw(results, args.png)
    if earlier is None:
        return 0
    worse, compared = compare(earlier, results.ratios())
    print(f"\ncompared with {args.check}: {compared} ratios, {len(worse)} of them below the bound")
    print("\n".join(worse))
    return 1 if worse or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
