"""Imports go downwards only: the table of layers in ARCHITECTURE.md, kept."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [  # lowest first; a room may import itself and what stands before it
    ("replaystore.schema", "replaystore.errors"),
    ("replaystore.schedules", "replaystore.priorities", "replaystore.growing"),
    ("replaystore.transfer",),
    ("replaystore.steps", "replaystore.sampling", "replaystore.batch", "replaystore.turns", "replaystore.status"),
    ("replaystore.staging", "replaystore.fitting", "replaystore.writer"),
    ("replaystore.sample_log", "replaystore.federated"),
    ("replaystore.v1",),
    ("replaystore.wire",),
    ("replaystore.core",),
    ("replaystore.mapping",),
    ("replaystore.storage",),
    ("replaystore.engine",),
    ("replaystore.store",),
    ("replaystore",),  # the package itself: public names, and `open`, which loads the store when it is called
    ("replaystore.server",),
    ("replaystore.conformance",),
    ("replaystore.settings",),
    ("replaystore_client",),
    ("replaystore_agents.trunk",),
    ("replaystore_agents.algorithms",),
    ("replaystore_agents",),
    ("replaystore.diagnosis",),
    ("replaystore.cli",),
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
NOT_FOR = {
    "replaystore_client": ("replaystore.core", "replaystore.storage", "replaystore.engine", "replaystore.store", "replaystore.server"),
    **dict.fromkeys(
        ("replaystore_agents.trunk", "replaystore_agents.algorithms", "replaystore_agents"),
        ("replaystore.core", "replaystore.storage", "replaystore.engine", "replaystore.store", "replaystore.server"),
    ),
    "replaystore.wire": ("replaystore.core", "replaystore.mapping", "replaystore.storage", "replaystore.engine"),
    "replaystore.mapping": ("replaystore.core", "replaystore.wire"),
}
SOURCES = [
    (path, ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"))
    for base in (ROOT, ROOT / "client", ROOT / "agents")
    for path in sorted(base.glob("replaystore*/**/*.py"))
]


def room_of(module: str) -> str | None:
    return next((room for room in sorted(LEVEL, key=len, reverse=True) if module == room or module.startswith(f"{room}.")), None)


def imports_of(path: Path) -> set[str]:
    """Modules imported at run time (not under TYPE_CHECKING), also inside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize(("path", "module"), SOURCES, ids=[module for _, module in SOURCES])
def test_imports_go_downwards(path: Path, module: str) -> None:
    room = room_of(module)
    assert room is not None, f"{module} is in no layer: add it to LAYERS and to ARCHITECTURE.md"
    if module == "replaystore":
        return
    for name in imports_of(path):
        other = room_of(name)
        if other is None or other == room or (other == "replaystore" and room.startswith("replaystore_")):
            continue
        assert LEVEL[other] <= LEVEL[room], f"{module} imports {name}, which stands above it"
        assert other not in NOT_FOR.get(room, ()), f"{module} imports {name}, which is not for {room}"


def test_core_has_no_input_output_threads_or_clock() -> None:
    forbidden = {"os", "io", "threading", "time", "datetime", "pathlib", "asyncio", "socket", "mmap", "random", "secrets"}
    for path in sorted((ROOT / "replaystore/core").rglob("*.py")):
        used = {name.split(".")[0] for name in imports_of(path)}
        assert not used & forbidden, f"{path.name} imports {used & forbidden}"


def test_every_room_is_in_the_architecture_page() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for room in ("cli", "server", "engine", "storage", "mapping", "core", "wire", "schema"):
        assert f"replaystore/{room}" in page


def test_modules_stay_readable() -> None:
    long = {module: len(path.read_text().splitlines()) for path, module in SOURCES if ".v1." not in module}
    assert not {module: lines for module, lines in long.items() if lines > 500}
    for path, module in SOURCES:
        if ".v1." not in module:
            assert ast.get_docstring(ast.parse(path.read_text())), f"{module} does not say what it is for"
