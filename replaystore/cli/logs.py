"""How ``replaystore serve`` logs: lines for people, or an object of JSON per line, on stderr.

What the server says goes through the standard library's `logging`, facts in ``extra``; structlog makes lines of it. A thread writes them:
when nobody reads stderr any more, lines are dropped, and the server goes on.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import Any, TextIO

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

from replaystore.cli import text

MOST_LINES = 4096
"""That wait to be written."""

PATIENCE_S = 2.0
"""For what is left at the end."""

_notes_are_events = False


class Lines(logging.Handler):
    """Writes records to a stream from a thread of its own, and drops those that find no room."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped = 0
        """Records, so far."""
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST_LINES)
        self._thread = threading.Thread(target=self._write, name="replaystore-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held, from any thread."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1
        except Exception:
            self.handleError(record)

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):  # nobody is there any more
                self.dropped += 1

    def close(self) -> None:
        """Writes what is left, as far as that goes quickly."""
        try:
            self._waiting.put(None, timeout=PATIENCE_S)
        except queue.Full:
            return
        self._thread.join(PATIENCE_S)
        super().close()


def formatter(form: str) -> ProcessorFormatter:
    """Makes lines of records; `form` is ``"text"`` or ``"json"``."""
    shared: list[Any] = [add_log_level, add_logger_name, ExtraAdder(), structlog.processors.TimeStamper(fmt="iso", utc=True)]
    if form == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer: Any = structlog.processors.JSONRenderer(default=str)
    else:
        # values in quotes: what a client sent must not look like a line of its own
        renderer = structlog.dev.ConsoleRenderer(colors=False, repr_native_str=True, exception_formatter=structlog.dev.plain_traceback)
    return ProcessorFormatter(foreign_pre_chain=shared, processors=[ProcessorFormatter.remove_processors_meta, renderer])


def log_to_stderr(form: str = "text", level: str = "warning") -> None:
    """What matters at least `level`, of the server; of libraries, warnings and errors."""
    global _notes_are_events
    _notes_are_events = form == "json"
    lines = Lines(sys.stderr)
    lines.setFormatter(formatter(form))
    logging.basicConfig(level=logging.WARNING, handlers=[lines], force=True)
    logging.getLogger("replaystore").setLevel(level.upper())


def note(line: str) -> None:
    """A line for people about how it goes; an event where lines are JSON."""
    if _notes_are_events:
        logging.getLogger("replaystore.serve").info(line)
    else:
        text.note(line)
