"""Rate limiters: the rule itself, that nobody waits for ever, and what is said to those who wait."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from replaystore.core.limiter import Limiter
from replaystore.errors import InvalidArgument
from replaystore.schema.limiters import MinSize, Queue, RateLimiter, SampleToInsertRatio, Stack


def test_min_size_holds_samples_back_and_never_inserts() -> None:
    limiter = Limiter(MinSize(10))
    assert not limiter.may_sample(9, 0, 9, 9, 1)
    assert limiter.may_sample(10, 0, 10, 10, 10**6)
    assert limiter.may_sample(10, 10**9, 10, 10, 1)
    assert limiter.may_insert(10**9, 0, 10**9, 10**9)
    assert not limiter.may_sample(100, 0, 9, 9, 1), "the steps kept count, not those ever inserted"
    limiter.check_sample(1 << 20)


def test_ratio_keeps_the_cursor_between_its_bounds() -> None:
    limiter = Limiter(SampleToInsertRatio(2.0, min_size_to_sample=10, error_buffer=6.0))  # bounds 14 to 26
    assert limiter.may_insert(9, 0, 9, 9)
    assert not limiter.may_sample(9, 0, 9, 9, 1)
    assert limiter.may_sample(10, 0, 10, 10, 6)  # 20 - 6 = 14
    assert not limiter.may_sample(10, 0, 10, 10, 7)
    assert limiter.may_insert(12, 0, 12, 12)  # 26 after it
    assert not limiter.may_insert(13, 0, 13, 13)
    assert limiter.may_insert(13, 2, 13, 13)


def test_inserts_pass_below_the_minimum_size_however_much_was_inserted() -> None:
    limiter = Limiter(SampleToInsertRatio(1.0, min_size_to_sample=10, error_buffer=5.0))
    assert not limiter.may_insert(1000, 0, 10, 10)
    assert limiter.may_insert(1000, 0, 9, 9)


@settings(max_examples=200, deadline=None)
@given(
    ratio=st.one_of(st.integers(1, 20).map(float), st.floats(0.01, 20), st.integers(1, 100).map(lambda part: part / 16)),
    least=st.integers(1, 30),
    buffer=st.one_of(st.integers(1, 60).map(float), st.floats(0.5, 60)),
    n=st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_whoever_wants_to_go_first_somebody_always_may(ratio: float, least: int, buffer: float, n: int, seed: int) -> None:
    """What check_sample lets through never waits for ever, and the cursor never leaves its bounds (blocks of one step)."""
    assume(2 * buffer >= max(1.0, ratio))
    limiter = Limiter(SampleToInsertRatio(ratio, least, buffer))
    try:
        limiter.check_sample(n)
    except InvalidArgument:
        assume(False)
    inserted = sampled = 0
    for wants_insert in np.random.default_rng(seed).random(200) < 0.5:
        counted = inserted, sampled, inserted, inserted
        may_insert, may_sample = limiter.may_insert(*counted), limiter.may_sample(*counted, n)
        assert may_insert or may_sample
        if may_insert and (wants_insert or not may_sample):
            inserted += 1
        else:
            sampled += n
        if inserted >= least:
            start = ratio * least
            assert start - buffer - 1e-6 <= inserted * ratio - sampled <= start + buffer + 1e-6


@settings(max_examples=200, deadline=None)
@given(
    sixteenths=st.one_of(st.integers(1, 12).map(lambda whole: 16 * whole), st.integers(1, 100)),
    buffer=st.one_of(st.integers(1, 20).map(float), st.integers(8, 300).map(lambda part: part / 16)),
    n=st.integers(1, 40),
)
def test_check_sample_refuses_exactly_the_batches_that_get_stuck(sixteenths: int, buffer: float, n: int) -> None:
    ratio = sixteenths / 16
    assume(2 * buffer >= max(1.0, ratio))
    limiter = Limiter(SampleToInsertRatio(ratio, 100, buffer))
    inserted, sampled, seen = 100, 0, set()
    while (cursor := inserted * ratio - sampled) not in seen:
        seen.add(cursor)
        if limiter.may_insert(inserted, sampled, 100, 100):
            inserted += 1
        elif limiter.may_sample(inserted, sampled, 100, 100, n):
            sampled += n
        else:
            with pytest.raises(InvalidArgument, match=f"batch_size={n} would wait for ever .* error_buffer of at least"):
                limiter.check_sample(n)
            return
    limiter.check_sample(n)


def test_the_error_says_which_batches_and_which_buffer_would_do() -> None:
    limiter = Limiter(SampleToInsertRatio(2.0, 10, 50.0))
    limiter.check_sample(98)
    with pytest.raises(InvalidArgument, match=r"batches of at most 98, or alter_table with an error_buffer of at least 52$"):
        limiter.check_sample(101)
    Limiter(SampleToInsertRatio(2.0, 10, 52.0)).check_sample(101)


def test_waiting_samples_learn_how_many_steps_are_missing() -> None:
    limiter = Limiter(SampleToInsertRatio(2.0, 10, 6.0))
    assert limiter.explain(4, 0, 4, 4, action="sample") == (
        "SampleToInsertRatio holds sampling back: 4 of min_size_to_sample=10 steps are there; actors must insert 6 more"
    )
    text = limiter.explain(10, 4, 10, 10, action="sample", n=5)  # cursor 16, 3 too few
    assert "cursor 16" in text
    assert "bounds 14 to 26" in text
    assert text.endswith("5 more items would go below: actors must insert 2 more steps")
    assert limiter.may_sample(12, 4, 12, 12, 5)
    assert not limiter.may_sample(11, 4, 11, 11, 5)


def test_waiting_inserts_learn_how_many_samples_are_missing() -> None:
    limiter = Limiter(SampleToInsertRatio(2.0, 10, 6.0))
    text = limiter.explain(13, 1, 13, 13, action="insert")
    assert text.startswith(
        "SampleToInsertRatio holds inserts back: cursor 25 (= 13 steps inserted * samples_per_insert=2 - 1 items sampled)"
    )
    assert text.endswith("learners must sample 1 more items")
    assert limiter.may_insert(13, 2, 13, 13)


@pytest.mark.parametrize("config", [MinSize(3), SampleToInsertRatio(1.0, 3, 10.0)])
@pytest.mark.parametrize("action", ["insert", "sample"])
def test_who_need_not_wait_is_told_so(config: MinSize | SampleToInsertRatio, action: str) -> None:
    assert f"lets this {action} through" in Limiter(config).explain(5, 2, 5, 5, action=action)
    assert "lets this insert through" in Limiter(config).explain(2, 0, 2, 2, action="insert")


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="action='peek'"):
        Limiter(MinSize(1)).explain(0, 0, 0, 0, action="peek")


def test_nothing_to_sample_lets_inserts_pass() -> None:
    """A deletion may leave steps but no anchors, and a selector may want more distinct anchors than there are."""
    limiter = Limiter(SampleToInsertRatio(1.0, 1, 2.0))
    assert not limiter.may_insert(3, 0, 3, 2)
    assert limiter.may_insert(3, 0, 3, 0)
    assert limiter.may_insert(3, 0, 3, 2, wanted=3)
    assert "lets this insert through" in limiter.explain(3, 0, 3, 0, action="insert")


@pytest.mark.parametrize("kind", [Queue, Stack])
def test_a_queue_counts_anchors(kind: type[Queue] | type[Stack]) -> None:
    limiter, name = Limiter(kind(3)), kind.__name__
    assert [limiter.may_insert(100, 0, 50, anchors) for anchors in (0, 2, 3, 9)] == [True, True, False, False]
    assert [limiter.may_sample(100, 0, 50, anchors, 2) for anchors in (0, 1, 2, 9)] == [False, False, True, True]
    assert limiter.explain(9, 4, 5, 4, action="insert") == (
        f"{name} holds inserts back: cursor 4 (anchors that wait to be sampled), bounds 0 to size=3; learners must sample 2 more items"
    )
    assert limiter.explain(9, 4, 5, 1, action="sample", n=3) == (
        f"{name} holds sampling back: cursor 1 (anchors that wait to be sampled), bounds 0 to size=3; 3 items are wanted: actors must "
        "insert 2 more steps (a step counts once the next row of its stream is there)"
    )
    assert "lets this insert through" in limiter.explain(9, 4, 5, 2, action="insert")
    assert "lets this sample through" in limiter.explain(9, 4, 5, 2, action="sample", n=2)
    limiter.check_sample(3)
    with pytest.raises(
        InvalidArgument, match=rf"batch_size=4 would wait for ever under {name}: .* alter_table\(rate_limiter={name}\(4\)\)"
    ):
        limiter.check_sample(4)


# -- a plain model: rows in lists, and the rules as the documentation says them


class Plain:
    """Streams of rows: the newest of each is no anchor yet. Used-up steps are gone."""

    def __init__(self, config: RateLimiter) -> None:
        self.config = config
        self.anchors, self.tails = 0, 0
        self.inserted = self.sampled = 0

    @property
    def size(self) -> int:
        return self.anchors + self.tails

    def may_insert(self) -> bool:
        config = self.config
        if isinstance(config, MinSize):
            return True
        if isinstance(config, Queue | Stack):
            return self.anchors < config.size
        if self.size < config.min_size_to_sample or not self.anchors:
            return True
        ahead = (self.inserted + 1 - config.min_size_to_sample) * config.samples_per_insert - self.sampled
        return ahead <= config.error_buffer

    def may_sample(self, n: int) -> bool:
        config = self.config
        if isinstance(config, Queue | Stack):
            return self.anchors >= n
        if self.size < config.min_size_to_sample:
            return False
        if isinstance(config, MinSize):
            return True
        behind = self.sampled + n - (self.inserted - config.min_size_to_sample) * config.samples_per_insert
        return behind <= config.error_buffer


class LimiterMachine(RuleBasedStateMachine):
    """Rows come one by one; batches are of one size, which the limiter accepts."""

    def __init__(self) -> None:
        super().__init__()
        self.limiter: Limiter | None = None

    @initialize(
        config=st.one_of(
            st.builds(MinSize, st.integers(1, 6)),
            st.builds(Queue, st.integers(1, 6)),
            st.builds(Stack, st.integers(1, 6)),
            st.builds(SampleToInsertRatio, st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0]), st.integers(1, 6), st.integers(2, 20).map(float)),
        ),
        n=st.integers(1, 6),
    )
    def begin(self, config: RateLimiter, n: int) -> None:
        self.limiter, self.plain, self.n = Limiter(config), Plain(config), n
        self.bounded = isinstance(config, Queue | Stack)
        try:
            self.limiter.check_sample(n)
        except InvalidArgument:
            self.n = 1
            self.limiter.check_sample(1)

    @property
    def counted(self) -> tuple[int, int, int, int]:
        plain = self.plain
        return plain.inserted, plain.sampled, plain.size, plain.anchors

    def allowed(self) -> tuple[bool, bool]:
        assert self.limiter is not None
        return self.limiter.may_insert(*self.counted), self.limiter.may_sample(*self.counted, self.n)

    @rule(new_stream=st.booleans())
    def insert(self, new_stream: bool) -> None:
        """A row of a stream: the one before it becomes an anchor."""
        if self.allowed()[0]:
            plain = self.plain
            plain.inserted += 1
            if plain.tails and not new_stream:
                plain.anchors += 1
            else:
                plain.tails += 1

    @rule()
    def sample(self) -> None:
        plain = self.plain
        if self.allowed()[1] and plain.anchors:
            plain.sampled += self.n
            if self.bounded:
                plain.anchors -= self.n

    @precondition(lambda self: self.limiter is not None)
    @rule(share=st.floats(0, 1), tails=st.booleans())
    def lose(self, share: float, tails: bool) -> None:
        """Eviction or deletion."""
        self.plain.anchors -= int(self.plain.anchors * share)
        if tails:
            self.plain.tails = 0

    @invariant()
    def as_the_plain_model_says(self) -> None:
        if self.limiter is not None:
            assert self.allowed() == (self.plain.may_insert(), self.plain.may_sample(self.n))

    @invariant()
    def somebody_may_go_on(self) -> None:
        if self.limiter is not None:
            may_insert, may_sample = self.allowed()
            assert may_insert or (may_sample and self.plain.anchors), "both sides wait"

    @invariant()
    def who_waits_is_told_what_is_missing(self) -> None:
        if self.limiter is None:
            return
        for action, may in zip(("insert", "sample"), self.allowed(), strict=True):
            text = self.limiter.explain(*self.counted, action=action, n=self.n)
            assert ("lets this" in text) == may, text
            assert may or ("learners must sample" if action == "insert" else "actors must insert") in text


def test_limiters_are_what_a_plain_model_says_and_never_stop_both_sides() -> None:
    run_state_machine_as_test(LimiterMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True))
