# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbers in one task."""

from __future__ import annotations

import concurrent.futures
import json
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import EXECUTION_MODES, SID, WA_400, WORKER, Playbooks, new_number
from support.simulator.client import Simulator

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
