# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs whose key pair and records are on hosts that they reach by SSH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from awx._runner import AWX, CHECKOUT, CREATE, NUMBERS, REGISTER, ROTATE, Credential, Inventory, Job
from awx._sshd import Host, User
from support.endpoint.client import Endpoint
from support.keys import fingerprint_of, public_of, secret_lines
from support.playbook_runs import API_KEY, SID, assert_nowhere, new_number, spellings
from support.process_watch import ProcessWatch
from support.simulator.client import Simulator


def owner_and_mode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_mode & 0o7777


def number_of_records(user: User) -> int:
    assert owner_and_mode(user.records) == (user.uid, 0o700)
    return sum(not path.name.startswith(".") for path in user.records.iterdir())


def artifacts(jobs: Sequence[Job]) -> dict[tuple[int, str], str]:
    return {(number, name): text for number, job in enumerate(jobs) for name, text in job.files.items()}


def shown(watch: ProcessWatch, *users: User) -> dict[int, str]:
    """Return the command lines of all processes by user ID, with the environments of those of some users."""
    texts: dict[int, str] = {}
    for uid, command, environment in watch.seen:
        texts[uid] = f"{texts.get(uid, '')}\n{command}\n{environment if uid in [user.uid for user in users] else ''}"
    return texts


def test_key_host_check_real_real(awx: AWX, simulator: Simulator, host: Host, account: Credential) -> None:
    """Numbers as hosts, with and without plus, and as a list. Nothing secret is shown or left anywhere."""
    plus, digits, one, two = numbers = [new_number() for dummy in range(4)]
    further = {"shops": {"flows_encryption_phone_numbers": [one, two]}, "endpoint": host.variables()}
    about = {"key_host": "endpoint", "api_host": "endpoint", "private_key_path": "~/keys/private.pem"}
    inventory = Inventory.of_numbers(plus, digits.removeprefix("+"), "shops", hosts=further, **about)

    def run(**options: Any) -> Job:
        job = awx.run(REGISTER, inventory, credentials=[account], machine=host.machine, diff=True, verbosity=4, **options)
        assert job.status == "successful", job.stdout
        assert "and lost with it" not in job.text
        assert not [name for name in job.vanished if "records" in name or ".pem" in name or ".ansible/kaleyra_flows_encryption/" in name]
        return job

    private = host.login.home / "keys/private.pem"
    checked = run(check=True)
    assert set(checked.summary("changed")) == {*inventory.groups[NUMBERS]}
    assert (simulator.count(), private.parent.exists(), host.login.records.exists()) == (0, False, False)

    with ProcessWatch() as watch:
        done = run()
    assert [result["changed"] for result in done.of(CREATE).values()] == [True]
    assert done.reasons() == dict.fromkeys(numbers, "absent")
    assert owner_and_mode(private) == (host.login.uid, 0o600) and owner_and_mode(private.parent) == (host.login.uid, 0o700)
    public = private.with_name("private.pub.pem")
    assert public.read_text() == public_of(private) and owner_and_mode(public) == (host.login.uid, 0o644)
    fingerprint = fingerprint_of(public.read_text())
    assert simulator.registered() == {SID: dict.fromkeys(numbers, fingerprint)}
    assert number_of_records(host.login) == 4

    again = run()
    assert not again.summary("changed"), again.stdout
    assert again.reasons() == dict.fromkeys(numbers, "up_to_date") and simulator.count() == 4

    # The module ran there, with that host's Python, and its arguments are in the results: a secret would be seen.
    processes = shown(watch, host.login)
    assert f"\n{host.interpreter} " in processes[host.login.uid] and f"HOME={host.login.home} " in processes[host.login.uid]
    assert any('"module_args"' in text for text in done.files.values())
    left = {path: path.read_text(errors="replace") for path in host.login.home.rglob("*") if path.is_file() and path != private}
    secrets = [*spellings(API_KEY), *secret_lines(private.read_text()), *secret_lines(host.machine[1])]
    assert_nowhere(secrets, {**processes, **left, **artifacts([checked, done, again])})


def test_two_hosts_users_homes_and_pythons(awx: AWX, simulator: Simulator, host: Host, account: Credential) -> None:
    """The key is on one host, for a user that nobody can log in as; the API is called from either, on the other one with its own Python."""
    number, another = new_number(), new_number()
    gateway_python = host.srv / "gateway-python"
    gateway_python.write_text(f'#!/bin/sh\nexec {host.interpreter} "$@"\n')
    gateway_python.chmod(0o755)
    become = {"ansible_become": True, "ansible_become_user": host.service.name, "ansible_pipelining": True}
    hosts = {
        number: {"flows_encryption_api_host": "gateway"},
        another: {"flows_encryption_api_host": "endpoint"},
        "endpoint": host.variables(**become),
        "gateway": host.variables(ansible_python_interpreter=str(gateway_python)),
    }
    inventory = Inventory.of_numbers(number, another, hosts=hosts, key_host="endpoint", private_key_path="~/flows/private.pem")
    with ProcessWatch() as watch:
        job = awx.run(REGISTER, inventory, credentials=[account], machine=host.machine)
    assert job.status == "successful", job.stdout
    private = host.service.home / "flows/private.pem"
    assert owner_and_mode(private) == (host.service.uid, 0o600) and owner_and_mode(private.parent) == (host.service.uid, 0o700)
    fingerprint = fingerprint_of(public_of(private))
    assert simulator.registered() == {SID: dict.fromkeys((number, another), fingerprint)}
    assert number_of_records(host.login) == number_of_records(host.service) == 1
    assert not (host.login.home / "flows").exists()
    processes = shown(watch, host.login, host.service)
    assert str(host.interpreter) in processes[host.service.uid] and str(gateway_python) in processes[host.login.uid]
    assert_nowhere([*spellings(API_KEY), *secret_lines(private.read_text())], processes)


def test_rotation_by_root_for_a_service(awx: AWX, simulator: Simulator, host: Host, account: Credential) -> None:
    """Key, owner and records stay on the host; passphrase and app secret come with the credential."""
    passphrase, app_secret = "Open-Sesame-2001", "App-Secret-2002"
    number, another = new_number(), new_number()
    private = host.srv / "endpoint/private.pem"
    tasks = (CHECKOUT / "docs/examples/deploy_to_endpoint.yml").read_text()
    root = {"ansible_become": True, "ansible_pipelining": True}
    inventory = Inventory.of_numbers(
        *(number, another),
        hosts={"endpoint": host.variables(**root), "gateway": host.variables(ansible_pipelining=True)},
        key_host="endpoint",
        api_host="gateway",
        private_key_path=str(private),
        private_key_owner=host.service.name,
        private_key_group=host.service.name,
        rotate_after="0",
        deploy_tasks="deploy.yml",
    )
    credential = account.but(private_key_passphrase=passphrase, app_secret=app_secret)

    def run(playbook: str, **variables: Any) -> Job:
        given: dict[str, Any] = {"extra_vars": variables, "diff": True, "verbosity": 4, "project": {"deploy.yml": tasks}}
        job = awx.run(playbook, inventory, credentials=[credential], machine=host.machine, **given)
        assert job.status == "successful", job.stdout
        return job

    def fingerprint(path: Path) -> str:
        return fingerprint_of(public_of(path, passphrase))

    first = run(REGISTER)
    old = fingerprint(private)
    assert "ENCRYPTED" in private.read_text()
    assert owner_and_mode(private) == (host.service.uid, 0o600) and owner_and_mode(private.parent) == (host.service.uid, 0o700)
    assert simulator.registered() == {SID: dict.fromkeys((number, another), old)}

    with Endpoint(host.srv / "endpoint/list", [private], passphrase=passphrase, app_secret=app_secret) as endpoint:
        about = {"flows_encryption_endpoint_url": endpoint.url, "flows_endpoint_keys_file": str(endpoint.keys)}
        second = run(ROTATE, **about, flows_endpoint_pid=endpoint.pid)
        assert set(endpoint.answered()) == {200, 421, 432}  # 432: the wrong signature was refused, the right one was not
    new, previous = fingerprint(private), private.with_name("private.previous.pem")
    assert new != old and fingerprint(previous) == old
    assert [owner_and_mode(path) for path in (private, previous)] == [(host.service.uid, 0o600)] * 2
    assert simulator.registered() == {SID: dict.fromkeys((number, another), new)}
    assert number_of_records(host.login) == 2

    keys = [line for path in (private, previous) for line in secret_lines(path.read_text())]
    assert_nowhere([*spellings(API_KEY), *spellings(passphrase), *spellings(app_secret), *keys], artifacts([first, second]))
