"""Actors and a learner as processes that share nothing but the server."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore.server.thread import ServerThread
from replaystore_client import Client

AGENTS = (sys.executable, "-m", "replaystore_agents")


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with rs.open(tmp_path / "data") as store, ServerThread(store, "127.0.0.1:0", None, None) as thread:
        yield thread


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*AGENTS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(child: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    try:
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    return child.returncode, json.loads(out.splitlines()[-1]) if out.strip() else {}, err


def test_two_actors_and_a_learner_meet_at_the_server(server: Any, tmp_path: Path) -> None:
    where = ("--server", server.address, "--table", "t")
    actors = [start("act", *where, "--actor", str(number), "--num-envs", "2", "--pull-every", "4") for number in (0, 1)]
    out = tmp_path / "run"
    small = ("--max-updates", "120", "--eval-every", "60", "--eval-episodes", "10", "--min-size", "200", "--publish-every", "20")
    learner = start("train", *where, "--out", str(out), "--target-return", "0", "--batch-size", "64", *small)
    code, result, err = finish(learner)
    assert code == 0, err
    assert result["updates"] == 120
    for number, actor in enumerate(actors):
        code, played, err = finish(actor)
        assert code == 0, err
        assert played["ended"] == "told to stop", number
        assert played["policy_version"] >= 1
    assert {path.name for path in out.iterdir()} >= {"config.json", "metrics.jsonl", "result.json", "best.pt", "last.pt", "replayed.npz"}
    assert json.loads((out / "config.json").read_text())["batch_size"] == 64
    with Client(server.address) as client:
        stats = client.stats("t")
        rows = client.read_steps("t", 0, stats.next_step, columns=["meta/actor", "meta/policy_version", "replay/priority"])
        assert stats.sampled_items >= 120 * 64
        assert isinstance(client.describe("t").config.selector, rs.Prioritized)
    assert set(rows["meta/actor"].tolist()) == {0, 1}
    assert rows["meta/policy_version"].max() >= 1
    assert len(set(rows["replay/priority"].tolist())) > 50  # the learner's errors arrived


def test_sigterm_ends_an_actor_cleanly(server: Any) -> None:
    with Client(server.address) as client:
        columns = {"observation": rs.Column((4,)), "action": rs.Column((), "int64", {"kind": "Discrete", "n": 2})}
        client.create_table("t", rs.TableConfig(columns=columns))
        actor = start("act", "--server", server.address, "--table", "t")
        try:
            while client.stats("t").inserted_steps < 50:
                assert actor.poll() is None
            actor.send_signal(signal.SIGTERM)
        finally:
            code, played, err = finish(actor) if actor.returncode is None else (1, {}, "")
        assert code == 0, err
        assert played["ended"] == "interrupted"
        assert client.stats("t").inserted_steps == played["steps"]
        assert client.stats("t").open_episodes == 0
