"""``replaystore verify`` and ``replaystore repair``: what they print, and with which exit code they end."""

from __future__ import annotations

import json
from pathlib import Path

import typer.testing

from replaystore.cli.app import app
from tests.cli.conftest import replaystore
from tests.verify.conftest import content, flip, set_value


def run(*arguments: str) -> tuple[int, str]:
    result = typer.testing.CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.stdout


def test_verify_a_good_store(closed: Path) -> None:
    code, output = run("verify", str(closed))
    assert code == 0
    assert output.splitlines()[-1].startswith("fine: 9,147 rows of 2 tables")
    code, output = run("verify", str(closed), "--table", "t", "--json")
    report = json.loads(output)
    assert (code, report["findings"], report["tables"], report["live"]) == (0, [], ["t"], False)
    assert report["bytes_read"] > 500_000


def test_verify_and_repair_a_damaged_one(closed: Path) -> None:
    flip(closed / "t/steps/action/c.12", 1000)
    set_value(closed / "t/replay/priority/c.6", "f4", 10, -1.0)
    code, output = run("verify", str(closed))
    assert code == 1
    lines = output.splitlines()
    assert any(line.startswith("t/steps/action/c.12 rows 6144-6655: expected CRC32C ") for line in lines)
    assert any(line.startswith("t/replay/priority/c.6 rows 6154-6154: expected a finite mass, 0 or more; found -1.0") for line in lines)
    code, output = run("verify", str(closed), "--json")
    findings = json.loads(output)["findings"]
    assert code == 1
    assert {(finding["file"], *finding["rows"]) for finding in findings} == {
        ("t/steps/action/c.12", 6144, 6656),
        ("t/replay/priority/c.6", 6154, 6155),
    }

    before = content(closed)
    code, output = run("repair", str(closed), "--dry-run")
    assert code == 0
    assert "would make rows 6144-6655 unsampleable: t/meta/kind" in output.splitlines()
    assert content(closed) == before
    code, output = run("repair", str(closed))
    assert code == 0
    assert "make rows 6144-6655 unsampleable: t/meta/kind" in output.splitlines()
    assert run("verify", str(closed))[0] == 0
    assert run("repair", str(closed)) == (0, "nothing to repair\n")


def test_what_is_refused_is_an_error(closed: Path) -> None:
    for path in (closed / "zarr.json", closed / "other/zarr.json", closed / "other/__replaystore/attributes.json"):
        path.unlink()
    code, output = run("repair", str(closed))
    assert code == 1
    assert "cannot: nothing says what the table 'other' holds" in output
    code, output = run("verify", str(closed))
    assert code == 1
    assert "nothing says what the table 'other' holds" in output


def test_usage(closed: Path, tmp_path: Path) -> None:
    assert replaystore("verify").returncode == 2
    missing = replaystore("verify", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "no replaystore store" in missing.stderr
    unknown = replaystore("repair", str(closed), "--table", "x")
    assert unknown.returncode == 1
    assert "tables: other, t" in unknown.stderr
