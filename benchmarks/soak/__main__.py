"""``python -m benchmarks.soak --minutes 3 [--actors 500] [--learners 8] [--json FILE]``; exit 1 with the reason when it fails."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.soak.soak import Failed, Plan, Soak, environment, nofile


def say(found: dict[str, Any]) -> None:
    """As a table."""
    plan = found["plan"]
    print(f"{plan['minutes']:g} minutes with {plan['actors']} actors and {plan['learners']} learners; {found['seconds']:.0f} s in all")
    if "steps" in found:
        print(
            f"{found['steps']:,} steps, each once and in order: {found['acknowledged']:,} acknowledged, "
            f"{found['written_by_the_killed']:,} more were written before a client was killed"
        )
    print(f"{found['kills']} processes killed, {found['clients']} clients in all")
    print(f"CPU of the server {found.get('server_cpu_s', 0):.0f} s, of all processes {found['cpu_s']:.0f} s")
    print(f"calls of actors that ended by themselves and were made again: {found.get('losses', 0)}")
    for why, count in found.get("lost_because", {}).items():
        print(f"  {count} {why}")
    print(f"the most that anybody fell behind: {found.get('worst_behind', 0):.0f} answers")
    print(f"\n{'server':<14}{'begin':>10}{'warm':>10}{'end':>10}{'most':>10}{'rise':>10}{'allowed':>10}{'clients gone':>14}")
    for name, part in found.get("growth", {}).items():
        after = found.get("after", {}).get(name)
        cells = [*(part[key] for key in ("begin", "warm", "end", "most", "rise", "allowed"))]
        print(
            f"{name:<14}"
            + "".join(f"{'-' if cell is None else f'{cell:.1f}':>10}" for cell in cells)
            + f"{'-' if after is None else f'{after:.1f}':>14}"
        )
    print(f"\n{'answers to':<26}{'count':>10}{'p50 ms':>10}{'p99 ms':>10}{'worst ms':>10}")
    for name, part in found["latencies"].items():
        cells = [part["p50_ms"], part["p99_ms"], part["worst_ms"]]
        print(f"{name:<26}{part['count']:>10,}" + "".join(f"{'-' if cell is None else f'{cell:.3g}':>10}" for cell in cells))


def main() -> int:
    """0 when everything holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--actors", type=int, default=500, help="connections that append")
    parser.add_argument("--learners", type=int, default=8)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds between two blocks of an actor")
    parser.add_argument("--kill-every", type=float, default=12.0, help="seconds between two killed processes")
    parser.add_argument("--slack", type=float, default=1.0, help="on a busy machine: times the growth that is allowed")
    parser.add_argument("--seed", type=int, default=0, help="of who is killed when")
    parser.add_argument("--folder", type=Path, help="where the store goes; otherwise a temporary one, removed afterwards")
    parser.add_argument("--json", type=Path, help="write everything measured")
    given = parser.parse_args()
    environment()
    nofile()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and leave no process behind
    plan = Plan(given.minutes, given.actors, given.learners, given.pace, given.kill_every, given.seed, given.slack)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if given.folder is None else given.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = Soak(plan, folder).run()
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    say(found)
    for failure in found["failures"]:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
