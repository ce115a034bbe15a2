"""Pages made from the code: ``python -m replaystore.cli.pages docs/CLI.md docs/METRICS.md …``, or ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from replaystore.diagnosis.pages import doctor_page
from replaystore.server.observing.metrics.page import metrics_page
from replaystore.settings.page import settings_page

WIDTH = 100

INTRODUCTION = """# The command line

Made by `make docs` from the commands themselves; a test keeps it so.

Reading commands take a store's folder, also while a server uses it (they open it read-only, without its lock), or a server's address
(`host:port`, `unix:PATH`), and print JSON with `--json`. Errors are one line on stderr. Exit codes: 0 fine, 1 something is wrong or failed,
2 usage.
"""


def markdown() -> str:
    """docs/CLI.md: the help of every command, as it is printed."""
    from replaystore.cli.app import app

    parts = [INTRODUCTION]
    for path, text in _helps(typer.main.get_command(app), ["replaystore"], None):
        parts.append(f"## `{' '.join(path)}`\n\n```text\n{text.rstrip()}\n```\n")
    parts.append(f"<!-- as printed with typer {typer.__version__} -->\n")
    return "\n".join(parts)


def _helps(command: Any, path: list[str], parent: Any) -> Iterator[tuple[list[str], str]]:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    if parent is not None:
        settings.setdefault("help_option_names", parent.help_option_names)
    context = command.context_class(command, info_name=path[-1], parent=parent, **settings)
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    yield path, "\n".join(lines)
    for name, child in getattr(command, "commands", {}).items():
        yield from _helps(child, [*path, name], context)


PAGES: dict[str, Callable[[], str]] = {
    "CLI.md": markdown,
    "DOCTOR.md": doctor_page,
    "METRICS.md": metrics_page,
    "SETTINGS.md": settings_page,
}
"""What makes each page."""


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(PAGES[page.name]())
