"""Ablation of the replay: for each kind of replay and each seed one solo run, in processes of their own, then a report over all.

What is finished is kept: the same command again makes what is missing, also after a kill. Knows the command ``solo`` and run folders.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import replaystore as rs
from replaystore_agents.actor import PlayConfig
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.online import REPLAYS, OnlineConfig, settled
from replaystore_agents.reports.report import Report, write_report
from replaystore_agents.reports.runs import Run, read_run
from replaystore_agents.trunk.children import Children
from replaystore_agents.trunk.hyper import to_json

EVALUATIONS = 20
"""Of each run, unless `eval_every` is given."""

ALPHAS = {"per": 0.6, "rank": 0.7}
"""Exponents where the preset has none (Schaul et al. 2016, for either variant)."""

POLL_S = 0.5
PROGRAM = ("replaystore_agents.cli", "run")
"""Module and function of ``replaystore-agents``."""

SAME = ("env", "algorithm", "preset", "steps", "given")
"""What all runs of one folder have in common."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an ablation is to try."""

    env: str
    steps: int
    algorithm: str = "dqn"
    preset: str = ""
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyper-parameters that are the same for all kinds."""
    kinds: Sequence[str] = REPLAYS
    seeds: Sequence[int] = range(5)

    def check(self) -> None:
        """Raises InvalidArgument where a kind is not known, one is named twice, or hyper-parameters do not go together."""
        for kind in self.kinds:
            if kind not in REPLAYS:
                raise rs.InvalidArgument(f"replay {kind!r} is not known; known: {', '.join(REPLAYS)}")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise rs.InvalidArgument(f"replay={','.join(self.kinds)!r} must be different kinds of {', '.join(REPLAYS)}")
        for name in ("seed", "replay"):
            if name in self.given:
                raise rs.InvalidArgument(f"{name}={self.given[name]} is for single runs; an ablation tries several")
        for kind in self.kinds:
            self.hyper_parameters(kind)

    def hyper_parameters(self, kind: str) -> dict[str, Any]:
        """What runs of this kind are given on the command line."""
        wanted: dict[str, Any] = {"target_return": 0.0, **self.given, "replay": kind}
        entry = ALGORITHMS[self.algorithm]
        _, loop, _ = settings(entry, self.preset, {name: v for name, v in wanted.items() if name != "replay"}, OnlineConfig, PlayConfig)
        if kind in ALPHAS and not loop.alpha:
            wanted["alpha"] = ALPHAS[kind]
        config, loop, _ = settings(entry, self.preset, wanted, OnlineConfig, PlayConfig)
        if loop.samples_per_insert <= 0:
            raise rs.InvalidArgument(f"samples_per_insert={loop.samples_per_insert:g} must be above 0: nothing would be learned")
        updates_per_step = settled(loop, config.batch_size).samples_per_insert / config.batch_size
        every = self.steps / EVALUATIONS
        if "eval_every" in self.given:  # in updates of the other kinds, of which one without replay has fewer
            every = config.eval_every * config.batch_size / loop.samples_per_insert
        wanted["eval_every"] = max(1, round(every * updates_per_step))
        return wanted

    def command(self, kind: str, seed: int, folder: Path) -> list[str]:
        """Arguments of ``replaystore-agents`` for one run."""
        where = {"path": folder / "store", "out": folder, "table": "replay", "env": self.env, "steps": self.steps}
        what = {"algorithm": self.algorithm, "preset": self.preset}
        return ["solo", *_options({**where, **what, **self.hyper_parameters(kind), "seed": seed})]


def ablate(
    plan: Plan,
    out: Path,
    *,
    jobs: int = 1,
    run_timeout_s: float = 86_400.0,
    target: float | None = None,
    keep_stores: bool = False,
    say: Callable[[str], None] = lambda text: None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Report, list[str]] | None:
    """Makes the runs ``OUT/KIND/seed-N`` that are missing, and the report ``OUT/report.md``.

    Args:
        plan: what to try.
        out: its folder; runs of the same plan that are finished there are kept, others begin anew.
        jobs: processes at a time.
        run_timeout_s: a run that takes longer is stopped and counts as failed.
        target: of the report: after how many steps this mean return was reached.
        keep_stores: leaves each run's steps in its ``store``; otherwise they are removed when it has ended.
        say: called with lines of progress.
        stopping: asked twice a second; True stops the runs that go on.

    Returns:
        The report, and one line for each run that failed. None when `stopping` ended it.

    Raises:
        InvalidArgument: see `Plan.check`; or `out` has runs of another plan.
        Locked: another process goes on with one of the runs.
    """
    plan.check()
    _claim(plan, out)
    wanted = [(kind, seed, out / kind / f"seed-{seed}") for seed in plan.seeds for kind in plan.kinds]
    waiting = [run for run in wanted if not _finished(run[2])]
    say(f"{len(wanted)} runs: {len(wanted) - len(waiting)} are finished, {len(waiting)} to make, {jobs} at a time")
    failed: list[str] = []
    running: dict[str, _Running] = {}
    with Children(out / "logs") as children:
        while waiting or running:
            while waiting and len(running) < jobs:
                kind, seed, folder = waiting.pop(0)
                _check_unattended(folder)
                shutil.rmtree(folder, ignore_errors=True)  # what an attempt before has left
                name = f"{kind}-seed-{seed}"
                child = children.start(name, *PROGRAM, *plan.command(kind, seed, folder))
                running[name] = _Running(folder, child, time.monotonic() + run_timeout_s)
            for name in list(running):
                run = running[name]
                for line in run.news():
                    say(f"{name}: {line}")
                late = time.monotonic() > run.deadline
                if run.child.poll() is None and not late:
                    continue
                code = children.stop(name)[name]
                del running[name]
                if not keep_stores:
                    shutil.rmtree(run.folder / "store", ignore_errors=True)
                if _finished(run.folder):
                    say(f"{name}: finished, {len(wanted) - len(waiting) - len(running)} of {len(wanted)}")
                    continue
                why = f"took longer than {run_timeout_s:g} s" if late else f"ended with code {code}"
                failed.append(f"{name} {why}: {_last_line(children.log(name))} ({children.log(name)})")
                say(failed[-1])
            if stopping():
                return None
            time.sleep(POLL_S)
    folders = [run[2] for run in wanted if isinstance(read_run(run[2]), Run)]
    if not folders:
        raise rs.InvalidArgument(f"no run has got as far as an evaluation: {'; '.join(failed[:3])}")
    text = (
        f"`{plan.algorithm}`{f' with {plan.preset}' if plan.preset else ''} on {plan.env}, {plan.steps} environment steps, seeds "
        f"{', '.join(map(str, plan.seeds))}; only the replay differs. {KINDS}"
    )
    return write_report(folders, out, target, f"Replay, ablated: {plan.env}", text), failed


KINDS = """none: the table keeps no more than the newest batch, each step is learned from once on average, so there are fewer updates for
the same steps. uniform: all steps alike. per and rank: prioritized in proportion and by rank (Schaul et al. 2016). recency: newer steps
more often, by half-life."""


class _Running:
    """A run on its way."""

    def __init__(self, folder: Path, child: subprocess.Popen[bytes], deadline: float) -> None:
        self.folder, self.child, self.deadline = folder, child, deadline
        self._told = -math.inf

    def news(self) -> Iterator[str]:
        """A line for what was evaluated since the last call."""
        run = read_run(self.folder)
        if isinstance(run, Run) and run.x[-1] > self._told:
            self._told = float(run.x[-1])
            yield f"{run.x[-1]:.0f} steps, return {run.returns[-1]:.1f}"


def _claim(plan: Plan, out: Path) -> None:
    """Notes the plan in the folder; InvalidArgument where another one is noted there."""
    mine = {name: to_json(plan)[name] for name in SAME}
    mine = json.loads(json.dumps(mine))
    file, hidden = out / "ablation.json", out / ".ablation.json"
    if file.exists():
        theirs = json.loads(file.read_text())
        others = [f"{name} {theirs.get(name)} there, {mine[name]} here" for name in SAME if theirs.get(name) != mine[name]]
        if others:
            raise rs.InvalidArgument(f"{out} has runs of another ablation ({'; '.join(others)}): give another --out")
        return
    if out.exists() and set(out.iterdir()) - {hidden}:
        raise rs.InvalidArgument(f"{out} is not empty and has no ablation in it: give --out a folder that is empty or does not exist yet")
    out.mkdir(parents=True, exist_ok=True)
    hidden.write_text(json.dumps(mine, indent=1) + "\n")
    os.replace(hidden, file)


def _check_unattended(folder: Path) -> None:
    """Raises Locked where somebody goes on with a run: another ablation, or a child of one that was killed."""
    if not (folder / "store").exists():
        return
    try:
        rs.open(folder / "store").close()
    except rs.Locked:
        raise
    except rs.ReplayStoreError:  # torn, and made anew
        pass


def _finished(folder: Path) -> bool:
    run = read_run(folder)
    return isinstance(run, Run) and run.finished


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _options(values: Mapping[str, Any]) -> list[str]:
    """As typed: ``--name value``, switches as ``--name`` or ``--no-name``."""
    options: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            options += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)]
    return options
