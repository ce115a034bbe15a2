"""Settings from where they are set: command line over environment over TOML file over defaults; what is unknown or wrong is an error."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from replaystore.errors import InvalidArgument
from replaystore.settings.describing import FILE, PREFIX, SETTINGS, Setting
from replaystore.settings.masking import without_password
from replaystore.settings.model import MODEL
from replaystore.settings.table import Settings

ALL = "`replaystore serve --print-config` lists them"

_OF_CLIENTS = ("TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY", "TLS_SERVER_NAME")

OTHERS = frozenset(
    PREFIX + name for name in ("TOKEN", *_OF_CLIENTS, "FAULTS", "NET_FAULTS", "MACHINE", "CRASH_EVERY", "POWER_IMAGES", "FUZZ", "FUZZ_SEED")
)
"""Variables that clients and tests read, and that `serve` leaves alone."""

OF_KUBERNETES = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=tcp://|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)"
)
"""Variables, as ``NAME=value``, that Kubernetes gives to every container beside a Service whose name begins with ``replaystore``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    kind: str
    """``command line``, ``environment``, ``file`` or ``default``."""
    name: str
    """The flag, the variable or the file; empty for a default."""

    def __str__(self) -> str:
        return f"{self.kind} ({self.name})" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from."""

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None
    """The TOML file that was read."""


def load(given: Mapping[str, Any]) -> Loaded:
    """Settings of `given` (the command line's, None: not given), ``os.environ``, the TOML file and defaults, in this order.

    Raises:
        InvalidArgument: a name that is no setting, a wrong value, a file that is missing or no TOML. Says where it stands.
    """
    line = {name: value for name, value in given.items() if value is not None}
    _refuse_unknown_variables(os.environ)
    environment = EnvSettingsSource(MODEL)()
    file = _file(line, environment)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, Origin("default", ""))
    for kind, found in (("file", _read(file)), ("environment", environment), ("command line", line)):  # the strongest last
        for name, value in found.items():
            values[name], origins[name] = value, Origin(kind, _name_there(kind, SETTINGS[name], value, file))
    if file is not None:
        values["config"] = file
        if origins["config"].kind == "default":
            origins["config"] = Origin("file", "found in the working directory")
    return Loaded(_validated(values, origins), origins, file)


def _name_there(kind: str, setting: Setting, value: Any, file: Path | None) -> str:
    if kind == "file":
        return str(file)
    if kind == "environment":
        return setting.variable
    return f"--no-{setting.flag[2:]}" if value is False else setting.flag


def _file(line: Mapping[str, Any], environment: Mapping[str, Any]) -> Path | None:
    asked = line.get("config", environment.get("config"))
    if asked is None:
        return Path(FILE) if Path(FILE).is_file() else None
    if asked == "":
        return None
    file = Path(asked).expanduser()
    if not file.is_file():
        where = "--config" if "config" in line else SETTINGS["config"].variable
        raise InvalidArgument(f"{where}: there is no file {str(file)!r}: give the path of a TOML file, or leave {where} away")
    return file


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = TomlConfigSettingsSource(MODEL, toml_file=file).toml_data
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} is no TOML: {error}") from None
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror or error}") from None
    wrong = [_of_unknown_key(name, value) for name, value in found.items() if name not in SETTINGS]
    for name, value in found.items():
        setting = SETTINGS.get(name)
        if setting is not None and not setting.shown.in_file:
            wrong.append(
                f"{name} cannot be set in the file: use {f'{setting.flag} or ' if setting.shown.on_line else ''}{setting.variable}"
            )
        elif setting is not None and (isinstance(value, bool) != setting.switch or isinstance(value, dict | list)):
            wrong.append(f"{name} = {_literal(value)} must be {setting.allowed}")
    if wrong:
        raise InvalidArgument(f"{file}: {'; '.join(wrong)}")
    return found


def _of_unknown_key(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"[{name}] is a section, and settings stand in none: write them at the top of the file"
    near = _nearest(name)
    return f"{name} is not a setting; " + (f"did you mean {near.name}?" if near else ALL)


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS.values()} | OTHERS
    wrong = []
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not OF_KUBERNETES.match(f"{name}={environment[name]}"):
            near = _nearest(name[len(PREFIX) :])
            wrong.append(f"{name} is not a setting; " + (f"did you mean {near.variable}?" if near else ALL))
    if wrong:
        raise InvalidArgument(f"environment: {'; '.join(wrong)}")


def _nearest(name: str) -> Setting | None:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), SETTINGS, 1, 0.6)
    return SETTINGS[near[0]] if near else None


def _validated(values: dict[str, Any], origins: Mapping[str, Origin]) -> Settings:
    try:
        checked = MODEL(**values)
    except ValidationError as error:
        wrong = []
        for part in error.errors(include_url=False):
            name = str(part["loc"][0])
            said = f"{name} = {_literal(without_password(part['input']))}, from the {origins[name]}, must be {SETTINGS[name].allowed}"
            if said not in wrong:
                wrong.append(said)
        raise InvalidArgument("; ".join(wrong)) from None
    return Settings(**{name: getattr(checked, name) for name in SETTINGS})


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."
