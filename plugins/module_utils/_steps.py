# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in steps, which holds no thread while it waits for its next step."""

from __future__ import annotations

import time
import typing as t

from ._rate_limit import RateLimiter

R = t.TypeVar("R")


class Pause(t.NamedTuple):
    """What work in steps yields where it has to wait.

    :param seconds: until it goes on, at the earliest
    :param sends: whether it then sends a request, so that it needs its turn
    """

    seconds: float = 0.0
    sends: bool = True


Steps = t.Generator[Pause, None, R]


def run_steps(steps: Steps[R], rate_limiter: RateLimiter) -> R:
    """Do all steps in this thread, and return what comes of them.

    :param rate_limiter: says when a step that sends may begin; the first one begins at once
    :raises Cancelled: nothing is to be sent any more
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
