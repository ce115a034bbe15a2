"""What ``replaystore serve`` says: recovery while it lasts, the block when it is ready."""

from __future__ import annotations

import sys
import time

import replaystore as rs
from replaystore.cli import logs, supervisor, text
from replaystore.server.run import ReadyInfo

PROGRESS_EVERY_S = 1.0


class Progress:
    """Says, now and then, how far the recovery after a crash is."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + PROGRESS_EVERY_S

    def __call__(self, table: str, checked: int, total: int) -> None:
        """Told for every batch checked; called from another thread."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PROGRESS_EVERY_S
            line = f"recovering {table}: checked {text.count(checked)} of {text.count(total)} rows"
            logs.note(line)
            supervisor.tell_starting(line)


def say_compiling() -> None:
    """Why the start takes long."""
    line = "compiling kernels, once after an installation: about half a minute"
    logs.note(line)
    supervisor.tell_starting(line)


def say_stopping(signal: str) -> None:
    """A signal has come."""
    line = f"{signal}: finishing calls, closing the store"
    logs.note(line)
    supervisor.tell_stopping(line)


def _arguments(info: ReadyInfo) -> str:
    """What `Client` takes; what only its user knows has a name that says what it is."""
    address = info.addresses[0]
    tls = ', tls="CA.pem"' if info.encrypted and not address.startswith("unix:") else ""
    token = ', token="TOKEN"' if info.asks else ""
    return f'"{address}"{tls}{token}'


def say_ready(info: ReadyInfo, *, as_json: bool) -> None:
    """The ready block, or one line of JSON: ``listen`` is what ``Client(...)`` takes."""
    address = info.addresses[0]
    if as_json:
        ready = {
            "listen": address,
            "addresses": list(info.addresses),
            "data": str(info.path),
            "tables": list(info.tables),
            "steps_recovered": info.steps_recovered,
            "seconds": round(info.seconds, 3),
            "instance": info.instance,
            "version": rs.__version__,
            "metrics": info.metrics,
        }
        text.say_json(ready)
    else:
        tables = ", ".join(info.tables) if info.tables else "none yet"
        text.say(f"replaystore {rs.__version__} is ready")
        text.say(f"  listening on  {', '.join(info.addresses)}")
        text.say(f"  data          {info.path}")
        text.say(f"  tables        {tables}")
        text.say(f"  recovered     {text.count(info.steps_recovered)} steps in {text.duration(info.seconds)}")
        if info.encrypted or info.asks:
            text.say(f"  access        {'TLS' if info.encrypted else 'not encrypted'}, {'known callers' if info.asks else 'everybody'}")
        if info.metrics:
            text.say(f"  metrics       http://{info.metrics}/metrics")
        text.say()
        text.say("  from replaystore_client import Client")
        text.say(f"  client = Client({_arguments(info)})")
        text.say()
    sys.stdout.flush()
    supervisor.tell_ready(f"serving {info.path} at {', '.join(info.addresses)}")
