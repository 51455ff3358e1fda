# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: it can change in any release.

"""When a request may start: one clock for all the threads of a task."""

from __future__ import annotations

import threading
import time

# A throttled pool gets faster by this factor with each success: twice as fast after some 70 of them.
_RECOVERY = 0.99
_LEAST_SLOWDOWN = 1.5
# Seconds from one request to the next, where no longer pause is asked for.
_SLOWEST = 1.0


class Cancelled(BaseException):
    """Nothing is to be sent any more; no error, as nobody waits for the outcome."""


class Alone:
    """For a task with one number, whose pauses are nobody else's: what is asked for is what is waited for."""

    def wait(self, seconds: float = 0.0) -> None:
        time.sleep(seconds)

    def succeeded(self) -> None:
        pass

    def throttled(self, seconds: float) -> None:
        pass


class RateLimiter(Alone):
    """Holds requests to a rate, and back while the API says that they are too many.

    What a throttled pool goes on with is the rate that got through so far, pauses included: the limits of accounts are not published,
    so they have to be found. From there it gets faster with each success.

    :param per_second: most requests a second, None for as many as can be
    """

    def __init__(self, per_second: float | None = None) -> None:
        self._least = 1 / per_second if per_second else 0.0
        self._interval = self._least
        self._mutex = threading.Lock()
        self._next = self._held_until = 0.0
        self._stopped = False
        # Since the last pause.
        self._successes = 0
        self._began: float | None = None

    def wait(self, seconds: float = 0.0) -> None:
        """Return when the next request may start, after that many seconds at the earliest.

        :raises Cancelled: it may not start at all
        """
        earliest = time.monotonic() + seconds
        while True:
            with self._mutex:
                now = time.monotonic()
                start = max(now, earliest, self._next, self._held_until)
                self._next = start + self._interval
                if self._began is None:
                    self._began = start
            if start > now:
                time.sleep(start - now)
            if self._stopped:
                raise Cancelled
            if self._held_until <= start:
                return
            # Meanwhile another thread's request was throttled.

    def succeeded(self) -> None:
        with self._mutex:
            self._successes += 1
            if self._interval > self._least:
                self._interval *= _RECOVERY
                if self._interval < max(self._least, 0.0005):
                    self._interval = self._least

    def throttled(self, seconds: float) -> None:
        """Let nobody start before so many seconds have passed, and then more slowly."""
        with self._mutex:
            now = time.monotonic()
            until = now + seconds
            # What was under way comes back with the same news: once is enough.
            if now >= self._held_until and self._began is not None:
                got_through = (until - self._began) / max(self._successes, 1)
                slower = max(got_through, self._interval * _LEAST_SLOWDOWN)
                # One request for each pause that the API asks for is slow enough, however often it asks.
                self._interval = max(self._least, min(slower, max(seconds, _SLOWEST)))
                self._successes, self._began = 0, None
            self._held_until = max(self._held_until, until)

    def stop(self) -> None:
        """Let nobody start any more."""
        self._stopped = True
