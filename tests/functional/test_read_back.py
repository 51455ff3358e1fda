# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading back what numbers carry, by real runs in both ways."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, EXECUTION_MODES, WORKER, Playbooks, Run, assert_execution_mode, new_number
from support.processes import Key, options
from support.read_back import META, ROWS, TOKEN, World
from support.simulator.client import Simulator


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> World:
    third = KeyPair.make("RSA", "rsa_keygen_bits:2048")
    keys = {name: Key(pair.public, pair.fingerprint) for name, pair in (("wanted", key), ("other", other_key), ("third", third))}

    def params(*, phone_number: str | None = None, business_public_key: str, cache_path: str, **given: Any) -> dict[str, Any]:
        return options(simulator.url, cache_path, phone_number, business_public_key, **given)

    return World(simulator, playbooks.folder / "records", keys, {new_number(): row for row in ROWS}, params)


def task(world: World, playbooks: Playbooks, name: str, mode: str, **given: Any) -> dict[str, Any]:
    defaults = {"cache_path": str(world.cache), "business_public_key": world.keys["wanted"].public, "meta_api_url": "{{ api_url }}/v23.0"}
    return playbooks.task(name, mode, **{**defaults, **META, **given})


@pytest.mark.parametrize("execution_mode", [WORKER, pytest.param(AS_A_MODULE, marks=pytest.mark.slow)])
def test_every_row_in_each_mode(execution_mode: str, world: World, playbooks: Playbooks) -> None:
    world.prepare()

    def tasks(name: str) -> list[dict[str, Any]]:
        return [task(world, playbooks, f"{name} {number}", execution_mode, phone_number=number) for number in world.numbers]

    check = playbooks.run_tasks(tasks("check"), "--check", "--diff")
    real = playbooks.run_tasks([*tasks("real"), *tasks("again")], "--diff")
    assert_execution_mode(real, execution_mode)
    for number in world.numbers:
        assert "diff" in real.one(f"real {number}")
        world.assert_row(number, check.one(f"check {number}"), real.one(f"real {number}"), real.one(f"again {number}"))
    assert TOKEN not in real.output + check.output + repr(real.outcomes)
    assert world.keys["other"].fingerprint in real.text and "Meta's error 190 (Invalid token)" in real.text


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_token_is_not_repeated(execution_mode: str, world: World, playbooks: Playbooks) -> None:
    world.simulator.faults({"*": [{"do": "echo", "status": 400, "always": True, "method": "GET"}]})
    echoed = task(world, playbooks, "echoed", execution_mode, phone_numbers=list(world.numbers)[:3], retries=0)
    bad = task(world, playbooks, "bad", execution_mode, phone_number=new_number(), meta_access_token=f"{TOKEN}\nx")
    run = playbooks.run_tasks([echoed, bad], "-vvvv")
    assert "contains a space, a line break" in run.one("bad")["msg"]
    assert TOKEN not in run.output
    for path, text in playbooks.leftovers().items():
        assert TOKEN not in text, path


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


ROLE = {"name": "Register", "ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption"}}
REPORT = {"name": "Report", "ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption", "tasks_from": "report"}}


def test_role_without_records_registers_nothing_twice(world: World, playbooks: Playbooks) -> None:
    """As in AWX, where a job's container vanishes; and the report finds what drifted."""
    numbers = list(world.numbers)[:4]
    variables = {
        "flows_encryption_api_url": playbooks.api_url,
        "flows_encryption_sid": "{{ sid }}",
        "flows_encryption_api_key": "{{ api_key }}",
        "flows_encryption_cache_path": str(world.cache),
        "flows_encryption_public_key": world.keys["wanted"].public,
        "flows_encryption_read_back": "meta",
        "flows_encryption_read_back_required": True,
        "flows_encryption_meta_api_url": f"{playbooks.api_url}/v23.0",
        "flows_encryption_report_path": str(playbooks.folder / "report"),
    }
    ids = {number: str(2_000_001 + place) for place, number in enumerate(numbers)}
    inventory = {"all": {"hosts": {number: {"ansible_connection": "local", "waba_phone_number_id": ids[number]} for number in numbers}}}
    env = {"META_ACCESS_TOKEN": TOKEN}
    play = {"hosts": "all", "gather_facts": False, "vars": variables}

    def run(*tasks: dict[str, Any]) -> tuple[Run, dict[str, int]]:
        before = world.simulator.methods()
        done = playbooks.run([{**play, "tasks": list(tasks)}], inventory, env=env)
        assert done.rc == 0 and TOKEN not in done.output, done.output
        return done, {method: count - before.get(method, 0) for method, count in world.simulator.methods().items()}

    assert run(ROLE)[1] == {"GET": 8, "POST": 4}
    shutil.rmtree(world.cache)
    done, sent = run(ROLE)
    assert sent == {"GET": 4, "POST": 0} and done.changed() == 0
    # Each has its record again, and one number is given another key by somebody else.
    assert {world.record(number)["state"] for number in numbers} == {"confirmed"}
    world.simulator.hold({numbers[0]: world.keys["other"].public})
    assert run(REPORT)[1] == {"GET": 4, "POST": 0}
    report = json.loads((playbooks.folder / "report.json").read_text())
    assert {row["phone_number"]: row["state"] for row in report["numbers"]} == {**dict.fromkeys(numbers, "confirmed"), numbers[0]: "drifted"}
    assert report["summary"]["drifted"] == report["summary"]["different"] == numbers[:1]
    assert world.keys["other"].fingerprint in (playbooks.folder / "report.csv").read_text()
    assert "Drifted" in (playbooks.folder / "report.html").read_text()
