from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import replaystore as rs
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store

COLUMNS = {"observation": rs.Column((3,)), "action": rs.Column((), "int64")}


class Scrape:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value for family in self.families.values() for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._values}

    def __call__(self, name: str, **labels: str) -> float:
        """The value of ``replaystore_<name>`` with exactly these labels."""
        return self._values[f"replaystore_{name}", frozenset(labels.items())]


def get(address: str, path: str, accept: str = "") -> tuple[int, str]:
    """Status and text of a page."""
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(server: ServerThread) -> Scrape:
    status, text = get(server.metrics, "/metrics")
    assert status == 200, text
    return Scrape(text)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., ServerThread]]:
    """Starts a server with metrics over `store`."""
    running: list[ServerThread] = []

    def start(**options: object) -> ServerThread:
        running.append(start_in_thread(store, options=ServerOptions(metrics="127.0.0.1:0", **options)))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for one in running:
        one.stop()
