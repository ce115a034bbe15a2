"""Each invariant notices its breach, whatever the blocks in which rows are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from replaystore.engine.checking.invariants import Leaves, RowChecker, Violation, check_episodes

LEAVES = [Leaves("replay/priority", zero_allowed=False)]


def table() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two streams that take turns, three episodes of each, of 4 steps and a closing row; the last one of each stream is open."""
    rows: list[dict[str, Any]] = []
    episodes: list[dict[str, Any]] = []
    last = [-1, -1]
    begun = [0, 0]
    for t in range(14):
        for stream in range(2):
            step = len(rows)
            number, position = 10 * stream + t // 5 + 1, t % 5
            closing = position == 4
            if position == 0:
                last[stream], begun[stream] = -1, step
            rows.append(
                {
                    "meta/episode": number,
                    "meta/step_in_episode": position,
                    "meta/previous": last[stream],
                    "meta/kind": int(closing),
                    "meta/insert_time": float(t),
                    "meta/actor": stream,
                    "meta/policy_version": t,
                    "steps/reward": 0.0 if closing else 1.0 + t,
                    "steps/terminated": closing,
                    "replay/successor": 0,
                    "replay/times_sampled": 0,
                    "replay/removed": 0,
                    "replay/priority": 0.0,
                }
            )
            if last[stream] >= 0:
                rows[last[stream]]["replay/successor"] = step - last[stream]
                rows[last[stream]]["replay/priority"] = 1.5
            last[stream] = step
            if closing:
                episodes.append(
                    {
                        "episode": number,
                        "first_step": begun[stream],
                        "last_step": step,
                        "length": 4,
                        "return": sum(row["steps/reward"] for row in rows if row["meta/episode"] == number),
                        "ending": 1,
                        "actor": stream,
                        "policy_version": t,
                        "seed": -1,
                        "start_time": float(t - 4),
                        "end_time": float(t),
                    }
                )
    return tuple({name: np.array([row[name] for row in group]) for name in group[0]} for group in (rows, episodes))  # type: ignore[return-value]


def with_removals() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same; rows 6, 9 (a closing row) and 27 (the newest of its stream) deleted, rows 10 and 12 used up."""
    rows, episodes = table()
    for step, how in ((6, 1), (9, 1), (27, 1), (10, 2), (12, 2)):
        rows["replay/removed"][step] = how
        before = rows["meta/previous"][step]
        for other in (step, before) if how == 1 else (step,):
            rows["replay/successor"][other] *= 0 if how == 1 else -1
            rows["replay/priority"][other] = 0
    return rows, episodes


def violations(
    rows: dict[str, np.ndarray], episodes: dict[str, np.ndarray], *, first: int = 0, block: int = 1000, **options: Any
) -> list[Violation]:
    checker = RowChecker(first, LEAVES, **options)
    found = []
    for start in range(first, len(rows["meta/kind"]), block):
        found += checker.feed({name: values[start : start + block] for name, values in rows.items()})
    return found + checker.finish() + check_episodes(episodes, checker)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("first", [0, 1, 5, 12, 27])
def test_a_right_table_has_no_violations(block: int, first: int) -> None:
    assert violations(*table(), block=block, first=first) == []
    assert violations(*with_removals(), block=block, first=first) == []


BREACHES = {
    "kind": ("meta/kind", 6, 3, "meta/kind"),
    "lost row where none was lost": ("meta/kind", 6, 2, "meta/kind"),
    "closing row in the middle": ("meta/kind", 4, 1, "replay/successor"),
    "no closing row": ("meta/kind", 8, 0, "episodes/last_step"),
    "episode number": ("meta/episode", 6, 0, "meta/episode"),
    "other episode": ("meta/episode", 6, 99, "meta/episode"),
    "position": ("meta/step_in_episode", 6, 7, "meta/step_in_episode"),
    "position below 0": ("meta/step_in_episode", 6, -1, "meta/step_in_episode"),
    "previous to the future": ("meta/previous", 6, 8, "meta/previous"),
    "previous too low": ("meta/previous", 6, -5, "meta/previous"),
    "previous missing": ("meta/previous", 6, -1, "meta/previous"),
    "previous of another stream": ("meta/previous", 6, 5, "meta/episode"),
    "time": ("meta/insert_time", 6, np.inf, "meta/insert_time"),
    "successor missing": ("replay/successor", 6, 0, "replay/successor"),
    "successor wrong": ("replay/successor", 6, 1, "replay/successor"),
    "successor of a closing row": ("replay/successor", 8, 2, "replay/successor"),
    "successor of the newest row": ("replay/successor", 27, 2, "replay/successor"),
    "removed in an unknown way": ("replay/removed", 6, 3, "replay/removed"),
    "a closing row used up": ("replay/removed", 8, 2, "replay/removed"),
    "deleted, but an anchor": ("replay/removed", 6, 1, "replay/successor"),
    "used up, but an anchor": ("replay/removed", 6, 2, "replay/successor"),
    "link negative from a row that is kept": ("replay/successor", 6, -2, "replay/successor"),
    "priority of no anchor": ("replay/priority", 27, 1.0, "replay/priority"),
    "priority 0": ("replay/priority", 6, 0.0, "replay/priority"),
    "priority negative": ("replay/priority", 6, -1.0, "replay/priority"),
    "priority not finite": ("replay/priority", 6, np.inf, "replay/priority"),
    "samples of a closing row": ("replay/times_sampled", 8, 1, "replay/times_sampled"),
}


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_noticed(name: str, block: int) -> None:
    column, row, value, reported = BREACHES[name]
    rows, episodes = table()
    rows[column] = rows[column].copy()
    rows[column][row] = value
    found = violations(rows, episodes, block=block)
    assert reported in {violation.array for violation in found}, found
    assert any(violation.rows[0] <= row + 4 and violation.rows[1] > row - 4 for violation in found if violation.array == reported) or (
        reported.startswith("episodes/")
    )


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("replay/successor", 6, 2),  # from a deleted row
        ("replay/successor", 4, 2),  # to one
        ("replay/successor", 25, 2),
        ("replay/successor", 10, 2),  # from a used-up row, as if it were an anchor
        ("replay/successor", 10, -4),
        ("replay/successor", 12, 0),
        ("replay/priority", 12, 1.0),
        ("replay/removed", 6, 0),  # a deletion forgotten
        ("replay/removed", 9, 0),
        ("replay/removed", 10, 0),
    ],
)
def test_marks_and_links_that_do_not_fit_are_noticed(column: str, row: int, value: float, block: int) -> None:
    rows, episodes = with_removals()
    rows[column][row] = value
    found = violations(rows, episodes, block=block)
    assert found
    assert all(violation.live for violation in found)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("episode", 1, 77),
        ("first_step", 1, 3),
        ("last_step", 1, 11),
        ("length", 1, 5),
        ("return", 1, 0.0),
        ("return", 1, np.nan),
        ("ending", 1, 3),
        ("ending", 1, 2),
        ("actor", 1, 7),
        ("policy_version", 1, 7),
        ("start_time", 1, 7.0),
        ("end_time", 1, 7.0),
    ],
)
def test_a_wrong_episode_is_noticed(column: str, row: int, value: float) -> None:
    rows, episodes = table()
    episodes[column][row] = value
    found = violations(rows, episodes)
    assert (f"episodes/{column}", (row, row + 1)) in {(violation.array, violation.rows) for violation in found}, found
    assert violations(rows, episodes, first=27) == [] or column in ("length", "ending", "last_step", "first_step")


def test_an_episode_without_a_row_is_noticed() -> None:
    rows, episodes = table()
    found = violations(rows, {name: values[:-1] for name, values in episodes.items()})
    assert [(violation.array, violation.expected) for violation in found] == [("meta/kind", "a row of episodes/ for each closing row")]


def test_rows_that_go_on_may_have_a_successor_that_is_not_shown() -> None:
    rows, episodes = table()
    rows["replay/successor"][27], rows["replay/priority"][27] = 2, 1.0
    assert violations(rows, episodes) != []
    assert violations(rows, episodes, growing=True) == []


def test_two_rows_cannot_follow_the_same_one() -> None:
    rows, episodes = table()
    rows["meta/previous"][24] = rows["meta/previous"][22]
    for block in (1, 2, 1000):
        assert "meta/previous" in {violation.array for violation in violations(rows, episodes, block=block)}


def test_open_episodes_are_known() -> None:
    rows, _ = table()
    checker = RowChecker(0, LEAVES)
    checker.feed(rows)
    assert checker.open_episodes == {
        3: {"first": 20, "last": 26, "rows": 4, "total": 50.0, "actor": 0, "start_time": 10.0},
        13: {"first": 21, "last": 27, "rows": 4, "total": 50.0, "actor": 1, "start_time": 10.0},
    }
    assert (checker.anchors, checker.steps) == (22, 24)
