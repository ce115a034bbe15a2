"""What is nearly full: the disk, a table's bounds, memory, descriptors, streams."""

from __future__ import annotations

from collections.abc import Iterator

from replaystore.diagnosis.facts import ERROR, NOTE, WARNING, Facts, Finding
from replaystore.diagnosis.words import duration, share, size

LEAST_FREE_BYTES = 1 << 30
SOON_S, HORIZON_S = 3600.0, 86_400.0
NEARLY = 0.9
"""Of a bound."""


def disk_space(facts: Facts) -> Iterator[Finding]:
    """The disk is nearly full.

    Less than 5 % or 1 GiB is free, or at the present rate of inserts there will be nothing left within a day. On a full disk inserts
    are refused (DiskFull); nothing that was acknowledged is lost, and sampling goes on. The rate is that of the last minute, of tables
    that retention does not hold at their bounds yet. Free some space, move the store, or bound the tables: `client.alter_table(NAME,
    retention=Retention(max_bytes=…))`.
    """
    if facts.disk is None or not facts.disk.total_bytes:
        return
    free, total = facts.disk.free_bytes, facts.disk.total_bytes
    rate = sum(table.growth_bytes_per_s(facts.now) for table in facts.tables)
    growing = [table for table in facts.tables if table.growth_bytes_per_s(facts.now) > 0]
    rooms = [table.room_bytes for table in growing]
    most = None if None in rooms else sum(room for room in rooms if room is not None)
    lasts_s = free / rate if rate > 0 and (most is None or most > free) else None
    left = f"{size(free)} of {size(total)} are free ({share(free / total)})"
    if lasts_s is not None:
        left += f"; at the present {size(rate)}/s that lasts {duration(lasts_s)}"
    names = ", ".join(table.name for table in growing) or "no table"
    advice = f"free some space, or bound what grows ({names}): client.alter_table(NAME, retention=Retention(max_bytes=...))"
    if free < 0.01 * total or free < LEAST_FREE_BYTES // 4 or (lasts_s is not None and lasts_s < SOON_S):
        yield Finding(ERROR, left, advice)
    elif free < 0.05 * total or free < LEAST_FREE_BYTES or (lasts_s is not None and lasts_s < HORIZON_S):
        yield Finding(WARNING, left, advice)


def bounds_fit(facts: Facts) -> Iterator[Finding]:
    """The tables' bounds are larger than the disk.

    What the tables may still grow by, as their retention has it, is more than what is free: the disk will be full before the first row
    is dropped. Lower `max_steps` or `max_bytes` with `client.alter_table`, or give the store a larger disk.
    """
    rooms = {table.name: table.room_bytes for table in facts.tables if table.room_bytes}
    wanted = sum(room for room in rooms.values() if room)
    if facts.disk is not None and facts.disk.total_bytes and wanted > facts.disk.free_bytes:
        largest = max(rooms, key=lambda name: rooms[name] or 0.0)
        yield Finding(
            WARNING,
            f"the tables may grow by {size(wanted)} before rows are dropped (most of all {largest}), but {size(facts.disk.free_bytes)} "
            "are free",
            f"lower the bound: client.alter_table({largest!r}, retention=Retention(max_bytes=...)), or use a larger disk",
        )


def retention(facts: Facts) -> Iterator[Finding]:
    """A table is near its bounds, or has none.

    Near them is where a replay table usually lives: from there on its oldest rows go as new ones come, which is worth knowing the first
    time. A table without any bound grows until the disk is full; where it grows now, that is a warning. Set bounds with
    `client.alter_table(NAME, retention=Retention(max_steps=…))`.
    """
    for table in facts.tables:
        if table.description is None or table.stats is None:
            continue
        kept, bounds = table.stats, table.description.config.retention
        if bounds.max_steps is None and bounds.max_bytes is None and bounds.max_age_s is None and bounds.max_times_sampled is None:
            rate = table.growth_bytes_per_s(facts.now)
            growing = f" and grows by {size(rate)}/s" if rate else ""
            found = f"has no bound: it keeps all of its {kept.steps:,} rows ({size(kept.bytes_on_disk)}){growing}"
            advice = f"if that is not meant: client.alter_table({table.name!r}, retention=Retention(max_steps=...))"
            yield Finding(WARNING if rate else NOTE, found, advice, table.name)
            continue
        row_bytes = table.description.config.row_bytes
        for name, used, most, shown in (
            ("max_steps", kept.steps, bounds.max_steps, f"{kept.steps:,} of max_steps={bounds.max_steps or 0:,} rows"),
            (
                "max_bytes",
                kept.steps * row_bytes,
                bounds.max_bytes,
                f"{size(kept.steps * row_bytes)} of max_bytes={size(bounds.max_bytes or 0)}",
            ),
        ):
            if most is not None and used >= NEARLY * most:
                goes = "the oldest go as new ones come" if table.is_full else "soon the oldest will go as new ones come"
                advice = f"nothing, or keep more: client.alter_table({table.name!r}, retention=Retention({name}=...))"
                yield Finding(NOTE, f"holds {shown} ({share(used / most)}): {goes}", advice, table.name)


def memory(facts: Facts) -> Iterator[Finding]:
    """Memory is short.

    The server's process, pages of mapped files included, takes nearly all that its machine or control group has; or the index of the
    tables alone, which must stay in memory, takes more than half; or the kernel refuses to promise more memory than there is
    (`vm.overcommit_memory=2`), though the store reserves ranges of addresses that it never fills. Pages of files are given back when
    others need them, so the first is only a warning. Where all rows together are larger than memory, sampling reads from the disk: that
    is a note. Give the group more (`systemctl set-property`, `docker update -m`, `resources.limits.memory`), keep fewer rows, or set
    `sysctl vm.overcommit_memory=0`.
    """
    limit = facts.memory_limit_bytes
    advice = "give the machine or the control group more memory, or keep fewer rows: client.alter_table(NAME, retention=...)"
    index = sum(table.stats.index_bytes for table in facts.tables if table.stats is not None)
    rows = sum(table.stats.bytes_on_disk for table in facts.tables if table.stats is not None)
    if limit and index > 0.5 * limit:
        severity = ERROR if index > NEARLY * limit else WARNING
        yield Finding(severity, f"the index takes {size(index)} of {size(limit)} of memory ({share(index / limit)})", advice)
    if facts.status is not None and limit and facts.status.rss_bytes > NEARLY * limit:
        used = facts.status.rss_bytes
        yield Finding(
            WARNING, f"the server takes {size(used)} of {size(limit)} of memory ({share(used / limit)}), mapped pages included", advice
        )
    if limit and rows > limit:
        found = f"the tables take {size(rows)} on disk, memory is {size(limit)}: batches of older rows come from the disk"
        yield Finding(NOTE, found, "nothing where the disk is fast; else more memory, or fewer rows")
    if facts.strict_overcommit:
        found = "vm.overcommit_memory is 2: the kernel may refuse the address ranges that tables reserve and never fill"
        yield Finding(WARNING, found, "sysctl vm.overcommit_memory=0")


def descriptors(facts: Facts) -> Iterator[Finding]:
    """Descriptors are nearly used up.

    The server has nearly as many files and connections open as its process may, or it would before its streams reach `max_streams`.
    Then connections are refused and commits fail. Raise the limit (`LimitNOFILE=` of a systemd unit, `ulimit -n`), or lower
    `max_streams`.
    """
    status = facts.status
    if status is None or not status.max_open_files:
        return
    used, most = status.open_files, status.max_open_files
    streams = status.append_streams + status.sample_streams
    advice = "raise it before the server starts: LimitNOFILE=65536 in its systemd unit, or ulimit -n 65536"
    if used > 0.8 * most:
        found = f"{used:,} of {most:,} descriptors are open ({share(used / most)}), with {streams:,} streams"
        yield Finding(ERROR if used > 0.95 * most else WARNING, found, advice)
    elif status.max_streams and used - streams + status.max_streams > most:
        found = f"{most:,} descriptors may be open, fewer than max_streams={status.max_streams:,} clients of one stream each would need"
        yield Finding(NOTE, found, f"{advice}; or a lower --max-streams")


def streams(facts: Facts) -> Iterator[Finding]:
    """The server's bounds are nearly reached.

    Open streams, or the bytes of messages in memory, are near what the server was started with; beyond that callers hear Overloaded and
    come again later. Of the bytes half may be on their way in and half on their way out; the server tells their sum, so what is found
    may be some of both. Look who opens so many (`replaystore top`), or raise `--max-streams`, `--max-in-flight-bytes`.
    """
    if facts.status is None:
        return
    status = facts.status
    open_now = status.append_streams + status.sample_streams
    if status.max_streams and open_now > NEARLY * status.max_streams:
        whose = f"{status.append_streams:,} write, {status.sample_streams:,} sample"
        found = f"{open_now:,} of max_streams={status.max_streams:,} streams are open: {whose}"
        yield Finding(
            WARNING, found, "close writers and samplers that are not used any more, or restart the server with a higher --max-streams"
        )
    half = status.max_in_flight_bytes / 2
    if half and status.in_flight_bytes > NEARLY * half:
        found = f"{size(status.in_flight_bytes)} are in flight; max_in_flight_bytes={size(2 * half)} allows {size(half)} each way"
        yield Finding(WARNING, found, "ask for smaller batches or a lower prefetch, or restart with a higher --max-in-flight-bytes")
