# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a request may start: one clock for all the threads of a task."""

from __future__ import annotations

import math
import threading
import time

from ._parent import Parent

# Seconds that a thread sleeps at most before it looks around again.
_LONGEST_SLEEP = 0.25

# Seconds that all wait after the first refusal: long enough for what got through until then to say something about the rate.
_FIRST_PAUSE = 0.63
# The rate is then what got through, or this one, and grows by a factor with each success until it is refused again: the first
# factor while little has got through, then the second.
_FIRST_RATE, _FAST, _FEW, _MODERATE = 5.0, 1.12, 16, 1.004
# Later it comes nearer to the one that was refused by a part of the distance with each success, and then slowly beyond.
_APPROACH, _EXPLORE = 0.0235, 0.0005
# After a refusal the rate is this part of the one that was refused: the first while little has got through since the last refusal.
_FAR_BACK, _BACK = 0.82, 0.89
_LEAST_RATE = 0.6
# Seconds between requests while each is refused, doubled with each.
_PROBE, _DOUBLINGS = 0.28, 4


class Cancelled(BaseException):
    """Nothing is to be sent any more; no error, as nobody waits for the outcome."""


class RateLimiter:
    """Holds requests to a rate, and finds the account's, which is not published, from what is refused.

    A refusal slows all down to what got through of late; with each success the rate comes nearer to the one that was refused. A
    refusal of a request that had started before the last slow-down tells nothing new.

    :param per_second: most requests a second, None for as many as can be
    :ivar parent: the process that wants the work; once it has ended, nothing starts any more
    """

    parent: Parent | None = None

    def __init__(self, per_second: float | None = None) -> None:
        self._least_interval = 1 / per_second if per_second else 0.0
        self._mutex = threading.Lock()
        self._own = threading.local()  # when the thread's last request started
        self._next = self._held_until = 0.0
        self._stopped = False
        # None until the first refusal.
        self._rate: float | None = None
        self._refused_rate = math.inf
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
        earliest = time.monotonic() + seconds
        while True:
            if self._stopped or (self.parent and self.parent.has_ended()):
                raise Cancelled
            left = earliest - time.monotonic()
            if left <= 0:
                left = self.take_turn()
                if left <= 0:
                    return
            time.sleep(min(left, _LONGEST_SLEEP))

    def take_turn(self) -> float:
        """Let this thread's next request start now and return 0, or return the seconds until it may."""
        with self._mutex:
            now = time.monotonic()
            left = max(self._next, self._held_until) - now
            if left > 0:
                return left
            self._next = now + self._interval()
            self._own.started = now
            if self._first is None:
                self._first = now
            if self._since is None:
                self._since = now
            return 0.0

    def succeeded(self) -> None:
        with self._mutex:
            self._all_successes += 1
            self._successes += 1
            if self._rate is None:
                return
            if self._refused_in_a_row > 1:
                # All was refused for a while, as at the end of a quota: what got through on the whole is the measure.
                self._rate = max(self._rate, min(self._refused_rate, self._on_the_whole()))
            self._refused_in_a_row = 0
            if self._refused_rate == math.inf:
                self._rate *= _FAST if self._all_successes < _FEW else _MODERATE
            else:
                self._rate += max((self._refused_rate * 0.97 - self._rate) * _APPROACH, self._rate * _EXPLORE)

    def throttled(self, seconds: float, started: float | None = None) -> None:
        """Let nobody start before so many seconds have passed, and then more slowly.

        :param started: when the request did, if not in this thread
        """
        with self._mutex:
            now = time.monotonic()
            self._held_until = max(self._held_until, now + seconds)
            if started is None:
                started = getattr(self._own, "started", now)
            if self._slowed_at is not None and started <= self._slowed_at:
                return
            if self._rate is None:
                seconds = max(seconds, _FIRST_PAUSE)
                self._held_until = max(self._held_until, now + seconds)
                self._rate = max(0.9 * self._all_successes / (now + seconds - (self._first or now)), _FIRST_RATE)
            elif self._successes:
                few = self._successes < _FEW
                self._refused_rate = self._rate * (_BACK if few else 1.0)
                self._rate = max(self._rate * (_FAR_BACK if few else _BACK), _LEAST_RATE)
            else:
                self._refused_in_a_row += 1
                if self._refused_rate < math.inf:
                    self._rate = max(self._rate * 0.8, _LEAST_RATE)
            self._slowed_at = now
            self._since = None
            self._successes = 0
            self._next = now + self._interval()

    def _on_the_whole(self) -> float:
        return self._all_successes / max(time.monotonic() - (self._first or 0.0), 0.001)

    def _interval(self) -> float:
        probe = _PROBE * 2 ** min(self._refused_in_a_row, _DOUBLINGS) if self._refused_in_a_row else 0.0
        return max(self._least_interval, 1 / self._rate if self._rate else 0.0, probe)

    def stop(self) -> None:
        """Let nobody start any more."""
        self._stopped = True
