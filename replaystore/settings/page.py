"""docs/SETTINGS.md: every setting, made from the table."""

from __future__ import annotations

from itertools import groupby

from replaystore.settings.describing import SETTINGS, Setting

INTRODUCTION = """# Settings of the server

Made by `make docs` from the table of settings itself (`replaystore/settings/table.py`); a test keeps it so.

`replaystore serve` takes each setting from the first of these that has it:

1. the command line: `--max-tables 100`
2. the environment: `REPLAYSTORE_MAX_TABLES=100`
3. a TOML file, the one of `--config FILE` (or `REPLAYSTORE_CONFIG`), else `replaystore.toml` in the working directory: `max_tables = 100`
4. the default.

A name that is no setting is an error that names the nearest one, in the file and in the environment alike (variables that begin
with `REPLAYSTORE_`; those that clients read, and those that Kubernetes makes of a Service, are left alone). A wrong value is an error
that says where it stands and what is allowed. `replaystore serve --print-config` shows every value and where it came from, and serves
nothing; with `--json` for programs.

In the file, settings stand at the top, in no section. Sizes are numbers of bytes or have a unit (`"256MiB"`, `"1GB"`). Paths are
relative to the working directory. An empty value (`--metrics ""`, `REPLAYSTORE_METRICS=`, `metrics = ""`) switches off what the file or
the environment has switched on.

```toml
path = "/var/lib/replaystore"
listen = "127.0.0.1:7777"
durability = "interval"
max_message_bytes = "256MiB"
```
"""


def settings_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for section, settings in groupby(SETTINGS.values(), key=lambda setting: setting.shown.section):
        parts.append(f"## {section}\n\n{_table(list(settings))}\n")
    return "\n".join(parts)


def _table(settings: list[Setting]) -> str:
    rows = ["| setting (TOML key) | flag | environment | default | unit | allowed | meaning |", "|---|---|---|---|---|---|---|"]
    for setting in settings:
        shown, default = setting.shown, setting.written(setting.default)
        key = f"`{setting.name}`" if shown.in_file else f"{setting.name} (not in the file)"
        flag = f"`{setting.flags.replace('/', '` / `')}` {shown.metavar}".rstrip() if shown.on_line else "none"
        default = f"`{default}`" if default else "none"
        cells = (key, flag, f"`{setting.variable}`", default, shown.unit, setting.allowed, shown.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
