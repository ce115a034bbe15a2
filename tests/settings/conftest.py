"""The command, with nothing set by whoever runs the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from replaystore.cli.app import app
from replaystore.settings.describing import PREFIX


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty; no variable is set."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def serve() -> Callable[..., Any]:
    """`replaystore serve …` in this process; what it printed, or the error."""

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["serve", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return run
