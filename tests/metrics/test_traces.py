"""Spans of blocks, batches and commits; none of it when nobody asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import replaystore as rs
from replaystore.server.observing import traces
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.metrics.conftest import COLUMNS
from tests.metrics.test_workload import PATIENCE_S


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What would be sent."""
    exporter = InMemorySpanExporter()

    def to_memory(endpoint: str, version: str, instance: str) -> traces.Traces:
        assert (endpoint, version, len(instance)) == ("http://127.0.0.1:4317", rs.__version__, 16)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return traces.Traces(provider)

    monkeypatch.setattr(traces, "traces_to", to_memory)
    yield exporter
    exporter.clear()


def test_blocks_batches_and_commits(store: Store, spans: InMemorySpanExporter) -> None:
    began = time.time_ns()
    with (
        start_in_thread(store, options=ServerOptions(otlp="http://127.0.0.1:4317", local=False)) as server,
        Client(server.address) as client,
    ):
        client.create_table("t", rs.TableConfig(COLUMNS))
        with client.writer("t", interval_s=3600.0) as writer:
            writer.reset([0.0, 0.0, 0.0])
            for step in range(10):
                writer.append(step, 1.0, step == 9, False, [0.0, 0.0, 0.0])
            writer.flush(durable=True)
        client.sample("t", 16)
        deadline = time.monotonic() + PATIENCE_S
        while "replaystore.commit" not in {span.name for span in spans.get_finished_spans()}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    found = {span.name: span for span in spans.get_finished_spans()}
    assert found.keys() == {"replaystore.append", "replaystore.sample", "replaystore.commit"}
    for span in found.values():
        assert span.attributes is not None
        assert span.attributes["replaystore.table"] == "t"
        assert span.start_time is not None
        assert span.end_time is not None
        assert began <= span.start_time <= span.end_time <= time.time_ns()
    append, sample, commit = (dict(found[f"replaystore.{name}"].attributes or {}) for name in ("append", "sample", "commit"))
    assert append["replaystore.rows"] == commit["replaystore.rows"] == 11
    assert append.keys() >= {"replaystore.bytes", "replaystore.decode_s", "replaystore.wait_s", "replaystore.store_s"}
    assert (sample["replaystore.batches"], sample["replaystore.items"]) == (1, 16)
    assert sample.keys() >= {"replaystore.bytes", "replaystore.wait_s", "replaystore.draw_s", "replaystore.fill_s"}


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4317", "ftp://x", "http://", ""])
def test_what_is_no_collector_is_refused(store: Store, endpoint: str) -> None:
    with pytest.raises(rs.InvalidArgument, match="must be the URL of an OpenTelemetry collector, for example http:"):
        start_in_thread(store, options=ServerOptions(otlp=endpoint))


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(rs.InvalidArgument, match=r"pip install 'replaystore\[otel\]'"):
        traces.traces_to("http://127.0.0.1:4317", "0", "x")


def test_a_collector_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "GRACE_S", 0.01)
    go_on = threading.Event()

    class Slow(TracerProvider):
        def shutdown(self) -> None:
            assert go_on.wait(PATIENCE_S)

    traces.Traces(Slow(shutdown_on_exit=False)).close()
    (left,) = [thread for thread in threading.enumerate() if thread.name == "replaystore-traces"]
    assert left.daemon
    go_on.set()
    left.join(PATIENCE_S)
    assert not left.is_alive()


def test_a_real_exporter_is_made_and_ends(store: Store) -> None:
    with start_in_thread(store, options=ServerOptions(otlp="http://127.0.0.1:1")) as server, Client(server.address) as client:
        assert client.tables() == []


def test_nobody_asked(store: Store) -> None:
    assert ServerOptions().otlp is None
    with start_in_thread(store) as server:
        assert server.metrics == ""
