"""For all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replaystore_client import stream


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compiles kernels once, before anything is waited for: in a fresh clone that takes longer than a server, or a test, may take."""
    if session.items and not session.config.option.collectonly:
        from replaystore.engine.warm_up import warm_up

        warm_up()


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """On a busy machine a server may be silent for seconds: no test but those of bad networks is about when a client gives it up."""
    before, stream.LATE_S = stream.LATE_S, 30.0
    yield
    stream.LATE_S = before
