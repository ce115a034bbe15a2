"""The command, with nothing set by whoever runs the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from replaystore.cli.app import app
from replaystore.settings.describing import PREFIX

COMMAND = typer.main.get_command(app)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty; no variable is set."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`replaystore serve …` in this process, what it printed."""

    def run(*arguments: str) -> str:
        assert not COMMAND.main(["serve", *arguments], prog_name="replaystore", standalone_mode=False)
        return capsys.readouterr().out

    return run
