"""The kernel itself kills a process at a chosen system call (strace's injection): what the model of the other tests assumes, made real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import replaystore as rs
from tests.crash.script import Oracle, Script, abandon

ROOT = Path(__file__).resolve().parents[2]
LIFE = """
import json, sys
from pathlib import Path
import replaystore.storage.journal
from tests.crash.script import Script

replaystore.storage.journal.ROTATE_BYTES = 700
script = Script(Path(sys.argv[1]))
for step in script.steps():
    step()
    oracle = script.oracle
    print(json.dumps([oracle.created, oracle.altered, oracle.parameters, oracle.acknowledged]), flush=True)
"""


@cache
def why_not() -> str | None:
    """Why there is no injection here."""
    if shutil.which("strace") is None:
        return "there is no strace"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "inject=pwrite64:signal=SIGKILL:when=9999", "true"], check=False)
    return None if tried.returncode == 0 else "this process may not trace others"


def oracle_of(line: list[int]) -> Oracle:
    """The oracle of a life that got as far as it said, and perhaps one block further."""
    oracle, twin = Oracle(), Script(ROOT)
    created, altered, parameters, acknowledged = line
    while len(oracle.rows) <= acknowledged:
        oracle.offer(len(oracle.rows), twin.rows_of_a_round(60))
    oracle.created, oracle.altered, oracle.unsure = bool(created), bool(altered), True
    oracle.parameters, oracle.acknowledged = parameters, acknowledged
    return oracle


@pytest.mark.parametrize("point", ["pwrite64:150", "pwrite64:330", "fdatasync:60", "rename:200", "fallocate:25", "unlink:8"])
def test_killed_by_the_kernel(tmp_path: Path, point: str) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    call, when = point.split(":")
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]
    child = subprocess.run(
        [*command, sys.executable, "-c", LIFE, str(tmp_path / "data")], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = child.stdout.splitlines()
    assert child.returncode != 0, "the call never came"
    assert len(lines) > 1, "killed too early to say anything"
    oracle = oracle_of(json.loads(lines[-1]))
    store = rs.open(tmp_path / "data", commit_interval_s=3600)
    oracle.check(store)
    abandon(store)
