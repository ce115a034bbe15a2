"""What is unknown, wrong or missing is refused, in words that say where it stands and what to do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from replaystore.cli.main import run
from replaystore.errors import InvalidArgument
from replaystore.settings.describing import SETTINGS
from replaystore.settings.loading import OTHERS, load

ROOT = Path(__file__).resolve().parents[2]


def refusal(serve: Callable[..., str], *arguments: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        serve(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


OF_FILE = {
    "max_tabels = 5": "max_tabels is not a setting; did you mean max_tables?",
    "max-tables = 5": "max-tables is not a setting; did you mean max_tables?",
    "colour = 1": "colour is not a setting; `replaystore serve --print-config` lists them",
    "a = 1\nlisten_ = 2": "a is not a setting; `replaystore serve --print-config` lists them; "
    "listen_ is not a setting; did you mean listen?",
    "[serve]\nmax_tables = 5": "[serve] is a section, and settings stand in none: write them at the top of the file",
    'config = "other.toml"': "config cannot be set in the file: use --config or REPLAYSTORE_CONFIG",
    'tokens = "secret-secret-secret"': "tokens cannot be set in the file: use REPLAYSTORE_TOKENS",
    "max_tables = true": "max_tables = true must be a whole number of at least 1",
    "local = 1": "local = 1 must be true or false",
    "threads = [1, 2]": "threads = [1, 2] must be a whole number from 1 to 256",
}


@pytest.mark.parametrize("content", OF_FILE)
def test_a_file_with_a_wrong_key_or_kind(content: str, here: Path, serve: Callable[..., str]) -> None:
    (here / "my.toml").write_text(content)
    assert refusal(serve, "--config", "my.toml", "--print-config") == f"my.toml: {OF_FILE[content]}"


def test_a_file_that_is_none_or_no_toml(here: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        refusal(serve, "--config", "no.toml")
        == "--config: there is no file 'no.toml': give the path of a TOML file, or leave --config away"
    )
    monkeypatch.setenv("REPLAYSTORE_CONFIG", "folder")
    (here / "folder").mkdir()
    assert refusal(serve).startswith("REPLAYSTORE_CONFIG: there is no file 'folder'")
    monkeypatch.delenv("REPLAYSTORE_CONFIG")
    (here / "replaystore.toml").write_text("path = data\n")
    assert refusal(serve).startswith("replaystore.toml is no TOML: ")
    (here / "replaystore.toml").write_bytes(b"path = '\xff'\n")
    assert refusal(serve).startswith("replaystore.toml is no TOML: ")


def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]) -> None:
    monkeypatch.setenv("REPLAYSTORE_MAX_TABELS", "a value that is nobody's business")
    assert refusal(serve) == "environment: REPLAYSTORE_MAX_TABELS is not a setting; did you mean REPLAYSTORE_MAX_TABLES?"
    monkeypatch.setenv("REPLAYSTORE_ZZZ", "1")
    assert refusal(serve).endswith("; REPLAYSTORE_ZZZ is not a setting; `replaystore serve --print-config` lists them")
    monkeypatch.delenv("REPLAYSTORE_MAX_TABELS")
    monkeypatch.delenv("REPLAYSTORE_ZZZ")
    monkeypatch.setenv("REPLAYSTORE_PORT", "7777")
    assert refusal(serve).startswith("environment: REPLAYSTORE_PORT is not a setting")


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        monkeypatch.setenv(name, "x")
    for name in ("REPLAYSTORE", "REPLAYSTORE_METRICS"):  # two Services of Kubernetes
        monkeypatch.setenv(f"{name}_SERVICE_HOST", "10.0.0.7")
        monkeypatch.setenv(f"{name}_SERVICE_PORT", "7777")
        monkeypatch.setenv(f"{name}_SERVICE_PORT_GRPC", "7777")
        monkeypatch.setenv(f"{name}_PORT", "tcp://10.0.0.7:7777")
        monkeypatch.setenv(f"{name}_PORT_7777_TCP", "tcp://10.0.0.7:7777")
        for part in ("PROTO", "PORT", "ADDR"):
            monkeypatch.setenv(f"{name}_PORT_7777_TCP_{part}", "x")
    assert {origin.kind for origin in load({}).origins.values()} == {"default"}


def test_every_variable_that_the_repository_speaks_of_is_known() -> None:
    known = {setting.variable for setting in SETTINGS.values()} | OTHERS
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in listed:
        path = ROOT / name
        if name.startswith("tests/settings/") or not path.is_file():
            continue
        named = set(re.findall(r"\bREPLAYSTORE_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(errors="ignore")))
        assert named <= known, f"{name} names {sorted(named - known)}: make it a setting, or list it in OTHERS"


WRONG = {
    "durability": ("sometimes", "interval or fsync"),
    "commit_interval_ms": ("0", "a number from 1 to 60000"),
    "listen": ("7777", "HOST:PORT, for example 127.0.0.1:7777, or empty"),
    "metrics": ("here:99999", "HOST:PORT, for example 127.0.0.1:7777, or empty"),
    "log_format": ("xml", "text or json"),
    "log_level": ("loud", "debug or info or warning or error"),
    "insecure": ("maybe", "true or false"),
    "local": ("", "true or false"),
    "max_message_bytes": ("4GiB", "a number of bytes (268435456 or 256MiB) from 1MiB to 2147483647"),
    "max_parameters_bytes": ("much", "a number of bytes (268435456 or 256MiB) of at least 1"),
    "max_in_flight_bytes": ("-1", "a number of bytes (268435456 or 256MiB) of at least 1MiB"),
    "max_parameter_sets": ("0", "a whole number of at least 1"),
    "max_parameters_total_bytes": ("0", "a number of bytes (268435456 or 256MiB) of at least 1"),
    "max_tables": ("0", "a whole number of at least 1"),
    "max_streams": ("many", "a whole number of at least 1"),
    "max_waiting": ("1.5", "a whole number of at least 1"),
    "max_wait_s": ("inf", "a number above 0, at most 86400"),
    "threads": ("1000", "a whole number from 1 to 256"),
    "waiting_threads": ("0", "a whole number from 1 to 1024"),
    "grace_s": ("nan", "a number from 0 to 3600"),
}


def test_every_setting_that_can_be_wrong_is_tried() -> None:
    anything = {name for name, setting in SETTINGS.items() if setting.kind is Path} | {"otlp", "tokens"}
    assert WRONG.keys() == SETTINGS.keys() - anything


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_says_where_it_stands_and_what_is_allowed(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    (value, allowed), setting = WRONG[name], SETTINGS[name]
    (here / "replaystore.toml").write_text(f'{name} = "{value}"\n')
    if not setting.switch:
        assert refusal(serve) == f'{name} = "{value}", from the file (replaystore.toml), must be {allowed}'
        assert refusal(serve, setting.flag, value) == f'{name} = "{value}", from the command line ({setting.flag}), must be {allowed}'
    (here / "replaystore.toml").unlink()
    monkeypatch.setenv(setting.variable, value)
    assert refusal(serve, "--print-config") == f'{name} = "{value}", from the environment ({setting.variable}), must be {allowed}'


def test_all_wrong_values_are_told_at_once(serve: Callable[..., str]) -> None:
    said = refusal(serve, "--threads", "0", "--grace-s", "x", "--max-tables", "1" * 200)
    assert said.count(" must be ") == 2
    assert len(said) < 500


def test_what_does_not_go_together(serve: Callable[..., str]) -> None:
    assert refusal(serve) == 'which store? Give its folder: --path DIR, REPLAYSTORE_PATH=DIR, or path = "DIR" in replaystore.toml'
    assert (
        refusal(serve, "--path", "d", "--listen", "")
        == "listen is empty and there is no unix socket: give --listen HOST:PORT or --unix PATH"
    )
    assert refusal(serve, "--path", "d", "--json") == "--json goes with --print-config; --json-ready prints JSON when the server is ready"
    assert refusal(serve, "--path", "d", "--tls-cert", "c") == "tls_cert is set and tls_key is not: TLS needs both, give --tls-key FILE"


def test_a_password_in_an_address_is_never_shown(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYSTORE_OTLP", "https://me:hunter2@traces.example/v1?key=hunter2")
    for more in ((), ("--json",)):
        said = serve("--print-config", *more)
        assert "hunter2" not in said
        assert "https://***@traces.example/v1?***" in said


def test_as_a_user_sees_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["replaystore", "serve", "--path", "data", "--max-tables", "0"])
    assert run() == 2
    assert (
        capsys.readouterr().err == 'error: max_tables = "0", from the command line (--max-tables), must be a whole number of at least 1\n'
    )
