"""The command line ``replaystore-agents``: act, train, offline, evaluate. Exit codes: 0 fine, 1 it failed or did not learn, 2 usage."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import gymnasium
import typer

import replaystore as rs
from replaystore_agents.actor import ActorConfig, act
from replaystore_agents.dqn import DoubleDQN, DQNConfig, OnlineConfig, Spaces, table_config, train
from replaystore_agents.offline import OfflineConfig, train_offline
from replaystore_agents.trunk.hyper import to_json, with_options
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint

app = typer.Typer(help="Agents that learn from a replaystore.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Server = Annotated[str, typer.Option(help="The server's address: HOST:PORT or unix:PATH.")]
Table = Annotated[str, typer.Option(help="The table's name.")]
Env = Annotated[str, typer.Option(help="Gymnasium id.")]
Policy = Annotated[str, typer.Option(help="Name of the parameter set through which learner and actors meet.")]
Out = Annotated[Path, typer.Option(help="Folder for config.json, metrics.jsonl, result.json and checkpoints.")]
Resume = Annotated[bool, typer.Option("--resume", help="Carry on from OUT/last.pt.")]


@app.command("act")
@with_options(ActorConfig)
def act_command(
    config: ActorConfig,
    server: Server = "127.0.0.1:7777",
    table: Table = "cartpole",
    env: Env = "CartPole-v1",
    actor: Annotated[int, typer.Option(help="This actor's number, kept with its steps.")] = 0,
    policy: Policy = "policy",
) -> None:
    """Plays an environment with the newest published weights and writes every step to the server."""
    from replaystore_client import Client

    with _signals() as stopping, Client(server) as client:
        result = act(client, table, env, actor, config, policy=policy, stopping=stopping, report=_say)
    typer.echo(json.dumps(asdict(result)))


@app.command("train")
@with_options(OnlineConfig)
def train_command(
    config: OnlineConfig,
    server: Server = "127.0.0.1:7777",
    table: Table = "cartpole",
    env: Env = "CartPole-v1",
    policy: Policy = "policy",
    out: Out = Path("runs/online"),
    resume: Resume = False,
) -> None:
    """Learns online with Double DQN; creates the table when there is none. Exit code 1 when the target return was not reached."""
    from replaystore_client import Client

    run, state = _run(out, resume, {"command": "train", "server": server, "table": table, "env": env, **to_json(config)})
    with _signals() as stopping, Client(server) as client:
        ensure_table(client, table, env, config)
        result = train(client, table, env, config, run, policy=policy, resume=state, report=_tell, stopping=stopping)
    typer.echo(json.dumps(asdict(result)))
    if config.target_return > 0 and not result.reached:
        raise typer.Exit(1)


@app.command("offline")
@with_options(OfflineConfig)
def offline_command(
    config: OfflineConfig,
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
) -> None:
    """Trains a fresh network from a saved store, without any environment but for evaluation.

    Through a server the table's rate limiter holds: where it couples samples to inserts, lift it, or train from the path.
    """
    if (path is None) == (server is None):
        raise typer.BadParameter("give either --path (a folder) or --server (an address)")
    run, state = _run(
        out, resume, {"command": "offline", "path": str(path), "server": server, "table": table, "env": env, **to_json(config)}
    )
    with _signals() as stopping, _open(path, server) as api:
        if lift_limiter and server is not None:
            api.alter_table(table, rate_limiter=rs.MinSize(1))
        result = train_offline(api, table, env or None, config, run, resume=state, preload=preload, report=_tell, stopping=stopping)
    typer.echo(json.dumps(asdict(result)))
    if config.target_return > 0 and (result.best_return is None or result.best_return < config.target_return):
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
    shape, *others = state["spaces"]
    config = DQNConfig(hidden=tuple(state["hidden"]), eval_episodes=episodes, seed=seed, device=device)
    agent = DoubleDQN(Spaces(tuple(shape), *others), config)
    agent.restore(state)
    returns = agent.evaluate(env)
    figures = {"mean": returns.mean(), "std": returns.std(), "min": returns.min(), "max": returns.max()}
    typer.echo(json.dumps({"episodes": episodes, "update": agent.updates, **{k: float(v) for k, v in figures.items()}}))


def ensure_table(api: Any, table: str, env: str, config: OnlineConfig) -> None:
    """Creates the learner's table unless one of that name is there already."""
    if table in api.tables():
        return
    sample = gymnasium.make(env)
    try:
        api.create_table(table, table_config(sample, config), exist_ok=True)
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


def _open(path: Path | None, server: str | None) -> Any:
    if path is not None:
        return rs.open(path, mode="r")
    from replaystore_client import Client

    assert server is not None, "the caller checked that one of the two is given"
    return Client(server)


def _run(out: Path, resume: bool, config: dict[str, Any]) -> tuple[RunFolder, dict[str, Any] | None]:
    if not resume:
        return RunFolder.begin(out, config), None
    if not (out / "last.pt").exists():
        raise typer.BadParameter(f"{out}/last.pt does not exist: there is nothing to resume", param_hint="--resume")
    return RunFolder(out), load_checkpoint(out / "last.pt")


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
