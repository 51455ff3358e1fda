# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, CLOSED_API_KEY, CLOSED_SID, EXECUTION_MODES, SID, WA_500, WORKER, Playbooks, new_number
from support.processes import register_all
from support.simulator.client import Simulator


def files_below(*folders: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file, to see that nothing was written."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def test_check_real_check_real(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    """Of one number and of a list: in both execution modes, with records of their own, the results are the same as a whole."""
    number, *numbers = [new_number() for dummy in range(5)]
    # One twice, and in another spelling.
    spelled = f"{numbers[0][1:4]} {numbers[0][4:8]}-{numbers[0][8:]}"
    listed, order = [numbers[2], spelled, *numbers], [numbers[2], numbers[0], numbers[1], numbers[3]]
    caches = {mode: playbooks.folder / f"records-{mode}" for mode in EXECUTION_MODES}
    tasks = [
        playbooks.task(f"{name} {mode}", mode, business_public_key=key.public, cache_path=str(cache), **given)
        for mode, cache in caches.items()
        for name, given in (("one", {"phone_number": number}), ("list", {"phone_numbers": listed}))
    ]

    def state(number: str, record: str) -> dict[str, Any]:
        return {"phone_number": number, "fingerprint": None if record == "absent" else key.fingerprint, "record": record}

    absent = {"changed": True, "reason": "absent", "previous_fingerprint": None, "attempts": 0}
    answered = {**absent, "attempts": 1, "http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
    up_to_date = {"changed": False, "reason": "up_to_date", "previous_fingerprint": key.fingerprint, "attempts": 0}
    warning = f"A phone number has no plus sign: {spelled} was read as {numbers[0]} (India, +91). "

    def expected(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Results of both tasks, by what is said of each number."""
        before, changed = ("absent", order) if facts["changed"] else ("confirmed", [])
        one = {"failed": False, "phone_number": number, "fingerprint": key.fingerprint, **facts}
        return {
            "one": {**one, "diff": {"before": state(number, before), "after": state(number, "confirmed")}},
            "list": {
                "changed": facts["changed"],
                "failed": False,
                "fingerprint": key.fingerprint,
                "attempts": len(order) * facts["attempts"],
                "warnings": [f"{warning}Write numbers with plus sign and country code, in quotes."],
                "numbers": [{"phone_number": each, "fingerprint": key.fingerprint, **facts} for each in order],
                "diff": {name: {each: state(each, record) for each in changed} for name, record in (("before", before), ("after", "confirmed"))},
            },
        }

    written: dict[Path, tuple[bytes, int]] = {}
    phases: list[tuple[list[str], dict[str, Any], int]] = [
        (["--check", "--diff"], absent, 0), (["--diff"], answered, 10), (["--check", "--diff"], up_to_date, 10), ([], up_to_date, 10),
    ]
    for arguments, facts, count in phases:
        run = playbooks.run_tasks(tasks, *arguments)
        for mode in EXECUTION_MODES:
            for name, result in expected(facts).items():
                if "--diff" not in arguments:
                    del result["diff"]
                assert run.one(f"{name} {mode}") == result
        assert run.modules == ["kaleyra_flows_encryption"] * 2  # of the four tasks, two needed a process
        assert run.changed() == (4 if facts["changed"] else 0)
        assert simulator.count() == count
        assert all(cache.exists() == (count > 0) for cache in caches.values())
        if facts is answered:
            assert run.stdout.count(f'+    "fingerprint": "{key.fingerprint}"') == 2 and "+++ after" in run.stdout
            written = files_below(*caches.values())
        assert files_below(*caches.values()) == written
    assert not playbooks.default_cache.exists()
    assert simulator.registered() == {SID: dict.fromkeys([number, *numbers], key.fingerprint)}


SUCCESS: dict[str, Any] = {"failed": False, "changed": True, "http_status": 200, "code": "WA-200", "message": "Request Processed Successfully"}
INCORRECT: dict[str, Any] = {"http_status": 401, "code": "RBC001", "message": "Incorrect SID or API key.", "outcome": "rejected"}
CLOSED = "API is not available for given customer.Please contact support for more info"
KEEPS, MAYBE = "keeps the key it had", "may or may not have been applied. Run it again"
BUSY = {"do": "answer", "status": 429, "headers": {"Retry-After": "0"}, "body": {"code": "X-429", "message": "Slow"}}


@dataclasses.dataclass(frozen=True)
class Answer:
    """A kind of answer of the API.

    :param facts: of the result, apart from those that all failures share
    :param words: of the message: its cause, and what to do
    :param then: the reason that the next run gives
    """

    facts: dict[str, Any]
    words: Sequence[str]
    then: str
    faults: Sequence[dict[str, Any]] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


ANSWERS = {
    "success": Answer(SUCCESS, (), "up_to_date"),
    "throttled": Answer({**SUCCESS, "attempts": 3}, (), "up_to_date", [BUSY, BUSY]),
    "closed": Answer(
        {"http_status": 401, "code": "WA-401", "message": CLOSED, "outcome": "rejected"},
        ("HTTP 401", "API is not available", "Kaleyra's support", KEEPS),
        "absent",
        options={"sid": CLOSED_SID, "api_key": CLOSED_API_KEY},
    ),
    "error": Answer(
        {"http_status": 500, "code": "WA-500", "message": "Please try again later", "outcome": "unknown"},
        ("HTTP 500", "Please try again later", MAYBE),
        "unconfirmed",
        [WA_500],
        {"retries": 0},
    ),
    "lost": Answer({"outcome": "unknown"}, ("no answer", "Connection reset", MAYBE), "unconfirmed", [{"do": "reset", "apply": True}], {"retries": 0}),
    # Another key, where one is registered.
    "refused": Answer({**INCORRECT, "reason": "different"}, (KEEPS,), "up_to_date", options={"api_key": "None-Of-This"}),
}


def test_each_kind_of_answer_and_the_next_run(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> None:
    """In the worker; as a module, which takes a process each, some of them."""
    tried = {**{name: (name, WORKER) for name in ANSWERS}, **{f"{name} as a module": (name, AS_A_MODULE) for name in ("lost", "refused")}}
    numbers = {task: new_number() for task in tried}
    refused = [task for task, (name, dummy) in tried.items() if name == "refused"]
    register_all(playbooks.api_url, playbooks.default_cache, [numbers[task] for task in refused], key.public)
    simulator.faults({numbers[task]: ANSWERS[name].faults for task, (name, dummy) in tried.items()})

    def task(name: str, **options: Any) -> dict[str, Any]:
        return playbooks.task(name, tried[name][1], phone_number=numbers[name], **{"business_public_key": key.public, **options})

    others = {task: {"business_public_key": other_key.public} for task in refused}
    run = playbooks.run_tasks([task(name, **others.get(name, {}), **ANSWERS[answer].options) for name, (answer, dummy) in tried.items()])
    assert run.modules == ["kaleyra_flows_encryption"] * 2
    assert run.rc == 0  # every failure was ignored
    for name, (kind, dummy) in tried.items():
        result, answer = run.one(name), ANSWERS[kind]
        message = result.pop("msg", "")
        facts = {"changed": False, "failed": True, "reason": "absent", "attempts": 1, **answer.facts}
        mine, previous = (other_key, key.fingerprint) if name in refused else (key, None)
        assert result == {"phone_number": numbers[name], "fingerprint": mine.fingerprint, "previous_fingerprint": previous, **facts}
        assert all(part in message for part in (numbers[name], *answer.words) if answer.words), message

    # What the number carries after a lost answer is what the API applied, and the record does not claim to know.
    assert simulator.registered()[SID][numbers["lost"]] == key.fingerprint
    sent, then = simulator.count(), {task: ANSWERS[name].then for task, (name, dummy) in tried.items()}
    run = playbooks.run_tasks([task(name) for name in tried])
    assert {name: run.one(name)["reason"] for name in tried} == then
    assert simulator.count() - sent == sum(reason != "up_to_date" for reason in then.values())
    assert simulator.registered() == {SID: dict.fromkeys(numbers.values(), key.fingerprint)}
