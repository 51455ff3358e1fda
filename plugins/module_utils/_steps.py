# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs work in steps, so that it occupies no thread while it waits for the next step."""

from __future__ import annotations

import time
import typing as t

from ._rate_limit import RateLimiter

R = t.TypeVar("R")


class Pause(t.NamedTuple):
    """A pause that work in steps yields when it has to wait.

    :param seconds: until the next step, at least
    :param sends: whether the next step sends a request, so that the rate limiter applies
    """

    seconds: float = 0.0
    sends: bool = True


Steps = t.Generator[Pause, None, R]


def run_steps(steps: Steps[R], rate_limiter: RateLimiter) -> R:
    """Run all steps in this thread, and return their result.

    :param rate_limiter: decides when a step that sends may begin; the first one begins at once
    :raises Cancelled: nothing more may be sent
    """
    try:
        while True:
            pause = next(steps)
            if pause.sends:
                rate_limiter.wait(pause.seconds)
            else:
                time.sleep(pause.seconds)
    except StopIteration as end:
        return t.cast(R, end.value)
    finally:
        steps.close()
