"""Settings in words: their names everywhere, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic import ByteSize

from replaystore.settings.table import Settings, Shown

PREFIX = "REPLAYSTORE_"
FILE = "replaystore.toml"
UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    """Its key in the TOML file too."""
    section: str
    kind: Any
    """bool, int, float, str, ByteSize, Path or a Literal."""
    default: Any
    meaning: str
    metavar: str
    unit: str
    allowed: str
    """``a whole number of at least 1``"""
    on_line: bool
    in_file: bool
    secret: bool

    @property
    def flag(self) -> str:
        """On the command line, as it is set there."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def switch(self) -> bool:
        """Whether it is on or off, and its flag takes no value."""
        return self.kind is bool

    @property
    def flags(self) -> str:
        """The flag; for a switch both of them."""
        return f"{self.flag}/--no-{self.flag[2:]}" if self.switch else self.flag


def _settings() -> dict[str, Setting]:
    found = {}
    for name, field in Settings.model_fields.items():
        shown = next(part for part in field.metadata if isinstance(part, Shown))
        kind = next((part for part in get_args(field.annotation) if part is Path), field.annotation)
        found[name] = Setting(
            name, shown.section, kind, field.default, " ".join((field.description or "").split()), shown.metavar, shown.unit,
            shown.allowed or _allowed(kind, field.metadata), shown.on_line, shown.in_file, shown.secret,
        )  # fmt: skip
    return found


def _allowed(kind: Any, constraints: list[Any]) -> str:
    if kind is bool:
        return "true or false"
    if kind is Path:
        return "a path, or empty for none"
    if kind not in (int, float, ByteSize):
        return " or ".join(get_args(kind))
    what = {int: "a whole number", float: "a number", ByteSize: "a number of bytes (268435456 or 256MiB)"}[kind]
    least = next((part for part in constraints if isinstance(part, Ge)), None)
    above = next((part for part in constraints if isinstance(part, Gt)), None)
    most = next((part for part in constraints if isinstance(part, Le)), None)
    if least is not None and most is not None:
        return f"{what} from {written(kind, least.ge)} to {written(kind, most.le)}"
    if above is not None and most is not None:
        return f"{what} above {written(kind, above.gt)}, at most {written(kind, most.le)}"
    return f"{what} of at least {written(kind, least.ge)}" if least is not None else what


def written(kind: Any, value: Any) -> str:
    """`value` as it is typed: 256MiB, true, 200."""
    if value is None:
        return ""
    if kind is bool:
        return "true" if value else "false"
    if kind is ByteSize:
        return next((f"{value // size}{unit}" for unit, size in UNITS if value and value % size == 0), str(int(value)))
    return f"{value:.15g}" if isinstance(value, float) else str(value)


SETTINGS = _settings()
"""By name, in the order of the table."""
