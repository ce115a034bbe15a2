"""The command line ``replaystore-agents``: act, train, solo, offline, evaluate, report, ablate.

Exit codes: 0 fine, 1 it failed or did not learn, 2 usage, 130 an ablation was interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import gymnasium
import numpy as np
import typer

import replaystore as rs
from replaystore_agents.actor import ActorConfig, PlayConfig, act
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.policies import policy_in
from replaystore_agents.algorithms.registry import ALGORITHMS, Entry, check_played, settings, spaces_for
from replaystore_agents.offline import OFFLINE_PRESETS, OfflineConfig, train_offline
from replaystore_agents.online import REPLAYS, OnlineConfig, Saved, settled, shares, table_config, train
from replaystore_agents.reports.command import Target, report_command, show
from replaystore_agents.solo import solo, solo_table
from replaystore_agents.trunk import environments
from replaystore_agents.trunk.devices import pick_device
from replaystore_agents.trunk.evaluate import evaluate
from replaystore_agents.trunk.hyper import to_json, with_choices, with_options
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint
from replaystore_agents.trunk.tracking import TRACKERS, check_trackers

app = typer.Typer(help="Agents that learn from a replaystore.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Server = Annotated[str, typer.Option(help="The server's address: HOST:PORT or unix:PATH.")]
Table = Annotated[str, typer.Option(help="The table's name.")]
Env = Annotated[str, typer.Option(help="Gymnasium id.")]
Policy = Annotated[str, typer.Option(help="Name of the parameter set through which learner and actors meet; empty: the table's name.")]
ONLINE_NAMES = ", ".join(name for name, entry in ALGORITHMS.items() if entry.online)
PRESET_NAMES = "; ".join(f"{name}: {', '.join(entry.presets)}" for name, entry in ALGORITHMS.items() if entry.presets)
Preset = Annotated[str, typer.Option(help=f"Named changes of defaults, joined by commas, later ones win. {PRESET_NAMES}.")]
Out = Annotated[Path, typer.Option(help="Folder for config.json, metrics.jsonl, result.json and checkpoints.")]
Resume = Annotated[bool, typer.Option("--resume", help="Carry on from OUT/last.pt.")]
Log = Annotated[str, typer.Option(help=f"Where figures go besides OUT/metrics.jsonl, joined by commas: {', '.join(TRACKERS)}.")]


@app.command("act")
@with_options(ActorConfig)
def act_command(
    config: ActorConfig,
    server: Server = "127.0.0.1:7777",
    table: Table = "cartpole",
    env: Env = "CartPole-v1",
    actor: Annotated[int, typer.Option(help="This actor's number, kept with its steps.", min=0)] = 0,
    policy: Policy = "",
) -> None:
    """Plays an environment with the newest published weights and writes every step to the server."""
    from replaystore_client import Client

    with _signals() as stopping, Client(server) as client:
        result = act(client, table, env, actor, config, policy=policy or table, stopping=stopping, report=_say)
    typer.echo(json.dumps(asdict(result)))


@app.command("train")
@with_choices([OnlineConfig, *(entry.config for entry in ALGORITHMS.values() if entry.online)])
def train_command(
    given: dict[str, Any],
    algorithm: Annotated[str, typer.Option(help=f"What learns: {ONLINE_NAMES}.")] = "dqn",
    preset: Preset = "",
    server: Server = "127.0.0.1:7777",
    table: Table = "cartpole",
    env: Env = "CartPole-v1",
    policy: Policy = "",
    mix: Annotated[str | None, typer.Option(help="PATH:TABLE of a saved store: its steps are part of every batch.")] = None,
    share: Annotated[float, typer.Option(help="With --mix: their share of every batch, rounded to whole items.")] = 0.5,
    out: Out = Path("runs/online"),
    resume: Resume = False,
    log: Log = "",
) -> None:
    """Learns online; creates the table when there is none. Exit code 1 when the target return was not reached."""
    from replaystore_client import Client

    entry = _entry(algorithm, online=True)
    check_trackers(log)
    config, loop = settings(entry, preset, given, OnlineConfig)
    loop = settled(loop, config.batch_size)
    path, _, saved_table = (mix or "").rpartition(":")
    if mix is not None and not (path and saved_table):
        raise typer.BadParameter(f"{mix!r} must be PATH:TABLE", param_hint="--mix")
    where = {"command": "train", "server": server, "table": table, "env": env, "algorithm": algorithm, "preset": preset, "mix": mix}
    about = {**where, **to_json(loop), **to_json(config)}
    state = _last(out, about) if resume else None
    with _signals() as stopping, Client(server) as client, ExitStack() as stack:
        saved = Saved(stack.enter_context(rs.open(path, mode="r")), saved_table, share) if mix is not None else None
        wanted = planned_table(client, table, env, loop, config.batch_size)
        check_played(f"table {table!r}", *spaces_for(wanted, config.frame_stack), env)
        learner = entry.make(wanted, config, env)
        if saved is not None:
            shares(wanted, learner, saved)
        # what does not go together has left no table by now, and the run of before as it was
        ensure_table(client, table, env, loop, config.batch_size)
        run = stack.enter_context(RunFolder(out).track(log, about) if resume else RunFolder.begin(out, about, log))
        result = train(
            client, table, env, learner, loop, run, policy=policy or table, saved=saved, resume=state, report=_tell, stopping=stopping
        )  # fmt: skip
    typer.echo(json.dumps(asdict(result)))
    if loop.target_return != 0 and not result.reached:
        raise typer.Exit(1)


@app.command("solo")
@with_choices([OnlineConfig, *(entry.config for entry in ALGORITHMS.values() if entry.online), PlayConfig])
def solo_command(
    given: dict[str, Any],
    path: Annotated[Path, typer.Option(help="The store's folder; made when there is none. Nobody else may have it open for writing.")],
    steps: Annotated[int, typer.Option(help="Environment steps to play, of all environments together.", min=1)] = 50_000,
    algorithm: Annotated[str, typer.Option(help=f"What learns: {ONLINE_NAMES}.")] = "dqn",
    preset: Preset = "",
    table: Table = "cartpole",
    env: Env = "CartPole-v1",
    out: Out = Path("runs/solo"),
    log: Log = "",
) -> None:
    """Plays and learns in one process, without a server. The same seed gives the same run. Exit code 1 when the target was not reached."""
    entry = _entry(algorithm, online=True)
    check_trackers(log)
    config, loop, playing = settings(entry, preset, given, OnlineConfig, PlayConfig)
    loop = settled(loop, config.batch_size)
    where = {"command": "solo", "path": str(path), "table": table, "env": env, "algorithm": algorithm, "preset": preset, "steps": steps}
    with _signals() as stopping, rs.open(path) as store:
        if table in store.tables():
            raise rs.AlreadyExists(f"{path} has a table {table!r} already: give --table another name; a solo run begins with an empty one")
        wanted = solo_table(planned_table(store, table, env, loop, config.batch_size))
        learner = entry.make(wanted, config, env)
        about = {**where, **to_json(playing), **to_json(loop), **to_json(config)}
        with RunFolder.begin(out, about, log) as run:
            store.create_table(table, wanted)
            result = solo(store, table, env, learner, loop, playing, run, steps, report=_tell, stopping=stopping)
    typer.echo(json.dumps(asdict(result)))
    if loop.target_return != 0 and not result.reached:
        raise typer.Exit(1)


@app.command("offline")
@with_choices([OfflineConfig, *(entry.config for entry in ALGORITHMS.values())])
def offline_command(
    given: dict[str, Any],
    algorithm: Annotated[str, typer.Option(help=f"What learns: {', '.join(ALGORITHMS)}.")] = "dqn",
    preset: Preset = "",
    path: Annotated[Path | None, typer.Option(help="A saved store, opened read only; a server may be using it.")] = None,
    server: Annotated[str | None, typer.Option(help="Or the address of a server.")] = None,
    table: Table = "cartpole",
    env: Annotated[str, typer.Option(help="Gymnasium id for evaluation; empty for none.")] = "CartPole-v1",
    lift_limiter: Annotated[
        bool, typer.Option("--lift-limiter", help="With --server: first sets the table's rate limiter to MinSize(1), for good.")
    ] = False,
    preload: Annotated[
        bool, typer.Option("--preload", help="First read the whole columns into the device's memory, and draw batches there.")
    ] = False,
    out: Out = Path("runs/offline"),
    resume: Resume = False,
    log: Log = "",
) -> None:
    """Trains a fresh network from a saved store, without any environment but for evaluation.

    Through a server the table's rate limiter holds: where it couples samples to inserts, lift it, or train from the path.
    """
    if (path is None) == (server is None):
        raise typer.BadParameter("give either --path (a folder) or --server (an address)")
    entry = _entry(algorithm, online=False)
    check_trackers(log)
    config, loop = settings(entry, preset, given, OfflineConfig, base=OFFLINE_PRESETS.get(algorithm))
    source = {"command": "offline", "path": str(path), "server": server, "table": table}
    where = {**source, "env": env, "algorithm": algorithm, "preset": preset}
    about = {**where, **to_json(loop), **to_json(config)}
    state = _last(out, about) if resume else None
    with _signals() as stopping, _open(path, server) as api:
        if lift_limiter and server is not None:
            api.alter_table(table, rate_limiter=rs.MinSize(1))
        there = api.describe(table).config
        if env:
            check_played(f"table {table!r}", *spaces_for(there, config.frame_stack), env)
        learner = entry.make(there, config, env or None)
        with RunFolder(out).track(log, about) if resume else RunFolder.begin(out, about, log) as run:
            result = train_offline(
                api, table, env or None, learner, loop, run, resume=state, preload=preload, report=_tell, stopping=stopping
            )  # fmt: skip
    typer.echo(json.dumps(asdict(result)))
    if loop.target_return != 0 and (result.best_return is None or result.best_return < loop.target_return):
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    checkpoint: Annotated[Path, typer.Option(help="A .pt file of a run folder.")],
    env: Env = "CartPole-v1",
    episodes: Annotated[int, typer.Option(help="Greedy episodes.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the environments.", min=0)] = 12345,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
) -> None:
    """Plays greedy episodes with a checkpoint and prints mean, spread and extremes of the returns as JSON."""
    state = load_checkpoint(checkpoint)
    check_played(str(checkpoint), Spaces.from_json(state["spaces"]), state["policy"]["kind"] == "goals", env)
    policy = policy_in(state, pick_device(device))
    rng = np.random.default_rng(seed)
    returns = evaluate(lambda seen: policy.act(seen, rng), env, episodes, seed, policy.frames)
    figures = {"mean": returns.mean(), "std": returns.std(), "min": returns.min(), "max": returns.max()}
    typer.echo(json.dumps({"episodes": episodes, "update": state["updates"], **{k: float(v) for k, v in figures.items()}}))


@app.command("ablate")
@with_choices([OnlineConfig, *(entry.config for entry in ALGORITHMS.values() if entry.online), PlayConfig])
def ablate_command(
    given: dict[str, Any],
    seeds: Annotated[int, typer.Option(help="Runs of each kind, with the seeds from 0 on.", min=1)] = 5,
    steps: Annotated[int, typer.Option(help="Environment steps of each run.", min=1)] = 20_000,
    algorithm: Annotated[str, typer.Option(help=f"What learns: {ONLINE_NAMES}.")] = "dqn",
    preset: Preset = "",
    env: Env = "CartPole-v1",
    out: Annotated[Path, typer.Option(help="Folder for KIND/seed-N, logs and the report; the same command again goes on.")] = Path(
        "runs/ablation"
    ),
    jobs: Annotated[int, typer.Option(help="Runs at a time, each in a process of its own.", min=1)] = 1,
    target: Target = None,
    run_timeout_s: Annotated[float, typer.Option(help="A run that takes longer is stopped and counts as failed.", min=1)] = 86_400.0,
    keep_stores: Annotated[bool, typer.Option("--keep-stores", help="Leave the steps of each run in its folder.")] = False,
) -> None:
    """What the replay does: one solo run for each kind of --replay (joined by commas) and each seed, then a report over all.

    Hyper-parameters are the same for all kinds. Exit code 1 when a run failed, 130 when it was interrupted.
    """
    from replaystore_agents.ablation import Plan, ablate

    _entry(algorithm, online=True)
    kinds = tuple(part.strip() for part in given.pop("replay", ",".join(REPLAYS)).split(",") if part.strip())
    plan = Plan(env, steps, algorithm, preset, given, kinds, range(seeds))
    with _signals() as stopping:
        done = ablate(
            plan, out, jobs=jobs, run_timeout_s=run_timeout_s, target=target, keep_stores=keep_stores, say=_say, stopping=stopping
        )  # fmt: skip
    if done is None:
        _say(f"interrupted; what is finished is kept in {out}, and the same command goes on from there")
        raise typer.Exit(130)
    show(done[0])
    if done[1]:
        raise typer.Exit(1)


app.command("report")(report_command)


def ensure_table(api: Any, table: str, env: str, config: OnlineConfig, batch_size: int = 256) -> None:
    """Creates the learner's table unless one of that name is there already."""
    if table not in api.tables():
        api.create_table(table, planned_table(api, table, env, config, batch_size), exist_ok=True)


def planned_table(api: Any, table: str, env: str, config: OnlineConfig, batch_size: int = 256) -> rs.TableConfig:
    """The table as it is, or as `ensure_table` would make it."""
    if table in api.tables():
        there: rs.TableConfig = api.describe(table).config
        return there
    sample = environments.make(env)
    try:
        return table_config(sample, config, batch_size)
    finally:
        sample.close()


def run() -> None:
    """The entry point: errors become one line and exit code 1."""
    try:
        app()
    except rs.ReplayStoreError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except gymnasium.error.Error as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _entry(algorithm: str, online: bool) -> Entry:
    entry = ALGORITHMS.get(algorithm)
    if entry is None or (online and not entry.online):
        known = ONLINE_NAMES if online else ", ".join(ALGORITHMS)
        raise typer.BadParameter(f"{algorithm!r} is none of {known}", param_hint="--algorithm")
    return entry


def _open(path: Path | None, server: str | None) -> Any:
    if path is not None:
        return rs.open(path, mode="r")
    from replaystore_client import Client

    assert server is not None, "the caller checked that one of the two is given"
    return Client(server)


def _last(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The state to resume; says which options are others than before."""
    if not (out / "last.pt").exists():
        raise typer.BadParameter(f"{out}/last.pt does not exist: there is nothing to resume", param_hint="--resume")
    file = out / "config.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    others = [f"{name} {before[name]} is now {value}" for name, value in about.items() if name in before and before[name] != value]
    if others:
        _say(f"resumed with other options: {', '.join(others)}")
    return load_checkpoint(out / "last.pt")


@contextmanager
def _signals() -> Iterator[Any]:
    """SIGTERM and the first Ctrl-C ask for an orderly end; a second Ctrl-C interrupts."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _tell(figures: dict[str, Any]) -> None:
    if "waiting" in figures:
        _say(f"waiting: {figures['waiting']}")
        return
    shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    _say("  ".join(f"{name}={value}" for name, value in shown.items()))
