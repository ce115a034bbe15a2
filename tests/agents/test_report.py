"""Reports: which runs belong together, what is said of them in numbers, and runs that are broken, running, or none."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import typer
from typer.testing import CliRunner

import replaystore as rs
from replaystore_agents.reports.command import report_command
from replaystore_agents.reports.groups import bootstrap, group_runs, interquartile_mean
from replaystore_agents.reports.report import write_report
from replaystore_agents.reports.runs import find_runs, read_run
from replaystore_agents.reports.summary import height, steps_to, summarise, wobble

BASE = {"command": "solo", "env": "CartPole-v1", "algorithm": "dqn", "preset": "", "replay": "auto", "alpha": 0.6, "gamma": 0.99}


def a_run(folder: Path, points: list[tuple[float, float]], axis: str = "inserted_steps", finished: bool = True, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**BASE, "path": str(folder), **config}))
    lines = [json.dumps({"update": round(x / 4), axis: x, "seconds": x / 100, "return_mean": y}) for x, y in points]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if finished:
        (folder / "result.json").write_text(json.dumps({"best_return": max(y for _, y in points)}))
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_runs_that_differ_only_in_seed_and_place_are_one_group(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        a_run(tmp_path / f"a/seed-{seed}", [(100, 10.0 * seed), (200, 20)], seed=seed, server="x", table=f"t{seed}")
        a_run(tmp_path / f"b/seed-{seed}", [(100, 10), (300, 40)], seed=seed, alpha=0.0, beta=[1, 2])
    (panel,) = group_runs(find_runs([tmp_path]).runs)
    assert [group.label for group in panel.groups] == ["alpha=0.6", "alpha=0"]
    assert [[run.seed for run in group.runs] for group in panel.groups] == [[0, 1, 2]] * 2
    assert panel.differing == ["alpha"]
    assert panel.horizon == 200
    assert (panel.grid[0], panel.grid[-1], len(panel.grid)) == (100, 300, 200)


def test_legends_name_what_differs_and_not_what_follows_from_it(tmp_path: Path) -> None:
    for kind, alpha in (("per", 0.6), ("rank", 0.7)):
        for gamma in (0.9, 0.99):
            a_run(tmp_path / f"{kind}-{gamma}", [(100, 10)], replay=kind, alpha=alpha, gamma=gamma, seed=0)
    (panel,) = group_runs(find_runs([tmp_path]).runs)
    assert [g.label for g in panel.groups] == [f"replay={k}, gamma={y}" for k in ("per", "rank") for y in (0.9, 0.99)]
    assert panel.differing == ["replay", "alpha", "gamma"]  # the table has them all


def test_environments_and_axes_are_panels_of_their_own(tmp_path: Path) -> None:
    a_run(tmp_path / "a", [(100, 10)], seed=0)
    a_run(tmp_path / "b", [(100, 10)], seed=0, env="Acrobot-v1")
    a_run(tmp_path / "c", [(100, 10)], axis="other", seed=0)
    report = write_report([tmp_path], tmp_path / "out")
    assert [panel.title for panel in report.panels] == [
        "Acrobot-v1, over environment steps", "CartPole-v1, over environment steps", "CartPole-v1, over updates",
    ]  # fmt: skip
    assert len({plot.name for plot in report.plots}) == 3
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in report.plots)


def test_curves_are_means_of_those_who_got_there(tmp_path: Path) -> None:
    a_run(tmp_path / "0", [(0, 0), (100, 100)], seed=0)
    a_run(tmp_path / "1", [(0, 10), (50, 60), (200, 60)], seed=1)
    (panel,) = group_runs(find_runs([tmp_path]).runs)
    curve = panel.groups[0].curve(np.array([0.0, 25, 100, 101, 200, 201]))
    assert curve.runs.tolist() == [2, 2, 2, 1, 1, 0]
    np.testing.assert_allclose(curve.mean, [5, 30, 80, 60, 60, np.nan])
    assert np.isfinite(curve.low).tolist() == [True] * 3 + [False] * 3
    assert np.isnan(curve.iqm).all()


def test_the_band_is_the_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(5).normal(100, 20, (8, 3))
    low, high = bootstrap(values)
    for point in range(3):
        other = scipy.stats.bootstrap((values[:, point],), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
        assert low[point] == pytest.approx(other.confidence_interval.low, abs=1.5)
        assert high[point] == pytest.approx(other.confidence_interval.high, abs=1.5)
    assert np.array_equal(bootstrap(values), (low, high))
    robust_low, robust_high = bootstrap(values, robust=True)
    assert (robust_low < interquartile_mean(values)).all()
    assert (interquartile_mean(values) < robust_high).all()
    assert np.isnan(bootstrap(values[:1])).all()


@pytest.mark.parametrize("seeds", range(4, 12))
def test_the_interquartile_mean_is_scipys(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=(seeds, 2))
    np.testing.assert_allclose(interquartile_mean(values), scipy.stats.trim_mean(values, 0.25))


def test_figures_by_hand(tmp_path: Path) -> None:
    a_run(tmp_path / "0", [(100, 10), (200, 30), (300, 50)], seed=0)
    a_run(tmp_path / "1", [(100, 20), (200, 60)], seed=1)
    (panel,) = group_runs(find_runs([tmp_path]).runs)
    first, second = panel.groups[0].runs
    assert (steps_to(first, 30), steps_to(first, 51)) == (200, None)
    assert height(first, 300) == pytest.approx((100 * 10 + 100 * 20 + 100 * 40) / 300)
    assert height(second, 300) == pytest.approx((100 * 20 + 100 * 40 + 100 * 60) / 300)  # held after its end
    assert wobble(first) == pytest.approx(10.0)  # of 30 and 50
    (row,) = summarise(panel, target=50)
    assert (row["final_mean"], row["final_min"], row["final_max"]) == (55, 50, 60)
    assert row["final_std"] == pytest.approx(np.std([50, 60], ddof=1))
    assert (row["reached"], row["to_target_median"], row["to_target_min"]) == (2, 250, 200)
    assert row["final_iqm"] is None


def test_the_page_and_the_numbers(tmp_path: Path) -> None:
    for seed in range(5):
        a_run(tmp_path / f"runs/a/{seed}", [(100, 10 + seed), (200, 20 + seed)], seed=seed)
        a_run(tmp_path / f"runs/b/{seed}", [(100, 30), (200, 50 + seed)], seed=seed, replay="rank")
    report = write_report([tmp_path / "runs"], tmp_path / "out", target=52, title="Two kinds")
    page = report.page.read_text()
    assert page.startswith("# Two kinds\n")
    assert "| replay=rank | 5 | 52.0 ± 1.6 | 50.0 … 54.0 | 52.0 [" in page
    assert "environment steps to 52 |" in page
    assert "| 0 of 5 |" in page
    assert "| 200, 3 of 5 |" in page
    assert f"]({report.plots[0].name})" in page
    points, summary, curves = (rows(tmp_path / "out" / f"{name}.csv") for name in ("points", "summary", "curves"))
    assert len(points) == 20
    assert points[0] == {
        "env": "CartPole-v1", "group": "replay=auto", "run": str(tmp_path / "runs/a/0"), "seed": "0", "update": "25",
        "inserted_steps": "100", "seconds": "1.0", "return_mean": "10.0" if "." in points[0]["return_mean"] else "10", "return_std": "",
        "return_min": "", "return_kept": "",
    }  # fmt: skip
    assert [row["final_mean"] for row in summary] == ["22.0", "52.0"]
    assert len(curves) == 400
    assert float(curves[-1]["low"]) < float(curves[-1]["mean"]) == 52.0 < float(curves[-1]["high"])
    again = write_report([tmp_path / "runs"], tmp_path / "again", target=52, title="Two kinds")
    assert again.page.read_text() == page
    assert (tmp_path / "again/curves.csv").read_bytes() == (tmp_path / "out/curves.csv").read_bytes()


def test_running_and_broken_runs_are_used_as_far_as_they_go_and_named(tmp_path: Path) -> None:
    a_run(tmp_path / "whole", [(100, 10), (200, 20)], seed=0)
    running = a_run(tmp_path / "running", [(100, 30)], seed=1, finished=False)
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"update": 50, "inserted_steps": 2')  # is being written
    torn = a_run(tmp_path / "torn", [(100, 5), (200, 7)], seed=2)
    with (torn / "metrics.jsonl").open("a") as file:
        file.write(
            '\x00\x00\n{"update": 75, "inserted_steps": 250, "return_mean": NaN}\n{"update": 80, "inserted_steps": 300, "return_mean": 9}\n'
        )
    resumed = a_run(tmp_path / "resumed", [(100, 1), (200, 2), (300, 3), (200, 4), (300, 5)], seed=3)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.json").write_text(json.dumps(BASE))
    a_run(tmp_path / "blind", [(100, 1)], seed=4)
    (tmp_path / "blind/metrics.jsonl").write_text('{"update": 3, "loss": 1.5}\n')
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage/config.json").write_text("{")
    report = write_report([tmp_path], tmp_path / "out")
    notes = "\n".join(report.notes)
    for name, why in (
        ("running", "not finished: it has got as far as 100 environment steps"),
        ("torn", "1 broken lines of metrics.jsonl are left out"),
        ("torn", "1 evaluations without a finite return are left out"),
        ("resumed", "2 evaluations were made again after it was resumed"),
        ("begun", "left out: there is no metrics.jsonl"),
        ("blind", "left out: metrics.jsonl has no return_mean"),
        ("garbage", "left out: config.json is missing or no JSON object"),
        ("whole", "ended at 200 of 300 environment steps"),
    ):
        assert f"{tmp_path / name}: {why}" in notes, notes
    run = read_run(resumed)
    assert not isinstance(run, str)
    assert (run.x.tolist(), run.returns.tolist()) == ([100, 200, 300], [1, 4, 5])
    ((row,),) = report.rows
    assert (row["runs"], row["finished"], row["counted"]) == (4, 3, 3)
    assert "3 of 4 finished" in report.page.read_text()


@pytest.mark.parametrize(
    ("config", "result", "note"),
    [
        ({"steps": 400}, {"inserted_steps": 200, "reached": False}, "stopped before its end: 200 of 400 steps"),
        ({"steps": 400}, {"inserted_steps": 200, "reached": True}, None),
        ({"steps": 200}, {"inserted_steps": 203, "reached": False}, None),
        ({"max_updates": 50}, {"updates": 40}, "stopped before its end: 40 of 50 updates"),
        ({"max_updates": 50, "target_return": 9.0}, {"updates": 40, "best_return": 9.5}, None),
        ({"max_updates": 50, "target_return": 9.0}, {"updates": 40, "best_return": None}, "stopped before its end: 40 of 50 updates"),
        ({}, {}, None),
    ],
)
def test_a_run_that_was_stopped_is_not_finished(tmp_path: Path, config: dict[str, Any], result: dict[str, Any], note: str | None) -> None:
    folder = a_run(tmp_path / "run", [(100, 1), (200, 2)], seed=0, **config)
    (folder / "result.json").write_text(json.dumps(result))
    run = read_run(folder)
    assert not isinstance(run, str)
    assert (run.finished, run.notes) == (note is None, (note,) if note else ())


def test_two_runs_of_a_seed_are_named(tmp_path: Path) -> None:
    for name in "ab":
        a_run(tmp_path / name, [(100, 10)], seed=7)
    assert "CartPole-v1, dqn: more than one run of seed 7 (2 runs)" in write_report([tmp_path], tmp_path / "out").notes


def test_offline_runs_of_different_data_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        a_run(tmp_path / f"{seed}", [(100, 10)], axis="x", seed=seed, command="offline", table="t")
        (tmp_path / f"{seed}/config.json").write_text(
            json.dumps({**BASE, "command": "offline", "path": f"d{seed}", "table": "t", "seed": seed})
        )
    assert write_report([tmp_path], tmp_path / "out").notes == ["CartPole-v1, dqn: learned from 2 different tables: d0:t, d1:t"]


def test_places_are_folders_of_folders_and_patterns(tmp_path: Path) -> None:
    for seed in range(4):
        a_run(tmp_path / f"deep/er/seed-{seed}", [(1, 1)], seed=seed)
    store = tmp_path / "deep/store"
    a_run(store / "not-looked-at", [(1, 1)], seed=9)
    (store / "zarr.json").write_text("{}")
    assert len(find_runs([tmp_path]).runs) == 4
    assert [run.seed for run in find_runs([f"{tmp_path}/**/seed-[0-2]", tmp_path / "deep/er/seed-1"]).runs] == [0, 1, 2]


@pytest.mark.parametrize(
    ("place", "error", "match"),
    [
        ("nowhere", rs.NotFound, "nowhere does not exist"),
        ("*-x", rs.NotFound, r"no folder matches .*\*-x"),
        ("empty", rs.NotFound, r"there is no run in .*empty: a run is a folder with config.json and metrics.jsonl"),
        ("file", rs.NotFound, "file is a file: give the folder of a run"),
        ("begun", rs.InvalidArgument, r"no run can be used: .*begun: there is no metrics.jsonl"),
    ],
)
def test_what_is_no_run_says_so_and_nothing_is_written(tmp_path: Path, place: str, error: type[Exception], match: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.json").write_text("{}")
    with pytest.raises(error, match=match):
        write_report([tmp_path / place], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table_and_writes_the_files(tmp_path: Path) -> None:
    a_run(tmp_path / "a", [(100, 10), (200, 12)], seed=0, finished=False)
    app = typer.Typer()
    app.command()(report_command)
    done = CliRunner().invoke(app, [str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--target", "11"])
    assert done.exit_code == 0, done.output
    assert "| dqn | 0 of 1 finished | 12.0 | 12.0 … 12.0 |" in done.stdout
    assert "note: " in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "curves.csv", "points.csv", "report.md", "returns-CartPole-v1-environment-steps.png", "summary.csv",
    ]  # fmt: skip
