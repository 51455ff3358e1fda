# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbers in one task."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import EXECUTION_MODES, SID, WA_400, Playbooks, assert_execution_mode, new_number
from support.simulator.client import Simulator

JUNK = "12 34"


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_each_number_has_its_own_outcome(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, execution_mode: str
) -> None:
    good, refused, lost, last = (new_number() for dummy in range(4))
    task = playbooks.task("register", execution_mode, phone_numbers=[refused, JUNK, good, lost, last], business_public_key=key.public, retries=0)
    simulator.faults({refused: [WA_400], lost: [{"do": "reset", "apply": True}]})
    run = playbooks.run_tasks([task], "--diff")
    assert_execution_mode(run, execution_mode)
    result = run.one("register")
    assert result["failed"] and result["changed"]  # both, as some were registered
    assert result["attempts"] == simulator.count() == 4
    assert result["msg"].startswith("3 of 5 numbers failed. ")
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
    expected = {
        refused: ("absent", True), JUNK: (None, False), good: ("up_to_date", False), lost: ("unconfirmed", True), last: ("up_to_date", False)
    }
    for mode in (["--check"], []):
        result = playbooks.run_tasks([task], *mode).one("register")
        assert {each["phone_number"]: (each["reason"], each["changed"]) for each in result["numbers"]} == expected
        assert result["failed"] and result["msg"].startswith(f"1 of 5 numbers failed. phone_number '{JUNK}' is not")
    assert simulator.count() == 6
    assert simulator.registered() == {SID: dict.fromkeys((good, refused, lost, last), key.fingerprint)}

    # The diff shows what changes, and nothing else.
    one = playbooks.task("one", execution_mode, phone_number=good, business_public_key=other_key.public)
    task = playbooks.task("again", execution_mode, phone_numbers=[good, last], business_public_key=other_key.public)
    diff = playbooks.run_tasks([one, task], "--diff").one("again")["diff"]
    assert diff["before"] == {last: {"phone_number": last, "fingerprint": key.fingerprint, "record": "confirmed"}}
    assert diff["after"] == {last: {"phone_number": last, "fingerprint": other_key.fingerprint, "record": "confirmed"}}


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_bad_common_option_sends_nothing(
    playbooks: Playbooks, simulator: Simulator, key: KeyPair, execution_mode: str, tmp_path: Path
) -> None:
    numbers = [new_number() for dummy in range(20)]
    file = tmp_path / "file"
    file.write_text("")
    given: dict[str, dict[str, Any]] = {
        "private": {"business_public_key": key.private},
        "small": {"business_public_key": KeyPair.make("RSA", "rsa_keygen_bits:1024").public},
        "ca_path": {"api_url": "https://127.0.0.1:1", "ca_path": "/no/ca"},
        "cache_path": {"cache_path": str(file)},
        "both": {"phone_number": numbers[0]},
        "neither": {"phone_numbers": "", "phone_number": ""},
        "known": {"known_fingerprint": key.fingerprint},
        "concurrency": {"concurrency": 0},
        "rate": {"max_requests_per_second": 0},
        "none": {"phone_numbers": []},
        "integer": {"phone_numbers": int(numbers[0]), "concurrency": "", "max_requests_per_second": ""},
    }
    tasks = [
        playbooks.task(name, execution_mode, **{"phone_numbers": numbers, "business_public_key": key.public, **options})
        for name, options in given.items()
    ]
    run = playbooks.run_tasks(tasks)
    said = {
        "private": "a PRIVATE key",
        "small": "20 of 20 numbers failed. The public key is RSA with 1024 bits",
        "ca_path": "20 of 20 numbers failed. ca_path /no/ca cannot be used",
        "cache_path": f"20 of 20 numbers failed. The record cannot be written to cache_path {file}",
        "both": "mutually exclusive: phone_number|phone_numbers",
        "neither": "one of the following is required: phone_number, phone_numbers",
        "known": "mutually exclusive: known_fingerprint|phone_numbers",
        "concurrency": "concurrency is 0, but must be from 1 to 100",
        "rate": "max_requests_per_second is 0, but must be 0.001 or more",
    }
    for name, words in said.items():
        result = run.one(name)
        assert result["failed"], name
        assert words in result["msg"], (name, result["msg"])
        assert len(result["msg"]) < 1000
        assert all(number["failed"] and number["attempts"] == 0 for number in result.get("numbers", ())), name
    assert f"Same error for {', '.join(numbers[1:4])} and 16 more." in run.one("small")["msg"]
    assert (run.one("none")["changed"], run.one("none")["numbers"]) == (False, [])
    assert [number["phone_number"] for number in run.one("integer")["numbers"]] == [numbers[0]]
    assert simulator.count() == 1


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
    """As automation platforms slice an inventory: several runs at once, each with numbers of its own; here they share some, too."""
    numbers = [new_number() for dummy in range(210)]
    shared, slices = numbers[200:], [numbers[n:200:4] for n in range(4)]
    cache = playbooks.folder / "records"
    runs = [Playbooks(tmp_path_factory.mktemp("f"), simulator.url) for dummy in slices]

    def run_all() -> list[dict[str, Any]]:
        def run(number: int) -> dict[str, Any]:
            options: dict[str, Any] = {"phone_numbers": [*slices[number], *shared], "business_public_key": key.public, "cache_path": str(cache)}
            result: dict[str, Any] = runs[number].run_tasks([runs[number].task("register", **options)]).one("register")
            assert not result["failed"], result["msg"]
            return result

        with concurrent.futures.ThreadPoolExecutor() as pool:
            return list(pool.map(run, range(4)))

    results = run_all()
    assert simulator.count() == 210  # each number once, the shared ones too
    assert sorted(number["phone_number"] for result in results for number in result["numbers"] if number["changed"]) == sorted(numbers)
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}
    records = [json.loads(path.read_text()) for path in cache.glob("*.json")]
    assert {record["phone_number"]: (record["state"], record["fingerprint"]) for record in records} == dict.fromkeys(
        numbers, ("confirmed", key.fingerprint)
    )
    assert len(list(cache.iterdir())) == 211  # and the lock

    assert not any(result["changed"] for result in run_all())
    assert simulator.count() == 210
