# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does and returns, for one number and for many."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import AS_A_MODULE, CLOSED_API_KEY, CLOSED_SID, EXECUTION_MODES, SID, WA_400, WA_500, WORKER, Playbooks, new_number
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


JUNK = "12 34"


@pytest.mark.slow
def test_each_number_has_its_own_outcome(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair) -> None:
    """In both execution modes; what follows is the same in both."""
    lists = {mode: [new_number() for dummy in range(4)] for mode in EXECUTION_MODES}

    def task(mode: str) -> dict[str, Any]:
        good, refused, lost, last = lists[mode]
        return playbooks.task(mode, mode, phone_numbers=[refused, JUNK, good, lost, last], business_public_key=key.public, retries=0)

    refusals = {refused: [WA_400] for dummy, refused, *dummies in lists.values()}
    simulator.faults({**refusals, **{lost: [{"do": "reset", "apply": True}] for *dummies, lost, dummy in lists.values()}})
    run = playbooks.run_tasks([task(mode) for mode in EXECUTION_MODES], "--diff")
    assert run.modules == ["kaleyra_flows_encryption"]
    assert simulator.count() == 8
    for mode, (good, refused, lost, last) in lists.items():
        result = run.one(mode)
        assert result["failed"] and result["changed"]  # both, as some were registered
        assert result["attempts"] == 4 and result["msg"].startswith("3 of 5 numbers failed. ")
        for part in (refused, lost, JUNK, "WA-400", "may or may not", "not a number in E.164"):
            assert part in result["msg"]
        by_number = {each["phone_number"]: each for each in result["numbers"]}
        assert list(by_number) == [refused, JUNK, good, lost, last]
        assert {number for number, facts in by_number.items() if facts.get("failed")} == {refused, JUNK, lost}
        assert {number for number, facts in by_number.items() if facts["changed"]} == {good, last}
        assert [by_number[number].get("outcome") for number in (refused, lost, JUNK)] == ["rejected", "unknown", None]
        assert (by_number[refused]["http_status"], by_number[refused]["code"]) == (400, "WA-400")
        assert by_number[refused]["msg"].startswith(f"The key of {refused} was not registered: ")

    # The next run takes up what failed. Check mode says so before, and fails for the same bad number.
    good, refused, lost, last = lists[WORKER]
    unchanged = ("up_to_date", False)
    expected = {refused: ("absent", True), JUNK: (None, False), good: unchanged, lost: ("unconfirmed", True), last: unchanged}
    for arguments in (["--check"], []):
        result = playbooks.run_tasks([task(WORKER)], *arguments).one(WORKER)
        assert {each["phone_number"]: (each["reason"], each["changed"]) for each in result["numbers"]} == expected
        assert result["failed"] and result["msg"].startswith(f"1 of 5 numbers failed. phone_number '{JUNK}' is not")
    assert simulator.count() == 10
    assert all(simulator.registered()[SID][number] == key.fingerprint for number in (good, refused, lost, last))

    # The diff shows what changes, and nothing else.
    one = playbooks.task("one", phone_number=good, business_public_key=other_key.public)
    again = playbooks.task("again", phone_numbers=[good, last], business_public_key=other_key.public)
    diff = playbooks.run_tasks([one, again], "--diff").one("again")["diff"]
    assert diff["before"] == {last: {"phone_number": last, "fingerprint": key.fingerprint, "record": "confirmed"}}
    assert diff["after"] == {last: {"phone_number": last, "fingerprint": other_key.fingerprint, "record": "confirmed"}}


@pytest.mark.slow
def test_as_many_connections_as_asked_for(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    numbers = [new_number() for dummy in range(40)]
    # The first answers are late, so that all threads have a request under way.
    late = {"do": "answer", "status": 500, "delay": 1, "headers": {"Retry-After": "0"}}
    simulator.faults({"*": [late] * 5})
    run = playbooks.run_tasks([playbooks.task("register", phone_numbers=numbers, business_public_key=key.public, concurrency=5)])
    assert run.one("register")["changed"]
    assert (simulator.count(), simulator.state()["connection_count"]) == (45, 5)


@pytest.mark.slow
def test_long_work_shows_progress(playbooks: Playbooks, simulator: Simulator, key: KeyPair) -> None:
    numbers = [new_number() for dummy in range(24)]
    task: dict[str, Any] = {"phone_numbers": numbers, "business_public_key": key.public}
    simulator.faults({numbers[0]: [WA_400]})
    # At this rate it takes eleven seconds at least.
    run = playbooks.run_tasks([playbooks.task("long", **task, max_requests_per_second=2)])
    lines = [line for line in run.stderr.splitlines() if "numbers done" in line]
    assert lines
    for line in lines:
        assert line.startswith("kaleyra_flows_encryption: ") and line.endswith(" of 24 numbers done, 1 failed")
    assert "numbers done" not in run.stdout  # which may be for programs
    run = playbooks.run_tasks([playbooks.task("short", **task)])
    assert run.one("short")["attempts"] == 1
    assert "numbers done" not in run.output


@pytest.mark.slow
def test_slices_share_a_folder_of_records(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As automation platforms slice an inventory: runs at once, each with numbers of its own; here they share some, too."""
    numbers = [new_number() for dummy in range(110)]
    shared, slices = numbers[100:], [numbers[n:100:2] for n in range(2)]
    cache = playbooks.folder / "records"
    runs = [playbooks, Playbooks(tmp_path_factory.mktemp("f"), simulator.url)]

    def run(number: int) -> dict[str, Any]:
        options: dict[str, Any] = {"phone_numbers": [*slices[number], *shared], "business_public_key": key.public, "cache_path": str(cache)}
        result: dict[str, Any] = runs[number].run_tasks([runs[number].task("register", **options)]).one("register")
        assert not result["failed"], result["msg"]
        return result

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(run, range(2)))
    assert simulator.count() == 110  # each number once, the shared ones too
    assert sorted(number["phone_number"] for result in results for number in result["numbers"] if number["changed"]) == sorted(numbers)
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}
    records = [json.loads(path.read_text()) for path in cache.glob("*.json")]
    assert {record["phone_number"]: (record["state"], record["fingerprint"]) for record in records} == dict.fromkeys(
        numbers, ("confirmed", key.fingerprint)
    )
    assert len(list(cache.iterdir())) == 111  # and the lock
