# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which failures may be temporary, and how long to wait before the next attempt."""

from __future__ import annotations

import email.utils
import random
import time

from ._http import Answer

RETRIED_STATUSES = frozenset([429, 500, 502, 503, 504])


def longest(timeout: int, retries: int) -> int:
    """Return the longest time in seconds that all attempts and the pauses between them can take."""
    return (2 * retries + 1) * timeout


def pause_before_retry(attempt: int, answer: Answer | None, longest: float) -> float:
    """Return the seconds until the next attempt: as the server asks, or increasing ones; at most ``longest``."""
    asked = _seconds(answer.retry_after) if answer else None
    if asked is None or (not asked and answer and answer.status == 429):  # 0 seconds cannot be meant after a 429
        # Random, because hundreds of forks may have been throttled at the same moment.
        asked = 2 ** min(attempt - 1, 10) * random.uniform(0.5, 1.0)
    return min(asked, longest)


def asked_pause(answer: Answer, longest: float) -> float:
    """Return the seconds that the server asks for, 0 if it asks for none; at most ``longest``."""
    return min(_seconds(answer.retry_after) or 0.0, longest)


def _seconds(retry_after: str | None) -> float | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110, 10.2.3). None for anything else."""
    if retry_after is None:
        return None
    try:
        if retry_after.strip().isdigit():
            return float(retry_after)
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
