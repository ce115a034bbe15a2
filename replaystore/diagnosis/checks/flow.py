"""Whether rows come in and batches go out: who waits for whom, what priorities and columns hold, what the clocks say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replaystore.diagnosis.facts import ERROR, NOTE, WARNING, Facts, Finding, TableFacts
from replaystore.diagnosis.words import duration, share
from replaystore.schema.selectors import Prioritized

SILENT_S = 60.0
"""Without a new row, while somebody waits for one."""

LAGS_S = 5.0
STUCK_S = 60.0
LEAST_ANCHORS = 100
"""Fewer say nothing about their priorities."""
LEAST_ROWS = 64
"""Fewer say nothing about a column."""
AHEAD_S = 5.0
"""That a clock may be ahead of another."""


def answers(facts: Facts) -> Iterator[Finding]:
    """The server does not answer.

    Nothing listens there, it is still opening the store (its answer says how far it is), it is stopping, or it does not let this caller
    in. Start it (`replaystore serve --path DIR --listen HOST:PORT`), wait, or pass a token (REPLAYSTORE_TOKEN). An older server than
    this program has no GetServerStatus: most of this page cannot be told then; nor can it from the folder of a store that is served.
    """
    if facts.problem:
        yield Finding(ERROR, facts.problem, "do what the message says, then ask again")
    elif facts.served and facts.status is None:
        older = f"the server (version {facts.server_version or 'unknown'}) has no GetServerStatus"
        found = f"{older}: its process, disk and exposure were not looked at"
        yield Finding(NOTE, found, "run replaystore doctor on the server's machine with the store's folder too, or upgrade the server")
    elif not facts.served and facts.folder is not None and facts.folder.live:
        found = "a process has the store open: who waits, and for what, only that one knows"
        yield Finding(NOTE, found, "replaystore doctor HOST:PORT, where it is a server")


def limiter(facts: Facts) -> Iterator[Finding]:
    """The rate limiter holds callers back.

    Writers or samplers of a table wait now. What is found says which limiter, where it stands, and who has to act: learners for waiting
    inserts, actors for waiting samples. A ratio that holds one side back for moments is doing what it was set up for; `doctor` looks
    twice and speaks of those that waited both times. Both sides waiting at once can only be when each waits for something else. Change
    it with `client.alter_table(NAME, rate_limiter=…)`.
    """
    for table in facts.tables:
        stats, before = table.stats, table.before
        if stats is None:
            continue
        held = []
        for verb, why, waiting, waited in (
            ("insert", stats.blocked_insert, stats.waiting_inserts, before.waiting_inserts if before else 0),
            ("sample", stats.blocked_sample, stats.waiting_samples, before.waiting_samples if before else 0),
        ):
            if waiting and (waited or before is None):
                held.append(verb)
                callers = f"{waiting:,} {'appends wait' if verb == 'insert' else 'samples wait'}"
                reason = (
                    why.removeprefix(f"table {table.name!r}: ")
                    if why is not None
                    else "the limiter lets one through now, others asked first or want what is not there"
                )
                acts = "learners have to sample" if verb == "insert" else "actors have to insert"
                advice = f"{acts}; or client.alter_table({table.name!r}, rate_limiter=...)"
                yield Finding(WARNING, f"{callers}: {reason}", advice, table.name)
        if len(held) == 2:
            advice = "a sampler may want a filter, a view or a batch size that its table cannot serve: see what it asks for"
            yield Finding(ERROR, "appends and samples wait for each other", advice, table.name)


def absent(facts: Facts) -> Iterator[Finding]:
    """Nobody writes, or nobody samples.

    Samples wait and no row came for a minute: actors have died, lost their connection or never began. Or rows come in and no batch was
    drawn for a minute, or none while `doctor` watched, and no sampler is connected: no learner is at work. Start what is missing;
    `replaystore top` shows when it is there.
    """
    status = facts.status
    for table in facts.tables:
        stats, before = table.stats, table.before
        if stats is None:
            continue
        silent_s = None if stats.newest_time is None else facts.now - stats.newest_time
        if stats.waiting_samples and (silent_s is None or silent_s > SILENT_S):
            since = "no row ever came" if silent_s is None else f"no row came for {duration(silent_s)}"
            writers = "" if status is None else f"; {status.append_streams:,} writers are connected to the server"
            yield Finding(
                WARNING, f"{stats.waiting_samples:,} samples wait and {since}{writers}", "start actors, or see why they stopped", table.name
            )
        if before is None or stats.inserted_steps <= before.inserted_steps or stats.sampled_items > before.sampled_items:
            continue
        if table.idle_s is not None and table.idle_s > SILENT_S:
            found = f"steps come in, and no batch was drawn for {duration(table.idle_s)}"
            yield Finding(WARNING, found, "see why the learner stopped, or ignore this while data is only collected", table.name)
        elif status is not None and status.sample_streams == 0 and not stats.waiting_samples:
            inserted = stats.inserted_steps - before.inserted_steps
            found = f"{inserted:,} steps came in {duration(facts.seconds)}, nothing was sampled, and no sampler is connected"
            severity = WARNING if stats.waiting_inserts else NOTE
            yield Finding(severity, found, "start a learner, or ignore this while data is only collected", table.name)


def commit_lag(facts: Facts) -> Iterator[Finding]:
    """Rows wait for the disk.

    Rows that were acknowledged are not on stable storage yet, for far longer than the commit interval: power loss would take them (a
    crash of the server alone would not). The disk is slow or overloaded, or commits fail. Look at the server's log and at the disk
    (`iostat -x 1`).
    """
    interval_s = 0.2 if facts.status is None else facts.status.commit_interval_s
    for table in facts.tables:
        lag_s = table.commit_lag_s
        if lag_s > LAGS_S + 5 * interval_s:
            rows = "" if table.stats is None else f"{table.stats.next_step - table.stats.durable_step:,} "
            found = f"{rows}rows are not on stable storage, the oldest for {duration(lag_s)}; commits are made every {interval_s:g} s"
            severity = ERROR if lag_s > STUCK_S + 5 * interval_s else WARNING
            yield Finding(severity, found, "see the server's log and the disk: iostat -x 1", table.name)


def priorities(facts: Facts) -> Iterator[Finding]:
    """Priorities say nothing, or one step has nearly all of them.

    Of a table with a `Prioritized` selector that was sampled: all priorities are equal (nobody calls `update_priorities`, or with the
    ids of another table), all are zero (TD errors are masked, or the loss is constant), or one step has more than half of the mass and
    fills the batches (an outlier among rewards or TD errors). Clip TD errors, check what the learner passes on, or give the selector a
    lower alpha.
    """
    for table in facts.tables:
        stats, description = table.stats, table.description
        if stats is None or description is None or stats.anchors < LEAST_ANCHORS or not stats.sampled_items:
            continue
        for name, selector in description.config.selectors.items():
            masses, total = table.masses.get(name), stats.total_priority.get(name)
            if (
                not isinstance(selector, Prioritized)
                or masses is None
                or total is None
                or len(masses) < LEAST_ANCHORS
                or selector.alpha == 0
            ):
                continue
            yield from _judged(table, name, selector, np.asarray(masses, np.float64), total)


def _judged(table: TableFacts, name: str, selector: Prioritized, masses: np.ndarray, total: float) -> Iterator[Finding]:
    assert table.stats is not None
    which = "" if name == "default" else f" of selector {name!r}"
    drawn = f"{table.stats.sampled_items:,} items were drawn"
    raw = masses ** (1.0 / selector.alpha) - selector.epsilon
    largest = float(masses.max())
    if raw.max() <= selector.epsilon * 1e-3 + 1e-12:
        found = f"{drawn}, and the priorities{which} of the newest {len(masses):,} steps are all zero"
        yield Finding(WARNING, found, "see what the learner passes to update_priorities: a mask, or a loss that is constant?", table.name)
    elif np.ptp(masses) <= 1e-5 * largest and abs(total - table.stats.anchors * largest) <= 1e-3 * total:
        found = f"{drawn}, and the priorities{which} of all {table.stats.anchors:,} steps are equal"
        advice = f"does the learner call update_priorities({table.name!r}, batch.step_ids, ...)? Else Uniform() does the same"
        yield Finding(WARNING, found, advice, table.name)
    elif largest > 0.5 * total:
        found = f"one step has {share(largest / total)} of the priorities{which} of {table.stats.anchors:,} steps: it fills the batches"
        advice = "clip TD errors or rewards in the learner, or client.alter_table with a lower alpha"
        yield Finding(WARNING, found, advice, table.name)


def columns(facts: Facts) -> Iterator[Finding]:
    """A column holds nothing, or no numbers.

    In all of the newest steps a column is zero: nobody writes it, though it takes room in every row (rewards and the flags of an
    episode's end are not looked at: they may well be zero). Or it has NaN or infinity, which one batch carries into a network for good.
    Leave such a column out of the table, or mend what writes it; `replaystore head WHERE TABLE` shows the newest rows.
    """
    for table in facts.tables:
        if table.odd_columns:
            names = ", ".join(table.odd_columns)
            advice = f"replaystore head {facts.where} {table.name}; check rewards and observations before they are appended"
            yield Finding(WARNING, f"NaN or infinity among the newest {table.looked_rows:,} steps: {names}", advice, table.name)
        if table.zero_columns and table.looked_rows >= LEAST_ROWS:
            names = ", ".join(table.zero_columns)
            found = f"zero in all of the newest {table.looked_rows:,} steps: {names}"
            yield Finding(NOTE, found, "if nobody writes it, leave it out: a new table, or replaystore fork", table.name)


def clock(facts: Facts) -> Iterator[Finding]:
    """A clock jumped, or two do not agree.

    The newest rows were inserted in the future: the server's clock was ahead when they came and has been set back since. Until it is
    there again, rows get the time of the row before, and conditions on age in seconds are wrong by as much. Or the server's clock and
    the one here differ. Let both follow NTP (`timedatectl`, `chronyc tracking`).
    """
    if facts.status is not None and abs(facts.status.time - facts.time) > AHEAD_S:
        ahead_s = facts.status.time - facts.time
        found = f"the server's clock is {duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the one here"
        yield Finding(WARNING, found, "let both follow NTP: timedatectl")
    for table in facts.tables:
        if table.stats is not None and table.stats.newest_time is not None and table.stats.newest_time > facts.now + AHEAD_S:
            found = f"its newest row was inserted {duration(table.stats.newest_time - facts.now)} from now"
            yield Finding(WARNING, found, "the clock was set back: let it follow NTP (timedatectl); ages are wrong until then", table.name)
