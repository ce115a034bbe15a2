"""Makes the runs of a row: each in a process of its own, those that are there already are kept, what was cut off begins anew."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.rows import ROWS, Row, Variant, folder_of, row_of

FRESH = 1_000_000
"""Added to the seeds of final evaluations: training has not seen these episodes."""


def pending(results: Path, rows: Iterable[Row], seeds: int | None = None) -> list[tuple[Row, Variant, int]]:
    """The runs that are missing; with `seeds`, of the first so many of each variant only. Those that others learn from come first."""
    wanted = [(row, variant, seed) for row in rows for variant in row.variants for seed in variant.seeds[:seeds]]
    for _, variant, _ in list(wanted):
        if variant.data:
            source, made = source_of(variant)
            wanted.insert(0, (source, made, 0))
    missing = dict.fromkeys(run for run in wanted if not (folder_of(results, *run) / "evaluation.json").exists())
    return sorted(missing, key=lambda run: bool(run[1].data))


def source_of(variant: Variant) -> tuple[Row, Variant]:
    """Whose saved store it learns from."""
    name, _, made = variant.data.partition("/")
    row = row_of(name)
    return row, next(other for other in row.variants if other.name == made)


def is_source(row: Row, variant: Variant) -> bool:
    """Whether others learn from its saved steps: its store is kept."""
    return any(other.data == f"{row.name}/{variant.name}" for another in ROWS for other in another.variants)


def command(results: Path, row: Row, variant: Variant, seed: int) -> list[str]:
    """What makes a run, as typed in a shell after ``replaystore-agents``."""
    folder = folder_of(results, row, variant, seed)
    common = ["--env", row.env, "--out", str(folder), "--seed", str(seed), "--device", "cpu", *shlex.split(variant.options)]
    if variant.data:
        store = folder_of(results, *source_of(variant), 0) / "store"
        return ["offline", "--path", str(store), "--table", "steps", *common]
    return ["solo", "--path", str(folder / "store"), "--table", "steps", *common]


def make(results: Path, row: Row, variant: Variant, seed: int) -> None:
    """One run and its final evaluation.

    Raises:
        RuntimeError: it failed, and its log says why; or it was stopped before its end.
    """
    folder = folder_of(results, row, variant, seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    _agents(command(results, row, variant, seed), folder)
    figures = {"wall_s": round(time.monotonic() - began, 1), **{name: judge(folder / f"{name}.pt", row, seed) for name in ("best", "last")}}
    if not variant.data:
        figures["behaviour"] = behaviour(folder / "store")
        figures["chance"] = by_chance(row)
    if variant.twice and seed == 0:
        again = folder / "again"
        again.mkdir()
        _agents([*command(results, row, variant, seed), "--out", str(again)], again)
        figures["same_as_again"] = "identical" if curve(folder) == curve(again) else "different"
    if not is_source(row, variant) or seed:
        shutil.rmtree(folder / "store", ignore_errors=True)
    hidden = folder / ".evaluation.json"
    hidden.write_text(json.dumps(figures, indent=1) + "\n")
    os.replace(hidden, folder / "evaluation.json")


def _agents(arguments: list[str], folder: Path) -> None:
    from replaystore_agents.reports.runs import Run, read_run

    with (folder / "log.txt").open("wb") as log:
        typed = [sys.executable, "-m", "replaystore_agents", *arguments]
        code = subprocess.run(typed, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    if code:
        raise RuntimeError(f"{folder} failed with code {code}; log.txt in it ends: {(folder / 'log.txt').read_text()[-400:]}")
    made = read_run(folder)
    if not (isinstance(made, Run) and made.finished):  # a run that is asked to stop ends in order
        raise RuntimeError(f"{folder} is no whole run: {made if isinstance(made, str) else '; '.join(made.notes)}")


def curve(folder: Path) -> list[dict[str, Any]]:
    """A run's lines of metrics, without what the clock says."""
    from replaystore_agents.trunk.runs import RunFolder

    return [
        {name: value for name, value in line.items() if name not in ("seconds", "updates_per_s")} for line in RunFolder(folder).metrics()
    ]


def judge(checkpoint: Path, row: Row, seed: int) -> dict[str, float]:
    """Greedy episodes with fresh seeds: mean and spread of returns, and the share that reached their goal."""
    import torch

    from replaystore_agents.algorithms.policies import policy_in
    from replaystore_agents.trunk.evaluate import play
    from replaystore_agents.trunk.runs import load_checkpoint

    torch.set_num_threads(1)
    state = load_checkpoint(checkpoint)
    policy = policy_in(state)
    rng = np.random.default_rng(FRESH + seed)
    played = play(lambda seen: policy.act(seen, rng), row.env, row.episodes, FRESH + seed, policy.frames)
    returns = played.returns
    found = {"mean": float(returns.mean()), "std": float(returns.std()), "min": float(returns.min()), "update": int(state["updates"])}
    return found | ({"reached": float((getattr(played, row.goals) == 0).mean())} if row.goals else {})


def by_chance(row: Row) -> float:
    """Mean return of random actions, over the same number of episodes."""
    from replaystore_agents.trunk.environments import make_vec
    from replaystore_agents.trunk.evaluate import evaluate

    with closing(make_vec(row.env, row.episodes)) as envs:
        space = envs.action_space
    space.seed(FRESH)
    return float(evaluate(lambda seen: space.sample(), row.env, row.episodes, FRESH).mean())


def behaviour(store: Path) -> dict[str, float]:
    """What the episodes in a store returned."""
    import replaystore as rs

    with rs.open(store, mode="r") as there:
        returns = there.episodes("steps")["return"]
    return {"mean": float(returns.mean()), "max": float(returns.max()), "episodes": len(returns)}


def make_all(results: Path, runs: Sequence[tuple[Row, Variant, int]], jobs: int, say: Any) -> list[str]:
    """All of them, `jobs` at a time, each in a child of its own; what went wrong, one text each."""
    from concurrent.futures import Future, ThreadPoolExecutor, as_completed

    problems: list[str] = []

    def one(run: tuple[Row, Variant, int]) -> str:
        row, variant, seed = run
        place = [sys.executable, "-m", "benchmarks.learning", "--one", f"{row.name}/{variant.name}/{seed}", "--results", str(results)]
        done = subprocess.run(place, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"code {done.returncode}"

    for stage in (False, True):  # what is learned offline needs the stores of the others
        with ThreadPoolExecutor(jobs) as pool:
            waiting: dict[Future[str], tuple[Row, Variant, int]] = {
                pool.submit(one, run): run for run in runs if bool(run[1].data) == stage
            }
            try:
                for done in as_completed(waiting):
                    row, variant, seed = waiting[done]
                    what = f"{row.name}, {variant.name}, seed {seed}"
                    problem = done.result()
                    say(f"{what}: {problem or 'done'}")
                    problems += [f"{what}: {problem}"] if problem else []
            except BaseException:  # Ctrl-C: what has not begun is not begun
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return problems
