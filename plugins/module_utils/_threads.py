# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in threads: a list of it shared by several, or one piece with a deadline."""

from __future__ import annotations

import collections
import queue
import threading
import typing as t

from ._rate_limit import Cancelled, RateLimiter

T = t.TypeVar("T")
R = t.TypeVar("R")


def for_each_in_threads(
    items: t.Iterable[T], work: t.Callable[[T], None], *, threads: int, rate_limiter: RateLimiter, on_progress: t.Callable[[T | None], None]
) -> None:
    """Do the work for each item, in so many threads at most; return when all is done.

    All else is done in the thread that calls: it alone gets signals, as that of Ansible's time limit for a task, and whatever ends it
    lets no further item start.

    :param rate_limiter: says when the next item may start
    :param on_progress: called for each item that is done, and with None each second or so
    :raises BaseException: what the work for an item raised
    """
    todo = collections.deque(items)
    left = len(todo)
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            while todo:
                rate_limiter.wait()
                try:
                    item = todo.popleft()
                except IndexError:  # another thread was sooner
                    return
                work(item)
                ended.put((item, None))
        except Cancelled:
            pass
        except BaseException as exc:
            ended.put((None, exc))

    try:
        for dummy in range(min(threads, left)):
            # Daemons: a process that is to end does not wait for them, whatever they wait for.
            threading.Thread(target=run, daemon=True).start()
        while left:
            try:
                item, error = ended.get(timeout=1)
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
        todo.clear()
        rate_limiter.stop()


def run_with_deadline(work: t.Callable[[], R], seconds: float) -> R:
    """Return what the work returns, or raise what it raises.

    :raises queue.Empty: it has not ended in time. Its thread goes on; being a daemon, it ends with its process.
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
