"""The demo's surroundings: it harms no folder and leaves no process. The demo itself is `make demo`."""

import io
import os
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

import replaystore as rs
from replaystore_agents.demo import _free_table_name, run_demo
from replaystore_agents.trunk.children import ChildError, Children


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("42")
    screen = console()
    assert run_demo(tmp_path, console=screen) == 2
    assert "left alone" in said(screen)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_neither_a_file_nor_a_foreign_zarr_group_will_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run_demo(tmp_path / "file", console=console()) == 2
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert run_demo(tmp_path / "group", console=console()) == 2


def test_a_store_gets_one_more_table(tmp_path: Path) -> None:
    assert _free_table_name(tmp_path / "data") == "cartpole"
    with rs.open(tmp_path / "data") as store:
        config = rs.TableConfig(columns={"observation": rs.Column((1,))})
        store.create_table("cartpole", config)
        store.create_table("cartpole-2", config)
    assert _free_table_name(tmp_path / "data") == "cartpole-3"


@pytest.mark.parametrize("stubborn", [False, True])
def test_children_are_always_reaped(tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import signal, time\ndef go():\n    {}\n    print('{{}}', flush=True)\n    time.sleep(60)\n"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else "pass"
    (tmp_path / "sleeper.py").write_text(body.format(ignore))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def start_and_fail() -> None:
        with Children(tmp_path / "logs", patience_s=0.3) as children:
            started.append(children.start("sleeper", "sleeper", "go", pipe=True))
            assert children.read_json_line("sleeper", 20) == {}
            children.check()
            raise RuntimeError("boom")

    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(RuntimeError, match="boom"):
        start_and_fail()
    (child,) = started
    assert child.returncode == (-9 if stubborn else -15)


def test_a_child_that_ends_early_is_named_with_its_log(tmp_path: Path) -> None:
    with Children(tmp_path / "logs") as children:
        children.start("breaker", "nowhere", "go", pipe=True)
        with pytest.raises(ChildError, match=r"breaker ended with code 1.*No module named 'nowhere'"):
            children.read_json_line("breaker", 20)
        with pytest.raises(ChildError, match="breaker ended early"):
            children.check()
