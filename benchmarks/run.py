"""Runs the contestants in turn, several rounds, and prints medians, spread and ratios."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS_VENV = HERE.parent / ".venv-peers"


def peers_python(given: str | None) -> str:
    """An interpreter with the peers installed; makes a virtual environment for them when none is given."""
    if given:
        return given
    python = PEERS_VENV / "bin" / "python"
    if not python.exists():
        print("making .venv-peers: cpprb, torchrl", file=sys.stderr)
        venv.create(PEERS_VENV, with_pip=True)
        torch = os.environ.get("TORCH", "torch")
        subprocess.run([python, "-m", "pip", "install", "-q", torch], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "cpprb", "torchrl", "tensordict"], check=True)
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="measure cpprb and TorchRL too")
    parser.add_argument("--peers-python", help="an interpreter that has them, instead of making .venv-peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    contestants = [[sys.executable, "ours.py"]]
    if args.peers or args.peers_python:
        other = peers_python(args.peers_python)
        contestants += [[other, "peer_cpprb.py"], [other, "peer_torchrl.py"]]
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(args.rounds):
        for command in contestants:
            print(f"round {number + 1}/{args.rounds}: {command[1]}", file=sys.stderr)
            output = subprocess.run(
                [*command, "--steps", str(args.steps), "--seconds", str(args.seconds)], cwd=HERE, check=True, capture_output=True, text=True
            ).stdout
            result = json.loads(output.splitlines()[-1])
            name = f"{result.pop('name')} {result.pop('version')}"
            for figure, value in result.items():
                figures[name, figure].append(value)
    medians = {key: statistics.median(values) for key, values in figures.items()}
    references = {figure: value for (name, figure), value in medians.items() if name.startswith("cpprb")}
    print(f"\n{'':22}{'':32}{'items/s':>12}{'min':>12}{'max':>12}{'÷ cpprb':>9}")
    for (name, figure), values in figures.items():
        reference = next((value for kind, value in references.items() if kind in figure), None)
        ratio = f"{medians[name, figure] / reference:9.2f}" if reference else f"{'':9}"
        print(f"{name:22}{figure:32}{medians[name, figure]:12,.0f}{min(values):12,.0f}{max(values):12,.0f}{ratio}")
    results = [{"name": name, "figure": figure, "values": values} for (name, figure), values in figures.items()]
    (HERE / "results.json").write_text(json.dumps({"steps": args.steps, "results": results}, indent=1))


if __name__ == "__main__":
    main()
