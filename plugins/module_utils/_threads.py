# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Distributes a list of work among threads, and runs a function with a deadline."""

from __future__ import annotations

import collections
import heapq
import itertools
import queue
import threading
import time
import typing as t

from ._rate_limit import LONGEST_SLEEP, Cancelled, RateLimiter
from ._steps import Steps

T = t.TypeVar("T")
R = t.TypeVar("R")


def for_each_in_threads(
    items: t.Iterable[T], work: t.Callable[[T], Steps[None]], *, threads: int, rate_limiter: RateLimiter, on_progress: t.Callable[[T | None], None]
) -> None:
    """Do the work for each item in at most ``threads`` threads; return when all are done.

    An item that pauses occupies no thread. Everything else happens in the calling thread: only that one gets signals, such as Ansible's time
    limit for a task. When it ends in any way, no further step starts.

    :param rate_limiter: decides when an item may begin, and a step that sends
    :param on_progress: called for each item that is done, and with None about once a second
    :raises BaseException: what the work for an item raised
    """
    pool = _Pool(items, work, rate_limiter)
    left = pool.left
    try:
        for dummy in range(min(threads, left)):
            # Daemon threads, so that the process does not wait for them at its end.
            threading.Thread(target=pool.run, daemon=True).start()
        while left:
            try:
                item, error = pool.ended.get(timeout=1)
            except queue.Empty:
                if rate_limiter.parent and rate_limiter.parent.has_ended():
                    raise Cancelled from None
                on_progress(None)
                continue
            if error:
                raise error
            left -= 1
            on_progress(item)
    finally:
        pool.stop()


class _Begun(t.NamedTuple):
    """An item whose work pauses, ordered by the time of its next step."""

    until: float
    order: int
    sends: bool
    item: t.Any
    steps: Steps[None]


class _Pool(t.Generic[T]):
    """The items, and the threads that run their steps.

    :ivar left: number of items that are not done
    :ivar ended: each item that is done, or the exception of its work
    """

    def __init__(self, items: t.Iterable[T], work: t.Callable[[T], Steps[None]], rate_limiter: RateLimiter) -> None:
        self._todo = collections.deque(items)
        self._work = work
        self._rate_limiter = rate_limiter
        self.left = len(self._todo)
        self.ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._paused: list[_Begun] = []
        self._order = itertools.count()
        self._stopped = False
        # Only one thread waits for the next step, so that not all of them are woken for it.
        self._picking = threading.Lock()
        self._changed = threading.Condition()

    def run(self) -> None:
        """Run steps until all items are done."""
        try:
            while True:
                with self._picking:
                    picked = self._pick()
                if picked is None:
                    return
                self._do_step(*picked)
        except Cancelled:
            pass
        except BaseException as exc:
            self.ended.put((None, exc))

    def stop(self) -> None:
        """Prevent further steps from starting."""
        self._rate_limiter.stop()
        with self._changed:
            self._stopped = True
            self._todo.clear()
            paused, self._paused = self._paused, []
            self._changed.notify()
        for begun in paused:
            begun.steps.close()

    def _pick(self) -> tuple[T, Steps[None]] | None:
        """Wait for the next step that may start; None when all items are done."""
        with self._changed:
            while self.left:
                self._rate_limiter.require_running()
                picked = self._next()
                if not isinstance(picked, float):
                    return picked
                self._changed.wait(min(picked, LONGEST_SLEEP))
            return None

    def _next(self) -> tuple[T, Steps[None]] | float:
        """Return the item whose step may start now, items in progress first, or the seconds until one may."""
        now = time.monotonic()
        if self._paused and self._paused[0].until <= now:
            left = self._rate_limiter.take_turn() if self._paused[0].sends else 0.0
            if left > 0:
                return left
            begun = heapq.heappop(self._paused)
            return begun.item, begun.steps
        if self._todo:
            left = self._rate_limiter.take_turn()
            if left <= 0:
                item = self._todo.popleft()
                return item, self._work(item)
        else:
            left = LONGEST_SLEEP
        return min(left, self._paused[0].until - now) if self._paused else left

    def _do_step(self, item: T, steps: Steps[None]) -> None:
        try:
            pause = next(steps)
        except StopIteration:
            with self._changed:
                self.left -= 1
                if not self.left:
                    self._changed.notify()
            self.ended.put((item, None))
            return
        with self._changed:
            if not self._stopped:
                heapq.heappush(self._paused, _Begun(time.monotonic() + pause.seconds, next(self._order), pause.sends, item, steps))
                self._changed.notify()
                return
        steps.close()


def run_with_deadline(work: t.Callable[[], R], seconds: float) -> R:
    """Return what the work returns, or raise what it raises.

    :raises queue.Empty: it has not ended in time. Its daemon thread continues, at most until the end of the process.
    """
    ended: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((work(), None))
        except BaseException as exc:
            ended.put((None, exc))

    threading.Thread(target=run, daemon=True).start()
    result, error = ended.get(timeout=seconds)
    if error:
        raise error
    return t.cast(R, result)
