"""The committed stubs are those of the contract."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "replaystore" / "v1"
GENERATOR = "1.71.2"


def test_the_stubs_were_made_from_these_files() -> None:
    recorded = dict(reversed(line.split()) for line in (STUBS / "SOURCES.sha256").read_text().splitlines())
    sources = sorted((ROOT / "proto" / "replaystore" / "v1").glob("*.proto"))
    current = {str(path.relative_to(ROOT / "proto")): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    assert recorded == current, "run proto/generate.sh"
    for path in sources:
        assert (STUBS / f"{path.stem}_pb2.py").exists()
        assert (STUBS / f"{path.stem}_pb2.pyi").exists()


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    try:
        version = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != GENERATOR:
        pytest.skip(f"grpcio-tools {GENERATOR} is not installed here; the check of the sources' hashes stands for it")
    subprocess.run([ROOT / "proto" / "generate.sh", tmp_path], check=True, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"})
    for path in (tmp_path / "replaystore" / "v1").iterdir():
        assert path.read_bytes() == (STUBS / path.name).read_bytes(), f"{path.name}: run proto/generate.sh"


def test_proto_is_no_package() -> None:
    assert not list((ROOT / "proto").rglob("__init__.py")), "it would shadow proto-plus"


def test_every_method_is_documented() -> None:
    lines = [line.strip() for line in (ROOT / "proto" / "replaystore" / "v1" / "service.proto").read_text().splitlines()]
    methods = [index for index, line in enumerate(lines) if line.startswith("rpc ")]
    assert len(methods) == 20
    assert all(lines[index - 1].startswith("// ") for index in methods)


DEFINITION = re.compile(r"(?:service|rpc|message|oneof|enum) (\w+)|(?:(?:repeated|optional) )?(?:map<[^>]*>|[\w.]+) (\w+) = \d+;")


@pytest.mark.parametrize("name", ["data", "service"])
def test_every_message_and_field_is_documented(name: str) -> None:
    lines = [line.strip() for line in (ROOT / "proto" / "replaystore" / "v1" / f"{name}.proto").read_text().splitlines()]
    found = [(index, match) for index, line in enumerate(lines) if (match := DEFINITION.match(line))]
    assert len(found) > 50
    assert [f"line {index + 1}: {match.group()}" for index, match in found if not lines[index - 1].startswith("//")] == []
