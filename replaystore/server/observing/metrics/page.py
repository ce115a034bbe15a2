"""docs/METRICS.md: the catalogue as tables, and what else there is to see of a server."""

from __future__ import annotations

from collections.abc import Iterator

from replaystore.server.observing.figures import BOUNDS_S
from replaystore.server.observing.metrics.catalogue import SERVER, TABLE, Entry

INTRODUCTION = """# Metrics

Made by `make docs` from the list that the server itself works by; a test keeps it so.

`replaystore serve --metrics 127.0.0.1:9464` serves them at `/metrics`, in the text format of Prometheus or, for those who accept it, in
that of OpenMetrics. Beside them are `/healthz` (200 while the server's event loop answers, also while a store is recovered; 503 when it
does not) and `/readyz` (200 while calls are served; 503 with a line that says why, and how far a recovery is, when not). All of it is
plain HTTP, read only, and asks nobody who they are: it shows the names of tables and selectors, and numbers, but no data. It listens
where it is told to, also on addresses that other machines can reach, for that is where Prometheus is; a firewall or network policy says
who may come.

Counters begin at 0 when the server starts, unless it says "since the table was made". Everything is worked out when it is scraped; what
is not scraped costs about two microseconds per message. The usual `process_…` metrics of the Prometheus client (memory, CPU, open
descriptors, start time) are there as well.

A dashboard for Grafana is `deploy/grafana/replaystore.json`, alerts are in `deploy/prometheus/`. [Logs](#logs) and [traces](#traces)
are below.
"""

ENDING = """## Logs

`--log-format text` writes lines for people on stderr, `--log-format json` an object per line with `event`, `level`, `logger`, `timestamp`
and the fields below. `--log-level` says how much: warnings and errors if not told otherwise. Logs say who did what, never data and never
secrets; what a client sent appears in quotes and at most 400 characters long. When nobody reads stderr, lines are dropped and the server
goes on.

| event | level | fields |
|---|---|---|
| `ready` | info | addresses, path, tables, rows, seconds, metrics |
| `stopping` | info | signal |
| `table created`, `table dropped` | info | table, caller, peer |
| `table altered` | info | table, changed, caller, peer |
| `table forked` | info | table, new_table, caller, peer |
| `snapshot taken` | info | table, snapshot, seconds, caller, peer |
| `refused` | warning for missing rights, reached bounds and the disk; else info | method, error, why, caller, peer, others_unsaid |
| `slow commit` | warning | table, seconds, rows; of group commits that took a second or more |
| `metrics can be read from other machines` | warning | address |

`refused` is logged once a second for each method and kind of error; `others_unsaid` counts those in between. Beside these come warnings
and errors about tokens, certificates and failures of the server itself, with their traces.

## Traces

`pip install 'replaystore[otel]'` and `--otlp http://HOST:4317` send spans to an OpenTelemetry collector, over gRPC: `replaystore.append`
for each block, `replaystore.sample` for each message with batches, `replaystore.commit` for each group commit. Their attributes are
`replaystore.table`, how many rows, batches, items and bytes it was about, and the seconds of its stages as in the histograms above. A span
takes some 50 µs of the event loop: on a busy server keep a part of them with OpenTelemetry's own variables,
`OTEL_TRACES_SAMPLER=traceidratio` and `OTEL_TRACES_SAMPLER_ARG=0.01`. Without `--otlp` there are none, at no cost.
"""


def metrics_page() -> str:
    """docs/METRICS.md."""
    return "\n".join((INTRODUCTION, *_section("The server", SERVER), *_section("Tables", TABLE), _histograms(), ENDING))


def _section(title: str, entries: tuple[Entry, ...]) -> Iterator[str]:
    yield f"## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|"
    for entry in entries:
        name = entry.sample_names[0] if entry.kind in ("counter", "gauge") else f"replaystore_{entry.name}"
        yield f"| `{name}` | {entry.kind} | {', '.join(entry.labels)} | {entry.meaning} |"
    yield ""


def _histograms() -> str:
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS_S)
    return f"""## Histograms

Durations are counted in classes with these upper bounds, in seconds: {bounds}.

```text
histogram_quantile(0.99, sum by (le, table, stage) (rate(replaystore_sample_seconds_bucket[5m])))
rate(replaystore_inserted_steps_total[1m])
rate(replaystore_sampled_age_steps_sum[5m]) / rate(replaystore_sampled_age_steps_count[5m])
```
"""
