# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._rate_limit import RateLimiter
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._reader import Reader
from ansible_collections.kaleyra.whatsapp.plugins.module_utils._steps import run_steps
from support.simulator.client import Simulator

NUMBER = "+919876543210"


class Recording(RateLimiter):
    def __init__(self) -> None:
        super().__init__()
        self.throttled_for: list[float] = []

    def wait(self, seconds: float = 0.0) -> None:
        pass

    def refused(self, asked: float, started: float) -> None:
        self.throttled_for.append(asked)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [(429, {"Retry-After": "7"}, [7]), (429, {}, [0]), (429, {"Retry-After": "600"}, [20]), (400, {}, [0]), (503, {"Retry-After": "7"}, [])],
)
def test_rate_limiter_hears_what_the_server_asks_for(status: int, headers: dict[str, str], expected: list[float], simulator: Simulator) -> None:
    """And not the pause before the next attempt, which grows, and is this number's alone."""
    fault: dict[str, Any] = {"do": "answer", "status": status, "headers": headers, "body": {}}
    simulator.faults({NUMBER: [fault]})
    limiter = Recording()
    url = f"{simulator.url}/v2/HXAP16TESTING97IN/whatsapp/{NUMBER}/flows_encryption"
    run_steps(Reader(timeout=20, retries=1, rate_limiter=limiter).get(url, {}, is_throttled=lambda answer: answer.status == 400), limiter)
    assert limiter.throttled_for == expected
