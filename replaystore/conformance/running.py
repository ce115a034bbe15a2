"""Runs a client through the exercises."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from replaystore.conformance.exercises import Differs, Exercise
from replaystore.conformance.relay import LosingRelay
from replaystore.errors import InvalidArgument, ReplayStoreError
from replaystore.server.thread import start_in_thread
from replaystore.store import Store

_MOST_SAID = 2000
_END_S = 20.0
"""How long a client may take to end, when it speaks no more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one exercise."""

    exercise: Exercise
    wrong: str
    """Empty: it passed."""


class _Lost(Exception):
    """The client did not answer; says why."""


class _Client:
    """The client under test: it is told ``EXERCISE ADDRESS`` on a line and answers with a line of JSON. Begun anew when it has ended."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stderr: IO[str] | None = None
        self._reading: threading.Thread | None = None
        self._answered = False

    def ask(self, line: str, timeout_s: float) -> str:
        """Its answer; `_Lost` when there is none."""
        process = self._process or self._begin()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answer = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.end()
            raise _Lost(f"the client did not answer within {timeout_s:g} s") from None
        except BrokenPipeError:
            answer = ""
        if answer:
            self._answered = True
            return answer
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise _Lost(f"the client closed its standard input or output and did not end within {_END_S:g} s") from None
        code, said, answered = process.returncode, self._said(), self._answered
        self.end()
        if answered and not code:  # one that takes one exercise at a time
            return self.ask(line, timeout_s)
        raise _Lost(f"the client ended with {code}: {said or 'it said nothing on stderr'}")

    def _begin(self) -> subprocess.Popen[str]:
        stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace"
            )
        except OSError as error:
            stderr.close()
            raise InvalidArgument(f"the client {self._command[0]!r} cannot be run: {error}") from None
        self._process, self._lines, self._stderr, self._answered = process, lines, stderr, False

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    lines.put(line.rstrip("\n") or " ")
            lines.put("")

        self._reading = threading.Thread(target=read, name="replaystore-conformance", daemon=True)
        self._reading.start()
        return process

    def _said(self) -> str:
        assert self._stderr is not None
        self._stderr.seek(0)
        return self._stderr.read().strip()[-_MOST_SAID:]

    def end(self) -> None:
        """Kills it, if it is there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._reading is not None:
                self._reading.join(_END_S)
            for file in (self._process.stdin, self._stderr):
                try:
                    if file is not None:
                        file.close()
                except BrokenPipeError:
                    pass
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()


def run(command: Sequence[str], exercises: Sequence[Exercise], folder: Path, timeout_s: float = 60.0) -> Iterator[Outcome]:
    """One outcome after the other. The client reads ``EXERCISE ADDRESS`` from a line of its standard input and prints a line of JSON.

    Args:
        command: the client under test, and arguments for it.
        exercises: which.
        folder: where the store goes; it must not hold one.
        timeout_s: how long the client may take for one.

    Raises:
        InvalidArgument: the client cannot be run.
    """
    with Store(folder) as store, start_in_thread(store, listen="127.0.0.1:0") as server, _Client(command) as client:
        for exercise in exercises:
            exercise.prepare(store)
            yield Outcome(exercise, _one(client, exercise, store, server.address, timeout_s))


def _one(client: _Client, exercise: Exercise, store: Store, address: str, timeout_s: float) -> str:
    relay = LosingRelay(address, lambda: store.table(exercise.name).next_step > 0) if exercise.loses else None
    try:
        answer = client.ask(f"{exercise.name} {address if relay is None else relay.address}", timeout_s)
    except _Lost as lost:
        return str(lost)
    finally:
        if relay is not None:
            relay.close()
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return f"the line that the client printed is no JSON object: {answer[:_MOST_SAID]}"
    if "failed" in said:
        return f"the client failed: {str(said['failed'])[:_MOST_SAID]}"
    if relay is not None and not relay.cut:
        return "no block arrived, so no connection was lost"
    try:
        exercise.check(store, said)
    except Differs as difference:
        return str(difference)
    except ReplayStoreError as error:
        return f"{type(error).__name__}: {error}"
    return ""
