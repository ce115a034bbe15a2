"""Traces: a span for each block, each message with batches and each commit, sent to an OpenTelemetry collector.

Spans are made after the fact from times that are measured anyway; where no collector is named there is nothing of this but one comparison.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from replaystore.errors import InvalidArgument

GRACE_S = 3.0
"""How long spans that are left may take to be sent when the server stops."""


class Traces:
    """Makes spans. From any thread."""

    def __init__(self, provider: Any) -> None:
        """`provider`: an `opentelemetry.sdk.trace.TracerProvider`, shut down by `close`."""
        from opentelemetry.trace import SpanKind

        self._provider = provider
        self._tracer = provider.get_tracer("replaystore")
        self._server, self._internal = SpanKind.SERVER, SpanKind.INTERNAL

    def _span(self, name: str, kind: Any, seconds: float, attributes: dict[str, Any]) -> None:
        end = time.time_ns()
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=end - int(seconds * 1e9))
        span.end(end)

    def append(self, table: str, rows: int, received_bytes: int, decode_s: float, wait_s: float, store_s: float) -> None:
        """A block was applied."""
        facts = {"replaystore.table": table, "replaystore.rows": rows, "replaystore.bytes": received_bytes}
        stages = {"replaystore.decode_s": decode_s, "replaystore.wait_s": wait_s, "replaystore.store_s": store_s}
        self._span("replaystore.append", self._server, decode_s + wait_s + store_s, {**facts, **stages})

    def sample(self, table: str, batches: int, items: int, sent_bytes: int, wait_s: float, draw_s: float, fill_s: float) -> None:
        """Batches were made."""
        facts = {"replaystore.table": table, "replaystore.batches": batches, "replaystore.items": items, "replaystore.bytes": sent_bytes}
        stages = {"replaystore.wait_s": wait_s, "replaystore.draw_s": draw_s, "replaystore.fill_s": fill_s}
        self._span("replaystore.sample", self._server, wait_s + draw_s + fill_s, {**facts, **stages})

    def commit(self, table: str, seconds: float, rows: int) -> None:
        """Rows became durable."""
        self._span("replaystore.commit", self._internal, seconds, {"replaystore.table": table, "replaystore.rows": rows})

    def close(self) -> None:
        """Sends what is left, as far as that goes quickly."""
        closing = threading.Thread(target=self._provider.shutdown, name="replaystore-traces", daemon=True)
        closing.start()
        closing.join(GRACE_S)


def traces_to(endpoint: str, version: str, instance: str) -> Traces:
    """Traces for the collector at `endpoint`, ``http://HOST:4317`` or, with TLS, ``https://…``; OTLP over gRPC.

    How many of them are kept is OpenTelemetry's own setting (``OTEL_TRACES_SAMPLER``); all of them, if it is not set.

    Raises:
        InvalidArgument: it is no such URL, or the packages are missing.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme not in ("http", "https") or not address:
        raise InvalidArgument(f"otlp={endpoint!r} must be the URL of an OpenTelemetry collector, for example http://127.0.0.1:4317")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidArgument(f"otlp={endpoint!r} needs {error.name}: pip install 'replaystore[otel]'") from error
    resource = Resource.create({"service.name": "replaystore", "service.version": version, "service.instance.id": instance})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=scheme == "http")))
    return Traces(provider)
