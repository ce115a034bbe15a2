"""The dashboard, the alerts and the page speak of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from replaystore.server.observing.metrics.catalogue import ENTRIES
from replaystore.server.observing.metrics.page import metrics_page

ROOT = Path(__file__).resolve().parents[2]
PROCESS = {
    "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds",
    "process_start_time_seconds",
}  # fmt: skip
"""What the Prometheus client says of a process; test_workload sees that it does."""
NAME = re.compile(r"\b(?:replaystore|process)_\w+")
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
FROM_PROMETHEUS = {"instance", "job"}


def series() -> dict[str, set[str]]:
    """Labels by the name of each series."""
    found = {name: set(entry.labels) | FROM_PROMETHEUS for entry in ENTRIES.values() for name in entry.sample_names}
    return found | {name: {*found[name], "le"} for name in found if name.endswith("_bucket")} | dict.fromkeys(PROCESS, FROM_PROMETHEUS)


def check(expression: str) -> None:
    known = series()
    names = set(NAME.findall(expression))
    assert names <= known.keys(), f"{names - known.keys()}: no such metric, in {expression}"
    for name, inside in SELECTOR.findall(expression):
        if name in known:
            assert set(LABEL.findall(inside)) <= known[name], expression
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def dashboard() -> Any:
    return json.loads((ROOT / "deploy/grafana/replaystore.json").read_text())


def alerts() -> list[Any]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_panel_shows_metrics_that_there_are() -> None:
    panels = dashboard()["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(expressions) > 40
    for expression in expressions:
        check(expression)
        assert NAME.search(expression), expression
    shown = {name for expression in expressions for name in NAME.findall(expression)}
    for name in ("inserted_steps_total", "sampled_items_total", "blocked_seconds_total", "commit_lag_seconds", "disk_free_bytes"):
        assert f"replaystore_{name}" in shown


def test_the_dashboard_is_whole() -> None:
    whole = dashboard()
    assert whole["title"]
    assert whole["uid"]
    variables = {variable["name"]: variable for variable in whole["templating"]["list"]}
    for name in ("instance", "table"):
        assert variables[name]["query"]["query"] == variables[name]["definition"]
        check(variables[name]["definition"])
    ids = [panel["id"] for panel in whole["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in whole["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert set(re.findall(r"\$\{?(\w+)", json.dumps(target))) <= {*variables, "__rate_interval"}
        if panel["type"] != "row":
            assert panel["description"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_alerts_speak_of_metrics_that_there_are(rule: Any) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    used = [labels for name, labels in series().items() if name in NAME.findall(rule["expr"])]
    labels = set.intersection(*used) if used else FROM_PROMETHEUS
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, text


def test_the_alerts_that_an_operator_needs() -> None:
    names = {rule["alert"] for rule in alerts()}
    assert len(names) == len(alerts())
    assert {"ReplaystoreDiskNearlyFull", "ReplaystoreCommitLag", "ReplaystoreInsertsBlocked", "ReplaystoreNotReady"} <= names


def test_prometheus_loads_the_alerts() -> None:
    folder = ROOT / "deploy/prometheus"
    settings = yaml.safe_load((folder / "prometheus.yml").read_text())
    for name in settings["rule_files"]:
        assert (folder / name).is_file()
    assert [job["job_name"] for job in settings["scrape_configs"]] == ["replaystore"], "alerts say job=replaystore"


def test_the_page_is_the_catalogue() -> None:
    assert (ROOT / "docs/METRICS.md").read_text() == metrics_page(), "run `make docs`"
