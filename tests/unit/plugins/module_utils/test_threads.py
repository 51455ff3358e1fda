# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Items that are worked on in threads: each once, as many at once as asked for, and none further after an interruption."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import Pause, Steps
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._threads import for_each_in_threads


class _Interrupted(BaseException):
    """As Ansible's time limit for a task interrupts it, by a signal in the main thread."""


def _nothing(item: Any) -> None:
    pass


def _in_one_step(work: Callable[[Any], Any]) -> Callable[[Any], Steps[None]]:
    def steps(item: Any) -> Steps[None]:
        work(item)
        yield from ()

    return steps


def _for_each(
    items: Iterable[Any],
    work: Callable[[Any], Steps[None]],
    *,
    threads: int = 2,
    rate_limiter: RateLimiter | None = None,
    on_progress: Callable[[Any], None] = _nothing,
) -> None:
    for_each_in_threads(items, work, threads=threads, rate_limiter=rate_limiter or RateLimiter(), on_progress=on_progress)


def _threads() -> set[int]:
    return {thread.ident for thread in threading.enumerate() if thread.ident}


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do; the limit is for a test that hangs."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_each_item_is_done_once_and_reported_in_the_caller() -> None:
    before, callers = _threads(), set()
    worked: list[int] = []
    reported: list[int | None] = []

    def on_progress(item: int | None) -> None:
        callers.add(threading.get_ident())
        reported.append(item)

    _for_each(range(500), _in_one_step(worked.append), threads=8, on_progress=on_progress)
    assert sorted(worked) == sorted(item for item in reported if item is not None) == list(range(500))
    assert callers == {threading.get_ident()}
    _until(lambda: _threads() <= before)  # the threads end with the work
    _for_each([], _in_one_step(pytest.fail))
    assert _threads() <= before


@pytest.mark.parametrize(("items", "threads", "at_once"), [(20, 5, 5), (3, 8, 3), (4, 1, 1)])
def test_as_many_items_at_once_as_asked_for(items: int, threads: int, at_once: int) -> None:
    lock, most, now = threading.Lock(), 0, 0
    full = threading.Event()

    def work(item: int) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            if now == at_once:
                full.set()
        assert full.wait(30)  # none ends before all that can have begun
        with lock:
            now -= 1

    _for_each(range(items), _in_one_step(work), threads=threads)
    assert most == at_once


def test_interruption_lets_nothing_further_start() -> None:
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
        _for_each(range(100), _in_one_step(work), threads=3, on_progress=on_progress)
    go_on.set()
    _until(lambda: _threads() <= before)
    assert begun == [0, 1, 2, 3]


def test_pausing_item_is_closed_by_an_interruption() -> None:
    tried: list[str] = []
    paused = threading.Event()

    def work(item: int) -> Steps[None]:
        if item:
            try:
                tried.append("first")
                paused.set()
                yield Pause(0.2)
                tried.append("second")
            finally:
                tried.append("closed")

    def interrupt(item: int | None) -> None:
        assert paused.wait(30)
        raise _Interrupted

    before = _threads()
    with pytest.raises(_Interrupted):
        _for_each([0, 1], work, on_progress=interrupt)
    _until(lambda: _threads() <= before and "closed" in tried)
    assert tried == ["first", "closed"]


def test_pausing_items_hold_no_thread() -> None:
    begun = 0
    all_begun = threading.Event()

    def work(item: int) -> Steps[None]:
        nonlocal begun
        begun += 1
        if begun == 50:
            all_begun.set()
        while not all_begun.is_set():  # no number of pauses keeps an item from its turn
            yield Pause(0.01)

    _for_each(range(50), work)
    assert begun == 50


def test_only_a_step_that_sends_takes_a_turn() -> None:
    turns: list[int] = []
    done: list[int] = []

    refusals = itertools.cycle([0.001, 0.0])

    class Counting(RateLimiter):
        def take_turn(self) -> float:
            seconds = next(refusals)
            if not seconds:
                turns.append(1)
            return seconds

    def work(item: int) -> Steps[None]:
        yield Pause()
        yield Pause(sends=False)
        done.append(len(turns))

    _for_each(range(5), work, threads=1, rate_limiter=Counting())
    assert done == [2, 4, 6, 8, 10]  # what has begun goes on before something else begins


def test_unexpected_error_is_raised() -> None:
    def work(item: int) -> None:
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        _for_each(range(3), _in_one_step(work))


def test_caller_is_notified_while_nothing_ends() -> None:
    go_on = threading.Event()

    def on_progress(item: int | None) -> None:
        if item is None:
            go_on.set()

    def work(item: int) -> None:
        assert go_on.wait(30), "nobody was notified"

    _for_each([1], _in_one_step(work), on_progress=on_progress)
