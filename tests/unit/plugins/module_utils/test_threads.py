# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import Pause, Steps
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._threads import for_each_in_threads


def _steps(work: Callable[[Any], Any]) -> Callable[[Any], Steps[None]]:
    """The work as one step."""

    def steps(item: Any) -> Steps[None]:
        work(item)
        yield from ()

    return steps


def _nothing(item: Any) -> None:
    pass


def _threads() -> set[int]:
    return {thread.ident for thread in threading.enumerate() if thread.ident}


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do; against a test that hangs, not a measure."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_each_item_is_done_once_and_told_in_the_caller() -> None:
    worked: list[int] = []
    told: list[int | None] = []
    callers = set()

    def on_progress(item: int | None) -> None:
        callers.add(threading.get_ident())
        told.append(item)

    for_each_in_threads(range(500), _steps(worked.append), threads=8, rate_limiter=RateLimiter(), on_progress=on_progress)
    assert sorted(worked) == list(range(500))
    assert sorted(item for item in told if item is not None) == list(range(500))
    assert callers == {threading.get_ident()}


@pytest.mark.parametrize(("items", "threads", "at_once"), [(20, 5, 5), (3, 8, 3), (4, 1, 1)])
def test_as_many_are_worked_on_at_once_as_asked_for(items: int, threads: int, at_once: int) -> None:
    lock, most, now = threading.Lock(), 0, 0
    full = threading.Event()

    def work(item: int) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            if now == at_once:
                full.set()
        assert full.wait(30)  # nobody ends before all that can have begun
        with lock:
            now -= 1

    for_each_in_threads(range(items), _steps(work), threads=threads, rate_limiter=RateLimiter(), on_progress=_nothing)
    assert most == at_once


def test_without_items_there_are_no_threads() -> None:
    before = _threads()
    for_each_in_threads([], _steps(pytest.fail), threads=8, rate_limiter=RateLimiter(), on_progress=_nothing)
    assert _threads() == before


def test_the_threads_end_with_the_work() -> None:
    before = _threads()
    for_each_in_threads(range(20), _steps(_nothing), threads=8, rate_limiter=RateLimiter(), on_progress=_nothing)
    _until(lambda: _threads() <= before)


class _Interrupted(BaseException):
    pass


def test_an_interruption_lets_nothing_further_start() -> None:
    """As Ansible's time limit for a task interrupts it, by a signal in the main thread."""
    begun: list[int] = []
    go_on = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item:
            go_on.wait(30)

    def on_progress(item: int | None) -> None:
        _until(lambda: len(begun) == 4)  # the first is done, three are under way
        raise _Interrupted

    before = _threads()
    with pytest.raises(_Interrupted):
        for_each_in_threads(range(100), _steps(work), threads=3, rate_limiter=RateLimiter(), on_progress=on_progress)
    go_on.set()
    _until(lambda: _threads() <= before)
    assert begun == [0, 1, 2, 3]


def test_waiting_item_does_not_start_after_interruption() -> None:
    begun: list[int] = []

    def interrupt(item: int | None) -> None:
        raise _Interrupted

    before = _threads()
    with pytest.raises(_Interrupted):
        # The first starts at once, the others a second later.
        for_each_in_threads(range(4), _steps(begun.append), threads=4, rate_limiter=RateLimiter(1), on_progress=interrupt)
    _until(lambda: _threads() <= before)
    assert begun == [0]


def test_who_pauses_when_it_is_interrupted_is_closed_and_does_not_go_on() -> None:
    tried: list[str] = []
    paused = threading.Event()

    def work(item: int) -> Steps[None]:
        if item:
            try:
                tried.append("first")
                paused.set()
                yield Pause(1)
                tried.append("second")
            finally:
                tried.append("closed")

    def interrupt(item: int | None) -> None:
        assert paused.wait(30)
        raise _Interrupted

    before = _threads()
    with pytest.raises(_Interrupted):
        for_each_in_threads([0, 1], work, threads=2, rate_limiter=RateLimiter(), on_progress=interrupt)
    _until(lambda: _threads() <= before and "closed" in tried)
    assert tried == ["first", "closed"]


def test_items_that_pause_hold_no_thread() -> None:
    begun = 0
    all_begun = threading.Event()

    def work(item: int) -> Steps[None]:
        nonlocal begun
        begun += 1
        if begun == 50:
            all_begun.set()
        while not all_begun.is_set():  # no number of pauses keeps an item from its turn
            yield Pause(0.01)

    for_each_in_threads(range(50), work, threads=2, rate_limiter=RateLimiter(), on_progress=_nothing)
    assert begun == 50


def test_each_step_that_sends_takes_a_turn_and_no_other_does() -> None:
    turns = []

    class Counting(RateLimiter):
        def take_turn(self) -> float:
            turns.append(1)
            return 0.0

    def work(item: int) -> Steps[None]:
        yield Pause()
        yield Pause(sends=False)

    for_each_in_threads(range(5), work, threads=2, rate_limiter=Counting(), on_progress=_nothing)
    assert len(turns) == 10


def test_an_error_that_nobody_foresaw_is_not_swallowed() -> None:
    def work(item: int) -> None:
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        for_each_in_threads(range(3), _steps(work), threads=2, rate_limiter=RateLimiter(), on_progress=_nothing)


def test_while_nothing_ends_it_is_said_that_time_passes() -> None:
    go_on = threading.Event()

    def on_progress(item: int | None) -> None:
        if item is None:
            go_on.set()

    def work(item: int) -> None:
        assert go_on.wait(30), "nobody said so"

    for_each_in_threads([1], _steps(work), threads=1, rate_limiter=RateLimiter(), on_progress=on_progress)
