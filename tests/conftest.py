"""For all tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from replaystore_client import stream

TOLD = "told"
"""Name of a line that a test says in the summary, among its user properties: these also come from other processes."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles kernels once, before anything is waited for: in a fresh clone that takes longer than a server, or a test, may take."""
    if session.items and not session.config.option.collectonly:
        from replaystore.engine.warm_up import warm_up

        warm_up()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Any) -> None:
    """The same before there are several processes, which would all compile the same kernels at once."""
    from replaystore.engine.warm_up import warm_up

    warm_up()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The lines that tests told."""
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties if report.when == "call" else ():
            if name == TOLD:
                terminalreporter.write_line(f"{report.nodeid}: {line}")


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """On a busy machine a server may be silent for seconds: no test but those of bad networks is about when a client gives it up."""
    before, stream.LATE_S = stream.LATE_S, 30.0
    yield
    stream.LATE_S = before
