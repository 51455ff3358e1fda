# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook flows_check: all is well, all that can be wrong at once, and what cannot be read."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.endpoint.client import Endpoint
from support.keys import KeyPair, secret_lines
from support.playbook_runs import API_KEY, SID, Playbooks, Run, assert_nowhere, new_number
from support.processes import register_all
from support.simulator.client import Simulator, waba_numbers

PLAYBOOK = "kaleyra.whatsapp.flows_check"
APP_SECRET = "App-Secret-Of-The-Check"


class Numbers:
    """Two registered numbers, their key pair, and the endpoint that holds it."""

    def __init__(self, playbooks: Playbooks, folder: Path, key: KeyPair) -> None:
        self.playbooks, self.folder, self.key = playbooks, folder, key
        self.private, self.metrics, self.cache = folder / "private.pem", folder / "flows.prom", folder / "records"
        self.private.write_text(key.private)
        (folder / "private.pub.pem").write_text(key.public)
        self.endpoint = Endpoint(folder / "endpoint-keys", [self.private], app_secret=APP_SECRET)
        self.numbers = [new_number(), new_number()]
        self.variables: dict[str, Any] = {
            "private_key_path": str(self.private),
            "cache_path": str(self.cache),
            "endpoint_url": f"{self.endpoint.url}?token=Query-Secret",
            "app_secret": APP_SECRET,
            "check_path": str(self.metrics),
        }
        self.register(self.numbers, key)

    def register(self, numbers: list[str], key: KeyPair) -> None:
        assert register_all(self.playbooks.api_url, self.cache, numbers, key.public)["changed"]

    def check(self, hosts: dict[str, dict[str, Any]], *args: str, env: dict[str, str] | None = None, **variables: Any) -> Run:
        given = {f"flows_encryption_{name}": value for name, value in {**self.variables, **variables}.items()}
        inventory = {"all": {"hosts": hosts, "vars": given}}
        return self.playbooks.run(PLAYBOOK, inventory, *args, env={"ANSIBLE_SHOW_CUSTOM_STATS": "1", "KALEYRA_SID": SID, **(env or {})})

    def samples(self) -> dict[tuple[str, ...], float]:
        """The metrics that were written, and are read from their file only once."""
        text = self.metrics.read_text()
        self.metrics.unlink()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name.removeprefix("kaleyra_flows_"), *sample.labels.values()): sample.value for sample in samples}


@pytest.fixture
def registered(playbooks: Playbooks, tmp_path: Path, key: KeyPair) -> Iterator[Numbers]:
    numbers = Numbers(playbooks, tmp_path, key)
    with numbers.endpoint:
        yield numbers


def published(run: Run) -> dict[str, Any]:
    line = [line for line in run.stdout.splitlines() if '"flows_encryption_check"' in line][-1]
    stats: dict[str, Any] = json.loads(line[line.index("{") :])["flows_encryption_check"]
    return stats


def test_check_all_is_well(registered: Numbers, simulator: Simulator) -> None:
    """Nothing is changed or sent to the API; nothing secret is printed; one host does it for all."""
    requests, fingerprint = simulator.count(), registered.key.fingerprint
    before = {path: path.read_bytes() for path in registered.folder.rglob("*") if path.is_file() and path != registered.endpoint.keys}
    hosts: dict[str, dict[str, Any]] = {number: {} for number in registered.numbers}

    checked = registered.check(hosts, "--check")
    assert checked.rc == 0 and not registered.metrics.exists(), checked.output
    run = registered.check(hosts, "-vvvv", "--diff")
    assert run.rc == 0, run.output
    assert run.changed() == 0 and simulator.count() == requests
    assert "2 numbers: 2 ok. The oldest confirmation is 0:00:" in run.text and "holds the key" in run.text
    assert {outcome.host for outcome in run.outcomes if outcome.status != "skipped"} == {registered.numbers[0]}
    stats = published(run)
    assert (stats["ok"], stats["by_state"], stats["problems"]) == (True, {"ok": 2}, [])

    samples = registered.samples()
    (latency,) = [value for (name, *dummy), value in samples.items() if name == "endpoint_latency_seconds"]
    assert 0 < latency < 10
    assert samples[("numbers", "ok", fingerprint)] == 2 and samples[("check_ok",)] == 1
    assert samples[("endpoint_up", registered.endpoint.url, fingerprint)] == 1
    assert {path: path.read_bytes() for path in before} == before
    secrets = [API_KEY, APP_SECRET, *secret_lines(registered.key.private)]
    assert_nowhere(secrets, {"output": run.output, **registered.playbooks.leftovers()})
    assert "Query-Secret" not in json.dumps([checked.stdout, stats, [list(labels) for labels in samples]])


def test_check_tells_all_that_is_wrong(registered: Numbers, other_key: KeyPair) -> None:
    """Another key, no record, and an endpoint that has lost the key, in one run."""
    other = registered.folder / "other.pem"
    other.write_text(other_key.private)
    registered.endpoint.hold([other])
    registered.endpoint.reload()
    registered.register(registered.numbers[1:], other_key)
    absent = new_number()
    run = registered.check({"shops": {"flows_encryption_phone_numbers": "\n".join([*registered.numbers, absent])}})
    assert run.rc != 0 and run.failed() == {"shops"}
    problems = published(run)["problems"]
    assert len(problems) == 3
    for problem, parts in zip(
        problems, ([registered.numbers[1], other_key.fingerprint], [absent, "no key is known"], [registered.endpoint.url]), strict=True
    ):
        assert all(part in problem for part in parts) and problem in run.text.replace("\\n", " "), problem
    samples = registered.samples()
    assert samples[("numbers", "ok", registered.key.fingerprint)] == samples[("numbers", "different", other_key.fingerprint)] == 1
    assert samples[("numbers", "absent", "")] == 1 and samples[("check_ok",)] == 0


def test_check_read_back_names_the_number_with_another_key(registered: Numbers, simulator: Simulator, other_key: KeyPair) -> None:
    """Its record is as it should be: somebody else has set a key."""
    good, bad = registered.numbers
    token = "EAAtoken-of-the-check"
    simulator.configure(access_token=token, wabas={"1001": waba_numbers(registered.numbers)})
    simulator.hold({bad: other_key.public})
    hosts: dict[str, dict[str, Any]] = {good: {}, bad: {}}
    meta: dict[str, Any] = {"read_back": "meta", "meta_access_token": token, "meta_waba_ids": "1001", "meta_api_url": f"{simulator.url}/v23.0"}
    run = registered.check(hosts, **meta)
    stats = published(run)
    assert run.rc != 0 and stats["by_state"] == {"ok": 1, "drifted": 1}, run.output
    assert stats["problems"] == [f"{bad}: no longer carries the key on record ({other_key.fingerprint})."]
    assert registered.samples()[("numbers", "drifted", other_key.fingerprint)] == 1
    assert_nowhere([token], {"output": run.output, **registered.playbooks.leftovers()})

    # Where the keys cannot be read the records count, unless reading is required.
    for is_required in (False, True):
        run = registered.check(hosts, **{**meta, "meta_access_token": "EAAanother-token"}, read_back_required=is_required)
        assert (run.rc != 0) is is_required and published(run)["by_state"] == {"ok": 2}, run.output
        assert any("read_back_required" in problem for problem in published(run)["problems"]) is is_required


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[tuple[str, int]]]:
    """Name and kind (inotify's mask) of all that is done to files in a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init()
    assert descriptor >= 0 and libc.inotify_add_watch(descriptor, os.fsencode(folder), 0xFFF & ~0x31) >= 0  # all but reading
    events: list[tuple[str, int]] = []
    try:
        yield events
        os.set_blocking(descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, 65536):
                while data:
                    dummy, mask, dummy, length = struct.unpack_from("iIII", data)
                    events.append((data[16 : 16 + length].rstrip(b"\0").decode(), mask))
                    data = data[16 + length :]
    finally:
        os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_check_metrics_appear_whole_and_readable(registered: Numbers) -> None:
    """Also where Ansible's temporary folder is on another file system, whence nothing can be moved at once."""
    moved_to = 0x80
    shared = Path("/dev/shm")
    elsewhere = shared if shared.is_dir() and shared.stat().st_dev != registered.folder.stat().st_dev else None
    with tempfile.TemporaryDirectory(dir=elsewhere) as temporary, watched(registered.folder) as events:
        run = registered.check({registered.numbers[0]: {}}, env={"ANSIBLE_REMOTE_TEMP": temporary})
    assert run.rc == 0, run.output
    assert [(name, mask) for name, mask in events if name.endswith(".prom")] == [("flows.prom", moved_to)], events
    assert registered.metrics.stat().st_mode & 0o777 == 0o644
    assert registered.samples()[("check_ok",)] == 1
    assert {path.name for path in registered.folder.iterdir() if "prom" in path.name} == set()


def test_check_metrics_that_no_collector_reads_are_refused(registered: Numbers) -> None:
    run = registered.check({registered.numbers[0]: {}}, check_path=str(registered.folder))
    assert run.rc != 0 and "flows_encryption_check_path" in run.text and ".prom" in run.text


def test_check_unreachable_hosts_are_problems(registered: Numbers) -> None:
    lost = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    number = registered.numbers[0]
    hosts: dict[str, dict[str, Any]] = {
        number: {"flows_encryption_key_host": "lost"},
        registered.numbers[1]: {"flows_encryption_api_host": "lost"},
        "lost": {**lost, "flows_encryption_phone_numbers": []},
    }
    run = registered.check(hosts)
    assert run.rc != 0 and published(run)["by_state"] == {"unknown": 2}
    assert "on lost: the public key cannot be read" in run.text and "The records on lost cannot be read" in run.text
    assert registered.samples()[("check_ok",)] == 0


def test_check_without_inventory_is_on_all_records(registered: Numbers) -> None:
    """And without a public key, what they should carry is not known."""
    registered.variables["private_key_path"] = str(registered.folder / "none.pem")
    variables = {f"flows_encryption_{name}": value for name, value in registered.variables.items()}
    run = registered.playbooks.run(PLAYBOOK, {"all": {}}, variables=variables)
    assert run.rc == 2 and "2 numbers: 0 ok, 2 unknown." in run.text, run.output
    assert "none.pub.pem on localhost: the public key cannot be read (" in run.text
