"""The benchmark suite runs and says what it found; how fast anything is, is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "benchmarks"
MODULES = ("check", "limits", "peers", "relay", "suite", "tables", "workload")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The suite's modules, imported as its programs import them, and gone again afterwards."""
    monkeypatch.syspath_prepend(str(SUITE))
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    try:
        yield {name: __import__(name) for name in MODULES}
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def bench(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replaystore.cli.main", "bench", *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=280, stdin=subprocess.DEVNULL)


def test_a_quick_run(tmp_path: Path) -> None:
    done = bench("--quick", "--json", "found.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    measured = {(one["workload"], one["figure"]) for one in found["results"]}
    assert {("machine", "memcpy"), ("machine", "loopback"), ("machine", "ping-pong"), ("W1", "insert to sampled, p50")} <= measured
    assert {("machine", "ping-pong after 3 ms"), ("machine", "gRPC alone, sent to received, p50")} <= measured
    assert {("W1", "crowd, worst append"), ("W1", "crowd, total by that of one of each")} <= measured
    assert {(workload, figure) for workload in ("W1", "W2", "W3") for figure in ("sample, uniform", "learner step")} <= measured
    assert {("W1", "insert, 64 environments at once"), ("W2", "insert, one step at a time")} <= measured
    ways = {one["way"] for one in found["results"] if one["workload"] == "W2"}
    assert {"embedded, calls", "embedded, sampler", "gRPC, calls", "gRPC, sampler", "local path, calls", "local path, sampler"} <= ways
    some = [one for one in found["results"] if one["unit"] not in {"%", "/s"}]  # of a crowd, some may get nothing in so short a time
    assert all(value > 0 for one in some for value in one["values"])
    assert found["ratios"]["memcpy"]
    assert not found["ratios"]["cpprb"]
    for one in found["results"]:
        assert one["figure"] in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"], "nothing else is left"


def test_a_file_without_ratios_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    done = bench("--quick", "--check", "other.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds no ratios" in done.stderr


def test_without_the_sources_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replaystore.cli import bench as command
    from replaystore.errors import NotFound

    monkeypatch.setattr(command, "SUITE", tmp_path / "run.py")
    with pytest.raises(NotFound, match="source checkout"):
        command.bench()


def test_the_committed_ratios_can_be_compared_with(modules: dict[str, Any]) -> None:
    ratios = modules["check"].ratios_of(SUITE / "reference.json")
    assert ratios["memcpy"]
    assert ratios["cpprb"]
    assert modules["check"].compare(ratios, ratios) == ([], sum(len(kinds) for kinds in ratios.values()))


def test_what_became_slower_is_named(modules: dict[str, Any]) -> None:
    earlier = {"memcpy": {"a": 1.0, "b": 1.0, "gone": 1.0}, "cpprb": {"a": 4.0}}
    worse, compared = modules["check"].compare(earlier, {"memcpy": {"a": 0.49, "b": 0.5, "new": 1.0}, "cpprb": {"a": 3.9}})
    assert compared == 3
    assert len(worse) == 1
    assert worse[0].startswith("a, by memcpy: 0.49, was 1")


def found(modules: dict[str, Any]) -> Any:
    suite, words = modules["suite"], modules["workload"]
    results = suite.Results({"rounds": 3}, {"cpus": 2, "load_before": 1.0})
    results.values = {
        ("machine 1", "one thread", "machine", "memcpy"): [10.0, 12.0, 8.0],
        ("replaystore 1", "gRPC, calls", "W3", words.UNIFORM): [100e3, 240e3, 120e3],
        ("replaystore 1", "gRPC", "W1", words.LATENCY): [0.2],
        ("cpprb 2", "in process, RAM", "W3", words.UNIFORM): [60e3],
        ("reverb 3", "gRPC", "W1", words.LATENCY): [0.4],
    }
    results.missing = {"torchrl": "not installable here: no [such] wheel"}
    return results


def test_ratios_are_of_medians_and_above_one_where_ours_is_better(modules: dict[str, Any]) -> None:
    results = found(modules)
    ours = ("replaystore 1", "gRPC, calls", "W3", modules["workload"].UNIFORM)
    assert results.ratio_to("cpprb", ours) == 2.0
    assert results.ratio_to_memcpy(ours) == pytest.approx(120e3 * 20_800 / 10e9)
    assert results.ratio_to("reverb", ("replaystore 1", "gRPC", "W1", modules["workload"].LATENCY)) == 2.0
    assert results.ratios()["cpprb"] == {"gRPC, calls | W3 | sample, uniform": 2.0}


def test_the_table_and_the_picture_hold_everything(modules: dict[str, Any], tmp_path: Path) -> None:
    from rich.console import Console

    results = found(modules)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    modules["tables"].show(results, console)
    console.file.close()
    text = console.export_text()
    for part in ("memcpy", "120,000", "25.0%", "2.00", "not installable here: no [such] wheel"):
        assert part in text
    modules["tables"].draw(results, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_cannot_be_had_is_named_with_the_reason(
    modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peers, suite = modules["peers"], modules["suite"]

    def interpreter(name: str, folder: Path) -> str:
        if name != "cpprb":
            raise peers.NotInstallable("not installable here: no wheel")
        return sys.executable

    def measured(command: list[str], folder: str) -> dict[str, Any]:
        if command[1].endswith("peer_cpprb.py"):
            raise RuntimeError("peer_cpprb.py failed: ImportError")
        return {"name": "x", "version": "1", "figures": [["way", "W1", "sample, uniform", 1.0]], "missing": {"W2": "not here"}}

    monkeypatch.setattr(suite, "interpreter", interpreter)
    monkeypatch.setattr(suite, "_run", measured)
    results = suite.run([], 2, True, tmp_path, None, lambda text: None)
    assert results.missing == {
        "torchrl": "not installable here: no wheel",
        "sb3": "not installable here: no wheel",
        "reverb": "not installable here: no wheel",
        "cpprb": "peer_cpprb.py failed: ImportError",
        "x, W2": "not here",
    }
    assert results.values == {("x 1", "way", "W1", "sample, uniform"): [1.0] * 8}


def test_the_reason_is_the_line_that_says_most(modules: dict[str, Any]) -> None:
    last_line = modules["peers"].last_line
    assert last_line("Collecting x\nERROR: No matching distribution\n\nnotice: a new pip\n", 1) == "ERROR: No matching distribution"
    assert last_line("", 3) == "ended with 3"


def test_stacks_stay_within_their_episode(modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    workload = modules["workload"]
    monkeypatch.setattr(workload, "EPISODE", 5)
    observation = np.arange(21)
    data = {"observation": observation[:-1], "next_observation": observation[1:]}
    for start, stop in ((0, 20), (7, 12), (5, 10)):
        now, following = workload.stacks(data, start, stop)
        for step, stack, after in zip(range(start, stop), now.tolist(), following.tolist(), strict=True):
            first = step - step % 5
            assert stack == [max(first, step - back) for back in (3, 2, 1, 0)]
            assert after == [max(first, step + 1 - back) for back in (3, 2, 1, 0)]
