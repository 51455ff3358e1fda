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
from support.playbook_runs import API_KEY, WA_500, Playbooks, assert_nowhere, new_number
from support.processes import register_all
from support.role import fleet, included, prefixed
from support.simulator.client import Simulator

REPORT = "kaleyra.whatsapp.flows_report"
WRITE = ["Write the report as JSON", "Write the report as CSV", "Write the report as a web page"]


class World:
    """Numbers with records, and the report on them.

    :ivar path: of the report, without an extension; its folder is not there yet
    """

    def __init__(self, playbooks: Playbooks, key: KeyPair) -> None:
        self.playbooks, self.key = playbooks, key
        self.path = playbooks.folder / "reports/of/flows"
        self.json, self.csv, self.html = (self.path.with_name(f"flows.{extension}") for extension in ("json", "csv", "html"))
        self.variables: dict[str, Any] = {"cache_path": str(playbooks.folder / "records"), "report_path": str(self.path), "retries": 0}

    def inventory(self, *numbers: str, **variables: Any) -> dict[str, Any]:
        return fleet(self.playbooks.api_url, numbers, **{**self.variables, **variables})

    def register(self, *numbers: str, key: KeyPair | None = None) -> None:
        register_all(self.playbooks.api_url, self.variables["cache_path"], list(numbers), (key or self.key).public)

    def states(self) -> dict[str, str]:
        return {number["phone_number"]: number["state"] for number in json.loads(self.json.read_text())["numbers"]}

    def contents(self) -> dict[Path, tuple[bytes, int, int]]:
        return {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in (self.json, self.csv, self.html)}


@pytest.fixture
def world(playbooks: Playbooks, key: KeyPair) -> World:
    return World(playbooks, key)


@pytest.mark.slow
def test_check_real_check_real(world: World, simulator: Simulator, other_key: KeyPair) -> None:
    mine, other, lost, missing = (new_number() for dummy in range(4))
    world.register(mine)
    world.register(other, key=other_key)
    simulator.faults({lost: [WA_500]})
    world.register(lost)
    sent = simulator.count()
    private = world.playbooks.inputs / "private.pem"
    private.with_name("private.pub.pem").write_text(world.key.public)
    verification = {"url": "https://user:Pa55-word@flows.example.com/<b>?token=T0ken", "active": True, "latency_ms": 37, "app_secret": "App-Secret"}
    inventory = world.inventory(
        *(mine, other, lost, missing),
        private_key_path=str(private),
        endpoint_verification=verification,
        report_title="Keys & <others>",
    )

    run = world.playbooks.run(REPORT, inventory, "--check", "--diff")
    assert run.rc == 0, run.output
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    assert not world.path.parent.exists()
    # The diff shows one line for each number, and not all three files.
    assert f"+{mine}," in run.stdout
    assert "<html" not in run.stdout and '+"numbers"' not in run.stdout

    run = world.playbooks.run(REPORT, inventory)
    assert run.rc == 0, run.output
    assert {outcome.host for outcome in run.outcomes} == {mine}
    assert simulator.count() == sent
    document = json.loads(world.json.read_text())
    assert document["summary"]["by_state"] == {"confirmed": 2, "unconfirmed": 1, "unreadable": 0, "absent": 1}
    assert document["fingerprint"] == world.key.fingerprint
    assert document["endpoints"] == [{"url": "https://flows.example.com/<b>", "active": True, "latency_ms": 37, "fingerprint": None}]
    rows = csv.DictReader(io.StringIO(world.csv.read_text(), newline=""))
    assert [(row["phone_number"], row["state"], row["fingerprint"], row["as_expected"]) for row in rows] == [
        (mine, "confirmed", world.key.fingerprint, "true"),
        (other, "confirmed", other_key.fingerprint, "false"),
        (lost, "unconfirmed", world.key.fingerprint, "false"),
        (missing, "absent", "", "false"),
    ]
    page = world.html.read_text()
    for part in ("3 of 4 numbers are not confirmed to carry", "<h1>Keys &amp; &lt;others&gt;</h1>", "flows.example.com/&lt;b&gt;<", "37 ms"):
        assert part in page
    assert stat.S_IMODE(world.path.parent.stat().st_mode) == 0o750
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.path.parent.iterdir()} == {
        f"flows.{extension}": 0o640 for extension in ("json", "csv", "html")
    }
    assert world.csv.read_bytes().count(b"\r\n") == 5
    written = world.contents()
    secrets = [API_KEY, "Pa55-word", "T0ken", "App-Secret", *secret_lines(world.key.private)]
    assert_nowhere(secrets, {path: content[0].decode() for path, content in written.items()})

    for check in (["--check", "--diff"], []):
        run = world.playbooks.run(REPORT, inventory, *check)
        assert run.rc == 0, run.output
        assert run.changed() == 0
        assert world.contents() == written

    # A reader of the old files sees them whole while they are replaced.
    readers = [path.open("rb") for path in written]
    world.register(missing)
    run = world.playbooks.run(REPORT, inventory, "--diff")
    assert [run.one(task)["changed"] for task in WRITE] == [True, True, True]
    assert f"-{missing}," in run.stdout and f"+{missing}," in run.stdout and f"-{mine}," not in run.stdout
    for reader, (old, *dummy) in zip(readers, written.values(), strict=True):
        with reader:
            assert reader.read() == old
    assert world.states()[missing] == "confirmed"


@pytest.mark.slow
def test_without_inventory_every_record_is_reported(world: World) -> None:
    numbers = [new_number(), new_number()]
    world.register(*numbers)
    run = world.playbooks.run(REPORT, "", variables=world.inventory()["all"]["vars"])
    assert run.rc == 0, run.output
    assert world.states() == dict.fromkeys(numbers, "confirmed")
    # Nobody said which key to expect.
    assert json.loads(world.json.read_text())["fingerprint"] is None


@pytest.mark.slow
def test_numbers_of_all_hosts_are_reported_once(world: World) -> None:
    """With other strategies, and of the play's own variables."""
    own, one, two, of_play = (new_number() for dummy in range(4))
    shops = {"phone_numbers": [one, f"{two[:3]} {two[3:]}"], "private_key_path": "/another.pem"}
    inventory = fleet(world.playbooks.api_url, {own: {}, "shops": shops, "no-number": {}}, **world.variables)
    plays: dict[str, dict[str, Any]] = {
        "free": {"hosts": "all", "strategy": "ansible.builtin.free"},
        "serial": {"hosts": "all", "serial": 2, "order": "reverse_sorted"},
        "play": {"hosts": "localhost", "vars": {**inventory["all"]["vars"], "flows_encryption_phone_numbers": [of_play]}},
    }
    for name, play in plays.items():
        variables = {**play.get("vars", {}), **prefixed({"report_path": str(world.path / name), "report_formats": ["json"]})}
        play.update(gather_facts=False, vars=variables, tasks=[included("report")])
    run = world.playbooks.run([*plays.values()], inventory)
    assert run.rc == 0, run.output
    assert len(run.of("Read the records")) == 3
    for name, numbers in (("free", {own, one, two}), ("serial", {own, one, two}), ("play", {of_play})):
        assert {row["phone_number"] for row in json.loads((world.path / f"{name}.json").read_text())["numbers"]} == numbers
    assert {path.name for path in world.path.iterdir()} == {f"{name}.json" for name in plays}


@pytest.mark.slow
def test_nothing_is_written_on_errors(world: World) -> None:
    number = new_number()
    folder = world.playbooks.inputs / "private.pub.pem"
    folder.mkdir()
    for wrong, said in (
        ({"report_path": ""}, "Set flows_encryption_report_path to the report's path on localhost, without an extension"),
        ({"private_key_path": str(folder.with_name("private.pem"))}, str(folder)),
    ):
        run = world.playbooks.run(REPORT, world.inventory(number, **wrong))
        assert run.failed() == {number}
        assert said in run.text
        assert not world.path.parent.exists()
