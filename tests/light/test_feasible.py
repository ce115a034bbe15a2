"""Configurations that could never move are refused, with the arithmetic; those beside them are not."""

from __future__ import annotations

from typing import Any

import pytest

import replaystore as rs

COLUMNS = {"observation": rs.Column((2,)), "action": rs.Column((), "int64")}  # with reward and flags and bookkeeping: 72 bytes a row
QUEUE = {"selector": rs.Fifo(), "rate_limiter": rs.Queue(4)}


def make(retention: dict[str, Any] | None = None, **changes: Any) -> rs.TableConfig:
    return rs.TableConfig(COLUMNS, **{"retention": rs.Retention(**(retention or {})), **changes})


@pytest.mark.parametrize(
    ("retention", "changes", "text"),
    [
        ({"max_steps": 9}, {"rate_limiter": rs.MinSize(10)}, "min_size_to_sample=10 can never be reached: retention keeps max_steps=9"),
        ({"max_bytes": 720}, {"rate_limiter": rs.MinSize(11)}, "max_bytes=720 keeps 10 rows of 72 bytes each"),
        ({"max_bytes": 143}, {}, r"max_bytes=143 keeps 1 rows of 72 bytes each: .* at least 144 bytes"),
        (
            {"max_times_sampled": 1},
            {"rate_limiter": rs.SampleToInsertRatio(4.0)},
            "asks for 4 samples of each step, but max_times_sampled=1 allows 1",
        ),
        ({"max_times_sampled": 1}, {**QUEUE, "selector": rs.Lifo()}, r"Queue\(4\) goes with selector=Fifo\(\) as the first"),
        ({"max_times_sampled": 1}, {"rate_limiter": rs.Stack(4), "selector": rs.Fifo()}, r"Stack\(4\) goes with selector=Lifo\(\)"),
        ({}, QUEUE, r"Queue\(4\) needs retention=Retention\(max_times_sampled=1\), got max_times_sampled=None"),
        ({"max_times_sampled": 2}, QUEUE, "got max_times_sampled=2"),
        ({"max_times_sampled": 1, "min_steps": 4}, QUEUE, "min_steps=4 keeps 4 of them whatever is sampled: use min_steps of at most 3"),
        ({"max_times_sampled": 1, "max_steps": 4}, QUEUE, "hold 4 anchors, which takes 5 rows at least, but retention keeps max_steps=4"),
        ({"max_times_sampled": 1, "max_bytes": 300}, QUEUE, "takes 5 rows at least, but max_bytes=300 keeps 4 rows of 72 bytes each"),
        ({"min_steps": 10, "max_steps": 9}, {}, "min_steps=10 rows cannot be kept when max_steps=9"),
    ],
)
def test_refused(retention: dict[str, Any], changes: dict[str, Any], text: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=text):
        make(retention, **changes)


@pytest.mark.parametrize(
    ("retention", "changes"),
    [
        ({"max_steps": 10}, {"rate_limiter": rs.MinSize(10)}),
        ({"max_bytes": 720}, {"rate_limiter": rs.MinSize(10)}),
        ({"max_bytes": 10, "min_steps": 20}, {"rate_limiter": rs.MinSize(20)}),
        ({"max_times_sampled": 4}, {"rate_limiter": rs.SampleToInsertRatio(4.0)}),
        ({"max_times_sampled": 1, "min_steps": 3}, QUEUE),
        ({"max_times_sampled": 1, "max_steps": 5}, {"rate_limiter": rs.Stack(4), "selector": {"newest": rs.Lifo(), "any": rs.Uniform()}}),
    ],
)
def test_accepted_and_the_same_again_from_json(retention: dict[str, Any], changes: dict[str, Any]) -> None:
    config = make(retention, **changes)
    assert config.row_bytes == 72
    assert rs.TableConfig.from_json(config.to_json()) == config


def test_writable_columns_say_so() -> None:
    column = rs.Column((3,), "int16", writable=True)
    assert rs.Column.from_json(column.to_json()) == column != rs.Column((3,), "int16")
    assert "writable" not in rs.Column((3,)).to_json()
    with pytest.raises(rs.InvalidArgument, match="writable=1 must be True or False"):
        rs.Column((), writable=1)  # type: ignore[arg-type]
