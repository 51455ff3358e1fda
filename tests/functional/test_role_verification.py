# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role verifies the Flow endpoint: before numbers get a key, and again after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoint.client import Endpoint
from support.endpoint.misbehaving import MisbehavingEndpoint, Reply
from support.keys import KeyPair
from support.playbook_runs import API_KEY, SID, WA_400, Playbooks, Run, assert_nowhere, new_number
from support.processes import register_all
from support.simulator.client import Simulator

ROLE = "kaleyra.whatsapp.flows_encryption"
VERIFY = "Verify that the Flow endpoint holds the private key"
REQUIRE = "Require a verified endpoint"
REGISTER = "Register the public key of each number"
SHOW = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ flows_encryption_endpoint_verification | default('none') }}"}}
VERIFIED = [200, 421]
"""What the endpoint answers to one verification: the health check, and the same under a foreign key."""
WRONG_KEY = [421]


class Fleet:
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
            "api_url": simulator.url,
            "sid": SID,
            "api_key": API_KEY,
            "private_key_path": str(self.private),
            "cache_path": str(folder / "records"),
            "endpoint_url": self.endpoint.url,
            "retries": 0,
        }

    def run(self, hosts: list[str] | dict[str, dict[str, Any]], *args: str, keywords: dict[str, Any] | None = None, **variables: Any) -> Run:
        """Run the role; a variable that is None is left out, and a host has variables of its own in a dictionary."""
        of_all = {f"flows_encryption_{name}": value for name, value in {**self.variables, **variables}.items() if value is not None}
        own = hosts if isinstance(hosts, dict) else {host: {} for host in hosts}
        inventory = {host: {f"flows_encryption_{name}": value for name, value in of_host.items()} for host, of_host in own.items()}
        play = {"hosts": "all", "gather_facts": False, "roles": [ROLE], "post_tasks": [SHOW], **(keywords or {})}
        return self.playbooks.run([play], {"all": {"hosts": inventory, "vars": of_all}}, *args)

    def register(self, hosts: list[str], key: KeyPair) -> None:
        register_all(self.simulator.url, self.variables["cache_path"], hosts, key.public)

    def registered(self) -> dict[str, str]:
        return dict(self.simulator.registered().get(SID, {}))


@pytest.fixture
def fleet(playbooks: Playbooks, simulator: Simulator, tmp_path: Path, key: KeyPair, other_key: KeyPair) -> Iterator[Fleet]:
    made = Fleet(playbooks, simulator, tmp_path, key, other_key)
    with made.endpoint:
        yield made


def numbers(count: int) -> list[str]:
    return [new_number() for dummy in range(count)]


def test_other_key_on_the_endpoint_stops_the_play(
    fleet: Fleet, key: KeyPair, other_key: KeyPair
) -> None:
    hosts = numbers(3)
    fleet.register(hosts, key)
    requests = fleet.simulator.count()
    stopped = fleet.run(hosts, private_key_path=str(fleet.other))
    assert stopped.failed() == set(hosts)
    assert (fleet.simulator.count(), fleet.registered()) == (requests, dict.fromkeys(hosts, key.fingerprint))
    assert fleet.endpoint.answered() == WRONG_KEY
    # Each host says why it stopped, and what to do.
    messages = {host: result["msg"] for host, result in stopped.by_host(REGISTER).items()}
    assert set(messages) == set(hosts)
    for message in messages.values():
        for part in (fleet.endpoint.url, "HTTP 421", "holds another private key", "Deploy the private key", "No key was registered in this run."):
            assert part in message

    fleet.endpoint.hold([fleet.other])
    fleet.endpoint.reload()
    done = fleet.run(hosts, private_key_path=str(fleet.other))
    assert done.rc == 0, done.output
    assert fleet.registered() == dict.fromkeys(hosts, other_key.fingerprint)
    assert fleet.endpoint.answered() == WRONG_KEY + VERIFIED * 2


@pytest.mark.parametrize(
    ("verify", "order"),
    [("before", [VERIFY, REGISTER]), ("after", [REGISTER, VERIFY]), ("", [VERIFY, REGISTER, VERIFY]), ("never", [REGISTER])],
)
@pytest.mark.slow
def test_verified_once_for_all_hosts(fleet: Fleet, key: KeyPair, verify: str, order: list[str]) -> None:
    """Once for five hosts that share key and endpoint, not once for each."""
    hosts = numbers(5)
    run = fleet.run(hosts, "--forks", "5", verify_endpoint=verify, endpoint_url=f"{fleet.endpoint.url}?token=t0ken")
    assert run.rc == 0, run.output
    assert fleet.endpoint.answered() == VERIFIED * order.count(VERIFY)
    assert fleet.registered() == dict.fromkeys(hosts, key.fingerprint)
    assert order == [o.task for o in run.outcomes if o.status != "skipped" and o.task in (VERIFY, REGISTER) and not o.is_item and o.host == hosts[0]]
    shown = {host: result["msg"] for host, result in run.by_host("Show").items()}
    assert set(shown) == set(hosts)
    for fact in shown.values():
        if verify == "never":
            assert fact == "none"
            continue
        assert fact.pop("latency_ms") >= 0
        assert fact == {
            "url": fleet.endpoint.url,
            "active": True,
            "fingerprint": key.fingerprint,
            "http_status": 200,
            "foreign_key": {"http_status": 421, "refused": True},
            "wrong_signature": None,
        }


@pytest.mark.slow
def test_after_alone_tells_that_the_key_is_registered(fleet: Fleet, other_key: KeyPair) -> None:
    hosts = numbers(2)
    run = fleet.run(hosts, verify_endpoint="after", private_key_path=str(fleet.other))
    assert run.failed() == set(hosts)
    assert fleet.registered() == dict.fromkeys(hosts, other_key.fingerprint)
    for result in run.by_host(REQUIRE).values():
        assert "The key is registered: correct the endpoint at once" in result["msg"]
    assert fleet.endpoint.answered() == WRONG_KEY


@pytest.mark.slow
def test_key_made_in_this_run_waits_for_the_endpoint(fleet: Fleet) -> None:
    """The first run ever: check mode has no key to verify, the run makes one and stops, the next one goes through."""
    hosts, private = numbers(2), fleet.folder / "keys/new.pem"
    checked = fleet.run(hosts, "--check", private_key_path=str(private))
    assert checked.rc == 0, checked.output
    assert (fleet.endpoint.answered(), fleet.simulator.count(), private.exists()) == ([], 0, False)

    stopped = fleet.run(hosts, private_key_path=str(private))
    assert stopped.failed() == set(hosts)
    assert (fleet.endpoint.answered(), fleet.simulator.count()) == (WRONG_KEY, 0)
    made = private.read_bytes()

    fleet.endpoint.hold([private])
    fleet.endpoint.reload()
    done = fleet.run(hosts, private_key_path=str(private))
    assert done.rc == 0, done.output
    assert (set(fleet.registered()), private.read_bytes()) == (set(hosts), made)


@pytest.mark.slow
def test_converged_run_verifies_and_changes_nothing(fleet: Fleet, key: KeyPair) -> None:
    hosts = numbers(2)
    fleet.register(hosts, key)
    fleet.private.with_name("private.pub.pem").write_text(key.public)
    requests = fleet.simulator.count()
    for arguments in (["--check", "--diff"], []):
        run = fleet.run(hosts, *arguments)
        assert (run.rc, run.changed()) == (0, 0), run.output
        assert {host: result["msg"]["active"] for host, result in run.by_host("Show").items()} == dict.fromkeys(hosts, True)
    assert fleet.simulator.count() == requests
    assert fleet.endpoint.answered() == VERIFIED * 4


@pytest.mark.slow
def test_each_endpoint_and_key_stops_its_own_hosts(fleet: Fleet, key: KeyPair, other_key: KeyPair) -> None:
    good, bad, bad_key, unverified = numbers(3), numbers(3), numbers(2), numbers(1)
    with Endpoint(fleet.folder / "bad-keys", [fleet.other]) as other_endpoint:
        own = {
            **{host: {"endpoint_url": other_endpoint.url} for host in bad},
            **{host: {} for host in good},
            **{host: {"private_key_path": str(fleet.other)} for host in bad_key},
            **{host: {"endpoint_url": ""} for host in unverified},
        }
        run = fleet.run(own, "--forks", "9")
        assert run.failed() == {*bad, *bad_key}
        assert fleet.registered() == dict.fromkeys(good + unverified, key.fingerprint)
        assert sorted(fleet.endpoint.answered()) == sorted(VERIFIED * 2 + WRONG_KEY)
        assert other_endpoint.answered() == WRONG_KEY

        # Two keys on two endpoints: each is asked for its own.
        own = {**{host: {"endpoint_url": other_endpoint.url, "private_key_path": str(fleet.other)} for host in bad}, **{host: {} for host in good}}
        run = fleet.run(own)
        assert run.rc == 0, run.output
        assert other_endpoint.answered() == WRONG_KEY + VERIFIED * 2
        fingerprints = {host: result["msg"]["fingerprint"] for host, result in run.by_host("Show").items()}
        assert fingerprints == {**dict.fromkeys(bad, other_key.fingerprint), **dict.fromkeys(good, key.fingerprint)}


@pytest.mark.slow
def test_serial_verifies_each_batch(fleet: Fleet, key: KeyPair) -> None:
    hosts = numbers(3)
    run = fleet.run(hosts, keywords={"serial": 1})
    assert run.rc == 0, run.output
    assert fleet.endpoint.answered() == VERIFIED * 2 * 3
    assert fleet.registered() == dict.fromkeys(hosts, key.fingerprint)
    # The key that the first batch was stopped for does not reach a later one.
    stopped = fleet.run(hosts, keywords={"serial": 1}, private_key_path=str(fleet.other))
    assert stopped.failed() == {hosts[0]}
    assert fleet.registered() == dict.fromkeys(hosts, key.fingerprint)
    assert fleet.endpoint.answered() == VERIFIED * 2 * 3 + WRONG_KEY


@pytest.mark.slow
def test_free_strategy_verifies_every_host(fleet: Fleet, key: KeyPair) -> None:
    hosts, free = numbers(4), {"strategy": "ansible.builtin.free"}
    run = fleet.run(hosts, "--forks", "4", keywords=free)
    assert run.rc == 0, run.output
    assert fleet.registered() == dict.fromkeys(hosts, key.fingerprint)
    assert len(run.of(VERIFY)) == 2 * len(hosts)


@pytest.mark.slow
def test_app_secret_signs_and_is_nowhere(fleet: Fleet) -> None:
    secret, hosts = "Meta-App-Secret-5d1c0f", numbers(2)
    with Endpoint(fleet.folder / "signed-keys", [fleet.private], app_secret=secret) as endpoint:
        run = fleet.run(hosts, "-vvvv", "--diff", endpoint_url=endpoint.url, app_secret=secret)
        assert run.rc == 0, run.output
        assert endpoint.answered() == [200, 421, 432] * 2
        assert_nowhere([secret], {"the output": run.output, **fleet.playbooks.leftovers()})


@pytest.mark.slow
def test_first_host_that_fails_leaves_it_to_another(fleet: Fleet, key: KeyPair) -> None:
    hosts = numbers(3)
    fleet.simulator.faults({hosts[0]: [WA_400]})
    run = fleet.run(hosts)
    assert run.failed() == {hosts[0]}
    assert fleet.registered() == dict.fromkeys(hosts[1:], key.fingerprint)
    assert fleet.endpoint.answered() == VERIFIED * 2
    assert set(run.by_host("Show")) == set(hosts[1:])


@pytest.mark.slow
def test_endpoint_that_cannot_be_asked_stops_the_play(fleet: Fleet) -> None:
    hosts = numbers(2)
    run = fleet.run(hosts, endpoint_url="http://127.0.0.1:1/flows")
    assert run.failed() == set(hosts)
    assert all("Connection refused" in result["msg"] and "No key was registered" in result["msg"] for result in run.by_host(REGISTER).values())
    assert fleet.simulator.count() == 0


@pytest.mark.slow
def test_status_is_shown_and_no_template(fleet: Fleet, key: KeyPair) -> None:
    mark = fleet.folder / "mark"
    status = "{{ lookup('ansible.builtin.pipe', 'touch " + str(mark) + "') }}"
    with MisbehavingEndpoint(key.private, lambda asked: Reply(body=asked.answer({"data": {"status": status}}))) as endpoint:
        run = fleet.run(numbers(1), endpoint_url=endpoint.url)
    assert "answered the health check with the status" in run.text
    assert run.failed() and not mark.exists() and fleet.simulator.count() == 0
