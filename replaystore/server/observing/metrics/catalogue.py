"""Every metric there is: name, kind, labels, meaning. The collector makes no other, and docs/METRICS.md is this list."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, SummaryMetricFamily

FAMILIES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "summary": SummaryMetricFamily,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric."""

    name: str
    """Without ``replaystore_``; that of a counter gets ``_total`` appended."""
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the series, as expressions use them."""
        full = f"replaystore_{self.name}"
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        return tuple(full + ending for ending in endings[self.kind])

    def family(self) -> Metric:
        """To be filled at a scrape."""
        family: Metric = FAMILIES[self.kind](f"replaystore_{self.name}", self.meaning, labels=self.labels)
        return family


T = ("table",)

SERVER = (
    Entry("build_info", "gauge", ("version", "run"), "1; the version, and the random name of this run."),
    Entry("ready", "gauge", (), "1 while calls are served; 0 while the store is being opened and while the server stops."),
    Entry("recovery_rows_checked", "gauge", T, "Rows checked so far of the table that is being recovered; only until the store is open."),
    Entry("recovery_rows", "gauge", T, "Rows to be checked of that table."),
    Entry("recovered_tables", "gauge", (), "Tables that had not been closed in order, by a crash say, when this run opened them."),
    Entry("tables", "gauge", (), "Tables."),
    Entry("tables_not_shown", "gauge", (), "Tables beyond the first 256 by name: their own metrics are left out."),
    Entry("open_streams", "gauge", ("kind",), "Open streams of writers (append) and samplers (sample)."),
    Entry(
        "bound",
        "gauge",
        ("what",),
        "How many streams, single calls and waiting requests may be at once, and how many bytes on their way: blocks that are not stored "
        "yet (bytes_in), batches, rows and parameters (bytes_out).",
    ),
    Entry("bound_used", "gauge", ("what",), "How many there are."),
    Entry("bound_refusals", "counter", ("what",), "How many were refused for that."),
    Entry(
        "errors",
        "counter",
        ("kind",),
        "Calls, or requests of a stream, that ended with an error, by its class. Unexpected: a fault of the server.",
    ),
    Entry("parameters_published", "counter", (), "Parameter sets published."),
    Entry("parameters_fetched", "counter", (), "Parameter sets sent to clients."),
    Entry("disk_free_bytes", "gauge", (), "What the server's user may still take of the disk under the store."),
    Entry("disk_size_bytes", "gauge", (), "Size of that disk."),
    Entry("threads", "gauge", (), "Threads of the process, those of libraries counted in."),
)

TABLE = (
    Entry("inserted_steps", "counter", T, "Steps inserted since the table was made; closing rows are not counted."),
    Entry("sampled_items", "counter", T, "Items sampled since the table was made."),
    Entry("replays_per_step", "gauge", T, "Items sampled per step inserted, since the table was made."),
    Entry("rows", "gauge", T, "Rows kept; closing rows are counted."),
    Entry("anchors", "gauge", T, "Steps that can be sampled now."),
    Entry("episodes", "counter", T, "Episodes finished since the table was made."),
    Entry("open_episodes", "gauge", T, "Episodes that are going on."),
    Entry("disk_used_bytes", "gauge", T, "Bytes of the table's chunk files, as allocated."),
    Entry("index_bytes", "gauge", T, "RAM of the indexes."),
    Entry("resident_ratio", "gauge", T, "Share of the rows' bytes that is in memory, 0 to 1, estimated from some pages of each column."),
    Entry("oldest_row_age_seconds", "gauge", T, "Since the oldest row kept was inserted."),
    Entry("newest_row_age_seconds", "gauge", T, "Since the newest row was inserted."),
    Entry("priority_sum", "gauge", ("table", "selector"), "Sum of (priority + epsilon) ** alpha over the anchors."),
    Entry("priority_max", "gauge", ("table", "selector"), "Highest priority seen, at which new steps enter."),
    Entry(
        "priority_updates",
        "counter",
        ("table", "outcome"),
        "Priorities sent by learners: applied, gone (evicted meanwhile), rejected (not a number, negative).",
    ),
    Entry(
        "sampled_age_steps", "summary", T, "How many rows had come since an item was inserted when it was sampled; of one message in 0.1 s."
    ),
    Entry(
        "sampled_version_lag",
        "summary",
        T,
        "How many policy versions an item was behind the newest inserted; of the same messages, unknown versions left out.",
    ),
    Entry("newest_policy_version", "gauge", T, "Highest policy version inserted; -1: none."),
    Entry("append_blocks", "counter", T, "Blocks of steps applied."),
    Entry("appended_rows", "counter", T, "Rows of these that were new; closing rows are counted."),
    Entry("duplicate_rows", "counter", T, "Rows of these that had come before, as after a lost connection."),
    Entry("received_bytes", "counter", T, "Bytes of messages with blocks."),
    Entry("sample_replies", "counter", T, "Messages with batches."),
    Entry("sampled_batches", "counter", T, "Batches in these."),
    Entry("sent_bytes", "counter", T, "Bytes of messages with batches."),
    Entry("lent_bytes", "counter", T, "Bytes that clients on this machine gathered from the files themselves."),
    Entry(
        "append_seconds",
        "histogram",
        ("table", "stage"),
        "Of a block: decode; wait for the limiter and those who asked earlier; store; ack, until the acknowledgement "
        "left (with durability=fsync: once the disk has it).",
    ),
    Entry(
        "sample_seconds",
        "histogram",
        ("table", "stage"),
        "Of a message with batches: wait for the limiter and those who asked earlier; draw; fill, gathering the rows; "
        "send, until gRPC took it.",
    ),
    Entry("waiting", "gauge", ("table", "side"), "Appends (insert) and samples (sample) that are held back now."),
    Entry("blocked", "gauge", ("table", "side"), "1 when an append of one step, or a sample of one item, would wait now."),
    Entry("blocked_calls", "counter", ("table", "side", "limiter"), "Appends and samples that were held back."),
    Entry("blocked_seconds", "counter", ("table", "side", "limiter"), "For how long, summed; those that still wait are counted in."),
    Entry("commit_seconds", "histogram", T, "Of group commits that had something to do: until the disk had it."),
    Entry("committed_rows", "counter", T, "Rows that they made durable."),
    Entry("commit_lag_steps", "gauge", T, "Rows that would not survive power loss yet."),
    Entry("commit_lag_seconds", "gauge", T, "For how long the oldest of them has been there."),
    Entry("storage_failed", "gauge", T, "1 when the table refuses inserts because something went wrong with its files."),
)

ENTRIES = {entry.name: entry for entry in (*SERVER, *TABLE)}
