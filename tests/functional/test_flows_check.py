# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook flows_check: all is well, all that can be wrong at once, and what cannot be read."""

from __future__ import annotations

import json
import os
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
from support.role import fleet, prefixed
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

    def check(self, hosts: list[str] | dict[str, dict[str, Any]], *args: str, env: dict[str, str] | None = None, **variables: Any) -> Run:
        inventory = fleet(self.playbooks.api_url, hosts, **{**self.variables, **variables})
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


@pytest.mark.slow
def test_check_all_is_well(registered: Numbers, simulator: Simulator) -> None:
    """Nothing is changed or sent to the API; nothing secret is printed; one host does it for all."""
    requests, fingerprint = simulator.count(), registered.key.fingerprint
    before = {path: path.read_bytes() for path in registered.folder.rglob("*") if path.is_file() and path != registered.endpoint.keys}
    checked = registered.check(registered.numbers, "--check")
    assert checked.rc == 0 and not registered.metrics.exists(), checked.output
    registered.metrics.write_text("old")
    # Whole at every moment, also where Ansible's temporary folder is on another file system, whence nothing can be moved at once.
    elsewhere = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=elsewhere) as temporary, registered.metrics.open() as reader:
        run = registered.check(registered.numbers, "-vvvv", "--diff", env={"ANSIBLE_REMOTE_TEMP": temporary})
        assert reader.read() == "old" and not any(path.is_file() for path in Path(temporary).rglob("*"))
    assert registered.metrics.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in registered.folder.iterdir() if "prom" in path.name] == ["flows.prom"]
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


@pytest.mark.slow
def test_check_tells_all_that_is_wrong(registered: Numbers, simulator: Simulator, other_key: KeyPair) -> None:
    """Another key, no record, a key that somebody else has set, and an endpoint that has lost the key, in one run."""
    other, token = registered.folder / "other.pem", "EAAtoken-of-the-check"
    other.write_text(other_key.private)
    registered.endpoint.hold([other])
    registered.endpoint.reload()
    (drifted, good), different, absent = registered.numbers, new_number(), new_number()
    registered.register([different], other_key)
    simulator.configure(access_token=token, wabas={"1001": waba_numbers([drifted, good, different])})
    simulator.hold({drifted: other_key.public})
    hosts: dict[str, dict[str, Any]] = {"shops": {"phone_numbers": f"{drifted}\n{good}\n{different}\n{absent}"}}
    meta: dict[str, Any] = {"read_back": "meta", "meta_access_token": token, "meta_waba_ids": "1001", "meta_api_url": f"{simulator.url}/v23.0"}
    run = registered.check(hosts, **meta)
    assert run.rc != 0 and run.failed() == {"shops"}
    stats = published(run)
    assert stats["by_state"] == {"ok": 1, "drifted": 1, "different": 1, "absent": 1}
    assert stats["problems"][0] == f"{drifted}: no longer carries the key on record ({other_key.fingerprint})."
    expected = [[drifted], [different, other_key.fingerprint], [absent, "no key is known"], [registered.endpoint.url]]
    for problem, parts in zip(stats["problems"], expected, strict=True):
        assert all(part in problem for part in parts) and problem in run.text.replace("\\n", " "), problem
    samples = registered.samples()
    assert samples[("numbers", "ok", registered.key.fingerprint)] == samples[("numbers", "different", other_key.fingerprint)] == 1
    assert samples[("numbers", "drifted", other_key.fingerprint)] == samples[("numbers", "absent", "")] == 1 and samples[("check_ok",)] == 0
    assert_nowhere([token], {"output": run.output, **registered.playbooks.leftovers()})

    # Where the keys cannot be read the records count, but for that.
    run = registered.check(hosts, **{**meta, "meta_access_token": "EAAanother-token"}, read_back_required=True)
    assert run.rc != 0 and published(run)["by_state"] == {"ok": 2, "different": 1, "absent": 1}, run.output
    assert any("read_back_required" in problem for problem in published(run)["problems"])


@pytest.mark.slow
def test_check_metrics_that_no_collector_reads_are_refused(registered: Numbers) -> None:
    run = registered.check(registered.numbers[:1], check_path=str(registered.folder))
    assert run.rc != 0 and "flows_encryption_check_path" in run.text and ".prom" in run.text


@pytest.mark.slow
def test_check_unreachable_hosts_are_problems(registered: Numbers) -> None:
    first, second = registered.numbers
    # Without a connection of its own, a host must not get that of the item before, which is localhost's.
    run = registered.check({first: {}, second: {"key_host": "lost", "api_host": "lost"}, "lost": {"phone_numbers": []}})
    assert run.rc != 0 and published(run)["by_state"] == {"ok": 1, "unknown": 1}
    assert "on lost: the public key cannot be read" in run.text and "The records on lost cannot be read" in run.text
    assert registered.samples()[("check_ok",)] == 0


@pytest.mark.slow
def test_check_without_inventory_is_on_all_records(registered: Numbers) -> None:
    """And without a public key, what they should carry is not known."""
    registered.variables["private_key_path"] = str(registered.folder / "none.pem")
    run = registered.playbooks.run(PLAYBOOK, {"all": {}}, variables=prefixed(registered.variables))
    assert run.rc == 2 and "2 numbers: 0 ok, 2 unknown." in run.text, run.output
    assert "none.pub.pem on localhost: the public key cannot be read (" in run.text
