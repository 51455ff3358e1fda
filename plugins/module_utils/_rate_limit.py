# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides when a request may start, for all threads of a task."""

from __future__ import annotations

import math
import threading
import time

from ._parent import Parent

# The longest time in seconds that a thread sleeps before it checks again whether it may continue.
LONGEST_SLEEP = 0.25

# After the first refusal nobody starts for so many seconds at least; then requests start at so many a second, which doubles in so many
# seconds, but grows by no more than a factor with each success, until one is refused again.
_FIRST_PAUSE, _FIRST_RATE, _DOUBLED_IN, _MOST_GROWTH = 0.55, 7.0, 0.5, 1.5
# That estimate of the account's rate is this much too high, as it is reached before the account's reserve is used up. A later one is
# what got through since the refusal before, and nearly right.
_RAMP_OVERSHOT, _NEARLY = 0.8, 0.95
# The rate goes back to this part of the estimate, and reaches it after some seconds: more after each refusal, and so many for each
# second that a refusal costs.
_BACK, _RETURN, _RETURN_GROWTH, _RETURN_FOR_PAUSE = 0.9, 4.0, 1.25, 10.0
# While nothing gets through: seconds between requests, doubled with each up to the most, and what becomes of the rate.
_PROBE, _MOST_PROBE, _SLOWER, _LEAST_RATE = 0.3, 4.0, 0.7, 0.5


class Cancelled(BaseException):
    """Nothing more may be sent. Not an error, because nobody waits for the outcome."""


class RateLimiter:
    """Limits the rate of requests, and finds the unpublished rate of the account from its refusals.

    It works like TCP's CUBIC with its window (RFC 9438): the rate grows fast until a request is refused, is reduced a little, returns to where
    it was, stays there for a while, and then exceeds it. A refusal of a request that had started before the last refusal is ignored.

    :param per_second: maximum number of requests a second, None for no limit
    :param longest_pause: the longest time in seconds between two requests, whatever is refused
    :param patience: seconds after which nothing more is sent to an account that refuses everything
    :ivar parent: the process that started this one; once it has ended, no request starts
    """

    parent: Parent | None = None

    def __init__(self, per_second: float | None = None, *, longest_pause: float = math.inf, patience: float = math.inf) -> None:
        self._least_interval = 1 / per_second if per_second else 0.0
        self._longest_pause = longest_pause
        self._patience = patience
        self._mutex = threading.Lock()
        self._next = self._held_until = self._awaited = 0.0
        self._stopped = False
        # None until the first refusal.
        self._rate: float | None = None
        # What the account allows: infinite until it is known.
        self._estimate = math.inf
        self._return = _RETURN
        # Since the last refusal: when the first request started, when the rate last grew, and how many got through.
        self._since: float | None = None
        self._grew_at = 0.0
        self._accepted = 0
        self._slowed_at = -math.inf
        # The time since when nothing got through, and the number of refusals after the first.
        self._refusing_since: float | None = None
        self._probes = 0

    def wait(self, seconds: float = 0.0) -> None:
        """Wait until the next request may start, at least that many seconds, without delaying others.

        :raises Cancelled: no request may start any more
        """
        earliest = time.monotonic() + seconds
        while True:
            self.require_running()
            left = earliest - time.monotonic()
            if left <= 0:
                left = self.take_turn()
                if left <= 0:
                    return
            time.sleep(min(left, LONGEST_SLEEP))

    def require_running(self) -> None:
        """Check that requests may still be sent.

        :raises Cancelled: the limiter was stopped, or the parent has ended
        """
        if self._stopped or (self.parent and self.parent.has_ended()):
            raise Cancelled

    def take_turn(self) -> float:
        """Let the next request start now and return 0, or return the seconds until it may."""
        with self._mutex:
            now = time.monotonic()
            due = max(self._next, self._held_until)
            if due > now and not self._is_blocked(now):
                self._awaited = due
                return due - now
            interval = self._interval()
            # A request that waited, and was woken late, does not delay the next one.
            self._next = interval + (due if self._awaited == due and now - due < interval else now)
            if self._since is None:
                self._since = self._grew_at = now
            return 0.0

    @property
    def is_blocked(self) -> bool:
        """Whether the account has refused everything for so long that nothing more is sent."""
        with self._mutex:
            return self._is_blocked(time.monotonic())

    def accepted(self) -> None:
        """Record that a request got through, with any outcome."""
        with self._mutex:
            self._accepted += 1
            self._refusing_since, self._probes = None, 0
            if self._rate is None or self._since is None:
                return
            now = time.monotonic()
            if self._estimate == math.inf:
                self._rate *= min(2 ** ((now - self._grew_at) / _DOUBLED_IN), _MOST_GROWTH)
                self._grew_at = now
            else:
                self._rate = self._estimate * (1 + (1 - _BACK) * ((now - self._since) / self._return - 1) ** 3)

    def refused(self, asked: float, started: float) -> None:
        """Record a refusal: no request starts for that time, and then fewer do.

        :param asked: seconds that the account asks to wait
        :param started: when the request was sent
        """
        with self._mutex:
            now = time.monotonic()
            self._held_until = max(self._held_until, now + asked)
            if self._refusing_since is None:
                self._refusing_since = now
            if started <= self._slowed_at:
                return
            if self._rate is None:
                self._rate = _FIRST_RATE
                self._held_until = max(self._held_until, now + _FIRST_PAUSE)
            elif self._accepted and self._since is not None:
                through = self._accepted / max(now - self._since, 0.001)
                estimate = self._rate * _RAMP_OVERSHOT if self._estimate == math.inf else min(self._rate, through) * _NEARLY
                self._estimate = max(estimate, _LEAST_RATE)
                self._rate = self._estimate * _BACK
                self._return = max(self._return * _RETURN_GROWTH, asked * _RETURN_FOR_PAUSE)
            else:
                self._probes += 1
                if self._estimate == math.inf or self._probes > 2:
                    self._rate = max(self._rate * _SLOWER, _LEAST_RATE)
                    if self._estimate < math.inf:
                        self._estimate = self._rate / _BACK
            self._slowed_at = now
            self._since = None
            self._accepted = 0
            self._next = now + self._interval()

    def _is_blocked(self, now: float) -> bool:
        return self._refusing_since is not None and now - self._refusing_since > self._patience

    def _interval(self) -> float:
        probe = min(_PROBE * 2 ** min(self._probes, 10), _MOST_PROBE) if self._probes else 0.0
        return max(self._least_interval, min(max(1 / self._rate if self._rate else 0.0, probe), self._longest_pause))

    def stop(self) -> None:
        """Prevent any further request."""
        self._stopped = True
