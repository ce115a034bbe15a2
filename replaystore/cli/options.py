"""The settings of ``serve`` as options of the command line, and as --print-config shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replaystore.cli import text
from replaystore.settings.describing import SETTINGS, Setting
from replaystore.settings.masking import without_password

if TYPE_CHECKING:
    from replaystore.settings.loading import Loaded


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` one option for each setting; they arrive as keywords in its ``**given``, None where not given, else as typed."""
    signature = inspect.signature(command, eval_str=True)
    own = [part for part in signature.parameters.values() if part.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(setting))
        for setting in SETTINGS.values()
        if setting.shown.on_line
    ]
    parameters = [*options, *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {part.name: part.annotation for part in parameters}
    return command


def _annotation(setting: Setting) -> Any:
    kind = bool if setting.switch else str
    return Annotated[kind | None, typer.Option(setting.flags, metavar=setting.shown.metavar or None, help=_help(setting))]


def _help(setting: Setting) -> str:
    default = f"--no-{setting.flag[2:]}" if setting.default is False else setting.flag if setting.switch else ""
    default = default or setting.written(setting.default)
    return f"{setting.shown.meaning} [default: {default}]" if default else setting.shown.meaning


def say_settings(loaded: Loaded, *, as_json: bool) -> None:
    """Each setting, its value and where that came from; no secrets."""
    rows = [(setting, _shown(setting, getattr(loaded.settings, name)), loaded.origins[name]) for name, setting in SETTINGS.items()]
    if as_json:
        text.say_json(
            {setting.name: {"value": value, "origin": origin.kind, "from": origin.name or None} for setting, value, origin in rows}
        )
        return
    text.say_table(
        ("setting", "value", "from"), [(setting.name, setting.written(value) or "-", str(origin)) for setting, value, origin in rows]
    )


def _shown(setting: Setting, value: Any) -> Any:
    if setting.shown.secret:
        return "***" if value else ""
    return without_password(str(value) if isinstance(value, Path) else value)
