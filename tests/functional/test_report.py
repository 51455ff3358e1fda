# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report: what it says, where and when it is written. How the web page looks and works is tested in a browser."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from support.keys import KeyPair, secret_lines
from support.playbook_runs import API_KEY, SID, WA_500, Playbooks, assert_nowhere, new_number
from support.processes import register_all
from support.simulator.client import Simulator

ROLE = "kaleyra.whatsapp.flows_encryption"
REPORT = "kaleyra.whatsapp.flows_report"
READ = "Read the records"
WRITE = ["Write the report as JSON", "Write the report as CSV", "Write the report as a web page"]
EXTENSIONS = ("json", "csv", "html")


class Fleet:
    """Numbers with records, and the report on them.

    :param path: of the report, without an extension; its folder is not there yet
    """

    def __init__(self, playbooks: Playbooks, key: KeyPair) -> None:
        self.playbooks = playbooks
        self.key = key
        self.path = playbooks.folder / "reports/of/flows"
        self.variables: dict[str, Any] = {
            "flows_encryption_api_url": playbooks.api_url,
            "flows_encryption_sid": SID,
            "flows_encryption_api_key": API_KEY,
            "flows_encryption_cache_path": str(playbooks.folder / "records"),
            "flows_encryption_report_path": str(self.path),
            "flows_encryption_retries": 0,
        }

    def inventory(self, *numbers: str, **variables: Any) -> dict[str, Any]:
        return {"all": {"hosts": {number: {} for number in numbers}, "vars": {**self.variables, **variables}}}

    def register(self, *numbers: str, key: KeyPair | None = None) -> None:
        register_all(self.playbooks.api_url, self.playbooks.folder / "records", list(numbers), (key or self.key).public)

    def files(self) -> dict[str, Path]:
        return {extension: self.path.with_name(f"flows.{extension}") for extension in EXTENSIONS}

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.files()["json"].read_text())
        return document

    def states(self) -> dict[str, str]:
        return {number["phone_number"]: number["state"] for number in self.document()["numbers"]}

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.files()["csv"].read_text(), newline="")))


@pytest.fixture
def fleet(playbooks: Playbooks, key: KeyPair) -> Fleet:
    return Fleet(playbooks, key)


def contents(fleet: Fleet) -> dict[Path, tuple[bytes, int, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in fleet.files().values()}


def test_check_real_check_real(fleet: Fleet, simulator: Simulator, other_key: KeyPair) -> None:
    mine, other, lost, missing = (new_number() for dummy in range(4))
    fleet.register(mine)
    fleet.register(other, key=other_key)
    simulator.faults({lost: [WA_500]})
    fleet.register(lost)
    sent = simulator.count()
    private = fleet.playbooks.inputs / "private.pem"
    private.with_name("private.pub.pem").write_text(fleet.key.public)
    verification = {"url": "https://user:Pa55-word@flows.example.com/<b>?token=T0ken", "active": True, "latency_ms": 37, "app_secret": "App-Secret"}
    inventory = fleet.inventory(
        *(mine, other, lost, missing),
        flows_encryption_private_key_path=str(private),
        flows_encryption_endpoint_verification=verification,
        flows_encryption_report_title="Keys & <others>",
    )

    run = fleet.playbooks.run(REPORT, inventory, "--check", "--diff")
    assert run.rc == 0, run.output
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    assert not fleet.path.parent.exists()
    # The diff shows one line for each number, and not all three files.
    assert f"+{mine}," in run.stdout
    assert "<html" not in run.stdout and '+"numbers"' not in run.stdout

    run = fleet.playbooks.run(REPORT, inventory)
    assert run.rc == 0, run.output
    assert {outcome.host for outcome in run.outcomes} == {mine}
    assert simulator.count() == sent
    document = fleet.document()
    assert document["summary"]["by_state"] == {"confirmed": 2, "unconfirmed": 1, "unreadable": 0, "absent": 1}
    assert document["fingerprint"] == fleet.key.fingerprint
    assert document["endpoints"] == [{"url": "https://flows.example.com/<b>", "active": True, "latency_ms": 37, "fingerprint": None}]
    assert [(row["phone_number"], row["state"], row["fingerprint"], row["as_expected"]) for row in fleet.rows()] == [
        (mine, "confirmed", fleet.key.fingerprint, "true"),
        (other, "confirmed", other_key.fingerprint, "false"),
        (lost, "unconfirmed", fleet.key.fingerprint, "false"),
        (missing, "absent", "", "false"),
    ]
    page = fleet.files()["html"].read_text()
    for part in ("3 of 4 numbers are not confirmed to carry", "<h1>Keys &amp; &lt;others&gt;</h1>", "flows.example.com/&lt;b&gt;<", "37 ms"):
        assert part in page
    assert stat.S_IMODE(fleet.path.parent.stat().st_mode) == 0o750
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in fleet.path.parent.iterdir()} == {
        f"flows.{extension}": 0o640 for extension in EXTENSIONS
    }
    assert fleet.files()["csv"].read_bytes().count(b"\r\n") == 5
    written = contents(fleet)
    secrets = [API_KEY, "Pa55-word", "T0ken", "App-Secret", *secret_lines(fleet.key.private)]
    assert_nowhere(secrets, {path: content[0].decode() for path, content in written.items()})

    for check in (["--check", "--diff"], []):
        run = fleet.playbooks.run(REPORT, inventory, *check)
        assert run.rc == 0, run.output
        assert run.changed() == 0
        assert contents(fleet) == written

    # A reader of the old files sees them whole while they are replaced.
    readers = [path.open("rb") for path in written]
    fleet.register(missing)
    run = fleet.playbooks.run(REPORT, inventory, "--diff")
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    assert f"-{missing}," in run.stdout and f"+{missing}," in run.stdout and f"-{mine}," not in run.stdout
    for reader, (old, *dummy) in zip(readers, written.values(), strict=True):
        with reader:
            assert reader.read() == old
    assert fleet.states()[missing] == "confirmed"


@pytest.mark.slow
def test_without_inventory_every_record_is_reported(fleet: Fleet) -> None:
    run = fleet.playbooks.run(REPORT, "", variables=fleet.variables)
    assert run.rc == 0, run.output
    assert fleet.document()["numbers"] == fleet.rows() == []
    assert "There are no records." in fleet.files()["html"].read_text()
    numbers = [new_number(), new_number()]
    fleet.register(*numbers)
    everything: dict[str, Any] = {"flows_encryption_report_phone_numbers": []}
    for inventory, variables in (("", {}), (f"{numbers[0]}\n", everything)):
        run = fleet.playbooks.run(REPORT, inventory, variables={**fleet.variables, **variables})
        assert run.rc == 0, run.output
        assert fleet.states() == dict.fromkeys(numbers, "confirmed")
    # Nobody said which key to expect.
    assert fleet.document()["fingerprint"] is None


@pytest.mark.parametrize("keywords", [{"strategy": "ansible.builtin.free"}, {"serial": 2, "order": "reverse_sorted"}])
@pytest.mark.slow
def test_numbers_of_all_hosts_are_reported_once(fleet: Fleet, keywords: dict[str, Any]) -> None:
    own, one, two = (new_number() for dummy in range(3))
    hosts = {
        own: {},
        "shops": {"flows_encryption_phone_numbers": [one, f"{two[:3]} {two[3:]}"], "flows_encryption_private_key_path": "/another.pem"},
        "no-number": {},
    }
    task = {"name": "Report", "ansible.builtin.include_role": {"name": ROLE, "tasks_from": "report"}}
    play = {"hosts": "all", "gather_facts": False, **keywords, "tasks": [task]}
    run = fleet.playbooks.run([play], {"all": {"hosts": hosts, "vars": fleet.variables}})
    assert run.rc == 0, run.output
    assert len(run.of(READ)) == 1
    assert fleet.states() == dict.fromkeys((own, one, two), "absent")


@pytest.mark.slow
def test_variables_of_the_play_are_used(fleet: Fleet) -> None:
    number = new_number()
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {**fleet.variables, "flows_encryption_phone_numbers": [number], "flows_encryption_report_formats": ["json"]},
        "tasks": [{"name": "Report", "ansible.builtin.import_role": {"name": ROLE, "tasks_from": "report"}}],
    }
    run = fleet.playbooks.run([play], "localhost ansible_connection=local\n")
    assert run.rc == 0, run.output
    assert fleet.states() == {number: "absent"}
    assert [path.name for path in fleet.path.parent.iterdir()] == ["flows.json"]


@pytest.mark.slow
def test_nothing_is_written_on_errors(fleet: Fleet) -> None:
    number = new_number()
    folder = fleet.playbooks.inputs / "private.pub.pem"
    folder.mkdir()
    for wrong, said in (
        ({"flows_encryption_report_path": ""}, "Set flows_encryption_report_path to the report's path on localhost, without an extension"),
        ({"flows_encryption_private_key_path": str(folder.with_name("private.pem"))}, str(folder)),
    ):
        run = fleet.playbooks.run(REPORT, fleet.inventory(number, **wrong))
        assert run.failed() == {number}
        assert said in run.text
        assert not fleet.path.parent.exists()
