"""docs/CLI.md holds what ``--help`` prints, docs/SETTINGS.md the table of settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from replaystore.cli import pages
from replaystore.cli.app import app
from replaystore.settings.describing import SETTINGS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "CLI.md").read_text()


def test_every_command_and_option_is_documented() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"serve", "demo", "ls", "info", "head", "episodes"} <= commands.keys()
    for name, command in commands.items():
        section = PAGE.partition(f"## `replaystore {name}`\n")[2].partition("## ")[0]
        assert " ".join(command.help.split()) in " ".join(section.split())
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)
            assert " ".join(parameter.help.split()) in " ".join(section.split()), (name, parameter.name)
            names = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
            for option in names:
                assert option in section, (name, option)


def test_the_page_is_what_help_prints() -> None:
    if f"with typer {typer.__version__} -->" not in PAGE:  # another version lays help out in other words
        pytest.skip(f"docs/CLI.md was made with another typer than {typer.__version__}")
    assert pages.markdown() == PAGE, "run `make docs`"


def test_the_page_of_settings_is_the_table() -> None:
    page = (DOCS / "SETTINGS.md").read_text()
    assert pages.PAGES["SETTINGS.md"]() == page, "run `make docs`"
    for setting in SETTINGS.values():
        assert setting.shown.meaning
        assert setting.allowed
        (row,) = [line for line in page.splitlines() if f"`{setting.variable}`" in line and line.startswith("|")]
        assert setting.shown.meaning in row
        assert (f"`{setting.flag}`" in row) == setting.shown.on_line
