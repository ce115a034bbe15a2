"""Metrics, worked out when somebody asks: from what the server counts, what tables know of themselves, and the disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Any

from prometheus_client.utils import floatToGoString

import replaystore
from replaystore.errors import NotFound, ReplayStoreError, all_errors
from replaystore.server.observing import surroundings
from replaystore.server.observing.figures import BOUNDS_S, UNEXPECTED, Durations, TableFigures
from replaystore.server.observing.metrics.catalogue import ENTRIES
from replaystore.server.observing.standing import commit_lag_s
from replaystore.storage.residency import SUPPORTED, in_memory

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from replaystore.engine.table import Table
    from replaystore.server.service import Server
    from replaystore.store import Store

MOST_TABLES = 256
"""With metrics of their own: each has some hundred series."""

PROBES = 64
"""Pages of each column that are looked at to estimate how much of it is in memory: some 50 µs."""

_LE = [*(str(floatToGoString(bound)) for bound in BOUNDS_S), "+Inf"]  # type: ignore[no-untyped-call]


class Found:
    """Metrics being filled."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def _of(self, name: str) -> Any:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = ENTRIES[name].family()
        return family

    def add(self, name: str, labels: Iterable[str], value: float) -> None:
        """A counter's or a gauge's value."""
        self._of(name).add_metric(list(labels), value)

    def durations(self, name: str, labels: Iterable[str], durations: Durations) -> None:
        """A histogram."""
        sums = accumulate(durations.counts)
        self._of(name).add_metric(list(labels), list(zip(_LE, map(float, sums), strict=True)), durations.sum_s)

    def summary(self, name: str, labels: Iterable[str], count: int, total: float) -> None:
        """Number and sum of what was observed."""
        self._of(name).add_metric(list(labels), count, total)

    @property
    def families(self) -> Iterator[Metric]:
        """What was found, in the order of the catalogue."""
        return (self._families[name] for name in ENTRIES if name in self._families)


class Collector:
    """What a `prometheus_client` registry asks at each scrape, in the thread of who scrapes."""

    def __init__(self) -> None:
        self._serving: tuple[Server, Store] | None = None
        self._recovering: tuple[str, int, int] | None = None

    def serve(self, server: Server, store: Store) -> None:
        """There is a server now."""
        self._serving, self._recovering = (server, store), None

    def stop(self) -> None:
        """There is none any more."""
        self._serving = None

    def recovering(self, table: str, checked: int, total: int) -> None:
        """How far the recovery of a table is."""
        self._recovering = table, checked, total

    def describe(self) -> list[Metric]:
        """Nothing: names are not looked up by asking for everything once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        found, serving, recovering = Found(), self._serving, self._recovering
        found.add("ready", (), serving is not None)
        found.add("build_info", (replaystore.__version__, "" if serving is None else serving[0].instance), 1)
        found.add("threads", (), surroundings.thread_count())
        if serving is not None:
            _collect_server(found, *serving)
        elif recovering is not None:
            table, checked, total = recovering
            found.add("recovery_rows_checked", (table,), checked)
            found.add("recovery_rows", (table,), total)
        return found.families


def _collect_server(found: Found, server: Server, store: Store) -> None:
    figures, bounds, disk = server.figures, server.bounds, surroundings.disk_of(store.path)
    names = store.tables()
    tables = [table for name in names if (table := _table(store, name)) is not None]
    figures.keep(names)
    found.add("tables", (), len(tables))
    found.add("tables_not_shown", (), max(0, len(tables) - MOST_TABLES))
    found.add("recovered_tables", (), sum(not table.was_clean for table in tables))
    found.add("open_streams", ("append",), figures.append_streams)
    found.add("open_streams", ("sample",), figures.sample_streams)
    for kind in (*all_errors(), UNEXPECTED):
        found.add("errors", (kind,), figures.errors[kind])
    found.add("parameters_published", (), figures.parameters_published)
    found.add("parameters_fetched", (), figures.parameters_fetched)
    found.add("disk_free_bytes", (), disk.free_bytes)
    found.add("disk_size_bytes", (), disk.total_bytes)
    for what, bound in (
        ("streams", bounds.streams),
        ("calls", bounds.calls),
        ("waiting", bounds.waiting),
        ("bytes_in", bounds.blocks),
        ("bytes_out", bounds.others),
    ):
        found.add("bound", (what,), bound.most)
        found.add("bound_used", (what,), bound.used)
        found.add("bound_refusals", (what,), bound.refused)
    for table in tables[:MOST_TABLES]:
        _collect_table(found, table)
        _collect_counts(found, table.name, type(table.config.rate_limiter).__name__, figures.table(table.name))


def _table(store: Store, name: str) -> Table | None:
    try:
        return store.table(name)
    except NotFound:
        return None  # dropped meanwhile


def _collect_table(found: Found, table: Table) -> None:
    """What the table knows of itself."""
    of = (table.name,)
    found.add("storage_failed", of, table.failure is not None)
    try:
        stats, resident = table.stats(), resident_ratio(table)
        lag_s = commit_lag_s(table, stats.durable_step)
    except ReplayStoreError:  # closed meanwhile, or its files must not be touched any more
        return
    now = time.time()
    for name, value in (
        ("inserted_steps", stats.inserted_steps),
        ("sampled_items", stats.sampled_items),
        ("replays_per_step", stats.sampled_items / max(1, stats.inserted_steps)),
        ("rows", stats.steps),
        ("anchors", stats.anchors),
        ("episodes", stats.episodes),
        ("open_episodes", stats.open_episodes),
        ("disk_used_bytes", stats.bytes_on_disk),
        ("index_bytes", stats.index_bytes),
        ("newest_policy_version", table.newest_version),
        ("commit_lag_steps", stats.next_step - stats.durable_step),
        ("commit_lag_seconds", lag_s),
    ):
        found.add(name, of, value)
    for name, known in (
        ("resident_ratio", resident),
        ("oldest_row_age_seconds", None if stats.oldest_time is None else max(0.0, now - stats.oldest_time)),
        ("newest_row_age_seconds", None if stats.newest_time is None else max(0.0, now - stats.newest_time)),
    ):
        if known is not None:
            found.add(name, of, known)
    for selector, total in stats.total_priority.items():
        found.add("priority_sum", (*of, selector), total)
    for selector, highest in stats.max_priority.items():
        found.add("priority_max", (*of, selector), highest)
    for side, waiting, why in (
        ("insert", stats.waiting_inserts, stats.blocked_insert),
        ("sample", stats.waiting_samples, stats.blocked_sample),
    ):
        found.add("waiting", (*of, side), waiting)
        found.add("blocked", (*of, side), why is not None)


def resident_ratio(table: Table) -> float | None:
    """Which part of the rows' bytes is in memory, 0 to 1, as far as `PROBES` pages of each column tell; None where nothing does."""
    first, stop = table.first_step, table.next_step
    present = total = 0.0
    for _, array, origin in table.mapped_columns() if SUPPORTED else ():
        rows = array[max(0, first - origin) : max(0, stop - origin)]
        if rows.nbytes:
            begin, step = rows.__array_interface__["data"][0], max(1, rows.nbytes // PROBES)
            pages = {place & -PAGESIZE for place in range(begin, begin + rows.nbytes, step)}
            present += rows.nbytes * sum(map(in_memory, pages)) / len(pages)
            total += rows.nbytes
    return present / total if total else None


def _collect_counts(found: Found, table: str, limiter: str, figures: TableFigures) -> None:
    """What the server has counted of it."""
    of = (table,)
    for name, value in (
        ("append_blocks", figures.blocks),
        ("appended_rows", figures.rows),
        ("duplicate_rows", figures.duplicate_rows),
        ("received_bytes", figures.received_bytes),
        ("sample_replies", figures.replies),
        ("sampled_batches", figures.batches),
        ("sent_bytes", figures.sent_bytes),
        ("lent_bytes", figures.lent_bytes),
        ("committed_rows", figures.committed_rows),
    ):
        found.add(name, of, value)
    for outcome in ("applied", "gone", "rejected"):
        found.add("priority_updates", (*of, outcome), getattr(figures, f"updates_{outcome}"))
    for stage, durations in figures.append.items():
        found.durations("append_seconds", (*of, stage), durations)
    for stage, durations in figures.sample.items():
        found.durations("sample_seconds", (*of, stage), durations)
    found.durations("commit_seconds", of, figures.commit)
    found.summary("sampled_age_steps", of, figures.looked_items, figures.age_steps)
    found.summary("sampled_version_lag", of, figures.version_items, figures.version_lag)
    for side in ("insert", "sample"):
        figures.waits_of(side, limiter)  # from 0 on
    for (side, kind), waits in sorted(figures.waits.items()):
        found.add("blocked_calls", (*of, side, kind), waits.begun)
        found.add("blocked_seconds", (*of, side, kind), waits.seconds)
