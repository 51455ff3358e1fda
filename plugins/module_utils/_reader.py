# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repeats GET requests after failures that may be temporary."""

from __future__ import annotations

import dataclasses
import typing as t

from ._http import Answer, Tls, TransportError, get
from ._rate_limit import RateLimiter
from ._retry import RETRIED_STATUSES, asked_pause, pause_before_retry


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
    :param rate_limiter: decides when each attempt but the first may start, and is notified of success and throttling; the caller waits for
        the first attempt
    """

    timeout: int = 30
    retries: int = 3
    tls: Tls = Tls()
    rate_limiter: RateLimiter = dataclasses.field(default_factory=RateLimiter)

    def get(self, url: str, headers: dict[str, str], *, is_throttled: t.Callable[[Answer], bool] = lambda answer: False) -> tuple[Answer, int]:
        """Return the last answer, and the number of requests sent.

        :param is_throttled: whether an answer reports throttling by other means than its HTTP status
        :raises ReadingFailed: there was no answer to the last attempt
        :raises InvalidInput: ``tls.ca_path`` cannot be used
        :raises MissingLibrary: requests cannot be imported
        """
        attempt = 0
        while True:
            attempt += 1
            answer: Answer | None = None
            cause = ""
            try:
                answer = get(url, {"Accept": "application/json", **headers}, timeout=self.timeout, tls=self.tls)
            except TransportError as exc:
                cause = str(exc)
            throttled = answer is not None and (answer.status == 429 or is_throttled(answer))
            if answer and answer.status == 200 and not throttled:
                self.rate_limiter.succeeded()
            pause = pause_before_retry(attempt, answer, self.timeout)
            if answer and throttled:
                self.rate_limiter.throttled(asked_pause(answer, self.timeout))
            if attempt > self.retries or not (answer is None or throttled or answer.status in RETRIED_STATUSES):
                break
            self.rate_limiter.wait(pause)
        if answer is None:
            raise ReadingFailed(cause, attempt)
        return answer, attempt
