# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list finds the rate of its account, over HTTP and by the clock of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.playbook_runs import API_KEY, SID
from support.processes import Child, Key, options, register
from support.simulator.client import Simulator

TOLD = "HXAP16TOLD00097IN"
NUMBERS = [f"+9198765{n:05}" for n in range(400)]
RATE = 28


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit",
    [
        {"bucket": (RATE, 14), "retry_after": "seconds"},
        {"bucket": (RATE, 5), "retry_after": 0},
        {"window": (RATE, 1), "retry_after": None},
    ],
    ids=["bucket-seconds", "bucket-0", "window-without"],
)
def test_a_list_uses_its_account_s_rate(limit: dict[str, Any], tmp_path: Path) -> None:
    """Compared with a list that is told the rate and runs at the same time, so that it does not matter how busy the machine is."""
    with Simulator({SID: API_KEY, TOLD: API_KEY}, latency=0.02) as api:
        api.throttle({SID: limit, TOLD: {"bucket": (10**6, 10**6), "retry_after": 0}})
        params = options(api.url, tmp_path / "records", None, Key.make().public, phone_numbers=NUMBERS, retries=3)
        told = {**params, "sid": TOLD, "max_requests_per_second": RATE}
        children = [Child(lambda: register(params)), Child(lambda: register(told))]
        assert not any("failed" in child.wait() for child in children)
        found, ideal = api.throttled(SID), api.throttled(TOLD)
    assert found["accepted"] == ideal["accepted"] == len(NUMBERS)
    assert found["refused"] <= 0.1 * (found["accepted"] + found["refused"])
    assert ideal["seconds"] >= 0.7 * found["seconds"], (found, ideal)
