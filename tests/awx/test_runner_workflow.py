# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slices, limits and workflows: what a job sees of its inventory, and what it publishes."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from awx._runner import AWX, NUMBERS, REGISTER, REGISTERS, Credential, Inventory, Job, on_cores
from support.keys import KeyPair
from support.playbook_runs import SID, WA_400, new_number
from support.simulator.client import Simulator


@on_cores("newest", "2.16")
def test_slices_then_relaunch_on_failed_hosts(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """Three slices at once, which see neither each other's numbers nor the key host. The job before has published the public key."""
    numbers = [new_number() for dummy in range(6)]
    disabled = new_number()
    inventory = Inventory(
        hosts={**{number: {} for number in (*numbers, disabled)}, "endpoint": {"ansible_host": "127.0.0.1"}},
        groups={NUMBERS: [*numbers, disabled]},
        variables={
            "flows_encryption_key_host": "endpoint",
            "flows_encryption_private_key_path": "/etc/flows/private.pem",
            "flows_encryption_cache_path": str(awx.lasting),
            "flows_encryption_cache_path_is_persistent": True,
        },
        disabled=frozenset({disabled}),
    )
    simulator.faults({numbers[1]: [WA_400]})

    def register(slice_number: int = 1, slice_count: int = 1, limit: str = "", **extra_vars: str) -> Job:
        given = extra_vars or {"flows_encryption_public_key": key.public}
        return awx.run(REGISTER, inventory, credentials=[account], extra_vars=given, limit=limit, slice_of=(slice_number, slice_count))

    def outcome(status: str) -> dict[str, Any]:
        changed = status == "absent"
        return {"changed": changed, "status": status, "fingerprint": None if status == "failed" else key.fingerprint}

    with ThreadPoolExecutor() as pool:
        slices = list(pool.map(lambda number: register(number, 3), (1, 2, 3)))
    for number, job in enumerate(slices):
        failed = {numbers[1]} & {*numbers[number::3]}
        assert (job.status, {*job.summary("failures")}) == ("failed" if failed else "successful", failed), job.stdout
        published = {own: outcome("failed" if own in failed else "absent") for own in numbers[number::3]}
        assert job.artifacts == {"flows_encryption_numbers": published}
        # Only this is done for each host of a job. All else, and the publishing, is done once.
        tasks = Counter(event["event_data"]["task"] for event in job.events if event["event"] in ("runner_on_ok", "runner_on_failed"))
        assert {task for task, count in tasks.items() if count > 1 and not task.startswith("Validating arguments")} == {REGISTERS}

    again = register(limit=",".join(slices[1].summary("failures")))
    assert again.status == "successful" and {*again.summary("changed")} == {numbers[1]}, again.stdout
    assert again.artifacts == {"flows_encryption_numbers": {numbers[1]: outcome("absent")}}
    # A job with another part of the inventory finds the records of the slices.
    later = register(limit=numbers[4])
    assert later.status == "successful" and not later.summary("changed"), later.stdout
    assert later.artifacts == {"flows_encryption_numbers": {numbers[4]: outcome("up_to_date")}}
    assert (simulator.registered(), simulator.count()) == ({SID: dict.fromkeys(numbers, key.fingerprint)}, 7)

    # Without the public key, a slice that lacks the key host says what to do.
    lost = register(2, 3, flows_encryption_public_key="")
    assert lost.status == "failed", lost.stdout
    assert re.search(r"The key host endpoint cannot be reached: .*Failed to connect to the host via ssh", lost.text)
    for part in ("not a host of this inventory", "kaleyra.whatsapp.flows_key_pair", "flows_encryption_public_key"):
        assert part in lost.text
    assert simulator.count() == 7
