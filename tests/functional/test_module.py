# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does and returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import CLOSED_API_KEY, CLOSED_SID, EXECUTION_MODES, SID, WA_400, WA_500, Playbooks, assert_execution_mode, new_number
from support.simulator.client import Simulator


def files_below(*folders: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file, to see that nothing was written."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def test_check_and_real_runs_agree_and_the_second_of_each_changes_nothing(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair
) -> None:
    number = new_number()
    # The same number for both execution modes, so that their results can be compared as a whole: each has records of its own.
    caches = {execution_mode: playbooks.folder / f"records-{execution_mode}" for execution_mode in EXECUTION_MODES}
    tasks = [
        playbooks.task(execution_mode, execution_mode, phone_number=number, business_public_key=key.public, cache_path=str(cache))
        for execution_mode, cache in caches.items()
    ]
    after = {"phone_number": number, "fingerprint": key.fingerprint, "record": "confirmed"}
    facts = {"phone_number": number, "fingerprint": key.fingerprint, "attempts": 0, "failed": False}
    to_do = {
        **facts,
        "changed": True,
        "reason": "absent",
        "previous_fingerprint": None,
        "diff": {"before": {"phone_number": number, "fingerprint": None, "record": "absent"}, "after": after},
    }
    answered = {"attempts": 1, "http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
    nothing_to_do = {
        **facts,
        "changed": False,
        "reason": "up_to_date",
        "previous_fingerprint": key.fingerprint,
        "diff": {"before": after, "after": after},
    }

    run = playbooks.run_tasks(tasks, "--diff", "--check")
    assert {execution_mode: run.one(execution_mode) for execution_mode in EXECUTION_MODES} == dict.fromkeys(EXECUTION_MODES, to_do)
    assert run.modules == ["kaleyra_flows_encryption"]  # of the two tasks, one needed a process
    assert simulator.count() == 0
    assert not any(cache.exists() for cache in (*caches.values(), playbooks.default_cache))

    run = playbooks.run_tasks(tasks, "--diff")
    answered_too = {**to_do, **answered}
    assert [run.one(execution_mode) for execution_mode in EXECUTION_MODES] == [answered_too, answered_too]
    assert run.changed() == 2
    assert "+++ after" in run.stdout
    assert run.stdout.count(f'+    "fingerprint": "{key.fingerprint}"') == 2
    assert simulator.count() == 2
    assert simulator.registered() == {SID: {number: key.fingerprint}}
    written = files_below(*caches.values())

    for mode in (["--check"], []):
        run = playbooks.run_tasks(tasks, "--diff", *mode)
        assert {execution_mode: run.one(execution_mode) for execution_mode in EXECUTION_MODES} == dict.fromkeys(EXECUTION_MODES, nothing_to_do)
        assert run.changed() == 0
        assert simulator.count() == 2
        assert files_below(*caches.values()) == written

    # Diff is for diff mode alone.
    run = playbooks.run_tasks(tasks, "--check")
    assert all("diff" not in run.one(execution_mode) for execution_mode in EXECUTION_MODES)


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_results_of_each_kind_of_answer_and_what_the_next_run_makes_of_it(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    numbers = {name: new_number() for name in ("success", "wrong key", "closed", "payload", "error", "lost", "throttled", "kept")}

    def task(name: str, task_name: str | None = None, pair: KeyPair = key, **options: Any) -> dict[str, Any]:
        options = {"business_public_key": pair.public, "phone_number": numbers[name], **options}
        return playbooks.task(task_name or name, execution_mode, **options)

    throttled = {"do": "answer", "status": 429, "headers": {"Retry-After": "0"}, "body": {"code": "X-429", "message": "Slow"}}
    simulator.faults(
        {
            numbers["payload"]: [WA_400],
            numbers["error"]: [WA_500],
            numbers["lost"]: [{"do": "reset", "apply": True}],
            numbers["throttled"]: [throttled, throttled],
        }
    )
    run = playbooks.run_tasks(
        [
            task("success"),
            task("wrong key", api_key="Not-The-Key-Of-This-Account"),
            task("closed", sid=CLOSED_SID, api_key=CLOSED_API_KEY),
            task("payload"),
            task("error", retries=0),
            task("lost", retries=0),
            task("throttled"),
            task("kept"),
            task("kept", "refused", other_key, api_key="Not-The-Key-Of-This-Account"),
        ]
    )
    assert_execution_mode(run, execution_mode)
    assert run.rc == 0  # every failure was ignored

    def result(name: str, task_name: str | None = None, **others: Any) -> dict[str, Any]:
        msg = run.one(task_name or name).get("msg")
        return {
            "changed": False,
            "failed": True,
            "phone_number": numbers[name],
            "fingerprint": key.fingerprint,
            "previous_fingerprint": None,
            "reason": "absent",
            "attempts": 1,
            "msg": msg,
            **others,
        }

    incorrect: dict[str, Any] = {"http_status": 401, "code": "RBC001", "message": "Incorrect SID or API key.", "outcome": "rejected"}
    success: dict[str, Any] = {"http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
    success |= {"changed": True, "failed": False}
    expected = {
        "success": result("success", **success),
        "wrong key": result("wrong key", **incorrect),
        "closed": result(
            "closed",
            http_status=401,
            code="WA-401",
            message="API is not available for given customer.Please contact support for more info",
            outcome="rejected",
        ),
        "payload": result("payload", http_status=400, code="WA-400", message="Refer to correct payload format", outcome="rejected"),
        "error": result("error", http_status=500, code="WA-500", message="Please try again later", outcome="unknown"),
        "lost": result("lost", outcome="unknown"),
        "throttled": result("throttled", **success, attempts=3),
        "kept": result("kept", **success),
        "refused": result(
            "kept",
            "refused",
            **incorrect,
            fingerprint=other_key.fingerprint,
            previous_fingerprint=key.fingerprint,
            reason="different",
        ),
    }
    for name in ("success", "throttled", "kept"):
        del expected[name]["msg"]
    assert {name: run.one(name) for name in expected} == expected

    # Each message names the number, the cause and what to do.
    words = {
        "wrong key": ["HTTP 401", "Incorrect SID or API key.", "Check sid and api_key", "keeps the key it had"],
        "closed": ["HTTP 401", "API is not available", "Kaleyra's support", "keeps the key it had"],
        "payload": ["HTTP 400", "Refer to correct payload format", "onboarded", "keeps the key it had"],
        "error": ["HTTP 500", "Please try again later", "may or may not have been applied", "Run it again"],
        "lost": ["no answer", "Connection reset", "may or may not have been applied", "Run it again"],
    }
    for name, parts in words.items():
        for part in (numbers[name], *parts):
            assert part in run.one(name)["msg"], (name, run.one(name)["msg"])

    # What the number carries after a lost answer is what the API applied, and the record does not claim to know.
    assert simulator.registered()[SID][numbers["lost"]] == key.fingerprint
    sent = simulator.count()
    run = playbooks.run_tasks([task(name) for name in numbers if name != "closed"])
    assert {name: run.one(name)["reason"] for name in numbers if name != "closed"} == {
        "success": "up_to_date",
        "wrong key": "absent",
        "payload": "absent",
        "error": "unconfirmed",
        "lost": "unconfirmed",
        "throttled": "up_to_date",
        "kept": "up_to_date",
    }
    assert simulator.count() == sent + 4
    assert simulator.registered() == {SID: {number: key.fingerprint for name, number in numbers.items() if name != "closed"}}
