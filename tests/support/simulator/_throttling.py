# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits on an account's rate, as platforms have them. The clock is an argument. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol


class Limit(Protocol):
    """What an account may send.

    :ivar rate: requests a second in the long run
    """

    rate: float

    def seconds_until_accepted(self, now: float) -> float:
        """Return 0 for a request that is accepted."""


class Bucket:
    """Lets so many requests a second through, and so many at once after a pause."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self._burst = rate, burst
        self._left, self._last = float(burst), 0.0

    def seconds_until_accepted(self, now: float) -> float:
        self._left = min(self._burst, self._left + (now - self._last) * self.rate)
        self._last = now
        if self._left < 1:
            return (1 - self._left) / self.rate
        self._left -= 1
        return 0.0


class Window:
    """Lets so many requests through in each period."""

    def __init__(self, count: int, seconds: float) -> None:
        self.rate, self._count, self._seconds = count / seconds, count, seconds
        self._period, self._accepted = -1, 0

    def seconds_until_accepted(self, now: float) -> float:
        period = int(now / self._seconds)
        if period != self._period:
            self._period, self._accepted = period, 0
        if self._accepted >= self._count:
            return (period + 1) * self._seconds - now
        self._accepted += 1
        return 0.0


class Throttling:
    """The limit of one account as the server applies it, and what came of it by the server's clock."""

    def __init__(self, document: Any) -> None:
        """Read ``{"bucket": [rate, burst]}`` or ``{"window": [count, seconds]}``, with ``retry_after``: null for no such header, 0, or "seconds".

        :raises ValueError: it is something else
        """
        try:
            limits: dict[str, Callable[..., Limit]] = {"bucket": Bucket, "window": Window}
            (kind,) = document.keys() - {"retry_after"}
            self._limit: Limit = limits[kind](*document[kind])
            self._retry_after = document["retry_after"]
            if self._retry_after not in (None, 0, "seconds") or not self._limit.rate > 0:
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
            raise ValueError('a limit must be {"bucket": [rate, burst]} or {"window": [count, seconds]}, with "retry_after"') from None
        self._accepted = self._refused = 0
        self._first = self._last = 0.0

    def refuse(self, now: float) -> dict[str, str] | None:
        """Return the headers of the refusal of a request that comes now, None if it is accepted."""
        if not self._accepted + self._refused:
            self._first = now
        self._last = now
        left = self._limit.seconds_until_accepted(now)
        if not left:
            self._accepted += 1
            return None
        self._refused += 1
        if self._retry_after is None:
            return {}
        return {"Retry-After": str(math.ceil(left) if self._retry_after else 0)}

    def outcome(self) -> dict[str, float]:
        """Requests accepted and refused, and seconds from the first to the last."""
        return {"accepted": self._accepted, "refused": self._refused, "seconds": self._last - self._first}
