"""Three minutes of everything at once; and that what it looks for would be found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.soak.audit import Auditor
from benchmarks.soak.ledger import BATCHES, SLOT, Ledger, bin_of, quantiles_ms
from benchmarks.soak.watch import Fairness, Growth, grown, rise
from tests.conftest import TOLD

OVERLOADED = 4.0
"""Processes that want to run for each core: beyond, a time-out says nothing of the server."""
LATE = re.compile(r"DeadlineExceeded|within \d+ s|no answer for")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.xdist_group("soak")  # beside others: it waits most of the time
def test_three_minutes(tmp_path: Path, record_property: Any) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "3", "--pace", "8", "--kill-every", "25", "--slack", "3"]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path), "--json", str(tmp_path / "found.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, errors = process.communicate(timeout=2300)
    finally:
        if process.poll() is None:
            process.terminate()  # not killed: it ends its own processes first
            process.communicate(timeout=60)
    failures = [line for line in errors.splitlines() if line.startswith("failed: ")]
    if failures and os.getloadavg()[1] / (os.cpu_count() or 1) > OVERLOADED and all(map(LATE.search, failures)):
        pytest.skip(f"too many others use this machine for answers to come in time: {failures[0]}")
    assert process.returncode == 0, said + errors
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["steps"] >= found["acknowledged"] > 0
    assert found["kills"]
    memory = found["growth"]["own_mb"]
    record_property(TOLD, f"{found['steps']:,} steps, memory {memory['warm']:.0f} to {memory['end']:.0f} MB, CPU {found['cpu_s']:.0f} s")


def auditor(*blocks: tuple[list[int], list[int]]) -> Auditor:
    """One that has read these steps: who made them, which of his they are."""
    made = Auditor(None, "t", 10)  # type: ignore[arg-type]  # nobody is asked
    for actors, numbers in blocks:
        made.check(np.array(actors), np.array(numbers))
    return made


def test_steps_in_order_are_fine() -> None:
    read = auditor(([3, 5, 3], [0, 0, 1]), ([], []), ([5, 3, 3], [1, 2, 3]))
    assert read.steps == 6
    assert read.account(np.array([3, 5]), np.array([6, 2]), np.array([3, 2])) == 1


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([([3, 3], [0, 2])], "actor 3: step 2 follows where 1 was to come"),
        ([([3, 3], [0, 0])], "actor 3: step 0 follows where 1 was to come"),
        ([([3], [0]), ([3], [0])], "actor 3: step 0 follows where 1 was to come"),
        ([([3, 5], [0, 1])], "actor 5: step 1 follows where 0 was to come"),
        ([([3, 3], [1, 0])], "actor 3: step 1 follows where 0 was to come"),
    ],
)
def test_steps_that_are_missing_twice_or_in_another_order_are_found(blocks: list[Any], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        auditor(*blocks)


@pytest.mark.parametrize(
    ("actors", "sent", "acknowledged", "said"),
    [
        ([3], [5], [3], "actor 3 has 2 steps; 3 were acknowledged and 5 sent"),
        ([3], [1], [1], "actor 3 has 2 steps; 1 were acknowledged and 1 sent"),
        ([4], [0], [0], "actor 3 has 2 steps and was never there"),
    ],
)
def test_what_was_acknowledged_and_sent_is_compared(actors: list[int], sent: list[int], acknowledged: list[int], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        auditor(([3, 3], [0, 1])).account(np.array(actors), np.array(sent), np.array(acknowledged))


def growth(values: list[float], name: str = "own_mb", dropping: bool = True) -> list[str]:
    seen = Growth(warm_up_s=20.0)
    for second, value in enumerate(values):
        seen.add(float(second), {name: value}, dropping)
    return grown(seen.report())


def test_a_leak_is_found_and_noise_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 1.0, 100)
    assert not growth(list(100 + noise))
    assert not growth([*np.linspace(0, 100, 20), *(100 + noise[:80])])  # it may grow while it warms up
    assert not growth([*(100 + noise[:60]), 200.0, *(100 + noise[61:])])  # and jump for a moment
    (said,) = growth(list(100 + noise + np.linspace(0, 12, 100)))
    assert said.startswith("own_mb rose by ")
    assert said.endswith("6 may be")


def test_files_are_judged_where_tables_were_full_by_then() -> None:
    filling = list(np.linspace(0, 1000, 100))
    assert growth(filling, "files")
    assert not growth(filling, "files", dropping=False)


def test_the_line_takes_few_of_many_points() -> None:
    assert rise(np.arange(5000.0), np.arange(5000.0)) == pytest.approx(4999)
    assert rise(np.zeros(1), np.zeros(1)) == 0


def slots(*clients: tuple[int, float]) -> dict[str, Any]:
    """One process of clients in one group: answers so far, since when they wait."""
    found = np.zeros(len(clients), SLOT)
    for slot, (answers, since) in zip(found, clients, strict=True):
        slot["group"], slot["answers"], slot["waiting_since"] = BATCHES, answers, since
    return {"p": found}


def test_whoever_waits_while_others_go_on_starves() -> None:
    fairness, wrong = Fairness(), []
    for turn in range(6):
        wrong += fairness.look(5.0 * turn, slots((5 * turn, 0.0), (5 * turn, 1.0), (3, 1.0)))
    assert wrong == ["client 2 of process p (group 2) waits while others got 20 answers", *wrong[1:]]
    fairness.forget("p")
    assert not fairness.look(100.0, slots((1, 0.0), (1, 0.0), (3, 1.0)))


def test_whoever_asks_for_nothing_or_is_slow_like_everybody_does_not() -> None:
    fairness = Fairness()
    for turn in range(30):
        assert not fairness.look(5.0 * turn, slots((9 * turn, 0.0), (9 * turn, 0.0), (3, 0.0)))
    for turn in range(30):
        assert not fairness.look(200 + 5.0 * turn, slots((0, 1.0), (0, 1.0), (0, 1.0)))
    (said,) = fairness.look(600.0, slots((0, 1.0), (0, 1.0), (0, 1.0)))
    assert "no answer for" in said


def test_a_ledger_is_there_after_its_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", 2)
    entry = ledger.join(1, BATCHES, 7)
    entry.sending(10)
    again = Ledger(tmp_path / "ledger", 2)
    assert (again.slots["sent"][1], again.slots["acknowledged"][1], again.slots["actor"][1]) == (10, 0, 7)
    assert again.slots["waiting_since"][1] > 0
    entry.answered(10)
    assert again.slots["acknowledged"][1] == 10
    assert again.latencies[BATCHES].sum() == 1


def test_latencies_are_in_bins_a_twelfth_wide() -> None:
    counts = np.zeros(264, np.int64)
    for seconds in [0.001] * 98 + [0.1, 2.0]:
        counts[bin_of(seconds)] += 1
    found = quantiles_ms(counts)
    assert found["count"] == 100
    assert 1.0 <= found["p50_ms"] <= 1.1
    assert 100 <= found["p99_ms"] <= 110
    assert 2000 <= found["worst_ms"] <= 2200
