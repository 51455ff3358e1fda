# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading back what numbers carry, by real runs in both ways."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair
from support.playbook_runs import EXECUTION_MODES, SID, WORKER, Playbooks, Run, assert_execution_mode, new_number
from support.simulator.client import Simulator, waba_numbers

TOKEN = "EAAfunctional-tests-0f9d1c"
META: dict[str, Any] = {"read_back": "meta", "meta_access_token": TOKEN, "meta_waba_ids": ["1001"], "meta_api_url": "{{ api_url }}/v23.0"}
REFUSED = {"do": "answer", "status": 401, "body": {"error": {"message": "Invalid token", "code": 190}}, "method": "GET", "always": True}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: what is on record, what is held, and what comes of it."""

    record: str
    held: str
    reason: str
    previous: str | None


ROWS = [
    Row("nothing", "wanted", "up_to_date", "wanted"),
    Row("other", "wanted", "up_to_date", "wanted"),
    Row("unconfirmed", "wanted", "up_to_date", "wanted"),
    Row("unreadable", "wanted-no-status", "up_to_date", "wanted"),
    Row("wanted", "wanted", "up_to_date", "wanted"),
    Row("wanted", "wanted-mismatch", "mismatch", "wanted"),
    Row("nothing", "wanted-mismatch", "mismatch", "wanted"),
    Row("wanted", "other", "drifted", "other"),
    Row("wanted", "none", "drifted", None),
    Row("other", "third", "different", "third"),
    Row("nothing", "other", "different", "other"),
    Row("unconfirmed", "other", "different", "other"),
    Row("unreadable", "other", "different", "other"),
    Row("nothing", "none", "absent", None),
    Row("other", "none", "absent", None),
    Row("wanted", "unknown", "up_to_date", "wanted"),
    Row("other", "unknown", "different", "other"),
    Row("nothing", "unknown", "absent", None),
    Row("unconfirmed", "unknown", "unconfirmed", None),
]


@pytest.fixture(scope="session")
def third_key() -> KeyPair:
    return KeyPair.make("RSA", "rsa_keygen_bits:2048")


@dataclasses.dataclass
class World:
    """Numbers, one for each row, with their records and what they carry."""

    playbooks: Playbooks
    simulator: Simulator
    keys: dict[str, KeyPair]
    cache: Path
    numbers: dict[str, Row]

    def prepare(self) -> None:
        """Leave the records that the rows name, and only then let the numbers carry what they name."""
        recorded: dict[str, list[str]] = {}
        for number, row in self.numbers.items():
            recorded.setdefault(row.record, []).append(number)
        tasks = []
        for record, key in (("wanted", "wanted"), ("unreadable", "wanted"), ("other", "other"), ("unconfirmed", "other")):
            numbers = recorded.get(record, [])
            self.simulator.faults({number: [{"do": "close"}] for number in recorded.get("unconfirmed", [])})
            tasks.append(self.task(f"prepare {record}", phone_numbers=numbers, business_public_key=self.keys[key].public, retries=0))
        self.playbooks.run_tasks(tasks)
        for number in recorded.get("unreadable", []):
            self.record_path(number).write_text("{")
        self.simulator.faults({})
        held: dict[str, Any] = {}
        for number, row in self.numbers.items():
            name, dummy, status = row.held.partition("-")
            pem = self.keys[name].public if name in self.keys else None
            held[number] = pem and {"pem": pem, "status": {"": "VALID", "mismatch": "MISMATCH", "no-status": None}[status]}
        self.simulator.hold(held)
        self.simulator.faults({number: [REFUSED] for number, row in self.numbers.items() if row.held == "unknown"})

    def task(self, name: str, execution_mode: str = WORKER, **options: Any) -> dict[str, Any]:
        defaults = {"cache_path": str(self.cache), "business_public_key": self.keys["wanted"].public}
        return self.playbooks.task(name, execution_mode, **{**defaults, **options})

    def record_path(self, number: str) -> Path:
        (path,) = self.cache.glob(f"*{number}.json")
        return path

    def record(self, number: str) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.record_path(number).read_text())
        return fields

    def requests(self, number: str) -> list[str]:
        """Methods of the requests about this number's key, in order."""
        return [request["method"] for request in self.simulator.requests() if request["phone_number"] == number]


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, key: KeyPair, other_key: KeyPair, third_key: KeyPair) -> World:
    numbers = {new_number(): row for row in ROWS}
    simulator.configure(access_token=TOKEN, wabas={"1001": waba_numbers(numbers)}, meta_shape="list", kaleyra_get="data")
    return World(playbooks, simulator, {"wanted": key, "other": other_key, "third": third_key}, playbooks.folder / "records", numbers)


def each_alone(world: World, name: str, execution_mode: str, **options: Any) -> list[dict[str, Any]]:
    """A task for each number, named after it."""
    return [world.task(f"{name} {number}", execution_mode, phone_number=number, **options) for number in world.numbers]


def results(world: World, run: Run, name: str) -> dict[str, dict[str, Any]]:
    return {number: run.one(f"{name} {number}") for number in world.numbers}


@pytest.mark.parametrize("source", [META, {"read_back": "kaleyra"}], ids=["meta", "kaleyra"])
@pytest.mark.parametrize("execution_mode", [EXECUTION_MODES[0], pytest.param(EXECUTION_MODES[1], marks=pytest.mark.slow)])
def test_every_row_of_the_table(execution_mode: str, source: dict[str, Any], world: World) -> None:
    if source["read_back"] == "kaleyra":  # one that is gone cannot be told apart from an answer of another kind
        world.numbers = {number: row for number, row in world.numbers.items() if row.held != "none"}
    if execution_mode != WORKER:  # a process for each takes its time: one row of each outcome
        seen: dict[tuple[str, str], str] = {(row.reason, row.held): number for number, row in world.numbers.items()}
        world.numbers = {number: world.numbers[number] for number in seen.values()}
    world.prepare()
    before = {path.name: path.read_bytes() for path in world.cache.iterdir()}
    check = world.playbooks.run_tasks(each_alone(world, "check", execution_mode, **source), "--check", "--diff")
    assert {path.name: path.read_bytes() for path in world.cache.iterdir()} == before
    assert set(world.simulator.methods()) == {"GET", "POST"}  # POST: to prepare
    sent = world.simulator.methods()["POST"]
    tasks = [task for name in ("real", "again") for task in each_alone(world, name, execution_mode, **source)]
    real = world.playbooks.run_tasks(tasks, "--diff")
    assert_execution_mode(real, execution_mode)
    checked, done, again = results(world, check, "check"), results(world, real, "real"), results(world, real, "again")
    wanted = world.keys["wanted"].fingerprint
    for number, row in world.numbers.items():
        result = done[number]
        assert {name: result[name] for name in ("reason", "changed", "previous_fingerprint", "diff", "held_fingerprint", "held_status")} == {
            name: checked[number][name] for name in ("reason", "changed", "previous_fingerprint", "diff", "held_fingerprint", "held_status")
        }
        assert (result["reason"], result["previous_fingerprint"]) == (row.reason, row.previous and world.keys[row.previous].fingerprint), row
        name, dummy, status = row.held.partition("-")
        assert result["held_fingerprint"] == (world.keys[name].fingerprint if name in world.keys else None), row
        assert result["held_status"] == (None if name not in world.keys or status == "no-status" else status or "valid"), row
        assert result["changed"] is (row.reason != "up_to_date")
        # Confirmed by what was read again, unless it cannot be read.
        assert result["verified"] is (None if not result["changed"] or row.held == "unknown" else True), row
        assert again[number]["changed"] is False, row
        record = world.record(number)
        assert (record["fingerprint"], record["state"]) == (wanted, "confirmed"), row
    assert world.simulator.methods()["POST"] - sent == sum(result["changed"] for result in done.values())
    assert TOKEN not in real.output + check.output + json.dumps(done)
    drifted = [number for number, row in world.numbers.items() if (row.reason, row.held) == ("drifted", "other")]
    assert drifted and world.keys["other"].fingerprint in real.text
    assert "Meta's error 190 (Invalid token)" in real.text


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_a_list_is_read_with_one_look_up_and_unchanged_sends_gets_alone(execution_mode: str, world: World) -> None:
    world.prepare()
    count = world.simulator.count()
    numbers = list(world.numbers)
    check = world.playbooks.run_tasks([world.task("check", execution_mode, phone_numbers=numbers, **META)], "--check").one("check")
    assert world.simulator.count() - count == len(numbers) + 1  # one page for all
    real = world.playbooks.run_tasks([world.task("real", execution_mode, phone_numbers=numbers, **META)]).one("real")
    rows = [(each["reason"], each["changed"]) for each in real["numbers"]]
    assert rows == [(row.reason, row.reason != "up_to_date") for row in world.numbers.values()]
    assert rows == [(each["reason"], each["changed"]) for each in check["numbers"]]
    before = world.simulator.methods()
    again = world.playbooks.run_tasks([world.task("again", execution_mode, phone_numbers=numbers, **META)]).one("again")
    assert not again["changed"] and again["attempts"] == len(numbers) + 1
    after = world.simulator.methods()
    assert after == {**before, "GET": before["GET"] + len(numbers) + 1}
    assert world.simulator.registered()[SID].items() >= {
        number: world.keys["wanted"].fingerprint for number, row in world.numbers.items() if row.reason != "up_to_date"
    }.items()


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_number_that_cannot_be_read_is_not_registered_where_that_is_required(execution_mode: str, world: World) -> None:
    numbers = list(world.numbers)[:3]
    world.simulator.faults({number: [REFUSED] for number in numbers[:2]})
    required = {**META, "read_back_required": True, "retries": 0}
    tasks = [
        world.task("list", execution_mode, phone_numbers=numbers, **required),
        world.task("one", execution_mode, phone_number=numbers[0], **required),
    ]
    run = world.playbooks.run_tasks(tasks)
    failed, registered = run.one("list")["numbers"][:2], run.one("list")["numbers"][2]
    for result in (*failed, run.one("one")):
        assert result["failed"] and "read_back_required" in result["msg"] and "Meta's error 190" in result["msg"] and not result["changed"]
    assert registered["changed"] and registered["verified"]
    assert world.simulator.registered() == {SID: {numbers[2]: world.keys["wanted"].fingerprint}}


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_key_may_become_visible_late_or_never(execution_mode: str, world: World) -> None:
    late, never = list(world.numbers)[:2]
    for number, delay in ((late, 2), (never, 600)):
        world.simulator.configure(visible_after=delay)
        result = world.playbooks.run_tasks([world.task("task", execution_mode, phone_number=number, timeout=5, **META)]).one("task")
        record = world.record(number)
        if number == late:
            assert result["verified"] is True and result["attempts"] > 4 and record["state"] == "confirmed"
        else:
            assert (result["failed"], result["outcome"], result["verified"], result["changed"]) == (True, "unknown", False, False)
            assert "still seen to carry no key" in result["msg"] and record["state"] == "unconfirmed"


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
def test_secrets_stand_nowhere(execution_mode: str, world: World) -> None:
    echo = {"do": "echo", "status": 400, "always": True, "method": "GET"}
    world.simulator.faults({"*": [echo]})
    task = world.task("task", execution_mode, phone_numbers=list(world.numbers)[:3], retries=0, **META)
    broken = world.task("bad", execution_mode, phone_number=new_number(), **{**META, "meta_access_token": f"{TOKEN}\nx"})
    run = world.playbooks.run_tasks([task, broken], "-vvvv")
    assert "contains a space, a line break" in run.one("bad")["msg"]
    assert TOKEN not in run.output
    for path, text in world.playbooks.leftovers().items():
        assert TOKEN not in text, path


@pytest.mark.slow
def test_bad_options_are_told_before_anything_is_sent(world: World) -> None:
    number = next(iter(world.numbers))
    bad: dict[str, dict[str, Any]] = {
        "'WABA' is not the ID": {"meta_waba_ids": ["WABA"]},
        "would send the access token unencrypted": {"meta_api_url": "http://graph.example.com/v23.0"},
        "needs meta_access_token": {"meta_access_token": ""},
        "needs meta_waba_ids": {"meta_waba_ids": []},
        "needs a source": {"read_back": "none", "read_back_required": True},
        "is not the ID of a phone number": {"meta_phone_number_ids": {number: "x"}},
    }
    tasks = [world.task(told, phone_number=number, **{**META, **options}) for told, options in bad.items()]
    run = world.playbooks.run_tasks([*tasks, world.task("unlisted", phone_number="+14155550123", **META)])
    for told in bad:
        assert told in run.one(told)["msg"] and run.one(told)["failed"]
    assert "is in none of the WhatsApp Business Accounts" in run.one("unlisted")["msg"]
    assert world.simulator.methods() == {"GET": 1}  # the look-up of the last one


@pytest.mark.parametrize("execution_mode", EXECUTION_MODES)
@pytest.mark.slow
def test_refusal_leaves_the_record_that_is_true(execution_mode: str, world: World) -> None:
    """A number that drifted and whose registration is refused is on record with what it carries."""
    world.numbers = {number: row for number, row in world.numbers.items() if row.reason == "drifted"}
    world.prepare()
    other, none = world.numbers
    refuse = {"do": "answer", "status": 400, "method": "POST", "always": True}
    world.simulator.faults({number: [refuse] for number in world.numbers})
    run = world.playbooks.run_tasks(each_alone(world, "task", execution_mode, **META))
    assert all(result["outcome"] == "rejected" and result["reason"] == "drifted" for result in results(world, run, "task").values())
    assert (world.record(other)["fingerprint"], world.record(other)["state"]) == (world.keys["other"].fingerprint, "confirmed")
    assert not list(world.cache.glob(f"*{none}.json"))


@pytest.mark.slow
def test_force_reads_only_what_it_needs(world: World) -> None:
    number = next(iter(world.numbers))
    ids = {"meta_waba_ids": None, "meta_phone_number_ids": {number: 2_000_001}, "force": True}
    run = world.playbooks.run_tasks([world.task("task", phone_number=number, **{**META, **ids})])
    assert run.one("task")["verified"] is True and world.requests(number) == ["POST", "GET"]
    run = world.playbooks.run_tasks([world.task("task", phone_number=number, **{**META, **ids, "read_back_required": True})])
    assert (run.one("task")["reason"], run.one("task")["verified"]) == ("forced", True)
    assert world.requests(number)[2:] == ["GET", "POST", "GET"]


def test_another_run_meanwhile_counts(world: World) -> None:
    """With phone number IDs from an inventory nothing is looked up, and tasks of the same play side by side agree."""
    number = next(iter(world.numbers))
    ids = {number: "2000001"}
    task = world.task("task", phone_number=number, **{**META, "meta_waba_ids": None, "meta_phone_number_ids": ids})
    hosts = {f"host{n}": {"ansible_connection": "local"} for n in range(4)}
    run = world.playbooks.run([{"hosts": "all", "gather_facts": False, "tasks": [task]}], {"all": {"hosts": hosts}})
    assert sorted(result["changed"] for result in run.by_host("task").values()) == [False, False, False, True]
    assert world.simulator.methods()["POST"] == 1
    assert "/v23.0/1001/phone_numbers" not in world.simulator.methods_by_url()


ROLE = {"name": "Register", "ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption"}}
REPORT = {"name": "Report", "ansible.builtin.include_role": {"name": "kaleyra.whatsapp.flows_encryption", "tasks_from": "report"}}


@pytest.mark.parametrize("source", ["meta", "kaleyra"])
def test_role_sends_no_registration_where_no_record_lasts(source: str, world: World) -> None:
    """As in AWX, where a job's container vanishes; and the report finds what drifted."""
    numbers = list(world.numbers)[:4]
    variables = {
        "flows_encryption_api_url": world.playbooks.api_url,
        "flows_encryption_sid": "{{ sid }}",
        "flows_encryption_api_key": "{{ api_key }}",
        "flows_encryption_cache_path": str(world.cache),
        "flows_encryption_public_key": world.keys["wanted"].public,
        "flows_encryption_read_back": source,
        "flows_encryption_read_back_required": source == "meta",  # Kaleyra's answer for a number without a key is not known
        "flows_encryption_meta_api_url": f"{world.playbooks.api_url}/v23.0",
        "flows_encryption_report_path": str(world.playbooks.folder / "report"),
    }
    ids = {number: str(2_000_001 + place) for place, number in enumerate(numbers)}
    inventory = {"all": {"hosts": {number: {"ansible_connection": "local", "waba_phone_number_id": ids[number]} for number in numbers}}}
    env = {"META_ACCESS_TOKEN": TOKEN}
    play = {"hosts": "all", "gather_facts": False, "vars": variables}

    def run(*tasks: dict[str, Any]) -> tuple[Run, dict[str, int]]:
        before = world.simulator.methods()
        done = world.playbooks.run([{**play, "tasks": list(tasks)}], inventory, env=env)
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
    report = json.loads((world.playbooks.folder / "report.json").read_text())
    assert {row["phone_number"]: row["state"] for row in report["numbers"]} == {**dict.fromkeys(numbers, "confirmed"), numbers[0]: "drifted"}
    assert report["summary"]["drifted"] == report["summary"]["different"] == numbers[:1]
    assert world.keys["other"].fingerprint in (world.playbooks.folder / "report.csv").read_text()
    assert "Drifted" in (world.playbooks.folder / "report.html").read_text()
    done, sent = run(ROLE)
    assert sent == {"GET": 5, "POST": 1} and done.changed() == 1
