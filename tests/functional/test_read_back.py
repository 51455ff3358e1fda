# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading back what numbers carry, by real runs in both ways."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, EXECUTION_MODES, WORKER, Playbooks, assert_nowhere, new_number
from support.processes import Key, options
from support.read_back import META, ROWS, TOKEN, World
from support.simulator.client import Simulator

AS_MODULES = ("drifted", "mismatch", "unconfirmed")
"""Reasons of rows that are tried as a module, too: each run takes a process."""


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> World:
    third = KeyPair.make("RSA", "rsa_keygen_bits:2048")
    keys = {name: Key(pair.public, pair.fingerprint) for name, pair in (("wanted", key), ("other", other_key), ("third", third))}

    def params(*, phone_number: str | None = None, business_public_key: str, cache_path: str, **given: Any) -> dict[str, Any]:
        return options(simulator.url, cache_path, phone_number, business_public_key, **given)

    rows = {row.reason: row for row in reversed(ROWS)}
    numbers = {new_number(): row for row in (*rows.values(), *map(rows.__getitem__, AS_MODULES))}
    return World(simulator, playbooks.folder / "records", keys, numbers, params)


def task(world: World, playbooks: Playbooks, name: str, mode: str, **given: Any) -> dict[str, Any]:
    defaults = {"cache_path": str(world.cache), "business_public_key": world.keys["wanted"].public, "meta_api_url": "{{ api_url }}/v23.0"}
    return playbooks.task(name, mode, **{**defaults, **META, **given})


@pytest.mark.slow
def test_each_reason_check_real_real(world: World, playbooks: Playbooks) -> None:
    """The core decides on each row; this is that its decisions arrive, in both modes."""
    world.prepare()
    in_worker = len(world.numbers) - len(AS_MODULES)
    modes = {number: WORKER if place < in_worker else AS_A_MODULE for place, number in enumerate(world.numbers)}

    def tasks(name: str) -> list[dict[str, Any]]:
        return [task(world, playbooks, f"{name} {number}", mode, phone_number=number) for number, mode in modes.items()]

    check = playbooks.run_tasks(tasks("check"), "--check", "--diff")
    real = playbooks.run_tasks([*tasks("real"), *tasks("again")], "--diff")
    assert len(real.modules) == 2 * len(check.modules) == 2 * len(AS_MODULES)
    for number in world.numbers:
        assert "diff" in real.one(f"real {number}")
        world.assert_row(number, check.one(f"check {number}"), real.one(f"real {number}"), real.one(f"again {number}"))
    assert TOKEN not in real.output + check.output + repr(real.outcomes)
    assert world.keys["other"].fingerprint in real.text and "Meta's error 190 (Invalid token)" in real.text


def test_token_is_not_repeated(world: World, playbooks: Playbooks) -> None:
    world.simulator.faults({"*": [{"do": "echo", "status": 400, "always": True, "method": "GET"}]})
    tasks = [task(world, playbooks, f"echoed {mode}", mode, phone_numbers=list(world.numbers)[:3], retries=0) for mode in EXECUTION_MODES]
    bad = [task(world, playbooks, f"bad {mode}", mode, phone_number=new_number(), meta_access_token=f"{TOKEN}\nx") for mode in EXECUTION_MODES]
    run = playbooks.run_tasks([*tasks, *bad], "-vvvv")
    assert all("contains a space, a line break" in run.one(each["name"])["msg"] for each in bad)
    assert_nowhere([TOKEN], {"the output": run.output, **playbooks.leftovers()})


def test_another_task_meanwhile_counts(world: World, playbooks: Playbooks) -> None:
    """With phone number IDs from an inventory nothing is looked up, and tasks of the same play side by side agree."""
    number = next(iter(world.numbers))
    given = {"phone_number": number, "meta_waba_ids": None, "meta_phone_number_ids": {number: "2000001"}}
    tasks = [task(world, playbooks, "task", EXECUTION_MODES[0], **given)]
    hosts = {f"host{n}": {"ansible_connection": "local"} for n in range(4)}
    run = playbooks.run([{"hosts": "all", "gather_facts": False, "tasks": tasks}], {"all": {"hosts": hosts}})
    assert sorted(result["changed"] for result in run.by_host("task").values()) == [False, False, False, True]
    assert world.simulator.methods()["POST"] == 1
    assert "/v23.0/1001/phone_numbers" not in world.simulator.methods_by_url()
