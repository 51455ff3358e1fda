# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repeats GET requests after failures that may be temporary."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ._http import Answer, Tls, TransportError, get
from ._rate_limit import RateLimiter
from ._retry import RETRIED_STATUSES, asked_pause, pause_before_retry
from ._steps import Pause, Steps


class ReadingFailed(Exception):
    """There was no answer; the message is the cause.

    :param attempts: requests sent
    """

    def __init__(self, cause: str, attempts: int) -> None:
        super().__init__(cause)
        self.attempts = attempts


@dataclasses.dataclass(frozen=True)
class Reader:
    """Sends GET requests.

    :param timeout: seconds for one attempt as a whole
    :param retries: further attempts after a failure that may be temporary
    :param rate_limiter: is notified of what is refused
    """

    timeout: int = 30
    retries: int = 3
    tls: Tls = Tls()
    rate_limiter: RateLimiter = dataclasses.field(default_factory=RateLimiter)

    def get(self, url: str, headers: dict[str, str], *, is_throttled: t.Callable[[Answer], bool] = lambda answer: False) -> Steps[tuple[Answer, int]]:
        """Return the last answer, and the number of requests sent. Each attempt is a step.

        :param is_throttled: whether an answer reports throttling by other means than its HTTP status
        :raises ReadingFailed: there was no answer to the last attempt
        :raises InvalidInput: ``tls.ca_path`` cannot be used
        :raises MissingLibrary: requests cannot be imported
        """
        attempt = 0
        answer: Answer | None = None
        cause = "the limit of the account has refused every request for too long"
        while not self.rate_limiter.is_blocked:
            attempt += 1
            answer, cause = None, ""
            started = time.monotonic()
            try:
                answer = get(url, {"Accept": "application/json", **headers}, timeout=self.timeout, tls=self.tls)
            except TransportError as exc:
                cause = str(exc)
            throttled = answer is not None and (answer.status == 429 or is_throttled(answer))
            if answer and answer.status < 500 and not throttled:
                self.rate_limiter.accepted()
            pause = pause_before_retry(attempt, answer, self.timeout)
            if answer and throttled:
                self.rate_limiter.refused(asked_pause(answer, self.timeout), started)
            if attempt > self.retries or not (answer is None or throttled or answer.status in RETRIED_STATUSES):
                break
            yield Pause(pause)
        if answer is None:
            raise ReadingFailed(cause, attempt)
        return answer, attempt
