"""Memory of large messages is used again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from replaystore.wire import memory

FAULTS = """
import resource, sys
from replaystore.wire.memory import expect_large
expect_large(9_000_000)
def messages():
    for _ in range(20):
        some = [b"x" * 9_000_000 for _ in range(4)]
        del some
messages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
messages()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not memory._may_tune({}), reason="another C library allocates here")
def test_large_messages_cost_no_page_faults_once_some_have_gone() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment.pop("GLIBC_TUNABLES", None)
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 1000  # 175 000 pages were written to


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"])
def test_who_has_set_something_keeps_it(name: str) -> None:
    assert not memory._may_tune({name: "1"})
    assert not memory._may_tune({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"})


def test_small_messages_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_asked", False)
    memory.expect_large(1000)
    assert not memory._asked
