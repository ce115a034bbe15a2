"""Command line over environment over file over default, for every setting, as --print-config shows it and as the server gets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from replaystore.server.options import ServerOptions
from replaystore.settings.describing import SETTINGS, Setting
from replaystore.settings.loading import Origin, load
from replaystore.settings.serving import INTERNALS, server_options

OF_SERVE = {"path", "listen", "unix", "durability", "commit_interval_ms", "config", "log_format", "log_level"}
"""Settings that `serve` itself uses; the server's options have all others."""
MIB = 1 << 20
EXAMPLES: dict[str, tuple[Any, Any]] = {  # two values other than the default, where there are two; as they are typed in TOML
    "durability": ("fsync", "interval"),
    "commit_interval_ms": (50, 12.5),
    "listen": ("127.0.0.1:0", "[::1]:7000"),
    "metrics": ("127.0.0.1:9464", "127.0.0.1:0"),
    "log_format": ("json", "text"),
    "log_level": ("error", "debug"),
    "tokens": ("a-token-of-the-environment", "another"),
    "otlp": ("http://127.0.0.1:4317", "http://127.0.0.1:4318"),
    "insecure": (True, False),
    "local": (False, True),
    "max_message_bytes": (64 * MIB, 65 * MIB),
    "max_parameters_bytes": (5, 64 * MIB),
    "max_parameters_total_bytes": (5, 64 * MIB),
    "max_in_flight_bytes": (64 * MIB, 65 * MIB),
    "max_wait_s": (0.5, 7),
    "grace_s": (0, 2.5),
    **dict.fromkeys(("max_tables", "max_streams", "max_waiting", "max_parameter_sets", "threads", "waiting_threads"), (3, 7)),
    **dict.fromkeys(("path", "snapshots", "unix", "token_file", "tls_cert", "tls_key", "tls_client_ca"), ("one", "some/two")),
}
LEVELS = ("file", "environment", "command line")
COMBINATIONS = [tuple(level for bit, level in enumerate(LEVELS) if number >> bit & 1) for number in range(8)]


def toml(setting: Setting, value: Any) -> str:
    return f"{setting.name} = {json.dumps(value)}\n"


def arguments(setting: Setting, value: Any) -> list[str]:
    if setting.switch:
        return [setting.flag if value else f"--no-{setting.flag[2:]}"]
    return [setting.flag, str(value)]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "config"])
def test_the_strongest_counts(name: str, here: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]) -> None:
    setting, (one, two) = SETTINGS[name], EXAMPLES[name]
    values = {"file": one, "environment": two, "command line": one}
    places = {"file": "replaystore.toml", "environment": setting.variable, "command line": arguments(setting, one)[0]}
    possible = [level for level, it_is in zip(LEVELS, (setting.shown.in_file, True, setting.shown.on_line), strict=True) if it_is]
    for levels in COMBINATIONS:
        if not set(levels) <= set(possible):
            continue
        (here / "replaystore.toml").write_text(toml(setting, one) if "file" in levels else "")
        if "environment" in levels:
            monkeypatch.setenv(setting.variable, json.dumps(two) if setting.switch else str(two))
        else:
            monkeypatch.delenv(setting.variable, raising=False)
        loaded = load({name: (one if setting.switch else str(one)) if "command line" in levels else None})
        strongest = levels[-1] if levels else "default"
        value = getattr(loaded.settings, name)
        assert (str(value) if isinstance(value, Path) else value) == (values[strongest] if levels else setting.default)
        assert loaded.origins[name] == Origin(strongest, places[strongest] if levels else "")
        assert {origin.kind for key, origin in loaded.origins.items() if key not in (name, "config")} == {"default"}
    if setting.shown.on_line:  # as the command itself does it, with all levels set
        told = json.loads(serve("--print-config", "--json", *arguments(setting, one)))
        assert list(told) == list(SETTINGS)
        assert told[name] == {"value": one, "origin": "command line", "from": places["command line"]}


def test_values_and_origins_as_people_see_them(here: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]) -> None:
    (here / "replaystore.toml").write_text('max_message_bytes = "64MiB"\nthreads = 3\n')
    monkeypatch.setenv("REPLAYSTORE_THREADS", "5")
    lines = {line.split()[0]: " ".join(line.split()) for line in serve("--print-config", "--no-local", "--path", "data").splitlines()}
    assert lines["setting"] == "setting value from"
    assert lines["path"] == "path data command line (--path)"
    assert lines["local"] == "local false command line (--no-local)"
    assert lines["threads"] == "threads 5 environment (REPLAYSTORE_THREADS)"
    assert lines["max_message_bytes"] == "max_message_bytes 64MiB file (replaystore.toml)"
    assert lines["unix"] == "unix - default"
    assert not (here / "data").exists()


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - OF_SERVE))
def test_the_server_gets_it(name: str) -> None:
    value = EXAMPLES[name][0]
    options = server_options(load({name: value if SETTINGS[name].switch else str(value)}).settings)
    got = getattr(options, name)
    assert (str(got) if isinstance(got, Path) else got) == value
    assert options != ServerOptions()


def test_nothing_given_is_what_a_server_does_by_itself() -> None:
    assert server_options(load({}).settings) == ServerOptions()


def test_everything_an_operator_should_decide_is_a_setting() -> None:
    options = {field.name for field in fields(ServerOptions)}
    assert options - SETTINGS.keys() == INTERNALS, "a new field of ServerOptions: make it a setting, or list it in INTERNALS and say why"
    assert SETTINGS.keys() - options == OF_SERVE, "a setting that nothing takes"


def test_the_file_is_the_given_one_or_that_of_the_folder_or_none(
    here: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    def threads(*line: str) -> tuple[int, str | None, str | None]:
        told = json.loads(serve("--print-config", "--json", *line))
        return told["threads"]["value"], told["threads"]["from"], told["config"]["value"]

    for number, name in enumerate(("replaystore.toml", "of-environment.toml", "of-line.toml"), 11):
        (here / name).write_text(f"threads = {number}\n")
    assert threads() == (11, "replaystore.toml", "replaystore.toml")
    monkeypatch.setenv("REPLAYSTORE_CONFIG", "of-environment.toml")
    assert threads() == (12, "of-environment.toml", "of-environment.toml")
    assert threads("--config", "of-line.toml") == (13, "of-line.toml", "of-line.toml")
    assert threads("--config", "") == (4, None, None)
    monkeypatch.setenv("REPLAYSTORE_CONFIG", "")
    assert threads() == (4, None, None)


def test_tokens_come_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]) -> None:
    monkeypatch.setenv("REPLAYSTORE_TOKENS", "a-token-of-the-environment")
    assert server_options(load({}).settings).tokens == "a-token-of-the-environment"
    assert not SETTINGS["tokens"].shown.on_line
    assert json.loads(serve("--print-config", "--json"))["tokens"] == {
        "value": "***", "origin": "environment", "from": "REPLAYSTORE_TOKENS",
    }  # fmt: skip
    assert "a-token" not in serve("--print-config") + repr(load({}))


def test_an_empty_value_switches_off_what_is_on_below(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "replaystore.toml").write_text('unix = "socket"\ntls_cert = "cert"\nmetrics = "127.0.0.1:9464"\nsnapshots = "copies"\n')
    settings = load({"unix": "", "metrics": "", "snapshots": ""}).settings
    assert (settings.unix, settings.metrics, settings.snapshots) == (None, "", None)
    assert settings.tls_cert == Path("cert")
    assert server_options(settings) == server_options(load({"config": "", "tls_cert": "cert"}).settings)


def test_paths_and_sizes_are_taken_as_people_write_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "replaystore.toml").write_text('path = "~/data"\nmax_message_bytes = "64MiB"\n')
    monkeypatch.setenv("REPLAYSTORE_MAX_PARAMETERS_BYTES", "2GB")
    settings = load({"max_in_flight_bytes": "1048576"}).settings
    assert settings.path == here / "home/data"
    assert (settings.max_message_bytes, settings.max_parameters_bytes, settings.max_in_flight_bytes) == (64 * MIB, 2_000_000_000, MIB)


@pytest.mark.parametrize(("typed", "meant"), [("true", True), ("1", True), ("yes", True), ("False", False), ("off", False)])
def test_a_switch_in_the_environment(typed: str, meant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYSTORE_LOCAL", typed)
    assert load({}).settings.local is meant
