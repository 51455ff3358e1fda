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
from support.playbook_runs import API_KEY, SID, WA_500, KeyPair, Playbooks, assert_nowhere, new_number, secret_lines
from support.simulator.client import Simulator

ROLE = "kaleyra.whatsapp.flows_encryption"
REGISTER = "kaleyra.whatsapp.flows_encryption"
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
        """Register without the role's making a key pair, which takes its time."""
        self.playbooks.run(REGISTER, self.inventory(*numbers, flows_encryption_public_key=(key or self.key).public))

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


def test_check_real_check_real(fleet: Fleet, simulator: Simulator, other_key: KeyPair) -> None:
    mine, other, lost, missing = (new_number() for dummy in range(4))
    fleet.register(mine)
    fleet.register(other, key=other_key)
    simulator.faults({lost: [WA_500]})
    fleet.register(lost)
    sent = simulator.count()
    inventory = fleet.inventory(mine, other, lost, missing, flows_encryption_public_key=fleet.key.public)

    run = fleet.playbooks.run(REPORT, inventory, "--check", "--diff")
    assert run.rc == 0, run.output
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    assert not fleet.path.parent.exists()
    # The diff is short: of the three files, one line for each number.
    assert f'+"{mine}"' in run.stdout
    assert "<html" not in run.stdout and '+"numbers"' not in run.stdout

    run = fleet.playbooks.run(REPORT, inventory)
    assert run.rc == 0, run.output
    # For the whole play at once: with thousands of hosts even a task that is skipped takes its time.
    assert {outcome.host for outcome in run.outcomes} == {mine}
    assert simulator.count() == sent
    assert fleet.document()["summary"] == {
        "numbers": 4,
        "by_state": {"confirmed": 2, "unconfirmed": 1, "unreadable": 0, "absent": 1},
        "by_fingerprint": dict.fromkeys(sorted((fleet.key.fingerprint, other_key.fingerprint)), 1),
        "different": [other, lost, missing],
    }
    assert fleet.document()["fingerprint"] == fleet.key.fingerprint
    assert [(row["phone_number"], row["state"], row["fingerprint"], row["as_expected"]) for row in fleet.rows()] == [
        (mine, "confirmed", fleet.key.fingerprint, "true"),
        (other, "confirmed", other_key.fingerprint, "false"),
        (lost, "unconfirmed", fleet.key.fingerprint, "false"),
        (missing, "absent", "", "false"),
    ]
    assert fleet.document()["newest_record"] == max(row["since"] for row in fleet.rows())
    page = fleet.files()["html"].read_text()
    assert "3 of 4 numbers do not surely carry the expected key" in page
    assert stat.S_IMODE(fleet.path.parent.stat().st_mode) == 0o750
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in fleet.path.parent.iterdir()} == {
        f"flows.{extension}": 0o640 for extension in EXTENSIONS
    }
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in fleet.files().values()}
    assert_nowhere([API_KEY, *secret_lines(fleet.key.private)], {path: content[0].decode() for path, content in written.items()})

    for check in (["--check", "--diff"], []):
        run = fleet.playbooks.run(REPORT, inventory, *check)
        assert run.rc == 0, run.output
        assert run.changed() == 0
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in written} == written


def test_a_new_report_takes_the_place_of_the_old_one_in_one_step(fleet: Fleet) -> None:
    first, second = new_number(), new_number()
    fleet.register(first)
    inventory = fleet.inventory(first, second)
    fleet.playbooks.run(REPORT, inventory)
    readers = {path: path.open() for path in fleet.files().values()}
    old = {path: path.read_text() for path in readers}
    fleet.files()["html"].chmod(0o666)

    fleet.register(second)
    run = fleet.playbooks.run(REPORT, inventory, "--diff")
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    for path, reader in readers.items():
        with reader:
            assert reader.read() == old[path] != path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert f'-"{second}"' in run.stdout and f'+"{second}"' in run.stdout
    assert f'-"{first}"' not in run.stdout


def test_without_an_inventory_it_is_on_every_record(fleet: Fleet) -> None:
    numbers = [new_number(), new_number()]
    fleet.register(*numbers)
    for inventory, variables in (
        ("", {}),
        (f"{new_number()}\n", {"flows_encryption_hosts": "localhost"}),
        (f"{numbers[0]}\n", {"flows_encryption_report_phone_numbers": []}),
    ):
        run = fleet.playbooks.run(REPORT, inventory, variables={**fleet.variables, **variables})
        assert run.rc == 0, run.output
        assert fleet.states() == dict.fromkeys(numbers, "confirmed")
    # Nobody said which key to expect.
    assert fleet.document()["fingerprint"] is None
    assert {number["as_expected"] for number in fleet.document()["numbers"]} == {None}
    assert "All 2 numbers have a confirmed key" in fleet.files()["html"].read_text()


def test_no_records_at_all_is_a_report_too(fleet: Fleet) -> None:
    run = fleet.playbooks.run(REPORT, "", variables={**fleet.variables, "flows_encryption_report_title": "Nothing & <nobody>"})
    assert run.rc == 0, run.output
    assert fleet.document()["numbers"] == fleet.rows() == []
    assert fleet.document()["newest_record"] is None
    page = fleet.files()["html"].read_text()
    assert "There are no records" in page and "<h1>Nothing &amp; &lt;nobody&gt;</h1>" in page


def test_the_numbers_of_all_hosts_count_however_they_are_given(fleet: Fleet) -> None:
    own, digits, one, two, limited = (new_number() for dummy in range(5))
    fleet.register(own, one)
    hosts = {
        own: {},
        digits[1:]: {},
        "shops": {"flows_encryption_phone_numbers": [one, f"{two[:3]} {two[3:]}"]},
        "no-number": {},
        "192.168.100.10": {},
        "empty": {"flows_encryption_phone_numbers": []},
        limited: {},
    }
    inventory = {"all": {"hosts": hosts, "vars": fleet.variables}}
    expected = {own: "confirmed", digits: "absent", one: "confirmed", two: "absent"}
    run = fleet.playbooks.run(REPORT, inventory, "--limit", f"!{limited}")
    assert run.rc == 0, run.output
    assert fleet.states() == expected
    # Whichever host the report is made on behalf of, and whatever the strategy.
    for keywords in ({"strategy": "ansible.builtin.free"}, {"serial": 2}, {"order": "reverse_sorted"}):
        play = {"hosts": f"all:!{limited}", "gather_facts": False, **keywords}
        tasks = [{"name": "Report", "ansible.builtin.include_role": {"name": ROLE, "tasks_from": "report"}}]
        run = fleet.playbooks.run([{**play, "tasks": tasks}], inventory)
        assert run.rc == 0, run.output
        assert run.changed() == 0
        assert len(run.of(READ)) == 1
    assert fleet.states() == expected


def test_numbers_that_the_play_gives_count(fleet: Fleet) -> None:
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


def test_the_key_to_expect_is_what_is_given_or_what_all_hosts_share(fleet: Fleet, other_key: KeyPair) -> None:
    first, second = new_number(), new_number()
    fleet.register(first)
    private = fleet.playbooks.inputs / "private.pem"
    public = private.with_name("private.pub.pem")

    def expected(**variables: Any) -> str | None:
        hosts = {first: {}, second: variables.pop("second", {})}
        of_all = {**fleet.variables, "flows_encryption_report_formats": ["json"], **variables}
        run = fleet.playbooks.run(REPORT, {"all": {"hosts": hosts, "vars": of_all}})
        assert run.rc == 0, run.output
        fingerprint: str | None = fleet.document()["fingerprint"]
        return fingerprint

    path = {"flows_encryption_private_key_path": str(private)}
    assert expected(**path) is None  # no key there yet
    public.write_text(fleet.key.public)
    assert expected(**path) == fleet.key.fingerprint
    assert expected(**path, second={"flows_encryption_private_key_path": "/nowhere/other.pem"}) is None
    given = {"flows_encryption_public_key": other_key.public}
    assert expected(**path, **given) == other_key.fingerprint
    assert expected(**path, **given, flows_encryption_report_fingerprint=fleet.key.fingerprint) == fleet.key.fingerprint
    assert expected(second=path, flows_encryption_report_fingerprint=fleet.key.fingerprint) == fleet.key.fingerprint


def test_a_public_key_that_cannot_be_read_is_not_passed_over(fleet: Fleet) -> None:
    number = new_number()
    folder = fleet.playbooks.inputs / "private.pub.pem"
    folder.mkdir()
    run = fleet.playbooks.run(REPORT, fleet.inventory(number, flows_encryption_private_key_path=str(folder.with_name("private.pem"))))
    assert run.failed() == {number}
    assert str(folder) in run.output
    assert not fleet.path.parent.exists()


def test_proofs_of_endpoints_are_in_it_without_what_may_be_secret(fleet: Fleet) -> None:
    numbers = [new_number() for dummy in range(3)]
    url = "https://user:Pa55-word@flows.example.com:8443/e?token=T0ken#f"
    proof = {"url": url, "active": True, "latency_ms": 37, "fingerprint": fleet.key.fingerprint}
    hosts = {
        numbers[0]: {"flows_encryption_endpoint_verification": {**proof, "app_secret": "App-Secret"}},
        numbers[1]: {"flows_encryption_endpoint_verification": proof},
        numbers[2]: {"flows_encryption_endpoint_verification": {"url": "https://other.example.com/<b>", "active": False}},
    }
    run = fleet.playbooks.run(REPORT, {"all": {"hosts": hosts, "vars": fleet.variables}})
    assert run.rc == 0, run.output
    assert fleet.document()["endpoints"] == [
        {**proof, "url": "https://flows.example.com:8443/e"},
        {"url": "https://other.example.com/<b>", "active": False, "latency_ms": None, "fingerprint": None},
    ]
    page = fleet.files()["html"].read_text()
    for part in ("https://flows.example.com:8443/e<", "37 ms", "Not active", "https://other.example.com/&lt;b&gt;"):
        assert part in page
    assert_nowhere(["Pa55-word", "T0ken", "App-Secret"], {path: path.read_text() for path in fleet.files().values()})


def test_a_spreadsheet_finds_no_formula_in_it(fleet: Fleet) -> None:
    number, other = new_number(), new_number()
    records = Path(fleet.variables["flows_encryption_cache_path"])
    records.mkdir()
    # Names that nobody registers under, but anybody who can write to the folder can make.
    for api, sid in (("%3Dcmd%28%29", "-1"), ("%40x%22y", "S"), ("%09%0Ax", "S"), ("-2-3", "S")):
        (records / f"{api},{sid},{number}.json").write_text("junk")
    fleet.playbooks.run(REPORT, fleet.inventory(number, other))
    raw = fleet.files()["csv"].read_bytes()
    assert raw.count(b"\r\n") == 6 and raw.endswith(b"\r\n")
    rows = fleet.rows()
    assert [row["api"] for row in rows] == ["'\t\nx", "'-2-3", "'=cmd()", "'@x\"y", ""]
    assert {row["sid"] for row in rows} == {"S", "'-1", ""}
    # E.164 as it is, for programs.
    assert [row["phone_number"] for row in rows] == [number] * 4 + [other]


def test_it_says_where_to_write_or_what_is_wrong(fleet: Fleet) -> None:
    number = new_number()
    for wrong, said in (
        ({"flows_encryption_report_path": ""}, "Set flows_encryption_report_path to where the report shall be written on localhost"),
        ({"flows_encryption_report_formats": ["pdf"]}, "pdf"),
        ({"flows_encryption_report_fingerprint": "aa"}, "fingerprint 'aa' is no SHA-256 fingerprint"),
        ({"flows_encryption_cache_path": "/dev/null"}, "cache_path /dev/null cannot be read: Not a directory"),
    ):
        run = fleet.playbooks.run(REPORT, fleet.inventory(number, **wrong))
        assert run.failed() == {number}
        assert said in run.text
        assert not fleet.path.parent.exists()
