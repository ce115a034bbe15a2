"""For all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Kernels are compiled once, before anything is waited for: in a fresh clone that takes longer than a server may need to start."""
    from replaystore.engine.warm_up import warm_up

    warm_up()
