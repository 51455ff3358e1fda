# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that tells which number carries which key, in both execution modes."""

from __future__ import annotations

from typing import Any

import pytest
from support.keys import KeyPair, secret_lines
from support.playbook_runs import EXECUTION_MODES, INFO, SID, WA_500, Playbooks, assert_nowhere, new_number
from support.processes import register_all
from support.simulator.client import Simulator


def info(name: str, execution_mode: str, **options: Any) -> dict[str, Any]:
    """A task with the module, without options of an account, which it does not need."""
    task: dict[str, Any] = {"name": name, INFO: options}
    return {**task, "environment": {"ASKS_FOR_A_PROCESS": "yes"}} if execution_mode == "module" else task


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
    runs = {
        (execution_mode, *args): playbooks.run_tasks([info(name, execution_mode, **options) for name, options in ways.items()], *args)
        for execution_mode, *args in (*((execution_mode,) for execution_mode in EXECUTION_MODES), ("worker", "--check"))
    }
    found = []
    for (execution_mode, *dummy), run in runs.items():
        assert run.rc == 0, run.output
        assert run.changed() == 0
        assert run.modules == (["kaleyra_flows_encryption_info"] * len(ways) if execution_mode == "module" else [])
        results = {name: run.one(name) for name in ways}
        for result in results.values():
            for number in result["numbers"]:
                number.pop("age")  # the one thing that time changes
        assert results["none given"] == results["all"]
        assert {n["phone_number"]: n["state"] for n in results["all"]["numbers"]} == {
            mine: "confirmed", other: "confirmed", lost: "unconfirmed", damaged: "unreadable"
        }  # fmt: skip
        for name in ("these", "by key"):
            assert results[name]["summary"] == {
                "numbers": 5,
                "by_state": {"confirmed": 2, "unconfirmed": 1, "unreadable": 1, "absent": 1},
                "by_fingerprint": dict.fromkeys(sorted((key.fingerprint, other_key.fingerprint)), 1),
                "different": [other, lost, damaged, missing],
            }
            assert {n["phone_number"]: n["as_expected"] for n in results[name]["numbers"]} == {n: n == mine for n in numbers}
        for name in ("elsewhere", "no folder"):
            assert results[name]["numbers"] == []
        found.append(results)
    assert found[0] == found[1] == found[2]
    assert simulator.count() == sent
    assert not (playbooks.folder / "nowhere").exists()


@pytest.mark.slow
def test_both_modes_refuse_the_same(playbooks: Playbooks, key: KeyPair) -> None:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "two hosts": ({"pod": "eu", "api_url": playbooks.api_url}, "Set at most one of pod and api_url."),
        "two keys": ({"fingerprint": key.fingerprint, "business_public_key": key.public}, "mutually exclusive"),
        "no number": ({"phone_numbers": ["shop"]}, "phone_number 'shop' is not a number in E.164"),
        "no fingerprint": ({"fingerprint": "aa:bb"}, "fingerprint 'aa:bb' is not a SHA-256 fingerprint"),
        "a private key": ({"business_public_key": key.private}, "found a PRIVATE key"),
        "no folder": ({"cache_path": "/dev/null"}, "cache_path /dev/null cannot be read: Not a directory"),
    }
    messages = []
    for execution_mode in EXECUTION_MODES:
        run = playbooks.run_tasks([info(name, execution_mode, **options) for name, (options, dummy) in wrong.items()])
        results = {name: run.one(name) for name in wrong}
        for name, (dummy, said) in wrong.items():
            assert results[name]["failed"]
            assert said in results[name]["msg"], results[name]
        assert_nowhere(secret_lines(key.private), {"output": run.output})
        messages.append({name: result["msg"] for name, result in results.items()})
    assert messages[0] == messages[1]
