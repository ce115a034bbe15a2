"""The reading commands: what is in a store. They use verbs that the embedded store and the client share, and change nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

import replaystore as rs
from replaystore.cli import text
from replaystore.cli.target import Readable

ENDINGS = {1: "terminated", 2: "truncated"}
RECENT_EPISODES = 100
"""Episodes that the returns in `info` are taken from."""


def ls(api: Readable, *, as_json: bool) -> None:
    """One line per table."""
    found = [api.stats(name) for name in api.tables()]
    if as_json:
        text.say_json([_stats(stats) for stats in found])
        return
    if not found:
        text.say("no tables yet")
        return
    rows = [
        [
            stats.name,
            text.count(stats.steps),
            text.count(stats.anchors),
            text.count(stats.episodes),
            text.size(stats.bytes_on_disk),
            text.moment(stats.oldest_time),
            text.moment(stats.newest_time),
        ]
        for stats in found
    ]
    numbers = ["steps", "can be sampled", "episodes", "on disk"]
    text.say_table(["table", *numbers, "oldest step", "newest step"], rows, right=numbers)


def info(api: Readable, table: str, *, as_json: bool) -> None:
    """Everything that is known of a table without reading its steps."""
    description, stats = api.describe(table), api.stats(table)
    recent = api.episodes(table, -RECENT_EPISODES, None)
    returns = _returns(recent)
    if as_json:
        text.say_json({**description.to_json(), "stats": _stats(stats), "recent_episodes": returns})
        return
    config = description.config
    text.say(f"table      {table}, made {text.moment(description.created)}, format {description.format_version}")
    kept = f"{text.count(stats.steps)} kept, ids {stats.first_step} to {stats.next_step - 1}" if stats.steps else "none yet"
    text.say(f"steps      {kept}; {text.count(stats.anchors)} can be sampled")
    text.say(f"ever       {text.count(stats.inserted_steps)} steps inserted, {text.count(stats.sampled_items)} items sampled")
    text.say(f"durable    rows below {stats.durable_step}")
    text.say(f"size       {text.size(stats.bytes_on_disk)} on disk, index {text.size(stats.index_bytes)} of RAM")
    if stats.oldest_time is not None and stats.newest_time is not None:
        span = text.duration(stats.newest_time - stats.oldest_time)
        text.say(f"time       {text.moment(stats.oldest_time)} to {text.moment(stats.newest_time)} ({span})")
    text.say(f"episodes   {text.count(stats.episodes)} finished, {stats.open_episodes} open")
    if returns["episodes"]:
        figures = ", ".join(f"{name} {text.number(returns[name])}" for name in ("mean", "std", "min", "max"))
        text.say(f"returns    of the last {returns['episodes']}: {figures}; mean length {text.number(returns['mean_length'])}")
    for name, selector in config.selectors.items():
        total = f"; total priority mass {text.number(stats.total_priority[name])}" if name in stats.total_priority else ""
        text.say(f"selector   {name}: {selector}{total}")
    text.say(f"limiter    {config.rate_limiter}")
    text.say(f"retention  {config.retention}")
    for reason in (stats.blocked_insert, stats.blocked_sample):
        if reason is not None:
            text.say(f"blocked    {reason}")
    text.say()
    rows = [
        [
            name,
            column.dtype,
            "x".join(map(str, column.shape)) or "scalar",
            text.size(column.row_bytes),
            text.count(description.rows_per_chunk[f"steps/{name}"]),
            _space(column),
        ]
        for name, column in config.columns.items()
    ]
    text.say_table(["column", "dtype", "shape", "row", "rows per chunk", "space"], rows, right=["row", "rows per chunk"])


def head(api: Readable, table: str, number: int, columns: list[str] | None, *, as_json: bool) -> None:
    """The newest rows, oldest of them first."""
    names = _chosen(api.describe(table).config.columns, columns)
    stop = api.stats(table).next_step
    wanted = [*names, "meta/episode", "meta/step_in_episode", "meta/kind"]
    steps = api.read_steps(table, max(0, stop - number), stop, wanted)
    ids = steps["step_id"]
    if as_json:
        text.say_json([{name: array[i] for name, array in steps.items()} for i in range(len(ids))])
        return
    if not len(ids):
        text.say("no steps yet")
        return
    short = _short_names(steps["meta/episode"])
    rows = []
    for i, step in enumerate(ids.tolist()):
        closing = steps["meta/kind"][i] == 1
        shown = [
            text.cell(steps[name][i]) if not closing or name.split("/")[0] in ("observation", "terminated", "truncated") else ""
            for name in names
        ]
        rows.append([str(step), short[i], "end" if closing else str(steps["meta/step_in_episode"][i]), *shown])
    text.say_table(["step", "episode", "t", *names], rows, right=["step", "episode", "t"])


def episodes(api: Readable, table: str, number: int, *, as_json: bool) -> None:
    """The newest finished episodes, oldest of them first."""
    found = api.episodes(table, -number, None)
    total = len(found["episode"])
    if as_json:
        text.say_json([_episode(found, i) for i in range(total)])
        return
    if not total:
        text.say("no finished episodes yet")
        return
    rows = [
        [
            f"{found['first_step'][i]}-{found['last_step'][i]}",
            str(found["length"][i]),
            text.number(float(found["return"][i])),
            ENDINGS.get(int(found["ending"][i]), "?"),
            str(found["actor"][i]),
            _or_unknown(found["policy_version"][i]),
            _or_unknown(found["seed"][i]),
            text.moment(float(found["start_time"][i])),
            text.duration(float(found["end_time"][i] - found["start_time"][i])),
        ]
        for i in range(total)
    ]
    numbers = ["length", "return", "actor", "policy", "seed"]
    text.say_table(["steps", "length", "return", "ended", "actor", "policy", "seed", "began", "took"], rows, right=numbers)


def _stats(stats: rs.TableStats) -> dict[str, Any]:
    return {**dataclasses.asdict(stats), "steps": stats.steps}


def _returns(found: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    values = found["return"]
    if not len(values):
        return {"episodes": 0}
    figures = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max(), "mean_length": found["length"].mean()}
    return {"episodes": len(values), **{name: float(value) for name, value in figures.items()}}


def _space(column: rs.Column) -> str:
    if column.space is None:
        return ""
    space = dict(column.space)
    kind = space.pop("kind", "")
    return f"{kind}({', '.join(f'{name}={value}' for name, value in space.items() if value is not None)})"


def _chosen(columns: Any, wanted: list[str] | None) -> list[str]:
    if not wanted:
        return list(columns)
    names: list[str] = []
    for name in wanted:
        found = [column for column in columns if column == name or column.startswith(f"{name}/")]
        if not found:
            raise rs.NotFound(f"there is no column {name!r}; the table has {', '.join(columns)}")
        names += found
    return list(dict.fromkeys(names))


def _short_names(numbers: npt.NDArray[np.int64]) -> list[str]:
    """Episodes have random 63-bit numbers; their last four digits are enough to see which rows belong together."""
    return [f"..{number % 10_000:04d}" for number in numbers.tolist()]


def _episode(found: dict[str, npt.NDArray[Any]], index: int) -> dict[str, Any]:
    row = {name: array[index].item() for name, array in found.items()}
    return {**row, "ending": ENDINGS.get(row["ending"], row["ending"])}


def _or_unknown(value: Any) -> str:
    return "-" if value < 0 else str(value)
