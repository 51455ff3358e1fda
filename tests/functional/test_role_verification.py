# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role verifies the Flow endpoint: before numbers get a key, and again after."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import MisbehavingEndpoint, Reply
from support.keys import KeyPair, fingerprint_of, openssl
from support.playbook_runs import SID, WA_400, Playbooks, Run, assert_nowhere, new_number
from support.processes import register_all
from support.role import REGISTER, ROLE, fleet
from support.simulator.client import Simulator

VERIFY = "Verify that the Flow endpoint holds the private key"
REQUIRE = "Require a verified endpoint"
SHOW = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ flows_encryption_endpoint_verification | default('none') }}"}}
VERIFIED = [200, 421]
"""What the endpoint answers to one verification: the health check, and the same under a foreign key."""
WRONG_KEY = [421]


class World:
    """Numbers as hosts, a key pair that is there, and an endpoint that holds its private key."""

    def __init__(self, playbooks: Playbooks, simulator: Simulator, folder: Path, key: KeyPair, other_key: KeyPair) -> None:
        self.playbooks, self.simulator = playbooks, simulator
        self.private, self.other = folder / "private.pem", folder / "other.pem"
        self.private.write_text(key.private)
        self.other.write_text(other_key.private)
        for path in (self.private, self.other):
            path.chmod(0o600)
        self.folder = folder
        self.endpoint = Endpoint(folder / "endpoint-keys", [self.private])
        self.variables: dict[str, Any] = {
            "private_key_path": str(self.private),
            "cache_path": str(folder / "records"),
            "endpoint_url": self.endpoint.url,
            "retries": 0,
        }

    def run(self, hosts: list[str] | dict[str, dict[str, Any]], *args: str, keywords: dict[str, Any] | None = None, **variables: Any) -> Run:
        play = {"hosts": "all", "gather_facts": False, "roles": [ROLE], "post_tasks": [SHOW], **(keywords or {})}
        return self.playbooks.run([play], fleet(self.simulator.url, hosts, **{**self.variables, **variables}), *args)

    def register(self, hosts: list[str], key: KeyPair) -> None:
        register_all(self.simulator.url, self.variables["cache_path"], hosts, key.public)

    def registered(self) -> dict[str, str]:
        return dict(self.simulator.registered().get(SID, {}))


@pytest.fixture
def world(playbooks: Playbooks, simulator: Simulator, tmp_path: Path, key: KeyPair, other_key: KeyPair) -> Iterator[World]:
    made = World(playbooks, simulator, tmp_path, key, other_key)
    with made.endpoint:
        yield made


def numbers(count: int) -> list[str]:
    return [new_number() for dummy in range(count)]


def test_endpoint_and_key_stop_their_own_hosts(world: World, key: KeyPair, other_key: KeyPair) -> None:
    good, same, other, bad_endpoint, bad_key, bad_after, nobody, template, unverified = numbers(9)
    mark = world.folder / "mark"
    status = "{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}"
    misbehaving = MisbehavingEndpoint(key.private, lambda asked: Reply(body=asked.answer({"data": {"status": status}})))
    with misbehaving, Endpoint(world.folder / "other-keys", [world.other]) as other_endpoint:
        run = world.run(
            {
                bad_key: {"private_key_path": str(world.other)},
                good: {},
                same: {},
                other: {"private_key_path": str(world.other), "endpoint_url": other_endpoint.url},
                bad_endpoint: {"endpoint_url": other_endpoint.url},
                bad_after: {"private_key_path": str(world.other), "endpoint_url": f"{world.endpoint.url}?after", "verify_endpoint": "after"},
                nobody: {"endpoint_url": "http://127.0.0.1:1/flows"},
                template: {"endpoint_url": misbehaving.url},
                unverified: {"endpoint_url": ""},
            }
        )
        assert sorted(other_endpoint.answered()) == sorted(VERIFIED * 2 + WRONG_KEY)
    assert run.failed() == {bad_key, bad_endpoint, bad_after, nobody, template}, run.output
    assert sorted(world.endpoint.answered()) == sorted(VERIFIED * 2 + WRONG_KEY * 2)
    mine, theirs = dict.fromkeys((good, same, unverified), key.fingerprint), dict.fromkeys((other, bad_after), other_key.fingerprint)
    assert world.registered() == {**mine, **theirs}
    # Each host says why it stopped, and what to do.
    messages = {host: result["msg"] for host, result in run.by_host(REGISTER).items() if result["failed"]}
    for part in (world.endpoint.url, "HTTP 421", "holds another private key", "Deploy the private key", "No key was registered in this run."):
        assert part in messages[bad_key] and part.replace(world.endpoint.url, other_endpoint.url) in messages[bad_endpoint]
    assert "Connection refused" in messages[nobody] and "No key was registered" in messages[nobody]
    assert "answered the health check with the status" in messages[template] and not mark.exists()
    assert "The key is registered: correct the endpoint at once" in run.by_host(REQUIRE)[bad_after]["msg"]
    shown = {host: result["msg"]["fingerprint"] for host, result in run.by_host("Show").items() if host != unverified}
    assert shown == {good: key.fingerprint, same: key.fingerprint, other: other_key.fingerprint}


@pytest.mark.slow
def test_new_key_waits_for_endpoint(world: World, key: KeyPair) -> None:
    """Check mode has no key to verify, the run makes one and stops, the next goes through; then check and real verify and change nothing."""
    hosts, private = numbers(2), world.folder / "keys/new.pem"
    world.register(hosts, key)
    requests = world.simulator.count()
    world.variables["private_key_path"] = str(private)
    checked = world.run(hosts, "--check")
    assert checked.rc == 0, checked.output
    assert (world.endpoint.answered(), private.exists()) == ([], False)
    assert world.run(hosts).failed() == set(hosts)
    assert (world.simulator.count(), world.registered()) == (requests, dict.fromkeys(hosts, key.fingerprint))
    assert world.endpoint.answered() == WRONG_KEY
    made = private.read_text()

    world.endpoint.hold([private])
    world.endpoint.reload()
    for arguments, changed in (([], 2), (["--check", "--diff"], 0), ([], 0)):
        run = world.run(hosts, *arguments)
        assert (run.rc, run.changed()) == (0, changed), run.output
        assert {host: result["msg"]["active"] for host, result in run.by_host("Show").items()} == dict.fromkeys(hosts, True)
        assert world.registered() == dict.fromkeys(hosts, fingerprint_of(openssl("pkey", "-pubout", stdin=made)))
    assert world.simulator.count() == requests + 2
    assert world.endpoint.answered() == WRONG_KEY + VERIFIED * 6
    assert private.read_text() == made


@pytest.mark.slow
def test_verified_once_for_hosts_that_share_an_endpoint(world: World, key: KeyPair) -> None:
    """Before, after or both, by another host where the first one has failed; the app secret signs, and is nowhere."""
    modes = {"": numbers(3), "before": numbers(2), "after": numbers(2), "never": numbers(1)}
    refused, secret = modes[""][0], "Meta-App-Secret-5d1c0f"
    world.simulator.faults({refused: [WA_400]})
    with Endpoint(world.folder / "signed-keys", [world.private], app_secret=secret) as endpoint:
        own = {host: {"verify_endpoint": mode, "endpoint_url": f"{endpoint.url}?mode={mode}"} for mode, hosts in modes.items() for host in hosts}
        run = world.run(own, "-vvvv", "--diff", app_secret=secret)
        assert endpoint.answered() == [200, 421, 432] * 4
    assert run.failed() == {refused}
    assert_nowhere([secret], {"the output": run.output, **world.playbooks.leftovers()})
    assert world.registered() == dict.fromkeys([host for host in own if host != refused], key.fingerprint)
    tasks = [name for name, dummy in itertools.groupby(o.task for o in run.outcomes if o.task in (VERIFY, REGISTER))]
    assert tasks == [VERIFY, REGISTER, VERIFY]
    verified = [outcome.result["flows_encryption_endpoint"]["url"].rpartition("=")[2] for outcome in run.of(VERIFY, items=True)]
    assert (sorted(verified[:2]), sorted(verified[2:])) == (["", "before"], ["", "after"])
    shown = {host: result["msg"] for host, result in run.by_host("Show").items()}
    assert shown.pop(modes["never"][0]) == "none" and set(shown) == {*modes[""][1:], *modes["before"], *modes["after"]}
    for fact in shown.values():
        assert fact.pop("latency_ms") >= 0
        assert fact == {
            "url": endpoint.url,
            "active": True,
            "fingerprint": key.fingerprint,
            "http_status": 200,
            "foreign_key": {"http_status": 421, "refused": True},
            "wrong_signature": {"http_status": 432, "refused": True},
        }


@pytest.mark.slow
def test_serial_verifies_each_batch(world: World, key: KeyPair) -> None:
    """A batch that was stopped ends the play."""
    first, second, stopped, last = numbers(4)
    own: dict[str, dict[str, Any]] = {first: {}, second: {}, stopped: {"private_key_path": str(world.other)}, last: {}}
    run = world.run(own, keywords={"serial": 1})
    assert run.failed() == {stopped}
    assert world.endpoint.answered() == VERIFIED * 2 * 2 + WRONG_KEY
    assert world.registered() == dict.fromkeys((first, second), key.fingerprint)
