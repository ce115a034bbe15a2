"""The whole story in one command: serve a store, act from two processes, learn over gRPC, stop, learn again offline from what was saved.

Everything goes through public names: the demo is also the example of how the parts are put together.
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

import replaystore as rs
from replaystore_agents.algorithms.base import spaces_of
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.cli import ensure_table
from replaystore_agents.offline import OFFLINE_PRESETS, OfflineConfig, OfflineResult, train_offline
from replaystore_agents.online import OnlineConfig, TrainResult, train
from replaystore_agents.reports import demo as report
from replaystore_agents.trunk.children import ChildError, Children
from replaystore_agents.trunk.hyper import to_json
from replaystore_agents.trunk.runs import RunFolder

ENV = "CartPole-v1"
ONLINE_TARGET, OFFLINE_TARGET = 475.0, 400.0
"""Mean returns over 100 greedy episodes: what counts as solved, and what the offline network must reach."""

DATA_STEPS = 30_000
"""The learner goes on at least this long, so that there is something to learn from afterwards."""

ACTORS = 2
READY_S = 300.0
"""A first start compiles the kernels of the index."""


def run_demo(path: str | Path = "data", *, seed: int = 0, actors: int = ACTORS, console: Console | None = None) -> int:
    """Runs the demo and leaves the store at `path` and a report beside it, in ``PATH-report/TABLE/``.

    A store that is there already gets one more table; any other folder that is not empty is left alone.

    Returns:
        0: both learners reached what is asked of them. 1: one did not, or something failed. 2: `path` cannot be used. 130: Ctrl-C.
    """
    console = console or Console()
    path = Path(path)
    refusal = _refusal(path)
    if refusal is not None:
        console.print(f"[red]error:[/red] {escape(refusal)}", soft_wrap=True)
        return 2
    started = time.monotonic()
    table = _free_table_name(path)
    folder = path.with_name(f"{path.absolute().name}-report") / table
    shutil.rmtree(folder, ignore_errors=True)  # of a store that was removed since
    folder.mkdir(parents=True)
    try:
        with _terminable():
            online = _learn_online(console, path, table, folder, seed, actors)
            offline = _learn_offline(console, path, table, folder, seed)
            facts = _write_report(path, table, folder, online, offline, time.monotonic() - started)
    except (ChildError, rs.ReplayStoreError) as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f"interrupted; what was written so far is in {path}", soft_wrap=True)
        return 130
    learned = online.reached and (offline.best_return or 0.0) >= OFFLINE_TARGET
    _say_goodbye(console, path, table, folder, facts, learned)
    return 0 if learned else 1


def _refusal(path: Path) -> str | None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if not path.is_dir():
        return f"{path} is a file; give --path a folder that is empty or does not exist yet"
    try:
        root = json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError):
        return f"{path} is not empty and no replaystore store: it is left alone; give --path another folder"
    return (
        None
        if "replaystore" in root.get("attributes", {})
        else f"{path} is a Zarr group but no replaystore store; give --path another folder"
    )


def _free_table_name(path: Path) -> str:
    number, name = 1, "cartpole"
    while (path / name).exists():
        number += 1
        name = f"cartpole-{number}"
    return name


def _learn_online(console: Console, path: Path, table: str, folder: Path, seed: int, actors: int) -> TrainResult:
    from replaystore_client import Client

    config = DQNConfig(seed=seed, device="cpu")
    loop = OnlineConfig(target_return=ONLINE_TARGET, stop_after_steps=DATA_STEPS)
    with Children(folder / "logs") as children:
        serve = ("serve", "--path", str(path), "--listen", "127.0.0.1:0", "--json-ready")
        children.start("server", "replaystore.cli.main", "run", *serve, pipe=True)
        with console.status("starting the server"):
            address = str(children.read_json_line("server", READY_S)["listen"])
        console.print(f"[bold]1. online[/bold]  serving {path} on {address}; {actors} actors and one learner play {ENV}", soft_wrap=True)
        with Client(address) as client:
            ensure_table(client, table, ENV, loop, config.batch_size)
            for actor in range(actors):
                where = ("--server", address, "--table", table, "--policy", table, "--env", ENV)
                children.start(f"actor-{actor}", "replaystore_agents.cli", "run", "act", *where, "--actor", str(actor), "--seed", str(seed))
            about = {"command": "train", "server": address, "table": table, "env": ENV, **to_json(loop), **to_json(config)}
            run = RunFolder.begin(folder / "online", about)
            agent = DQN(spaces_of(client.describe(table).config), config)
            with _bar(console, ONLINE_TARGET) as show:

                def progress(figures: dict[str, Any]) -> None:
                    children.check()
                    show(figures)

                result = train(client, table, ENV, agent, loop, run, policy=table, report=progress)
            children.wait(*(f"actor-{actor}" for actor in range(actors)))
        codes = children.stop("server")
    verdict = "[green]reached[/green]" if result.reached else "[red]not reached[/red]"
    console.print(
        f"   mean return {result.best_return:.1f} over {config.eval_episodes} episodes, {ONLINE_TARGET:g} {verdict}: "
        f"{result.inserted_steps} steps, {result.updates} updates, {result.seconds:.0f} s; server stopped with code {codes['server']}",
        soft_wrap=True,
    )
    return result


def _learn_offline(console: Console, path: Path, table: str, folder: Path, seed: int) -> OfflineResult:
    config = DQNConfig(seed=seed + 1, device="cpu", **OFFLINE_PRESETS["dqn"])
    loop = OfflineConfig()
    with rs.open(path, mode="r") as store:
        stats = store.stats(table)
        console.print(
            f"[bold]2. offline[/bold] a fresh network, nothing but {path}/{table}: {stats.anchors} steps, {stats.episodes} episodes",
            soft_wrap=True,
        )
        about = {"command": "offline", "path": str(path), "table": table, "env": ENV, **to_json(loop), **to_json(config)}
        run = RunFolder.begin(folder / "offline", about)
        agent = DQN(spaces_of(store.describe(table).config), config)
        with _bar(console, OFFLINE_TARGET) as show:
            result = train_offline(store, table, ENV, agent, loop, run, report=show)
    reached = (result.best_return or 0.0) >= OFFLINE_TARGET
    verdict = "[green]reached[/green]" if reached else "[red]not reached[/red]"
    console.print(
        f"   mean return {result.best_return:.1f} over {config.eval_episodes} episodes, {OFFLINE_TARGET:g} {verdict}: "
        f"{result.updates} updates, {result.seconds:.0f} s",
        soft_wrap=True,
    )
    return result


@dataclass(frozen=True, slots=True)
class Facts:
    """What the report says besides the two results."""

    steps: int
    episodes: int
    behaviour_mean: float
    behaviour_quartiles: tuple[float, float, float]
    bytes_on_disk: int
    seconds: float


def _write_report(path: Path, table: str, folder: Path, online: TrainResult, offline: OfflineResult, seconds: float) -> Facts:
    with rs.open(path, mode="r") as store:
        stats = store.stats(table)
        episodes = store.episodes(table)
        mass = store.read_steps(table, stats.first_step, stats.next_step, columns=["replay/priority"])["replay/priority"]
        selector = store.describe(table).config.selector
    assert isinstance(selector, rs.Prioritized), "the demo made the table itself"
    priorities = (
        mass[mass > 0] ** (1 / selector.alpha) - selector.epsilon
    )  # stored is what counts when drawing; rows that are no anchors have 0
    returns = episodes["return"]
    low, middle, high = (float(q) for q in np.quantile(returns, (0.25, 0.5, 0.75)))
    facts = Facts(stats.inserted_steps, len(returns), float(returns.mean()), (low, middle, high), stats.bytes_on_disk, seconds)
    with np.load(folder / "online" / "replayed.npz") as stored:
        replayed = {name: stored[name] for name in stored.files}
    report.online_curve(folder / "online.png", RunFolder(folder / "online").metrics(), episodes, ONLINE_TARGET)
    report.offline_curve(folder / "offline.png", RunFolder(folder / "offline").metrics(), facts.behaviour_mean, OFFLINE_TARGET)
    report.age_distribution(folder / "ages.png", replayed)
    report.priority_distribution(folder / "priorities.png", priorities, replayed)
    (folder / "report.md").write_text(_markdown(path, table, online, offline, facts, replayed))
    return facts


def _markdown(path: Path, table: str, online: TrainResult, offline: OfflineResult, facts: Facts, replayed: dict[str, Any]) -> str:
    low, middle, high = facts.behaviour_quartiles
    lag = replayed["policy_lag"][replayed["policy_lag"] >= 0]
    online_rows = [
        ("mean return of the weights kept, 100 greedy episodes (asked: 475)", f"**{online.best_return:.1f}**"),
        ("updates", f"{online.updates}"),
        ("steps inserted", f"{online.inserted_steps}"),
        ("seconds", f"{online.seconds:.1f}"),
        ("median policy lag of replayed steps, in published versions", f"{np.median(lag):.0f}" if len(lag) else "unknown"),
    ]
    offline_rows = [
        ("mean return of the weights kept, 100 greedy episodes (asked: 400)", f"**{offline.best_return:.1f}**"),
        ("mean return of the last weights", f"{offline.final_return:.1f}"),
        ("updates", f"{offline.updates}"),
        ("steps it learned from", f"{offline.steps}"),
        ("seconds", f"{offline.seconds:.1f}"),
    ]
    data_rows = [
        ("steps", f"{facts.steps}"),
        ("finished episodes", f"{facts.episodes}"),
        ("mean return", f"{facts.behaviour_mean:.1f}"),
        ("quartiles of the return", f"{low:.0f}, {middle:.0f}, {high:.0f}"),
        ("bytes on disk", f"{facts.bytes_on_disk}"),
    ]
    return f"""# {ENV}: learned online, then again offline from the saved store

The demo took {facts.seconds:.0f} s in all on {platform.machine()} with Python {platform.python_version()}.

## Online: two actor processes and a Double DQN learner over gRPC

{report.table(online_rows)}

The weights kept are the best by evaluation. Where an evaluation reached the target, the same weights were evaluated once more with other
seeds, and the lower of the two means is given.

![online](online.png)

## The saved data

{report.table(data_rows)}

## Offline: a fresh network, from {path}/{table} alone

{report.table(offline_rows)}

The weights kept are the best of the run by an evaluation of 100 episodes; the mean given is that of 100 other episodes. The environment
served for evaluation only.

![offline](offline.png)

## What was replayed

Every {DQNConfig().eval_every} updates the batch just replayed was noted: how old its steps were, and their priorities when drawn.

![ages](ages.png)
![priorities](priorities.png)

Everything above can be made again from `online/`, `offline/` (config.json, metrics.jsonl, checkpoints) and the store.
"""


def _say_goodbye(console: Console, path: Path, table: str, folder: Path, facts: Facts, learned: bool) -> None:
    console.print(f"[bold]3. report[/bold]  {folder / 'report.md'}  ({facts.seconds:.0f} s in all)", soft_wrap=True)
    if not learned:
        console.print("[red]it did not learn what it should have; the logs and figures above say how far it came[/red]")
    console.print("\nWhat to type next:\n")
    for line in (
        f"replaystore ls {path}",
        f"replaystore info {path} {table}",
        f"replaystore episodes {path} {table}",
        f"python -c \"import zarr; print(zarr.open('{path}', mode='r')['{table}/steps/observation'][:5])\"",
        f"python -c \"import xarray as xr; print(xr.open_zarr('{path}', group='{table}/steps'))\"",
        f"replaystore-agents offline --path {path} --table {table} --seed 7",
        f"replaystore-agents evaluate --checkpoint {folder / 'offline' / 'best.pt'}",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _bar(console: Console, target: float) -> Iterator[Any]:
    """Shows evaluations as a bar towards the target, and as lines where the output is no terminal."""
    columns = (
        TextColumn("   return"),
        BarColumn(30),
        TextColumn("{task.completed:5.0f} of {task.total:.0f}  {task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=target)

        def show(figures: dict[str, Any]) -> None:
            if "waiting" in figures:
                progress.update(task, description=f"waiting: {figures['waiting'][:60]}")
                return
            steps = f", {figures['inserted_steps']} steps" if "inserted_steps" in figures else ""
            text = f"update {figures['update']}{steps}, {figures['seconds']:.0f} s"
            progress.update(task, completed=figures["return_mean"], description=text)
            if not console.is_terminal:
                console.print(f"   {text}: return {figures['return_mean']:.1f}", highlight=False)

        yield show


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM leaves like an exception, so that the child processes are stopped."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
