"""Examples in the documents run; nothing committed speaks of the machine it was made on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *ROOT.glob("docs/**/*.md")]) if path.exists()]
BLOCK = re.compile(r"(<!-- example: (?P<need>[^>]*) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def examples() -> list[tuple[str, str, str]]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text()), 1):
            found.append((f"{page.name}-{number}", match["code"], match["need"] or ""))
    return found


@pytest.mark.parametrize(("name", "code", "need"), examples(), ids=[name for name, _, _ in examples()])
def test_an_example_runs(name: str, code: str, need: str, tmp_path: Path) -> None:
    if "server" in need:
        import replaystore
        from replaystore.server.thread import start_in_thread

        with replaystore.open(tmp_path / "served") as store:
            server = start_in_thread(store, listen="127.0.0.1:0")
            try:
                code = code.replace("localhost:7777", server.address)
                subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=120)
            finally:
                server.stop()
    else:
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=120)


def test_examples_are_found() -> None:
    assert len(examples()) >= 2


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_nothing_speaks_of_a_machine() -> None:
    forbidden = re.compile(r"/(work|root|home)/[a-z]|/opt/(wheels|pypi)|pypi" + r"\.org|files\.python" + "hosted")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert files
    for name in files:
        path = ROOT / name
        if path.suffix in {".png", ".npz", ".gz"} or not path.is_file() or path == Path(__file__):
            continue
        match = forbidden.search(path.read_text(errors="ignore"))
        assert match is None, f"{name} says {match.group() if match else ''}"


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"<!-- (demo output|figures) -->|TODO|FIXME", page.read_text()), page.name
