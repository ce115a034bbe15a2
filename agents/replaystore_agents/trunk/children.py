"""Child processes of the demo and of ablations: started together, watched, and always reaped. Knows nothing of what they do."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TERM_S = 15.0
"""How long a child may take to end after SIGTERM before it is killed."""

STANZA = "import sys; from {module} import {function}; sys.exit({function}())"


class ChildError(RuntimeError):
    """A child process ended, or did not get ready; the message holds the end of its log."""


class Children:
    """A context manager: on leaving, children are asked to end in the reverse order of their starts, then killed, and always waited for."""

    def __init__(self, logs: Path, patience_s: float = TERM_S) -> None:
        self._logs, self._patience_s = logs, patience_s
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, function: str, *arguments: str, pipe: bool = False) -> subprocess.Popen[bytes]:
        """Runs ``module.function()`` in a new interpreter with these arguments; stderr, and stdout unless `pipe`, go to a log."""
        command = [sys.executable, "-c", STANZA.format(module=module, function=function), *arguments]
        with self.log(name).open("wb") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else log, stderr=log)
        self._running[name] = child
        return child

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._logs / f"{name}.log"

    def read_json_line(self, name: str, timeout_s: float) -> dict[str, Any]:
        """The first line that a child started with `pipe` prints, as JSON."""
        child = self._running[name]
        assert child.stdout is not None, "started without pipe=True"
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise ChildError(f"{name} did not say that it is ready within {timeout_s} s; {self._tail(name)}")
        line = child.stdout.readline()
        if not line:
            raise ChildError(f"{name} ended with code {child.wait()} before it was ready; {self._tail(name)}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def check(self) -> None:
        """Raises ChildError when a child has ended."""
        for name, child in self._running.items():
            if child.poll() is not None:
                raise ChildError(f"{name} ended early with code {child.returncode}; {self._tail(name)}")

    def stop(self, *names: str) -> dict[str, int]:
        """Asks these children (all, when none is named) to end, waits, kills what does not; returns their exit codes."""
        codes = {}
        wanted = list(names) or list(reversed(self._running))
        for name in wanted:
            if self._running[name].poll() is None:
                self._running[name].terminate()
        deadline = time.monotonic() + self._patience_s
        for name in wanted:
            child = self._running.pop(name)
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
            codes[name] = child.returncode
        return codes

    def wait(self, *names: str) -> dict[str, int]:
        """Waits for children that are about to end by themselves; those that do not in time are stopped."""
        deadline = time.monotonic() + self._patience_s
        for name in names:
            try:
                self._running[name].wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
        return self.stop(*names)

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-8:]
        return f"its log {self.log(name)} ends: " + (" | ".join(lines) or "(empty)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in list(reversed(self._running)):  # one after the other: whoever started last depends on the earlier ones
            self.stop(name)
