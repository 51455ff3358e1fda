# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Surveys, slices, limits and workflows: what a job is given, what it sees of its inventory, and what it publishes."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml
from awx._runner import AWX, CHECKOUT, ENSURE_KEY_PAIR, NUMBERS, REGISTER, REGISTERS, Credential, Inventory, Job, on_cores
from awx._sshd import Host
from support.keys import KeyPair
from support.playbook_runs import SID, WA_400, new_number
from support.simulator.client import Simulator

pytestmark = on_cores("newest", "2.16")


def published(job: Job) -> dict[str, dict[str, Any]]:
    """Return the outcome of each number that the job published. Nothing else may be published."""
    assert job.artifacts.keys() == {"flows_encryption_numbers"}
    return dict(job.artifacts["flows_encryption_numbers"])


def test_blank_forms_and_typed_answers_register(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """Blank answers are empty texts, typed ones have CRLF, and booleans are text."""
    specs = yaml.safe_load((CHECKOUT / "roles/flows_encryption/meta/argument_specs.yml").read_text())
    blank = dict.fromkeys(specs["argument_specs"]["main"]["options"], "")
    assert len(blank) >= 30
    typed = [new_number() for dummy in range(3)]
    host = new_number()
    inventory = Inventory({host: {}}, {NUMBERS: [host]})

    answers = {
        "flows_encryption_phone_numbers": f"{typed[0]}\r\n  {typed[1][:3]} {typed[1][3:]}, {typed[2]}\r\n\r\n",
        "flows_encryption_public_key": key.public.replace("\n", "\r\n"),
        "flows_encryption_force": "no",
    }
    job = awx.run(REGISTER, inventory, credentials=[account], extra_vars={**blank, **answers})
    assert job.status == "successful", job.stdout
    assert simulator.registered() == {SID: dict.fromkeys(typed, key.fingerprint)}
    assert published(job) == {
        number: {"changed": True, "status": "absent", "fingerprint": key.fingerprint} for number in typed
    }

    credential = account.but(private_key=key.private)
    no = {name: "False" for name in blank if name.endswith(("_force", "_summary", "_is_persistent"))}
    job = awx.run(REGISTER, inventory, credentials=[credential], extra_vars={**blank, **no})
    assert job.status == "successful", job.stdout
    assert job.reasons() == {host: "absent"} and len(no) == 4
    assert simulator.registered() == {SID: dict.fromkeys([*typed, host], key.fingerprint)}


def test_slices_without_key_host_register(awx: AWX, simulator: Simulator, host: Host, account: Credential) -> None:
    """One job makes the key pair; three slices get its public key, run at once and share records."""
    numbers = [new_number() for dummy in range(6)]
    disabled = new_number()
    inventory = Inventory(
        hosts={**{number: {} for number in (*numbers, disabled)}, "endpoint": host.variables(ansible_pipelining=True)},
        groups={NUMBERS: [*numbers, disabled]},
        variables={
            "flows_encryption_key_host": "endpoint",
            "flows_encryption_private_key_path": "~/private.pem",
            "flows_encryption_cache_path": str(awx.lasting),
            "flows_encryption_cache_path_is_persistent": True,
        },
        disabled=frozenset({disabled}),
    )
    first = awx.run(ENSURE_KEY_PAIR, inventory, credentials=[account], machine=host.machine)
    assert first.status == "successful", first.stdout
    public = (host.login.home / "private.pub.pem").read_text()
    made = KeyPair("", public)
    assert first.artifacts == {"flows_encryption_public_key": public, "flows_encryption_fingerprint": made.fingerprint}
    assert simulator.count() == 0

    def register(number: int) -> Job:
        return awx.run(REGISTER, inventory, credentials=[account], extra_vars=first.artifacts, slice_of=(number, 3))

    with ThreadPoolExecutor() as pool:
        slices = list(pool.map(register, (1, 2, 3)))
    for number, job in enumerate(slices):
        assert job.status == "successful", job.stdout
        assert published(job) == {
            own: {"changed": True, "status": "absent", "fingerprint": made.fingerprint} for own in numbers[number::3]
        }
    assert (simulator.registered(), simulator.count()) == ({SID: dict.fromkeys(numbers, made.fingerprint)}, 6)

    # A later job with another part of the inventory finds the records.
    later = awx.run(REGISTER, inventory, credentials=[account], extra_vars=first.artifacts, limit=numbers[4])
    assert later.status == "successful" and not later.summary("changed"), later.stdout
    assert published(later) == {numbers[4]: {"changed": False, "status": "up_to_date", "fingerprint": made.fingerprint}}

    # Without the public key, a slice that lacks the key host says what to do.
    lost = awx.run(REGISTER, inventory, credentials=[account], slice_of=(2, 3), machine=host.machine)
    assert lost.status == "failed", lost.stdout
    assert re.search(r"The key host endpoint cannot be reached: .*Failed to connect to the host via ssh", lost.text)
    for part in ("not a host of this inventory", "kaleyra.whatsapp.flows_key_pair", "flows_encryption_public_key"):
        assert part in lost.text
    assert simulator.count() == 6


def test_relaunch_on_failed_hosts_registers_them(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """Each job publishes one dictionary, by one task on one host."""
    numbers = [new_number() for dummy in range(5)]
    simulator.faults({numbers[1]: [WA_400]})
    inventory = Inventory(
        hosts={number: {} for number in numbers},
        groups={NUMBERS: numbers},
        variables={
            "flows_encryption_public_key": key.public,
            "flows_encryption_cache_path": str(awx.lasting),
            "flows_encryption_cache_path_is_persistent": True,
        },
    )
    job = awx.run(REGISTER, inventory, credentials=[account], fact_cache=True)
    assert job.status == "failed" and set(job.summary("failures")) == {numbers[1]}, job.stdout
    changed = {"changed": True, "status": "absent", "fingerprint": key.fingerprint}
    failed = {"changed": False, "status": "failed", "fingerprint": None}
    assert published(job) == {**dict.fromkeys(numbers, changed), numbers[1]: failed}

    again = awx.run(REGISTER, inventory, credentials=[account], fact_cache=True, limit=",".join(job.summary("failures")))
    assert again.status == "successful" and set(again.summary("changed")) == {numbers[1]}, again.stdout
    assert published(again) == {numbers[1]: changed}
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}

    # Only these tasks are done for each host of a job.
    tasks = Counter(event["event_data"]["task"] for event in job.events if event["event"] in ("runner_on_ok", "runner_on_failed"))
    assert {task for task, count in tasks.items() if count > 1 and not task.startswith("Validating arguments")} == {REGISTERS}
