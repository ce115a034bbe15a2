"""Room for images of disks, and small limits so that a short life sees everything that a long one does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replaystore.storage import calls
from tests.conftest import TOLD


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of images are made and opened there."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="replaystore-test-", dir=memory if os.access(memory, os.W_OK) else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a line in the summary: how much was tried."""
    return lambda line: request.node.user_properties.append((TOLD, line))


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The journal is rotated all the time, files are made ahead however few rows they have, lengths are published when a test says so;
    whatever it hooks in is taken out again."""
    monkeypatch.setattr("replaystore.storage.journal.ROTATE_BYTES", 700)
    monkeypatch.setattr("replaystore.storage.stored_column.LEAST_MADE_AHEAD", 1)
    monkeypatch.setattr("replaystore.engine.committing.PUBLISH_INTERVAL_S", 3600.0)
    yield
    calls.hook = None
