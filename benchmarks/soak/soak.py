"""The soak itself: starts the server and everybody else, kills some of them, watches, and accounts at the end."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import replaystore as rs
from benchmarks.soak.audit import Auditor
from benchmarks.soak.crowd import COLUMNS, IN_LIMITED, MOST_ROWS
from benchmarks.soak.ledger import APPENDS, AUDITED, BINS, CROWD, GROUPS, LIMITED, LIMITED_APPENDS, TEMPORARY, Ledger, quantiles_ms
from benchmarks.soak.watch import Fairness, Growth, cpu_s, grown, look, of_gone_tables, open_links, sockets
from replaystore_client import Client

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY_S, FAIRNESS_EVERY_S = 1.0, 5.0
END_S = 300.0
"""For anything to end: that a machine is slow is no error."""
MOST_PROCESSES = 100_000
LEARNERS = ("prioritized", "sequences", "local", "limited")
FEWEST_KEPT, MOST_KEPT = {CROWD: 40_000, LIMITED: 5_000}, 200_000
"""Steps of a table: as many as come in a sixth of the time, so that retention is at work when the warm-up is over; but at least so many,
which can be read in time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much."""

    minutes: float
    actors: int = 500
    learners: int = 8
    pace_s: float = 2.0
    """Between two blocks of an actor, about; learners draw eight times as often."""
    kill_every_s: float = 12.0
    """A process with many actors is killed, and another begins in its place."""
    seed: int = 0
    slack: float = 1.0
    """Growth that is allowed is so much more: on a busy machine warming up takes longer."""

    def tables(self) -> dict[str, rs.TableConfig]:
        """What everybody writes to and draws from."""
        steps = 60 * self.minutes * self.actors / self.pace_s * MOST_ROWS / 2
        shares = {CROWD: 1 - 1 / IN_LIMITED, LIMITED: 1 / IN_LIMITED}
        crowd, limited = (min(max(FEWEST_KEPT[name], int(share * steps / 6)), MOST_KEPT) for name, share in shares.items())
        limiter = rs.SampleToInsertRatio(samples_per_insert=2.0, min_size_to_sample=500, error_buffer=1000.0)
        return {
            CROWD: rs.TableConfig(COLUMNS, {"td": rs.Prioritized(), "all": rs.Uniform()}, retention=rs.Retention(max_steps=crowd), seed=0),
            LIMITED: rs.TableConfig(COLUMNS, rate_limiter=limiter, retention=rs.Retention(max_steps=limited), seed=0),
        }


class Failed(Exception):
    """Something that must hold does not."""


@dataclass(slots=True)
class Load:
    """A process of clients."""

    name: str
    process: subprocess.Popen[bytes]
    path: Path
    clients: int

    def ledger(self) -> Ledger | None:
        """What it did so far; None before it began."""
        return Ledger(self.path, self.clients) if self.path.exists() and self.path.stat().st_size else None

    def stop(self) -> None:
        """Asks it to end."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@dataclass(slots=True)
class Soak:
    """One run in `folder`."""

    plan: Plan
    folder: Path
    server: subprocess.Popen[str] = field(init=False)
    address: str = field(init=False, default="")
    _loads: list[Load] = field(init=False, default_factory=list)
    _victims: list[Load] = field(init=False, default_factory=list)
    _gone: list[Load] = field(init=False, default_factory=list)
    _serial: int = field(init=False, default=0)
    kills: int = field(init=False, default=0)

    def run(self) -> dict[str, Any]:
        """Everything measured, with the reasons why it failed under ``"failures"``."""
        started = time.monotonic()
        failures: list[str] = []
        found: dict[str, Any] = {"plan": {name: getattr(self.plan, name) for name in Plan.__slots__}, "seconds": 0.0}
        try:
            self._start_server()
            with Client(self.address, timeout_s=END_S) as client:
                tables = self.plan.tables()
                for name, config in tables.items():
                    client.create_table(name, config)
                before = sockets(self.server.pid)
                auditors = {name: Auditor(client, name, MOST_PROCESSES) for name in tables}
                self._start_loads()
                growth, fairness = Growth(self.plan.minutes * 60 / 3), Fairness()
                try:
                    self._watch(auditors, growth, fairness)
                    client.alter_table(LIMITED, rate_limiter=rs.MinSize(1))  # whoever waits for the other side may end
                    self._stop_loads()
                except (Failed, AssertionError, rs.ReplayStoreError) as error:
                    failures.append(f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error))
                found |= {"growth": growth.report(), "worst_behind": fairness.worst}
                if not failures:
                    failures += grown(found["growth"], self.plan.slack)
                    failures += self._account(auditors, found)
                    failures += self._settle(before, found)
            found["server_cpu_s"] = cpu_s(self.server.pid)
            failures += self._end_server(found)
            if not failures:
                failures += self._verify()
        finally:
            processes: list[subprocess.Popen[Any]] = [load.process for load in (*self._loads, *self._victims)]
            for process in (*processes, *([self.server] if hasattr(self, "server") else [])):
                process.kill()
                process.communicate()
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        found |= {"latencies": self._latencies(), "kills": self.kills, "failures": failures, "seconds": time.monotonic() - started}
        found |= {
            "clients": sum(load.clients for load in (*self._loads, *self._victims, *self._gone)),
            "cpu_s": cpu.ru_utime + cpu.ru_stime,
        }
        return found

    # -- beginning

    def _start_server(self) -> None:
        command = [
            sys.executable,
            "-m",
            "replaystore.cli.main",
            "serve",
            "--path",
            str(self._store),
            "--listen",
            "127.0.0.1:0",
            "--json-ready",
        ]
        log = (self.folder / "server.log").open("w")
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        log.close()
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            raise Failed(f"the server did not start: {(self.folder / 'server.log').read_text()}")
        self.address = json.loads(line)["listen"]

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    def _start_loads(self) -> None:
        plan = self.plan
        (self.folder / AUDITED).touch()
        victims = min(plan.actors // 5, 100)
        self._victims = [self._crowd(victims // 2), self._crowd(victims - victims // 2)]
        steady = plan.actors - victims
        self._loads += [self._crowd(steady // 2), self._crowd(steady - steady // 2)]
        kinds = [LEARNERS[index % len(LEARNERS)] for index in range(plan.learners - 1)] + ["single"] * min(1, plan.learners)
        half = len(kinds) // 2
        for part in ([*kinds[:half], "tables", "publish", "fetch"], [*kinds[half:], "tables", "fetch"]):
            self._loads.append(self._load("learners", len(part), ",".join(part), plan.pace_s / 8))

    def _crowd(self, actors: int) -> Load:
        return self._load("crowd", actors, str(actors), self.plan.pace_s)

    def _load(self, module: str, clients: int, what: str, pace_s: float) -> Load:
        serial, self._serial = self._serial, self._serial + 1
        command = [sys.executable, "-m", f"benchmarks.soak.{module}", self.address, str(self.folder), str(serial), what, str(pace_s)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
        return Load(f"{module}-{serial}", process, self.folder / f"ledger-{serial}", clients)

    # -- meanwhile

    def _watch(self, auditors: dict[str, Auditor], growth: Growth, fairness: Fairness) -> None:
        self._wait_for_all(auditors)
        begun = time.monotonic()
        until = begun + self.plan.minutes * 60
        chance = random.Random(self.plan.seed)
        next_kill = begun + 2 * self.plan.kill_every_s
        next_fairness = begun + FAIRNESS_EVERY_S
        while (now := time.monotonic()) < until:
            self._audit(auditors)
            growth.add(now - begun, look(self.server.pid, self._store), all(auditor.dropping for auditor in auditors.values()))
            self._check_alive()
            if now >= next_fairness:
                next_fairness = now + FAIRNESS_EVERY_S
                live = {load.name: ledger.slots for load in (*self._loads, *self._victims) if (ledger := load.ledger()) is not None}
                wrong = fairness.look(now, live)
                if wrong:
                    raise Failed("; ".join(wrong[:5]))
            if now >= next_kill:
                next_kill = now + self.plan.kill_every_s * chance.uniform(0.5, 1.5)
                self._kill(chance.randrange(len(self._victims)), fairness)
            time.sleep(LOOK_EVERY_S)

    def _audit(self, auditors: dict[str, Auditor]) -> None:
        for auditor in auditors.values():
            auditor.look()
        (self.folder / AUDITED).touch()

    def _wait_for_all(self, auditors: dict[str, Auditor]) -> None:
        """Until every actor has been answered: growth is what comes after."""
        until = time.monotonic() + END_S
        crowds = [load for load in (*self._loads, *self._victims) if load.name.startswith("crowd")]
        while any((ledger := load.ledger()) is None or not ledger.slots["answers"].all() for load in crowds):
            self._audit(auditors)
            self._check_alive()
            if time.monotonic() > until:
                raise Failed(f"not every actor was answered within {END_S:g} s")
            time.sleep(0.2)

    def _kill(self, index: int, fairness: Fairness) -> None:
        """At whatever it is doing."""
        victim = self._victims[index]
        victim.process.kill()
        victim.process.communicate()
        fairness.forget(victim.name)
        self._gone.append(victim)
        self._victims[index] = self._crowd(victim.clients)
        self.kills += 1

    def _check_alive(self) -> None:
        self._check_told()
        if self.server.poll() is not None:
            raise Failed(f"the server ended with {self.server.returncode}: {(self.folder / 'server.log').read_text()[-2000:]}")
        for load in (*self._loads, *self._victims):
            if load.process.poll() is not None:
                raise Failed(f"{load.name} ended with {load.process.returncode}")

    def _check_told(self) -> None:
        told = self.folder / "failures"
        if told.exists():
            raise Failed(told.read_text().strip().splitlines()[0])

    # -- the end

    def _stop_loads(self) -> None:
        """Everybody finishes what is on its way."""
        loads = (*self._loads, *self._victims)
        for load in loads:
            load.stop()
        until = time.monotonic() + END_S
        codes: dict[str, int] = {}
        for load in loads:
            try:
                codes[load.name] = load.process.wait(max(1.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Failed(f"{load.name} did not end within {END_S:g} s") from None
        self._check_told()
        for name, code in codes.items():
            if code:
                raise Failed(f"{name} ended with {code}")

    def _account(self, auditors: dict[str, Auditor], found: dict[str, Any]) -> list[str]:
        slots = [ledger.slots for load in (*self._loads, *self._victims, *self._gone) if (ledger := load.ledger()) is not None]
        every = np.concatenate(slots)
        steps = acknowledged = unanswered = 0
        failures = []
        for name, group in ((CROWD, APPENDS), (LIMITED, LIMITED_APPENDS)):
            mine = every[every["group"] == group]
            mine = mine[mine["sent"] > 0]
            try:
                auditors[name].look()
                unanswered += auditors[name].account(mine["actor"], mine["sent"], mine["acknowledged"])
            except AssertionError as error:
                failures.append(str(error))
            steps += auditors[name].steps
            acknowledged += int(mine["acknowledged"].sum())
        found["losses"] = int(every["losses"].sum())
        lost = self.folder / "losses"
        reasons = Counter(re.sub(r"\d+", "#", line) for line in lost.read_text().splitlines()) if lost.exists() else Counter()
        found["lost_because"] = dict(reasons.most_common(5))
        found |= {"steps": steps, "acknowledged": acknowledged, "written_by_the_killed": unanswered}
        return failures

    def _settle(self, before: int, found: dict[str, Any]) -> list[str]:
        """Whether connections go with their clients."""
        until = time.monotonic() + 60
        while (left := sockets(self.server.pid) - before) > 0 and time.monotonic() < until:
            time.sleep(0.2)
        found["after"] = look(self.server.pid, self._store)
        failures = [f"{left} connections are open a minute after their clients have gone"] if left > 0 else []
        while (gone := sorted(filter(of_gone_tables, open_links(self.server.pid)))) and time.monotonic() < until:
            time.sleep(0.2)
        found["open_of_dropped_tables"] = len(gone)
        if gone:
            failures.append(f"{len(gone)} files of tables that were dropped are still open, such as {gone[0]}")
        dropped = sorted(path.name for path in self._store.glob(f"*{TEMPORARY}-*"))
        return failures + [f"{name} was dropped and is still there" for name in dropped[:3]]

    def _end_server(self, found: dict[str, Any]) -> list[str]:
        self.server.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        try:
            code = self.server.wait(END_S)
        except subprocess.TimeoutExpired:
            return [f"the server did not end within {END_S:g} s of SIGTERM"]
        found["stopped_s"] = time.monotonic() - begun
        log = (self.folder / "server.log").read_text()
        failures = [f"the server ended with {code}"] if code else []
        wrong = [line for line in log.splitlines() if re.search(r"\bERROR\b|\[(error|critical)|Traceback", line)]
        return failures + [f"the server's log: {line}" for line in wrong[:3]]

    def _verify(self) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "replaystore.cli.main", "verify", str(self._store)],
            capture_output=True, text=True, check=False, timeout=END_S, cwd=ROOT,
        )  # fmt: skip
        return [f"replaystore verify: {done.stdout}{done.stderr}"] if done.returncode else []

    def _latencies(self) -> dict[str, Any]:
        counts = np.zeros((len(GROUPS), BINS), np.int64)
        for load in (*self._loads, *self._victims, *self._gone):
            ledger = load.ledger()
            if ledger is not None:
                counts += ledger.latencies
        return {name: quantiles_ms(counts[index]) for index, name in enumerate(GROUPS)}


def nofile() -> None:
    """As many descriptors as this process may have: its children have them too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def environment() -> None:
    """One thread each for what would take as many as there are cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
