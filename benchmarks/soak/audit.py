"""Reads every row of a table before it is dropped, and counts: each actor's steps are there, once and in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore_client import Client

MOST_ROWS = 20_000
"""Read at once."""


class Auditor:
    """Of one table."""

    def __init__(self, client: Client, table: str, actors: int) -> None:
        """`actors`: numbers are below."""
        self._client, self._table = client, table
        self._next_step = 0
        self.dropping = False
        """Whether retention is at work: rows are gone."""
        self._expected = np.zeros(actors, np.int64)
        self.steps = 0
        """Read."""
        self.lag = 0
        """Rows that were inserted and not read when it looked last."""

    def look(self) -> None:
        """Reads what is new.

        Raises:
            AssertionError: an actor's steps are not there once and in order; or rows were dropped before they were read.
        """
        stats = self._client.stats(self._table)
        self.lag = stats.next_step - self._next_step
        self.dropping = stats.first_step > 0
        while self._next_step < stats.next_step:
            stop = min(self._next_step + MOST_ROWS, stats.next_step)
            rows = self._client.read_steps(self._table, self._next_step, stop, ["number", "meta/actor", "meta/kind"])
            if len(rows["step_id"]) != stop - self._next_step:
                missing = np.setdiff1d(np.arange(self._next_step, stop), rows["step_id"])
                raise AssertionError(f"{self._table}: {len(missing)} rows were dropped before they were read, the first is {missing[0]}")
            steps = rows["meta/kind"] == 0
            self.check(rows["meta/actor"][steps], rows["number"][steps])
            self._next_step = stop

    def check(self, actors: npt.NDArray[Any], numbers: npt.NDArray[Any]) -> None:
        """The next steps, in the order of their ids: ``(n,)`` who made them, and which of his they are."""
        if not len(actors):
            return
        order = np.argsort(actors, kind="stable")
        actors, numbers = actors[order], numbers[order]
        first = np.r_[True, actors[1:] != actors[:-1]]
        wanted = np.where(first, self._expected[actors], np.r_[0, numbers[:-1] + 1])
        wrong = np.flatnonzero(numbers != wanted)
        if len(wrong):
            at = wrong[0]
            raise AssertionError(f"{self._table}: actor {actors[at]}: step {numbers[at]} follows where {wanted[at]} was to come")
        last = np.r_[first[1:], True]
        self._expected[actors[last]] = numbers[last] + 1
        self.steps += len(actors)

    def account(self, actors: npt.NDArray[Any], sent: npt.NDArray[Any], acknowledged: npt.NDArray[Any]) -> int:
        """Everything acknowledged must be there, and nothing that was not sent.

        Returns:
            How many steps are there without having been acknowledged.

        Raises:
            AssertionError: it is not so.
        """
        there = self._expected[actors]
        for actor, have, most, least in zip(actors, there, sent, acknowledged, strict=True):
            if not least <= have <= most:
                raise AssertionError(f"{self._table}: actor {actor} has {have} steps; {least} were acknowledged and {most} sent")
        strangers = np.setdiff1d(np.flatnonzero(self._expected), actors)
        if len(strangers):
            raise AssertionError(f"{self._table}: actor {strangers[0]} has {self._expected[strangers[0]]} steps and was never there")
        return int((there - acknowledged).sum())
