"""Waiting in line, and beside it."""

from __future__ import annotations

from replaystore.turns import Ticket, WaitQueue


def test_only_the_first_may_try_and_is_woken() -> None:
    queue, woken = WaitQueue(), list[str]()
    assert queue.may_try(None)
    first, second = queue.join(lambda: woken.append("first")), queue.join(lambda: woken.append("second"))
    assert (queue.may_try(first), queue.may_try(second), queue.may_try(None)) == (True, False, False)
    queue.notify()
    assert woken == ["first"]
    queue.leave(first)
    assert woken == ["first", "second"]
    assert queue.may_try(second)


def test_who_steps_aside_holds_nobody_up_and_still_hears_the_news() -> None:
    queue, woken = WaitQueue(), list[str]()
    first, second = queue.join(lambda: woken.append("first")), queue.join(lambda: woken.append("second"))
    queue.step_aside(first)
    assert woken == ["second", "first"]  # it is the second's turn now
    assert queue.may_try(first)
    assert queue.may_try(second)
    assert not queue.may_try(None)
    queue.step_aside(first)
    assert len(woken) == 2  # once is enough: no waking each other for ever
    queue.leave(second)
    assert woken[2:] == ["first"]
    assert queue.may_try(None)
    assert len(queue) == 1
    queue.leave(first)
    assert len(queue) == 0
    queue.step_aside(Ticket(lambda: woken.append("nobody")))
    assert "nobody" not in woken
