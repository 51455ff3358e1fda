# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a request may start: one clock for all the threads of a task."""

from __future__ import annotations

import threading
import time

from ._parent import Parent

# Seconds that a thread sleeps at most before it looks around again.
_LONGEST_SLEEP = 0.25

# After a slow-down the rate comes nearer to the one that was too much by this part of the distance with each success, and then beyond.
_APPROACH, _EXPLORE = 1 / 25, 0.005
# Successes since the last slow-down from which their rate says something.
_TELLING = 3
_LEAST_RATE = 0.6
# Pause after a slow-down, in intervals; what is under way comes back meanwhile.
_PAUSE_INTERVALS = 1
# Seconds to the first request while each is refused; doubled with each refusal.
_PROBE, _DOUBLINGS = 0.1, 4


class Cancelled(BaseException):
    """Nothing is to be sent any more; no error, as nobody waits for the outcome."""


class Alone:
    """For a task with one number, whose pauses are nobody else's: what is asked for is what is waited for."""

    parent: Parent | None = None

    def wait(self, seconds: float = 0.0) -> None:
        """Return after so many seconds.

        :raises Cancelled: nothing is to be sent any more
        """
        until = time.monotonic() + seconds
        while True:
            self._require_going_on()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LONGEST_SLEEP))

    def _require_going_on(self) -> None:
        if self.parent and self.parent.has_ended():
            raise Cancelled

    def succeeded(self) -> None:
        pass

    def throttled(self, seconds: float) -> None:
        pass


class RateLimiter(Alone):
    """Holds requests to a rate, and finds the account's, which is not published, from what is refused.

    A refusal slows all down to what got through of late; with each success the rate comes nearer to the one that was refused. A
    refusal of a request that had started before the last slow-down tells nothing new.

    :param per_second: most requests a second, None for as many as can be
    """

    def __init__(self, per_second: float | None = None) -> None:
        self._least_interval = 1 / per_second if per_second else 0.0
        self._mutex = threading.Lock()
        self._own = threading.local()  # when the thread's last request started
        self._next = self._held_until = 0.0
        self._stopped = False
        # None until the first refusal.
        self._rate: float | None = None
        self._refused_rate = 0.0
        self._slowed_at: float | None = None
        self._since: float | None = None
        self._successes = 0
        self._first: float | None = None
        self._all_successes = 0
        self._refused_in_a_row = 0

    def wait(self, seconds: float = 0.0) -> None:
        """Return when the next request may start, after that many seconds at the earliest, which hold up nobody else.

        :raises Cancelled: it may not start at all
        """
        super().wait(seconds)
        while True:
            self._require_going_on()
            with self._mutex:
                now = time.monotonic()
                left = max(self._next, self._held_until) - now
                if left <= 0:
                    self._next = now + self._interval()
                    self._own.started = now
                    if self._first is None:
                        self._first = now
                    if self._since is None:
                        self._since = now
                    return
            time.sleep(min(left, _LONGEST_SLEEP))

    def _require_going_on(self) -> None:
        if self._stopped:
            raise Cancelled
        super()._require_going_on()

    def succeeded(self) -> None:
        with self._mutex:
            self._all_successes += 1
            self._successes += 1
            if self._rate is None:
                return
            if self._refused_in_a_row > 1 and self._first is not None:
                # All was refused for a while, as at the end of a quota: what got through on the whole is the measure.
                on_the_whole = self._all_successes / max(time.monotonic() - self._first, 0.001)
                self._rate = max(self._rate, min(self._refused_rate, on_the_whole))
            self._refused_in_a_row = 0
            self._rate += max((self._refused_rate - self._rate) * _APPROACH, self._rate * _EXPLORE)
            self._refused_rate = max(self._refused_rate, self._rate)

    def throttled(self, seconds: float) -> None:
        """Let nobody start before so many seconds have passed, and then more slowly."""
        with self._mutex:
            now = time.monotonic()
            self._held_until = max(self._held_until, now + seconds)
            started = getattr(self._own, "started", now)
            if self._slowed_at is not None and started <= self._slowed_at:
                return
            got_through = self._successes / max(now - (self._since or now), 0.001)
            self._slow_down(got_through)
            self._slowed_at = self._since = now
            self._successes = 0
            pause = _PROBE * 2 ** min(self._refused_in_a_row, _DOUBLINGS) if self._refused_in_a_row else 0.0
            self._next = now + max(_PAUSE_INTERVALS * self._interval(), pause)

    def _slow_down(self, got_through: float) -> None:
        if self._rate is None:
            self._refused_rate = max(got_through, 1.0)
            self._rate = self._refused_rate / 2
        elif self._successes >= _TELLING:
            self._refused_rate = self._rate
            self._rate = min(max(got_through * 0.95, self._rate * 0.6), self._rate * 0.9)
        else:
            if self._successes:
                self._refused_rate = self._rate
            else:
                self._refused_in_a_row += 1
            self._rate *= 0.7
        self._rate = max(self._rate, _LEAST_RATE)

    def _interval(self) -> float:
        return max(self._least_interval, 1 / self._rate if self._rate else 0.0)

    def stop(self) -> None:
        """Let nobody start any more."""
        self._stopped = True
