# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list finds the rate of its account, over HTTP and by the clock of the server. Other limits: unit/plugins/module_utils/test_rate_limit.py."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from support.playbook_runs import API_KEY, SID
from support.processes import Child, Key, options, register
from support.simulator.client import Simulator

OTHER_SID = "HXAP16RATE00097IN"
NUMBERS = [f"+9198765{n:05}" for n in range(400)]
RATE = 28


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit", [{"bucket": (RATE, 14), "retry_after": "seconds"}, {"window": (RATE, 1), "retry_after": None}], ids=["bucket-seconds", "window-without"]
)
def test_a_list_uses_its_account_s_rate(limit: dict[str, Any], tmp_path: Path) -> None:
    """At least 70 %, compared with a list that is given the rate and runs at the same time. A busy machine makes it less, so the best counts."""
    used = 0.0
    for attempt in range(3):
        with Simulator({SID: API_KEY, OTHER_SID: API_KEY}, latency=0.02) as api:
            api.throttle({SID: limit, OTHER_SID: {"bucket": (10**6, 10**6), "retry_after": 0}})
            params = options(api.url, tmp_path / f"records{attempt}", None, Key.make().public, phone_numbers=NUMBERS, retries=3)
            at_rate = {**params, "sid": OTHER_SID, "max_requests_per_second": RATE}
            children = [Child(functools.partial(register, given)) for given in (params, at_rate)]
            assert not any("failed" in child.wait() for child in children)
            found, ideal = api.throttled(SID), api.throttled(OTHER_SID)
        assert found["accepted"] == ideal["accepted"] == len(NUMBERS)
        assert found["refused"] <= 0.1 * (found["accepted"] + found["refused"])
        used = max(used, ideal["seconds"] / found["seconds"])
        if used >= 0.7:
            break
    assert used >= 0.7
