# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that tells which number carries which key, in both execution modes."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, INFO, SID, WA_500, WORKER, Playbooks, new_number
from support.processes import register_all
from support.simulator.client import Simulator


def info(name: str, execution_mode: str, **options: Any) -> dict[str, Any]:
    """A task with the module, without options of an account, which it does not need."""
    task: dict[str, Any] = {"name": name, INFO: options}
    return {**task, "environment": {"ASKS_FOR_A_PROCESS": "yes"}} if execution_mode == AS_A_MODULE else task


@pytest.mark.slow
def test_both_modes_tell_the_same(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> None:
    mine, other, lost, damaged, missing = (new_number() for dummy in range(5))
    simulator.faults({lost: [WA_500]})
    for given, pair in (([mine, lost, damaged], key), ([other], other_key)):
        register_all(simulator.url, playbooks.default_cache, given, pair.public)
    (path,) = playbooks.default_cache.glob(f"*{damaged}.json")
    path.write_text("<b>junk</b>")
    sent = simulator.count()

    numbers = [mine, other, lost, damaged, missing]
    ways: dict[str, dict[str, Any]] = {
        "all": {},
        "none given": {"pod": "", "api_url": "", "sid": "", "phone_numbers": "", "fingerprint": "", "cache_path": ""},
        "these": {"phone_numbers": numbers, "fingerprint": key.fingerprint},
        "by key": {"phone_numbers": numbers, "business_public_key": key.public, "api_url": playbooks.api_url, "sid": SID},
        "elsewhere": {"pod": "eu"},
        "no folder": {"cache_path": str(playbooks.folder / "nowhere")},
    }
    as_modules = ["all", "none given", "by key"]
    tasks = [info(name, WORKER, **options) for name, options in ways.items()]
    tasks += [{**info(name, WORKER, **options), "name": f"{name} in check mode", "check_mode": True} for name, options in ways.items()]
    tasks += [info(f"{name} as a module", AS_A_MODULE, **ways[name]) for name in as_modules]
    run = playbooks.run_tasks(tasks)
    assert (run.rc, run.changed(), run.modules) == (0, 0, ["kaleyra_flows_encryption_info"] * len(as_modules)), run.output
    results = {task["name"]: run.one(task["name"]) for task in tasks}
    for result in results.values():
        for number in result["numbers"]:
            number.pop("age")  # the one thing that time changes
    assert all(results[f"{name} in check mode"] == results[name] for name in ways)
    assert all(results[f"{name} as a module"] == results[name] for name in as_modules)
    assert results["none given"] == results["all"]
    states = {mine: "confirmed", other: "confirmed", lost: "unconfirmed", damaged: "unreadable"}
    assert {n["phone_number"]: n["state"] for n in results["all"]["numbers"]} == states
    for name in ("these", "by key"):
        assert results[name]["summary"] == {
            "numbers": 5,
            "by_state": {"confirmed": 2, "unconfirmed": 1, "unreadable": 1, "absent": 1},
            "by_fingerprint": dict.fromkeys(sorted((key.fingerprint, other_key.fingerprint)), 1),
            "different": [other, lost, damaged, missing],
        }
        assert {n["phone_number"]: n["as_expected"] for n in results[name]["numbers"]} == {n: n == mine for n in numbers}
    assert results["elsewhere"]["numbers"] == results["no folder"]["numbers"] == []
    assert simulator.count() == sent
    assert not (playbooks.folder / "nowhere").exists()
