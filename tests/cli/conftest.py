"""A small store, and a real server process over it."""

from __future__ import annotations

import json
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs

READY_S = 240.0
COMPILING = "compiling kernels, once after an installation: about half a minute\n"
"""Said by `serve` where its start takes long, also where that is only because the machine is busy."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "replaystore.cli.main", *arguments]


def replaystore(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=240, stdin=subprocess.DEVNULL)
    done.stderr = done.stderr.replace(COMPILING, "")
    return done


def fill(path: Path) -> None:
    """Table "maze": nested observations, 4 episodes of 3 steps, the last one truncated; table "empty"."""
    columns = {
        "observation/where": rs.Column((2,), "float32"),
        "observation/image": rs.Column((4, 4), "uint8"),
        "action": rs.Column((), "int64", {"kind": "Discrete", "n": 5, "start": 0}),
    }
    with rs.open(path) as store:
        store.create_table("maze", rs.TableConfig(columns, selector=rs.Prioritized(alpha=0.5)))
        store.create_table("empty", rs.TableConfig({"observation": rs.Column(), "action": rs.Column()}))
        with store.writer("maze", actor=3, policy_version=9) as writer:
            for episode in range(4):
                writer.reset({"where": [episode, 0], "image": np.zeros((4, 4), np.uint8)}, seed=episode)
                for t in range(3):
                    following = {"where": [episode, t + 1], "image": np.full((4, 4), t, np.uint8)}
                    writer.append(t, float(episode), t == 2 and episode < 3, t == 2 and episode == 3, following)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


def read_line(process: subprocess.Popen[str], timeout_s: float = READY_S) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(timeout_s), "the server did not get ready"
    return process.stdout.readline()


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """Starts ``replaystore serve … --json-ready``; returns the process and what it said."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        line = command("serve", *arguments, "--json-ready")
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        running.append(process)
        return process, json.loads(read_line(process))

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
