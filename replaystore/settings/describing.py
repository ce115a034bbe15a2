"""Settings in words: their names everywhere, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from replaystore.settings.table import Address, Settings, Shown, Size

PREFIX = "REPLAYSTORE_"
FILE = "replaystore.toml"
UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
WORDS = {
    bool: "true or false",
    str: "text, or empty",
    Path: "a path, or empty for none",
    Address: "HOST:PORT, for example 127.0.0.1:7777, or empty",
    int: "a whole number",
    float: "a number",
    Size: "a number of bytes (268435456 or 256MiB)",
}
"""What each kind may be."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    """Its key in the TOML file too."""
    kind: Any
    """bool, int, float, str, Path, Address, Size or a Literal."""
    default: Any
    shown: Shown

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

    @property
    def allowed(self) -> str:
        """What it may be: ``a whole number of at least 1``."""
        what = WORDS.get(self.kind) or " or ".join(get_args(self.kind))
        least, above, most = (self.written(bound) for bound in (self.shown.least, self.shown.above, self.shown.most))
        if above:
            return f"{what} above {above}, at most {most}"
        if most:
            return f"{what} from {least} to {most}"
        return f"{what} of at least {least}" if least else what

    def written(self, value: Any) -> str:
        """`value` as it is typed: 256MiB, true, 200; empty for None."""
        if value is None:
            return ""
        if self.switch:
            return "true" if value else "false"
        if self.kind is Size:
            return next((f"{value // size}{unit}" for unit, size in UNITS if value and value % size == 0), str(int(value)))
        return f"{value:.15g}" if isinstance(value, float) else str(value)


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    found = {}
    for field in fields(Settings):
        kind, shown = get_args(hints[field.name])
        found[field.name] = Setting(field.name, Path if Path in get_args(kind) else kind, field.default, shown)
    return found


SETTINGS = _settings()
"""By name, in the order of the table."""
